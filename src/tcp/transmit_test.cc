// What is sent, exactly: poll_transmit() under windows, Nagle, cork, draining, options.
#include "tcp/transmit.h"

#include <gtest/gtest.h>

#include "tcp/burst.h"
#include "tcp/test_support.h"
#include "tcp/timestamps.h"

namespace twinstack::tcp::test {
namespace {

struct Writer {
  explicit Writer(const MinTcp& state = idle_state()) : end(state, at_ms(0)) { end.poll(at_ms(0)); }
  explicit Writer(std::uint16_t flags)
      : Writer([&] {
          MinTcp state = idle_state();
          state.flags = flags;
          return state;
        }()) {}
  std::vector<SegmentPlan> write(std::uint32_t bytes, Time now = at_ms(1)) {
    end.write(bytes, now);
    return end.poll(now);
  }
  void ack(std::uint32_t offset, Time now, std::uint16_t window = 65535) {
    wire::Segment segment = from_peer(kPeerSeq, kOurSeq + offset);
    segment.window = window;
    EXPECT_EQ(end.receive(segment, "", now), Arrival::kAccepted);
  }
  TestEnd end;
};

std::vector<std::uint32_t> sizes(const std::vector<SegmentPlan>& plans) {
  std::vector<std::uint32_t> out;
  for (const auto& plan : plans) out.push_back(plan.payload_bytes);
  return out;
}
using Sizes = std::vector<std::uint32_t>;

TEST(Transmit, OneSmallWrite) {
  Writer s;
  const auto plans = s.write(100);
  ASSERT_EQ(sizes(plans), Sizes{100});
  EXPECT_EQ(plans[0].segment.seq, Seq(kOurSeq));
  EXPECT_EQ(plans[0].segment.ack, Seq(kPeerSeq));
  EXPECT_EQ(plans[0].segment.flags, wire::kAck | wire::kPsh);
  EXPECT_EQ(plans[0].segment.window, 65535);
  EXPECT_EQ(plans[0].segment.ecn, wire::Ecn::kNotEct);
  EXPECT_FALSE(plans[0].retransmission);
}

TEST(Transmit, FullSegmentsThenTheRestWithPush) {
  Writer s;
  const auto plans = s.write(3 * kMss + 10);
  ASSERT_EQ(sizes(plans), (Sizes{kMss, kMss, kMss, 10}));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(plans[static_cast<std::size_t>(i)].segment.flags, wire::kAck);
    EXPECT_EQ(plans[static_cast<std::size_t>(i)].segment.seq, Seq(kOurSeq + static_cast<std::uint32_t>(i) * kMss));
  }
  EXPECT_EQ(plans[3].segment.flags, wire::kAck | wire::kPsh);
}

TEST(Transmit, TimestampsTakeTheirRoom) {
  MinTcp state = idle_state();
  state.options = kOptTimestamps;
  state.ts_val = 0xfffffffe;  // wraps under way
  state.ts_recent = 42;
  Writer s(state);
  const auto plans = s.write(2000, at_ms(10));
  EXPECT_EQ(sizes(plans), (Sizes{kMss - 12, 2000 - (kMss - 12)}));
  EXPECT_TRUE(plans[0].segment.options.has_timestamps);
  EXPECT_EQ(plans[0].segment.options.ts_val, 8U);
  EXPECT_EQ(plans[0].segment.options.ts_ecr, 42U);
}

TEST(Transmit, MicrosecondTimestampsCountMicroseconds) {
  MinTcp state = idle_state();
  state.options = kOptTimestamps | kOptTsMicroseconds;
  state.ts_val = 100;
  Writer s(state);
  EXPECT_EQ(s.write(1, at_ms(10))[0].segment.options.ts_val, 10100U);
}

TEST(Transmit, SackBlocksTakeTheirRoom) {
  MinTcp state = idle_state();
  state.options = kOptTimestamps | kOptSack;
  Writer s(state);
  s.end.receive(from_peer(kPeerSeq + 10), "x", at_ms(1));
  const auto plans = s.write(3000);
  EXPECT_EQ(plans[0].payload_bytes, kMss - 12U - 12U);
  EXPECT_EQ(plans[0].segment.options.sack_count, 1);
}

TEST(Transmit, CwndLimits) {
  Writer s;
  EXPECT_EQ(s.write(20 * kMss).size(), 10U);
  s.ack(2 * kMss, at_ms(2));
  EXPECT_EQ(s.end.poll(at_ms(2)).size(), 4U) << "slow start: two for each acknowledged";
}

TEST(Transmit, PeerWindowLimits) {
  Writer s;
  s.ack(0, at_ms(1));
  s.end.cb.snd_wnd = 5000;
  EXPECT_EQ(sizes(s.write(20 * kMss)), (Sizes{kMss, kMss, kMss})) << "no small piece for the rest (3.8.6.2.1)";
}

// RFC 9293 3.8.6: beyond the edge the peer would drop it, and our ACK with it.
TEST(Transmit, AnAckStaysWithinAWindowThatHasShrunk) {
  Writer s;
  ASSERT_EQ(s.write(10 * kMss).size(), 10U);
  s.ack(3 * kMss, at_ms(2), 0);
  wire::Segment segment = from_peer(kPeerSeq, kOurSeq + 3 * kMss);
  segment.window = 0;
  ASSERT_EQ(s.end.receive(segment, "data", at_ms(3)), Arrival::kAccepted);
  s.end.cb.set(kAckNow);
  EXPECT_EQ(s.end.poll_one(at_ms(3)).segment.seq, Seq(kOurSeq + 3 * kMss));
  EXPECT_EQ(reset_of(s.end.cb, s.end, at_ms(4)).seq, Seq(kOurSeq + 3 * kMss));
}

TEST(Transmit, WhatTheScaleHidesIsNoShrinking) {
  MinTcp state = idle_state();
  state.snd_wscale = 7;
  for (const std::uint32_t rounded : {127U, 128U}) {
    TestEnd end(state, at_ms(0));
    end.poll(at_ms(0));
    end.write(1000, at_ms(1));
    ASSERT_EQ(end.poll(at_ms(1)).size(), 1U);
    end.cb.snd_wnd = 1000 - rounded;
    end.cb.set(kAckNow);
    EXPECT_EQ(end.poll_one(at_ms(2)).segment.seq, Seq(kOurSeq + (rounded < 128 ? 1000 : 1000 - rounded)));
  }
}

// What a probe carries is dropped by the peer: its number is one that the peer has passed.
TEST(Transmit, AnAckGoesBeforeAProbe) {
  Writer s;
  s.end.cb.set(kAckNow | kProbeNow);
  const auto plans = s.end.poll(at_ms(1));
  ASSERT_EQ(plans.size(), 2U);
  EXPECT_EQ(plans[0].segment.seq, Seq(kOurSeq));
  EXPECT_EQ(plans[1].segment.seq, Seq(kOurSeq - 1));
}

TEST(Transmit, WindowScaleIsApplied) {
  MinTcp state = idle_state();
  state.snd_wscale = 4;
  state.rcv_wscale = 2;
  Writer s(state);
  s.ack(0, at_ms(1), 1000);
  s.write(1);
  s.ack(1, at_ms(2), 1000);
  EXPECT_EQ(s.end.cb.snd_wnd, 16000U);
  EXPECT_EQ(s.write(1)[0].segment.window, 65536 / 4);
}

TEST(Transmit, NagleHoldsTheSecondSmallSegment) {
  Writer s;
  EXPECT_EQ(s.write(10).size(), 1U);
  EXPECT_TRUE(s.write(10).empty());
  EXPECT_TRUE(s.write(10).empty());
  s.ack(10, at_ms(2));
  EXPECT_EQ(sizes(s.end.poll(at_ms(2))), Sizes{20});
}

TEST(Transmit, NagleAsMinshallLetsTheTailOfALargeWriteGo) {
  Writer s;
  EXPECT_EQ(sizes(s.write(kMss + 10)), (Sizes{kMss, 10}));
}

TEST(Transmit, NoDelaySendsEverything) {
  Writer s(kFlagNoDelay);
  EXPECT_EQ(s.write(10).size(), 1U);
  EXPECT_EQ(s.write(10).size(), 1U);
}

TEST(Transmit, CorkHoldsSmallSegmentsUntilItIsPulledOrTimeIsUp) {
  Writer s(kFlagCork | kFlagNoDelay);
  EXPECT_EQ(sizes(s.write(kMss + 10)), Sizes{kMss});
  s.ack(kMss, at_ms(2));
  EXPECT_TRUE(s.end.poll(at_ms(2)).empty());
  set_flags(s.end.cb, kFlagNoDelay, at_ms(3));
  EXPECT_EQ(sizes(s.end.poll(at_ms(3))), Sizes{10});

  Writer t(kFlagCork);
  EXPECT_TRUE(t.write(10).empty());
  const Time at = t.end.fire(at_ms(1));
  EXPECT_EQ(sizes(t.end.poll(at)), Sizes{10});
}

// What the peer says meanwhile, be it data or the window that it had before, is no reason to wait anew.
TEST(Transmit, TheCorksTimeIsNotPutOff) {
  Writer s(kFlagCork);
  EXPECT_TRUE(s.write(10).empty());
  const Time due = next_deadline(s.end.cb, at_ms(1));
  std::uint32_t seq = kPeerSeq;
  for (Time at = at_ms(50); at < due; at += std::chrono::milliseconds(50), ++seq) {
    s.end.receive(from_peer(seq), "x", at);
    for (const std::uint32_t payload : sizes(s.end.poll(at))) EXPECT_EQ(payload, 0U);
  }
  EXPECT_EQ(on_timer(s.end.cb, s.end, due), TimerVerdict::kFired);
  EXPECT_EQ(sizes(s.end.poll(due)), Sizes{10});
}

// As Linux TCP_NAGLE_PUSH: setting it again lets go, too, what MSG_MORE holds; nobody has asked for PSH.
TEST(Transmit, NoDelayOnceMorePushes) {
  Writer s(kFlagNoDelay);
  s.end.write(10, at_ms(1), true);
  EXPECT_TRUE(s.end.poll(at_ms(1)).empty());
  push_pending(s.end.cb);
  const auto sent = s.end.poll(at_ms(2));
  EXPECT_EQ(sizes(sent), Sizes{10});
  EXPECT_FALSE(sent[0].segment.has(wire::kPsh));
}

// The tail that MSG_MORE held back is no part of the burst before it.
TEST(Transmit, WhatWasHeldBackIsNoEndOfABurst) {
  Writer s(kFlagNoDelay);
  s.end.write(2 * kMss + 10, at_ms(1), true);
  const auto burst = s.end.poll(at_ms(1));
  ASSERT_EQ(sizes(burst), (Sizes{kMss, kMss}));
  EXPECT_TRUE(burst[1].segment.has(wire::kPsh));
  s.ack(kMss, at_ms(2));
  const auto tail = s.end.poll(at_ms(2));
  ASSERT_EQ(sizes(tail), Sizes{10});
  EXPECT_FALSE(tail[0].segment.has(wire::kPsh));
}

// Four segments of a long write that may leave one by one: which carry PSH. The one of index `longer` makes the buffer
// before it longer.
std::vector<bool> pushes_of_a_long_write(int longer) {
  MinTcp state = idle_state();
  state.cwnd_segments = 1;
  Writer s(state);
  s.end.cb.max_window = 2 * kMss;
  for (int i = 0; i < 4; ++i) {
    if (i == longer) move_push(s.end.cb, kMss);
    s.end.write(kMss, at_ms(1), i < 3);
  }
  std::vector<bool> pushed;
  for (std::uint32_t i = 1; i <= 4; ++i) {
    for (const auto& plan : s.end.poll(at_ms(i))) pushed.push_back(plan.segment.has(wire::kPsh));
    s.end.cb.cwnd = 1;
    s.ack(i * kMss, at_ms(i));
    s.end.cb.cwnd = 1;
  }
  return pushed;
}

// Linux forced_push(): a mark within a long write stays where it was made.
TEST(Transmit, AMarkOfPshInALongWriteStays) {
  EXPECT_EQ(pushes_of_a_long_write(-1), (std::vector<bool>{false, true, false, true}));
}

TEST(Transmit, AMarkOfPshMovesWithTheEndOfItsBuffer) {
  EXPECT_EQ(pushes_of_a_long_write(2), (std::vector<bool>{false, false, true, true}));
}

TEST(Transmit, WhatMoreFollowsWaitsForItOrUntilTimeIsUp) {
  Writer s(kFlagNoDelay);
  s.end.write(kMss + 10, at_ms(1), true);
  EXPECT_EQ(sizes(s.end.poll(at_ms(1))), Sizes{kMss});
  EXPECT_EQ(sizes(s.write(20, at_ms(2))), Sizes{30});
  MinTcp state;
  s.end.write(10, at_ms(3), true);
  extract(s.end.cb, at_ms(3), state);
  EXPECT_EQ(state.flags, kFlagNoDelay | kFlagMoreFollows);

  Writer t(kFlagNoDelay);
  t.end.write(10, at_ms(1), true);
  EXPECT_TRUE(t.end.poll(at_ms(1)).empty());
  const Time at = t.end.fire(at_ms(1));
  EXPECT_EQ(sizes(t.end.poll(at)), Sizes{10});
}

TEST(Transmit, DrainingSendsNoNewDataButRetransmits) {
  Writer s;
  s.write(2 * kMss);
  s.end.write(1000, at_ms(2));
  set_draining(s.end.cb, true, at_ms(2));
  EXPECT_TRUE(s.end.poll(at_ms(2)).empty());
  EXPECT_FALSE(is_drained(s.end.cb));
  const Time at = s.end.fire(at_ms(2));
  const SegmentPlan again = s.end.poll_one(at);
  EXPECT_TRUE(again.retransmission);
  EXPECT_EQ(again.segment.seq, Seq(kOurSeq));
  s.ack(2 * kMss, at);
  EXPECT_TRUE(is_drained(s.end.cb));
  EXPECT_TRUE(s.end.poll(at).empty());
  EXPECT_EQ(next_deadline(s.end.cb, at), kNever);
  set_draining(s.end.cb, false, at);
  EXPECT_EQ(sizes(s.end.poll(at)), Sizes{1000});
}

TEST(Transmit, StopsAndGoesOnWhereTheLinkHadNoRoom) {
  Writer s;
  s.end.write(4 * kMss, at_ms(1));
  SegmentPlan plan;
  ASSERT_TRUE(poll_transmit(s.end.cb, s.end, at_ms(1), plan));
  EXPECT_EQ(s.end.cb.snd_nxt, Seq(kOurSeq + kMss));
  EXPECT_EQ(s.end.poll(at_ms(1)).size(), 3U);
}

TEST(Transmit, CwndThatIsNotUsedDoesNotGrow) {
  Writer s;
  std::uint32_t offset = 0;
  for (int i = 0; i < 100; ++i) {
    s.write(100, at_ms(i * 10));
    offset += 100;
    s.ack(offset, at_ms(i * 10 + 5));
  }
  EXPECT_EQ(s.end.cb.cwnd, 10U);
}

TEST(Transmit, CwndDecaysAfterIdleness) {
  Writer s;
  s.end.cb.cwnd = 80;
  s.end.cb.ssthresh = 20;
  s.write(1, at_ms(1500));  // the RTO is 1 s: one and a half of idleness
  EXPECT_EQ(s.end.cb.cwnd, 40U);
  EXPECT_EQ(s.end.cb.ssthresh, 60U);  // RFC 2861's memory, as Linux
  s.ack(1, at_ms(1501));
  s.write(1, at_ms(60'000));
  EXPECT_EQ(s.end.cb.cwnd, 10U);
}

TEST(Transmit, EctOnNewDataOnly) {
  MinTcp state = idle_state();
  state.options = kOptEcn;
  TestEnd end(state, at_ms(0));
  EXPECT_EQ(end.poll_one(at_ms(0)).segment.ecn, wire::Ecn::kNotEct);
  end.write(10, at_ms(1));
  EXPECT_EQ(end.poll_one(at_ms(1)).segment.ecn, wire::Ecn::kEct0);
  const Time at = end.fire(at_ms(1));
  const SegmentPlan again = end.poll_one(at);
  EXPECT_TRUE(again.retransmission);
  EXPECT_EQ(again.segment.ecn, wire::Ecn::kNotEct);
}

TEST(Transmit, SmallPeerWindowHalvesTheSegment) {
  MinTcp state = idle_state();
  state.snd_wnd = state.max_window = 2000;
  Writer s(state);
  EXPECT_EQ(sizes(s.write(5000)), (Sizes{1000, 1000}));
}

TEST(Transmit, MssCanChange) {
  Writer s;
  set_mss(s.end.cb, 1000);
  EXPECT_EQ(sizes(s.write(1500)), (Sizes{1000, 500}));
}

TEST(Transmit, RetransmissionOfTheLastSegmentPushes) {
  Writer s;
  s.write(kMss + 10);
  const Time at = s.end.fire(at_ms(1));
  EXPECT_EQ(s.end.poll_one(at).segment.flags, wire::kAck);
  s.ack(kMss, at);
  const SegmentPlan last = s.end.poll_one(at);
  EXPECT_TRUE(last.retransmission);
  EXPECT_EQ(last.segment.flags, wire::kAck | wire::kPsh);
}

TEST(Transmit, OldAcksChangeNothing) {
  Writer s;
  s.write(1000);
  s.ack(1000, at_ms(2));
  s.ack(500, at_ms(3), 10);
  EXPECT_EQ(s.end.cb.snd_una, Seq(kOurSeq + 1000));
  EXPECT_EQ(s.end.cb.snd_wnd, 65535U);
  EXPECT_EQ(s.end.counters.bytes_acked, 1000U);
}

TEST(Transmit, TheLargestWindowOfThePeerIsRemembered) {
  MinTcp state = idle_state();
  state.snd_wnd = state.max_window = 1000;
  Writer s(state);
  s.write(1);
  s.ack(1, at_ms(2), 30000);
  s.write(1, at_ms(3));
  s.ack(2, at_ms(4), 20000);
  EXPECT_EQ(s.end.cb.snd_wnd, 20000U);
  EXPECT_EQ(s.end.cb.max_window, 30000U);
}

TEST(Transmit, CountersCount) {
  Writer s;
  s.write(kMss + 10);
  s.ack(kMss + 10, at_ms(2));
  const Counters& c = s.end.counters;
  EXPECT_EQ(c.bytes_sent, kMss + 10U);
  EXPECT_EQ(c.bytes_acked, kMss + 10U);
  EXPECT_EQ(c.data_segs_out, 2U);
  EXPECT_EQ(c.segs_out, 3U);  // the ACK of install() too
  EXPECT_EQ(c.segs_in, 1U);
  EXPECT_EQ(c.segs_retransmitted, 0U);
}

// A window of a gigabyte and a program that fills it; a peer of tiny segments, which weigh as much in records.
TEST(Transmit, OnlySoManySegmentsAreOut) {
  for (const auto& [mss, most] : {std::pair<std::uint16_t, std::uint32_t>{600, 32768}, {100, 4096}}) {
    MinTcp state = idle_state();
    state.mss = mss;
    state.snd_wscale = 14;
    state.snd_wnd = state.max_window = 65535U << 14;
    state.cwnd_segments = 1'000'000;
    TestEnd end(state, at_ms(0));
    end.poll(at_ms(0));
    end.write(40'000U * mss, at_ms(0));
    EXPECT_EQ(end.poll(at_ms(0)).size(), most);
    EXPECT_EQ(end.receive(from_peer(kPeerSeq, kOurSeq + 10U * mss), "", at_ms(10)), Arrival::kAccepted);
    EXPECT_EQ(end.poll(at_ms(10)).size(), 10U);
  }
}

}  // namespace
}  // namespace twinstack::tcp::test
