#include "netns_fixture.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

namespace twinstack::testing {
namespace {

class NetnsFixtureTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = NetnsPair::why_unavailable(); !reason.empty()) GTEST_SKIP() << reason;
  }
};

std::unique_ptr<NetnsPair> make(const NetnsOptions& options = {}) {
  auto pair = NetnsPair::create(options);
  EXPECT_TRUE(pair.has_value()) << pair.error().message();
  return pair.has_value() ? std::move(*pair) : nullptr;
}

TEST_F(NetnsFixtureTest, BothFamiliesReachTheOtherSideOnEveryPair) {
  const auto pair = make({.pairs = 2, .queues = 4});
  ASSERT_NE(pair, nullptr);
  for (unsigned i = 0; i < 2; ++i) {
    for (const std::string& address :
         {NetnsPair::address_v4(Side::kB, i), "[" + NetnsPair::address_v6(Side::kB, i) + "]"}) {
      auto listening = pair->socket(Side::kB, address[0] == '[' ? AF_INET6 : AF_INET, SOCK_STREAM);
      ASSERT_TRUE(listening.has_value()) << listening.error().message();
      ASSERT_EQ(::listen(listening->get(), 1), 0);  // binds to a free port
      sockaddr_storage bound{};
      socklen_t length = sizeof bound;
      ASSERT_EQ(::getsockname(listening->get(), reinterpret_cast<sockaddr*>(&bound), &length), 0);
      const unsigned port = ntohs(reinterpret_cast<sockaddr_in*>(&bound)->sin_port);  // same place in both families
      const std::string bare = address[0] == '[' ? address.substr(1, address.size() - 2) : address;
      auto dialled = pair->run(Side::kA, "bash -c 'exec 3<>/dev/tcp/" + bare + "/" + std::to_string(port) + "'");
      ASSERT_TRUE(dialled.has_value());
      EXPECT_EQ(dialled->exit_status, 0) << dialled->text;
    }
  }
}

TEST_F(NetnsFixtureTest, InterfacesHaveTheQueuesAndMtuAskedFor) {
  const auto pair = make({.queues = 4, .mtu_bytes = 3000});
  ASSERT_NE(pair, nullptr);
  for (const Side side : {Side::kA, Side::kB}) {
    const auto text = pair->run_ok(side, "ip -d link show " + NetnsPair::interface(side));
    ASSERT_TRUE(text.has_value()) << text.error().message();
    EXPECT_NE(text->find("numrxqueues 4"), std::string::npos) << *text;
    EXPECT_NE(text->find("mtu 3000"), std::string::npos) << *text;
  }
}

TEST_F(NetnsFixtureTest, CallingThreadIsBackAfterwards) {
  const auto pair = make();
  ASSERT_NE(pair, nullptr);
  const auto here = std::filesystem::read_symlink("/proc/thread-self/ns/net");
  std::filesystem::path inside;
  ASSERT_TRUE(pair->in(Side::kA, [&] { inside = std::filesystem::read_symlink("/proc/thread-self/ns/net"); }));
  EXPECT_NE(inside, here);
  EXPECT_EQ(std::filesystem::read_symlink("/proc/thread-self/ns/net"), here);
}

TEST_F(NetnsFixtureTest, NamespacesGoAwayWithTheObject) {
  std::string name;
  {
    const auto pair = make();
    ASSERT_NE(pair, nullptr);
    name = pair->name(Side::kA);
    EXPECT_TRUE(std::filesystem::exists("/run/netns/" + name));
  }
  EXPECT_FALSE(std::filesystem::exists("/run/netns/" + name));
}

TEST_F(NetnsFixtureTest, LeftoversOfADeadProcessAreRemoved) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    auto pair = NetnsPair::create();
    if (!pair.has_value()) ::_exit(1);
    static_cast<void>(pair->release());  // as a crash: the destructor never runs
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  ASSERT_EQ(status, 0);
  bool left = false;
  for (const auto& entry : std::filesystem::directory_iterator("/run/netns")) {
    left = left || entry.path().filename().string().starts_with("ts-" + std::to_string(pid) + "-");
  }
  ASSERT_TRUE(left);
  ASSERT_NE(make(), nullptr);
  for (const auto& entry : std::filesystem::directory_iterator("/run/netns")) {
    EXPECT_FALSE(entry.path().filename().string().starts_with("ts-" + std::to_string(pid) + "-")) << entry.path();
  }
}

TEST_F(NetnsFixtureTest, CommandFailuresAreReported) {
  const auto pair = make();
  ASSERT_NE(pair, nullptr);
  const auto output = pair->run(Side::kA, "echo hello; exit 3");
  ASSERT_TRUE(output.has_value());
  EXPECT_EQ(output->exit_status, 3);
  EXPECT_EQ(output->text, "hello\n");
  const auto failed = pair->run_ok(Side::kA, "echo why >&2; false");
  ASSERT_FALSE(failed.has_value());
  EXPECT_NE(failed.error().message().find("why"), std::string::npos);
  ASSERT_TRUE(pair->sysctl(Side::kA, "net/ipv4/tcp_sack", "0").has_value());
  EXPECT_EQ(pair->run_ok(Side::kA, "cat /proc/sys/net/ipv4/tcp_sack"), std::string("0\n"));
}

}  // namespace
}  // namespace twinstack::testing
