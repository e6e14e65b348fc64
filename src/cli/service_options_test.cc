#include "cli/service_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace twinstack::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kWhole[] = R"(# every key
interface = ["eth0", "veth0@blue"]
socket = "/run/x.sock"
policy = "all"
xdp-mode = "native"
max-connections = 100
spin-us = 20
cpu = "2,4-6"
log-level = "debug"
)";

ServiceArguments merged(const std::string& toml, ServiceArguments arguments = {}) {
  const Result<> result = merge_config(arguments, toml, "t.toml");
  EXPECT_TRUE(result.has_value()) << result.error().message();
  return arguments;
}

std::string complaint(const std::string& toml) {
  ServiceArguments arguments;
  const Result<> result = merge_config(arguments, toml, "t.toml");
  return result.has_value() ? "no error" : result.error().message();
}

TEST(ServiceConfig, GivesEveryKey) {
  const auto settings = resolve(merged(kWhole), "/default");
  ASSERT_TRUE(settings.has_value()) << settings.error().message();
  const driver::ServiceOptions& options = settings->options;
  ASSERT_EQ(options.interfaces.size(), 2U);
  EXPECT_EQ(options.interfaces[0].name, "eth0");
  EXPECT_EQ(options.interfaces[0].netns, "");
  EXPECT_EQ(options.interfaces[1].name, "veth0");
  EXPECT_EQ(options.interfaces[1].netns, "blue");
  EXPECT_EQ(options.socket_path, "/run/x.sock");
  EXPECT_EQ(options.policy, driver::Policy::kAll);
  EXPECT_EQ(options.xdp_mode, nic::XdpMode::kNative);
  EXPECT_EQ(options.max_connections, 100U);
  EXPECT_EQ(options.spin_us, 20U);
  EXPECT_THAT(options.cpus, ElementsAre(2, 4, 5, 6));
  EXPECT_EQ(settings->log_level, "debug");
}

TEST(ServiceConfig, TheCommandLineWinsKeyByKey) {
  ServiceArguments given;
  given.interfaces = {"lo"};
  given.policy = "manual";
  given.spin_us = 0;
  const ServiceArguments arguments = merged(kWhole, given);
  EXPECT_THAT(arguments.interfaces, ElementsAre("lo"));
  EXPECT_EQ(arguments.policy, "manual");
  EXPECT_EQ(arguments.spin_us, 0U);
  EXPECT_EQ(arguments.max_connections, 100U);
  EXPECT_EQ(arguments.socket, "/run/x.sock");
}

TEST(ServiceConfig, OtherShapesOfInterfaceAndCpu) {
  EXPECT_THAT(merged("interface = \"eth0\"").interfaces, ElementsAre("eth0"));
  EXPECT_EQ(merged("cpu = 3").cpu, "3");
  EXPECT_EQ(merged("cpu = [3, 5]").cpu, "3,5");
}

TEST(ServiceConfig, MistakesCarryFileAndLine) {
  EXPECT_EQ(complaint("\npolcy = \"all\""),
            "t.toml:2: unknown key 'polcy' (known: interface, socket, policy, xdp-mode, max-connections, spin-us, cpu, "
            "log-level)");
  EXPECT_EQ(complaint("policy = 3"), "t.toml:1: 'policy' must be text in quotes");
  EXPECT_EQ(complaint("\n\nspin-us = -1"), "t.toml:3: 'spin-us' must be a number from 0 to 4294967295");
  EXPECT_THAT(complaint("spin-us = \"3\""), HasSubstr("must be a number"));
  EXPECT_THAT(complaint("max-connections = 4294967296"), HasSubstr("must be a number"));
  EXPECT_THAT(complaint("interface = [1]"), HasSubstr("text in quotes or a list"));
  EXPECT_THAT(complaint("interface = 1"), HasSubstr("text in quotes or a list"));
  EXPECT_THAT(complaint("cpu = [\"1\"]"), HasSubstr("a list of numbers"));
  EXPECT_THAT(complaint("cpu = true"), HasSubstr("a list of numbers"));
  EXPECT_THAT(complaint("a = = 1"), HasSubstr("t.toml:1: "));
}

ServiceArguments eth0() {
  ServiceArguments arguments;
  arguments.interfaces = {"eth0"};
  return arguments;
}

// The complaint about one argument beside --interface eth0.
template <typename Member, typename Value>
std::string complaint_about(Member member, Value value) {
  ServiceArguments arguments = eth0();
  arguments.*member = value;
  const auto settings = resolve(arguments, "/default");
  return settings.has_value() ? "no error" : settings.error().message();
}

TEST(ServiceOptions, Defaults) {
  const auto settings = resolve(eth0(), "/default");
  ASSERT_TRUE(settings.has_value());
  EXPECT_EQ(settings->options.socket_path, "/default");
  EXPECT_EQ(settings->options.policy, driver::Policy::kAuto);
  EXPECT_EQ(settings->options.xdp_mode, nic::XdpMode::kAuto);
  EXPECT_EQ(settings->options.max_connections, driver::ServiceOptions{}.max_connections);
  EXPECT_TRUE(settings->options.cpus.empty());
  EXPECT_EQ(settings->log_level, "info");
}

TEST(ServiceOptions, WrongWordsAreNamed) {
  using Given = ServiceArguments;
  EXPECT_THAT(resolve({}, "/default").error().message(), HasSubstr("--interface"));
  EXPECT_THAT(complaint_about(&Given::interfaces, std::vector<std::string>{"@blue"}), HasSubstr("'@blue'"));
  EXPECT_EQ(complaint_about(&Given::policy, "some"), "unknown policy 'some': manual, auto or all");
  EXPECT_THAT(complaint_about(&Given::xdp_mode, "fast"), HasSubstr("'fast'"));
  EXPECT_THAT(complaint_about(&Given::max_connections, 0), HasSubstr("--max-connections"));
  EXPECT_THAT(complaint_about(&Given::max_connections, 1048577), HasSubstr("--max-connections"));
  EXPECT_THAT(complaint_about(&Given::spin_us, 1000001), HasSubstr("--spin-us"));
  EXPECT_THAT(complaint_about(&Given::log_level, "loud"), HasSubstr("'loud'"));
}

TEST(ServiceOptions, CpuLists) {
  EXPECT_THAT(*parse_cpu_list("0"), ElementsAre(0));
  EXPECT_THAT(*parse_cpu_list("7,1-3,1"), ElementsAre(7, 1, 2, 3, 1));
  EXPECT_EQ(parse_cpu_list("0-1023")->size(), 1024U);
  for (const char* wrong : {"", ",", "1,", "a", "1-", "-1", "3-1", "1 2", "65536", "0-1024", "0-1023,5", "1-2-3"})
    EXPECT_FALSE(parse_cpu_list(wrong).has_value()) << wrong;
}

}  // namespace
}  // namespace twinstack::cli
