// Packets of the peer: what is built can be read, errors are well-formed.
#include "packet.h"

#include <gtest/gtest.h>

#include "wire/bytes.h"
#include "wire/checksum.h"

namespace twinstack::conformance {
namespace {

FlowKey v4_flow() {
  return {.local = IpAddress::from_v4({10, 0, 0, 1}),
          .remote = IpAddress::from_v4({10, 0, 0, 2}),
          .local_port = 80,
          .remote_port = 5000};
}

FlowKey v6_flow() {
  FlowKey flow = v4_flow();
  flow.local = flow.remote = {};
  flow.local.bytes[0] = flow.remote.bytes[0] = 0xfd;
  flow.remote.bytes[15] = 2;
  return flow;
}

class Packets : public ::testing::TestWithParam<bool> {
 protected:
  [[nodiscard]] static FlowKey flow() { return GetParam() ? v6_flow() : v4_flow(); }
};
INSTANTIATE_TEST_SUITE_P(Families, Packets, ::testing::Bool());

TEST_P(Packets, AreReadAsBuilt) {
  wire::Segment segment;
  segment.seq = Seq(5);
  segment.ack = Seq(6);
  segment.flags = wire::kAck | wire::kPsh;
  segment.window = 77;
  segment.ecn = wire::Ecn::kCe;
  segment.options.has_timestamps = true;
  segment.options.ts_val = 9;
  const std::vector<std::byte> payload(100, std::byte{7});
  const auto read = read_packet(make_packet(flow(), segment, payload, {.ttl = 9}));
  ASSERT_TRUE(read.has_value()) << read.error().message();
  EXPECT_EQ(read->head.segment, segment);
  EXPECT_EQ(read->payload, payload);
  EXPECT_EQ(read->head.ttl, 9);
  EXPECT_EQ(read->head.flow.remote, flow().local);
}

TEST_P(Packets, RawOptionsStandBehindTheOthers) {
  wire::Segment segment;
  segment.flags = wire::kSyn;
  segment.options.has_mss = true;
  segment.options.mss = 900;
  const std::vector<std::uint8_t> options = {3, 3, 7, 0};  // a window scale
  const auto read = read_packet(make_packet(flow(), segment, {}, {.raw_options = options}));
  ASSERT_TRUE(read.has_value()) << read.error().message();
  EXPECT_EQ(read->head.segment.options.mss, 900);
  EXPECT_EQ(read->head.segment.options.window_scale, 7);
  EXPECT_TRUE(read->payload.empty());
}

TEST_P(Packets, MayBeCorrupt) {
  const auto read = read_packet(make_packet(flow(), {}, {}, {.corrupt = true}));
  ASSERT_FALSE(read.has_value());
  EXPECT_EQ(read.error().what, "bad-checksum");
}

TEST_P(Packets, IcmpErrorsAddUp) {
  const auto packet = make_icmp(flow(), IcmpKind::kFragmentationNeeded, Seq(77), 1000);
  const bool v4 = flow().is_v4();
  const auto icmp = std::span(packet).subspan(v4 ? 20 : 40);
  wire::InternetSum sum;
  if (!v4) {
    sum.add(std::span(packet).subspan(8, 32));
    sum.add_field(static_cast<std::uint16_t>(icmp.size()));
    sum.add_field(58);
  }
  sum.add(icmp);
  EXPECT_EQ(sum.checksum(), 0);
  EXPECT_EQ(wire::load_be<std::uint32_t>(&icmp[4]), 1000U);
  // The quote: sequence number of a segment that the host has sent from port 80.
  const auto quoted = icmp.subspan(8 + (v4 ? 20 : 40));
  EXPECT_EQ(wire::load_be<std::uint16_t>(&quoted[0]), 80);
  EXPECT_EQ(wire::load_be<std::uint32_t>(&quoted[4]), 77U);
}

TEST(ReadPacket, RefusesWhatIsNone) { EXPECT_FALSE(read_packet({}).has_value()); }

}  // namespace
}  // namespace twinstack::conformance
