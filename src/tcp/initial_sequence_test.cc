// Initial numbers: the hash against its published vectors; numbers grow for one flow and differ between flows.
#include "tcp/initial_sequence.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

#include "tcp/test_support.h"

namespace twinstack::tcp::test {
namespace {

constexpr SequenceSecret kSecret{.k0 = 0x0706050403020100U, .k1 = 0x0f0e0d0c0b0a0908U};

FlowKey flow_of(std::uint16_t remote_port) {
  return {IpAddress::from_v4({10, 0, 0, 1}), IpAddress::from_v4({10, 0, 0, 2}), 80, remote_port};
}

// Appendix A of the SipHash paper and the first of the reference implementation's vectors: key 00 01 ... 0f.
TEST(InitialSequence, TheHashIsSipHash24) {
  std::array<std::byte, 15> message{};
  for (std::size_t i = 0; i < message.size(); ++i) message[i] = static_cast<std::byte>(i);
  EXPECT_EQ(siphash(kSecret, message), 0xa129ca6149be45e5U);
  EXPECT_EQ(siphash(kSecret, {}), 0x726fdb47dd0e0e31U);
}

TEST(InitialSequence, GrowsByOneEveryFourMicroseconds) {
  const Seq first = initial_sequence_number(kSecret, flow_of(5), at_ms(0));
  EXPECT_EQ(initial_sequence_number(kSecret, flow_of(5), at_ms(0) + std::chrono::microseconds(4)), first + 1);
  EXPECT_EQ(initial_sequence_number(kSecret, flow_of(5), at_ms(1000)), first + 250'000);
}

TEST(InitialSequence, FlowsAndSecretsSayNothingOfEachOther) {
  std::set<std::uint32_t> seen;
  for (std::uint16_t port = 1; port <= 200; ++port) {
    seen.insert(initial_sequence_number(kSecret, flow_of(port), at_ms(0)).raw());
    seen.insert(initial_sequence_number({kSecret.k0 + 1, kSecret.k1}, flow_of(port), at_ms(0)).raw());
    seen.insert(initial_sequence_number({kSecret.k0, kSecret.k1 + 1}, flow_of(port), at_ms(0)).raw());
  }
  EXPECT_EQ(seen.size(), 600U);
}

TEST(InitialSequence, EveryPartOfTheFlowCounts) {
  const FlowKey flow = flow_of(5);
  const Seq number = initial_sequence_number(kSecret, flow, at_ms(0));
  FlowKey other = flow;
  other.local_port = 81;
  EXPECT_NE(initial_sequence_number(kSecret, other, at_ms(0)), number);
  other = flow;
  other.local.bytes[15] = 9;
  EXPECT_NE(initial_sequence_number(kSecret, other, at_ms(0)), number);
  other = flow;
  other.remote.bytes[0] = 9;
  EXPECT_NE(initial_sequence_number(kSecret, other, at_ms(0)), number);
}

TEST(InitialSequence, TheTimestampClockIsOneForEachPairOfHosts) {
  const std::uint32_t offset = initial_timestamp_offset(kSecret, flow_of(5));
  EXPECT_EQ(initial_timestamp_offset(kSecret, flow_of(6)), offset) << "RFC 6191 compares across connections";
  FlowKey other = flow_of(5);
  other.remote.bytes[15] = 3;
  EXPECT_NE(initial_timestamp_offset(kSecret, other), offset);
  const InitialNumbers both = initial_numbers(kSecret, flow_of(5), at_ms(7));
  EXPECT_EQ(both.ts_offset, offset);
  EXPECT_EQ(both.iss, initial_sequence_number(kSecret, flow_of(5), at_ms(7)));
}

}  // namespace
}  // namespace twinstack::tcp::test
