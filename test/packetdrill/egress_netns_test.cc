// Egress against real queues, in a namespace.
#include "egress.h"

#include <gtest/gtest.h>

#include <optional>

#include "netns/netns_fixture.h"

namespace twinstack::packetdrill {
namespace {

using twinstack::testing::NetnsPair;
using twinstack::testing::Side;

class EgressTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = NetnsPair::why_unavailable(); !reason.empty()) GTEST_SKIP() << reason;
    auto pair = NetnsPair::create();
    ASSERT_TRUE(pair.has_value()) << pair.error().message();
    pair_ = std::move(*pair);
    ASSERT_TRUE(pair_->in(Side::kA, [&] {
      auto opened = Egress::open(NetnsPair::interface(Side::kA));
      if (opened) egress_ = std::move(*opened);
    }));
    ASSERT_TRUE(egress_.has_value());
  }

  void queue(const std::string& kind) {
    const auto done =
        pair_->run_ok(Side::kA, "tc qdisc replace dev " + NetnsPair::interface(Side::kA) + " root " + kind);
    ASSERT_TRUE(done.has_value()) << done.error().message();
  }

  std::unique_ptr<NetnsPair> pair_;
  std::optional<Egress> egress_;
};

TEST_F(EgressTest, AQueueWithoutPlacesTakesNothing) {
  EXPECT_TRUE(egress_->takes_more()) << "no queue";
  queue("pfifo");
  EXPECT_TRUE(egress_->takes_more());
  queue("pfifo limit 0");
  EXPECT_FALSE(egress_->takes_more());
  queue("pfifo limit 1");
  EXPECT_TRUE(egress_->takes_more());
}

TEST_F(EgressTest, OtherDevicesDoNotCount) {
  const auto done = pair_->run_ok(Side::kA, "tc qdisc replace dev lo root pfifo limit 0");
  ASSERT_TRUE(done.has_value()) << done.error().message();
  EXPECT_TRUE(egress_->takes_more());
}

}  // namespace
}  // namespace twinstack::packetdrill
