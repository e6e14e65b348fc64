#include "nic/resegment.h"

#include <gtest/gtest.h>

#include "nic/test_frames.h"
#include "wire/bytes.h"
#include "wire/packet.h"

namespace twinstack::nic {
namespace {

struct Outcome {
  ResegmentVerdict verdict = ResegmentVerdict::kOk;
  std::vector<Bytes> frames;
};

Outcome run(const Bytes& frame, std::uint32_t max_frame_bytes, ChecksumMode mode = ChecksumMode::kVerify,
            std::size_t part_bytes = 0) {
  std::vector<ByteView> parts;
  const std::size_t step = part_bytes == 0 ? frame.size() : part_bytes;
  for (std::size_t at = 0; at < frame.size(); at += step) {
    parts.push_back(ByteView(frame).subspan(at, std::min(step, frame.size() - at)));
  }
  Outcome outcome;
  outcome.verdict = resegment({parts, static_cast<std::uint32_t>(frame.size())}, max_frame_bytes, mode,
                              [&](std::uint32_t length) -> std::span<std::byte> {
                                outcome.frames.emplace_back(length, std::byte{0xee});
                                return outcome.frames.back();
                              });
  return outcome;
}

wire::TcpPacket parsed(const Bytes& frame, ByteView& view) {
  wire::TcpPacket packet;
  view = frame;
  EXPECT_EQ(wire::parse_frame({&view, 1}, static_cast<std::uint32_t>(frame.size()), ChecksumMode::kVerify, packet),
            wire::ParseVerdict::kOk);
  return packet;
}

wire::Segment test_segment(unsigned flags) {
  wire::Segment segment;
  segment.seq = Seq(0xfffffc00);  // wraps within the frame
  segment.ack = Seq(99);
  segment.window = 1234;
  segment.flags = static_cast<std::uint8_t>(flags);
  segment.ecn = wire::Ecn::kEct0;
  segment.options.has_timestamps = true;
  segment.options.ts_val = 7;
  segment.options.ts_ecr = 8;
  return segment;
}

// The checksum field as a kernel peer on the same host leaves it: the folded sum of the pseudo-header.
void make_partial(Bytes& frame, const FlowKey& flow, std::uint32_t tcp_offset) {
  wire::InternetSum sum;
  sum.add_pseudo_header(flow, static_cast<std::uint32_t>(frame.size()) - tcp_offset);
  const std::uint16_t folded = sum.folded();
  std::memcpy(frame.data() + tcp_offset + 16, &folded, 2);
}

class ResegmentFamily : public ::testing::TestWithParam<bool> {
 protected:
  const FlowKey flow = test_flow(GetParam());
  const std::uint32_t tcp_offset = GetParam() ? 54 : 34;
};
INSTANTIATE_TEST_SUITE_P(Families, ResegmentFamily, ::testing::Values(false, true),
                         [](const auto& param) { return param.param ? "IPv6" : "IPv4"; });

TEST_P(ResegmentFamily, AFrameThatFitsIsUntouched) {
  const Bytes frame = tcp_frame(flow, test_segment(wire::kAck | wire::kPsh), counting_bytes(500));
  const Outcome outcome = run(frame, static_cast<std::uint32_t>(frame.size()));
  EXPECT_EQ(outcome.verdict, ResegmentVerdict::kOk);
  ASSERT_EQ(outcome.frames.size(), 1U);
  EXPECT_EQ(outcome.frames[0], frame);
}

TEST_P(ResegmentFamily, PartialChecksumIsCompleted) {
  const Bytes whole = tcp_frame(flow, test_segment(wire::kAck), counting_bytes(501));
  Bytes frame = whole;
  make_partial(frame, flow, tcp_offset);
  ASSERT_NE(frame, whole);
  const Outcome outcome = run(frame, 1514, ChecksumMode::kAcceptPartial, 100);
  EXPECT_EQ(outcome.verdict, ResegmentVerdict::kOk);
  ASSERT_EQ(outcome.frames.size(), 1U);
  EXPECT_EQ(outcome.frames[0], whole);
  EXPECT_EQ(run(frame, 1514, ChecksumMode::kVerify).verdict, ResegmentVerdict::kBadChecksum);
}

TEST_P(ResegmentFamily, SuperPacketIsCutAsADeviceWould) {
  const Bytes data = counting_bytes(4000);
  const auto flags = wire::kAck | wire::kPsh | wire::kFin | wire::kCwr;
  Bytes frame = tcp_frame(flow, test_segment(flags), data);
  make_partial(frame, flow, tcp_offset);
  const Outcome outcome = run(frame, 1514, ChecksumMode::kAcceptPartial, 1792);
  EXPECT_EQ(outcome.verdict, ResegmentVerdict::kOk);
  ASSERT_EQ(outcome.frames.size(), 3U);
  Bytes stream;
  for (std::size_t i = 0; i < 3; ++i) {
    ByteView view;
    const wire::TcpPacket packet = parsed(outcome.frames[i], view);
    wire::Segment expected = test_segment(flags);
    expected.seq = expected.seq + static_cast<std::uint32_t>(stream.size());
    expected.flags =
        static_cast<std::uint8_t>(wire::kAck | (i == 0 ? wire::kCwr : 0) | (i == 2 ? wire::kPsh | wire::kFin : 0));
    EXPECT_EQ(packet.segment, expected) << i;
    EXPECT_FALSE(packet.partial_checksum);
    EXPECT_EQ(outcome.frames[i].size() == 1514, i < 2);
    const std::size_t before = stream.size();
    stream.resize(before + packet.payload.size());
    packet.payload.copy_to(std::span(stream).subspan(before));
  }
  EXPECT_EQ(stream, data);
}

TEST_P(ResegmentFamily, UrgentDataKeepsItsPlace) {
  wire::Segment segment = test_segment(wire::kAck | wire::kUrg);
  segment.urgent = 1500;
  const Outcome outcome = run(tcp_frame(flow, segment, counting_bytes(3000)), tcp_offset + 32 + 1000);
  ASSERT_EQ(outcome.frames.size(), 3U);
  ByteView view;
  EXPECT_EQ(parsed(outcome.frames[0], view).segment.urgent, 1500);
  EXPECT_TRUE(parsed(outcome.frames[0], view).segment.has(wire::kUrg));
  EXPECT_EQ(parsed(outcome.frames[1], view).segment.urgent, 500);
  EXPECT_TRUE(parsed(outcome.frames[1], view).segment.has(wire::kUrg));
  EXPECT_FALSE(parsed(outcome.frames[2], view).segment.has(wire::kUrg));
}

TEST_P(ResegmentFamily, BadChecksumIsNeverMadeGood) {
  Bytes frame = tcp_frame(flow, test_segment(wire::kAck), counting_bytes(3000));
  frame.back() ^= std::byte{1};
  for (const std::uint32_t limit : {1514U, 9000U}) {
    const Outcome outcome = run(frame, limit, ChecksumMode::kAcceptPartial);
    EXPECT_EQ(outcome.verdict, ResegmentVerdict::kBadChecksum);
    EXPECT_TRUE(outcome.frames.empty());
  }
}

TEST_P(ResegmentFamily, TruncatedFramesAreRefusedAtEveryLength) {
  const Bytes whole = tcp_frame(flow, test_segment(wire::kAck), counting_bytes(10));
  for (std::size_t bytes = 14; bytes < whole.size(); ++bytes) {
    const Outcome outcome = run(Bytes(whole.begin(), whole.begin() + static_cast<long>(bytes)), 1514);
    EXPECT_EQ(outcome.verdict, ResegmentVerdict::kMalformed) << bytes;
    EXPECT_TRUE(outcome.frames.empty());
  }
}

TEST_P(ResegmentFamily, HeadersThatLeaveNoRoomAreTooLong) {
  const Bytes frame = tcp_frame(flow, test_segment(wire::kAck), counting_bytes(100));
  EXPECT_EQ(run(frame, tcp_offset + 32).verdict, ResegmentVerdict::kTooLong);
}

TEST(Resegment, Ipv4IdentificationCounts) {
  Bytes frame = tcp_frame(test_flow(), test_segment(wire::kAck), counting_bytes(3000));
  wire::store_be(frame.data() + 18, std::uint16_t{0xffff});
  wire::store_be(frame.data() + 24, std::uint16_t{0});
  wire::InternetSum sum;
  sum.add(ByteView(frame).subspan(14, 20));
  const std::uint16_t checksum = sum.checksum();
  std::memcpy(frame.data() + 24, &checksum, 2);
  const Outcome outcome = run(frame, 1514);
  ASSERT_EQ(outcome.frames.size(), 3U);
  EXPECT_EQ(wire::load_be<std::uint16_t>(outcome.frames[0].data() + 18), 0xffff);
  EXPECT_EQ(wire::load_be<std::uint16_t>(outcome.frames[1].data() + 18), 0);
  EXPECT_EQ(wire::load_be<std::uint16_t>(outcome.frames[2].data() + 18), 1);
}

TEST(Resegment, WhatIsNotTcpGoesThroughWhole) {
  Bytes frame(1000);
  frame[12] = std::byte{0x08};
  frame[13] = std::byte{0x06};  // ARP
  const Outcome outcome = run(frame, 1514);
  EXPECT_EQ(outcome.verdict, ResegmentVerdict::kOk);
  ASSERT_EQ(outcome.frames.size(), 1U);
  EXPECT_EQ(outcome.frames[0], frame);
  EXPECT_EQ(run(frame, 999).verdict, ResegmentVerdict::kTooLong);
}

TEST(Resegment, StopsWhenTheCallerGivesNoRoom) {
  const Bytes frame = tcp_frame(test_flow(), test_segment(wire::kAck), counting_bytes(3000));
  const ByteView view = frame;
  Bytes one(1514);
  int asked = 0;
  const auto verdict = resegment({{&view, 1}, static_cast<std::uint32_t>(frame.size())}, 1514, ChecksumMode::kVerify,
                                 [&](std::uint32_t) { return ++asked == 1 ? std::span(one) : std::span<std::byte>(); });
  EXPECT_EQ(verdict, ResegmentVerdict::kStopped);
  EXPECT_EQ(asked, 2);
}

}  // namespace
}  // namespace twinstack::nic
