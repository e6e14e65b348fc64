#include "sim/router.h"

#include <gtest/gtest.h>

#include "wire/build.h"
#include "wire/icmp.h"

namespace twinstack::sim {
namespace {

class RouterTest : public testing::TestWithParam<bool> {
 protected:
  FlowKey flow() const {
    const bool v6 = GetParam();
    FlowKey flow{IpAddress::from_v4({10, 0, 0, 100}), IpAddress::from_v4({10, 0, 1, 1}), 5000, 80};
    if (v6) flow.local.bytes = {0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100};
    if (v6) flow.remote.bytes = {0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1};
    return flow;
  }
  Frame packet(std::uint32_t ip_bytes) const {
    wire::Segment segment;
    segment.seq = Seq(4711);
    segment.flags = wire::kAck;
    Frame frame(wire::kEthernetBytes + ip_bytes);
    const std::uint32_t head = wire::header_bytes(flow(), segment);
    wire::write_headers(frame, {}, flow(), segment, static_cast<std::uint32_t>(frame.size()) - head);
    wire::fill_checksum(frame);
    return frame;
  }
  static std::optional<wire::IcmpError> read(const Frame& frame) {
    return wire::parse_icmp_error(ByteView(frame).subspan(wire::kEthernetBytes));
  }

  FramePool pool;
};

TEST_P(RouterTest, TellsTheSenderOfWhatIsTooLarge) {
  EXPECT_FALSE(is_too_big(packet(1400), 1400));
  const Frame large = packet(1401);
  ASSERT_TRUE(is_too_big(large, 1400));
  const auto error = read(too_big_answer(large, 1400, true, pool));
  ASSERT_TRUE(error);
  EXPECT_EQ(error->kind, wire::IcmpKind::kTooBig);
  EXPECT_EQ(error->flow, flow());
  EXPECT_EQ(error->seq, Seq(4711));
  EXPECT_EQ(error->mtu, 1400U);
}

TEST_P(RouterTest, OfIpv6NoLinkIsSmallerThan1280) {
  const bool v6 = GetParam();
  EXPECT_EQ(is_too_big(packet(1280), 600), !v6);
  const auto error = read(too_big_answer(packet(1281), 600, true, pool));
  ASSERT_TRUE(error);
  EXPECT_EQ(error->mtu, v6 ? 1280U : 600U);
}

TEST_P(RouterTest, AnOldOneOfIpv4TellsNoSize) {
  const auto error = read(too_big_answer(packet(1401), 1400, false, pool));
  ASSERT_TRUE(error);
  EXPECT_EQ(error->mtu, GetParam() ? 1400U : 0U);
}

TEST_P(RouterTest, AnswersNoErrors) {
  const Frame error = too_big_answer(packet(1401), 1300, true, pool);
  ASSERT_GT(error.size(), 100U);
  EXPECT_FALSE(is_too_big(error, 68));
}

TEST_P(RouterTest, AForgedOneQuotesWhatWasNeverSent) {
  const auto error = read(forged_too_big(flow(), Seq(77), 900, pool));
  ASSERT_TRUE(error);
  EXPECT_EQ(error->flow, flow());
  EXPECT_EQ(error->seq, Seq(77));
  EXPECT_EQ(error->mtu, 900U);
}

INSTANTIATE_TEST_SUITE_P(Families, RouterTest, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "ipv6" : "ipv4"; });

}  // namespace
}  // namespace twinstack::sim
