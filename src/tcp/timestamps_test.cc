// Which segments the peer's timestamps let pass (PAWS, RFC 7323 5), and which of them is echoed (4.3).
#include "tcp/timestamps.h"

#include <gtest/gtest.h>

#include "tcp/receive.h"
#include "tcp/receiver_fixture.h"
#include "tcp/test_support.h"

namespace twinstack::tcp::test {
namespace {

struct Stamped : Receiver {
  Stamped()
      : Receiver([] {
          MinTcp state = with(kOptTimestamps);
          state.ts_recent = 1000;
          return state;
        }()) {}
  Arrival stamped(std::uint32_t ts_val, std::uint32_t offset, std::uint32_t bytes, Time now = at_ms(1),
                  std::uint8_t flags = wire::kAck) {
    wire::Segment segment = from_peer(kPeerSeq + offset);
    segment.flags = flags;
    segment.options.has_timestamps = true;
    segment.options.ts_val = ts_val;
    return end.receive(segment, stream(offset, bytes), now);
  }
};

TEST(Paws, OldTimestampIsDroppedAndAnswered) {
  Stamped r;
  EXPECT_EQ(r.stamped(998, 0, 10), Arrival::kDroppedPaws);
  EXPECT_EQ(r.end.received, 0U);
  const SegmentPlan ack = r.end.poll_one(at_ms(1));
  expect_ack(ack, kPeerSeq);
  EXPECT_EQ(ack.segment.options.ts_ecr, 1000U);
  EXPECT_EQ(r.stamped(1000, 0, 10), Arrival::kAccepted);
}

// Two segments may have overtaken each other (Linux TCP_PAWS_WINDOW); what is echoed does not go back.
TEST(Paws, OneTickOlderPasses) {
  Stamped r;
  EXPECT_EQ(r.stamped(999, 0, 10), Arrival::kAccepted);
  EXPECT_EQ(r.end.received, 10U);
  EXPECT_EQ(r.end.cb.ts_recent, 1000U);
}

TEST(Paws, ResetIsExempt) {
  Stamped r;
  EXPECT_EQ(r.stamped(1, 0, 0, at_ms(1), wire::kRst), Arrival::kToSoftwareReset);
}

TEST(Paws, OvertakenBareAckIsDroppedInSilence) {
  Stamped r;
  EXPECT_EQ(r.stamped(998, 0, 0), Arrival::kDroppedPaws);
  EXPECT_TRUE(r.end.poll(at_ms(1)).empty());
}

TEST(Paws, AFinIsNoBareAck) {
  Stamped r;
  EXPECT_EQ(r.stamped(998, 0, 0, at_ms(1), wire::kAck | wire::kFin), Arrival::kDroppedPaws);
  expect_ack(r.end.poll_one(at_ms(1)), kPeerSeq);
}

TEST(Paws, TimestampsWrap) {
  Stamped r;
  r.end.cb.ts_recent = 0xfffffff0;
  EXPECT_EQ(r.stamped(0x10, 0, 10), Arrival::kAccepted);
  EXPECT_EQ(r.end.cb.ts_recent, 0x10U);
  EXPECT_EQ(r.stamped(0xfffffff0, 10, 10), Arrival::kDroppedPaws);
}

TEST(Paws, NothingIsOlderThanZero) {
  Stamped r;
  r.end.cb.ts_recent = 0;
  EXPECT_EQ(r.stamped(0xf0000000, 0, 10), Arrival::kAccepted);
  EXPECT_EQ(r.end.cb.ts_recent, 0xf0000000U);
  EXPECT_EQ(r.stamped(0xeffffffe, 10, 10), Arrival::kDroppedPaws);
}

TEST(Paws, AfterALongSilenceEverythingPasses) {
  Stamped r;
  const Time then = at_ms(0) + kTsRecentLasts;
  EXPECT_EQ(r.stamped(5, 0, 10, then - std::chrono::seconds(5)), Arrival::kDroppedPaws);
  MinTcp left;
  extract(r.end.cb, then - std::chrono::seconds(5), left);
  EXPECT_EQ(left.ts_recent, 1000U);
  extract(r.end.cb, then + std::chrono::seconds(5), left);
  EXPECT_EQ(left.ts_recent, 0U) << "it would be fresh again where the connection moves to";
  EXPECT_EQ(r.stamped(5, 0, 10, then + std::chrono::seconds(5)), Arrival::kAccepted);
  EXPECT_EQ(r.end.cb.ts_recent, 5U);
}

TEST(Timestamps, OnlyWhatAdvancesTheAckIsEchoed) {
  Stamped r;
  EXPECT_EQ(r.stamped(2000, 100, 10), Arrival::kAccepted);  // out of order
  EXPECT_EQ(r.end.poll_one(at_ms(1)).segment.options.ts_ecr, 1000U);
  EXPECT_EQ(r.stamped(1500, 0, 100), Arrival::kAccepted);
  EXPECT_EQ(r.end.poll_one(at_ms(1)).segment.options.ts_ecr, 1500U);
}

TEST(Timestamps, TheFirstAfterAMoveIsTakenWhateverItIs) {
  Receiver r(with(kOptTimestamps));  // ts_recent 0: not known
  wire::Segment segment = from_peer();
  segment.options.has_timestamps = true;
  segment.options.ts_val = 0x90000000;
  EXPECT_EQ(r.end.receive(segment, stream(0, 10), at_ms(1)), Arrival::kAccepted);
  EXPECT_EQ(r.end.cb.ts_recent, 0x90000000U);
}

// Linux stamps ahead of its clock where it paces.
TEST(Timestamps, AnEchoAheadOfOurClockPutsItForward) {
  MinTcp state = with(kOptTimestamps);
  state.ts_val = 5000;
  Receiver r(state);
  wire::Segment segment = from_peer();
  segment.options = {.ts_val = 1, .ts_ecr = 5000 + 30, .has_timestamps = true};
  EXPECT_EQ(r.end.receive(segment, stream(0, 10), at_ms(10)), Arrival::kAccepted);
  EXPECT_EQ(ts_clock(r.end.cb, at_ms(10)), 5030U);
  segment = from_peer(kPeerSeq + 10);
  for (const std::uint32_t no_echo : {5030U + 60'001U, 5000U, 0U, 0x90000000U}) {
    segment.options.has_timestamps = true;
    segment.options.ts_val = 1;
    segment.options.ts_ecr = no_echo;
    EXPECT_EQ(r.end.receive(segment, "", at_ms(10)), Arrival::kAccepted);
    EXPECT_EQ(ts_clock(r.end.cb, at_ms(10)), 5030U) << no_echo;
  }
}

// As Linux tcp_ack(): the stamp of an ACK that others have overtaken is not echoed; its data is taken all the same.
TEST(Timestamps, AnOldAckDoesNotChangeWhatIsEchoed) {
  MinTcp state = idle_state();
  state.options = kOptTimestamps;
  state.ts_recent = 1000;
  TestEnd end(state, at_ms(0));
  end.write(100, at_ms(0));
  end.poll(at_ms(0));
  const auto get = [&](std::uint32_t offset, std::uint32_t acked, std::uint32_t ts_val, std::string_view text) {
    wire::Segment segment = from_peer(kPeerSeq + offset, kOurSeq + acked);
    segment.options.has_timestamps = true;
    segment.options.ts_val = ts_val;
    return end.receive(segment, text, at_ms(1));
  };
  EXPECT_EQ(get(0, 100, 1010, ""), Arrival::kAccepted);
  EXPECT_EQ(end.cb.ts_recent, 1010U);
  EXPECT_EQ(get(0, 0, 2000, "overtaken"), Arrival::kAccepted);
  EXPECT_EQ(end.received, 9U);
  EXPECT_EQ(end.cb.ts_recent, 1010U);
  acknowledge_now(end.cb);
  const SegmentPlan ack = end.poll_one(at_ms(1));
  EXPECT_EQ(ack.segment.ack, Seq(kPeerSeq + 9));
  EXPECT_EQ(ack.segment.options.ts_ecr, 1010U);
  EXPECT_EQ(get(9, 100, 2000, "newer"), Arrival::kAccepted);
  EXPECT_EQ(end.cb.ts_recent, 2000U);
}

}  // namespace
}  // namespace twinstack::tcp::test
