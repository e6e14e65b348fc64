#include "cli/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/if.h>

namespace twinstack::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

nic::InterfaceFacts facts(bool is_virtual) {
  nic::InterfaceFacts facts;
  facts.name = "eth0";
  facts.is_virtual = is_virtual;
  return facts;
}

TEST(ExpectedMode, FollowsWhatTheDriverTells) {
  EXPECT_EQ(expected_mode(facts(true), XdpFeatures{.native = true, .zerocopy = true}).mode, "generic");
  EXPECT_EQ(expected_mode(facts(false), XdpFeatures{.native = true, .zerocopy = true}).mode, "zerocopy");
  EXPECT_EQ(expected_mode(facts(false), XdpFeatures{.native = true, .zerocopy = false}).mode, "native");
  EXPECT_EQ(expected_mode(facts(false), XdpFeatures{}).mode, "generic");
  EXPECT_EQ(expected_mode(facts(false), std::nullopt).mode, "native or generic");
}

Diagnosis sample() {
  Diagnosis diagnosis;
  diagnosis.system = {
      {.name = "kernel", .ok = true, .required = true, .detail = "6.1", .mend = ""},
      {.name = "memlock", .ok = false, .required = false, .detail = "64 KiB", .mend = "ulimit -l unlimited"}};
  diagnosis.interfaces = {{.name = "eth0",
                           .ok = false,
                           .required = false,
                           .driver = "veth",
                           .queues = 2,
                           .mode = "generic",
                           .mode_reason = "r",
                           .detail = "XDP program 7",
                           .mend = "detach it"}};
  return diagnosis;
}

TEST(Diagnosis, OnlyWhatIsRequiredMakesItFail) {
  Diagnosis diagnosis = sample();
  EXPECT_TRUE(diagnosis.ok());
  diagnosis.interfaces[0].required = true;
  EXPECT_FALSE(diagnosis.ok());
  diagnosis.interfaces[0].ok = true;
  EXPECT_TRUE(diagnosis.ok());
  diagnosis.system[0].ok = false;
  EXPECT_FALSE(diagnosis.ok());
}

TEST(Diagnosis, TextSaysEachVerdictAndHowToMend) {
  Diagnosis diagnosis = sample();
  const std::string text = diagnosis_text(diagnosis);
  EXPECT_THAT(text, HasSubstr("ok       kernel             6.1\n"));
  EXPECT_THAT(text,
              HasSubstr("worse    memlock            64 KiB\n                            mend: ulimit -l unlimited\n"));
  EXPECT_THAT(text, HasSubstr("has what Twinstack requires"));
  diagnosis.interfaces[0].required = true;
  EXPECT_THAT(diagnosis_text(diagnosis), HasSubstr("MISSING  eth0"));
  EXPECT_THAT(diagnosis_text(diagnosis), HasSubstr("requires is missing"));
}

TEST(Diagnosis, JsonHasTheSame) {
  const driver::Json json = to_json(sample());
  EXPECT_EQ(json["ok"], true);
  EXPECT_EQ(json["system"][1], driver::Json::parse(R"({"name":"memlock","ok":false,"required":false,"detail":"64 KiB",
                                                       "mend":"ulimit -l unlimited"})"));
  EXPECT_EQ(json["interfaces"][0]["mode"], "generic");
  EXPECT_EQ(json["interfaces"][0]["mend"], "detach it");
}

TEST(ExamineInterface, MissingOnesAreSaidToBeMissing) {
  const InterfaceReport missing = examine_interface({.name = "ts-cli-none", .netns = ""}, true);
  EXPECT_FALSE(missing.ok);
  EXPECT_THAT(missing.detail, HasSubstr("ts-cli-none"));
  EXPECT_FALSE(missing.mend.empty());
  const InterfaceReport elsewhere = examine_interface({.name = "lo", .netns = "ts-cli-no-such-netns"}, true);
  EXPECT_EQ(elsewhere.name, "lo@ts-cli-no-such-netns");
  EXPECT_FALSE(elsewhere.ok);
  EXPECT_THAT(elsewhere.detail, HasSubstr("ts-cli-no-such-netns"));
}

TEST(ExamineInterface, LoopbackIsVirtualOfNoUseAndNotListed) {
  const InterfaceReport loopback = examine_interface({.name = "lo", .netns = ""}, true);
  EXPECT_EQ(loopback.mode, "generic") << loopback.detail;
  EXPECT_FALSE(loopback.ok);
  EXPECT_THAT(loopback.detail, HasSubstr("connections within this host stay in the kernel"));
  EXPECT_FALSE(loopback.mend.empty());
  const auto names = ethernet_interfaces();
  ASSERT_TRUE(names.has_value());
  EXPECT_THAT(*names, Not(::testing::Contains("lo")));
}

// The exchange itself: what the kernel tells of loopback, or that it cannot be asked.
TEST(XdpFeaturesOf, LoopbackOffersNoZeroCopy) {
  const auto features = xdp_features(::if_nametoindex("lo"));
  if (!features.has_value()) {
    EXPECT_EQ(features.error().code, ErrorCode::kUnsupported) << features.error().message();
    GTEST_SKIP() << features.error().message();
  }
  EXPECT_FALSE(features->zerocopy);
  EXPECT_FALSE(xdp_features(0x7fffffff).has_value());
}

}  // namespace
}  // namespace twinstack::cli
