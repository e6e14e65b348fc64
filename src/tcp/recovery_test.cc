// Loss: fast retransmit and recovery with and without SACK, timeouts, reneging, ECN.
#include "tcp/recovery.h"

#include <gtest/gtest.h>

#include "tcp/loss_marks.h"
#include "tcp/rate.h"
#include "tcp/sender_fixture.h"
#include "tcp/tcp_info.h"

namespace twinstack::tcp::test {
namespace {

TEST(FastRetransmit, ThirdDuplicateAckWithoutSack) {
  Sender f;
  EXPECT_EQ(f.what(f.ack(0)), Sent{10}) << "limited transmit (RFC 3042)";
  EXPECT_EQ(f.what(f.ack(0)), Sent{11});
  EXPECT_EQ(f.what(f.ack(0)), Sent{-1000});
  EXPECT_EQ(f.end.cb.recovery, RecoveryState::kRecovery);
  EXPECT_EQ(f.end.cb.ssthresh, 5U);
  EXPECT_EQ(f.end.cb.cwnd, packets_in_flight(f.end.cb)) << "PRR: what left made room for the repair only (RFC 6937)";
  EXPECT_EQ(f.end.counters.fast_recoveries, 1U);
}

TEST(FastRetransmit, WindowUpdatesAndDataAreNoDuplicateAcks) {
  Sender f;
  f.end.cb.snd_wnd = 50000 << 7;
  wire::Segment update = from_peer();
  for (std::uint16_t i = 0; i < 5; ++i) {
    update.window = static_cast<std::uint16_t>(60000 + i);
    f.end.receive(update, "", at_ms(10));
  }
  for (std::uint32_t i = 0; i < 5; ++i) {
    wire::Segment data = from_peer(kPeerSeq + i);
    data.window = 60004;
    f.end.receive(data, "x", at_ms(10));
  }
  EXPECT_EQ(f.end.cb.recovery, RecoveryState::kOpen);
}

TEST(NewReno, EveryPartialAckRetransmitsTheNextHole) {
  Sender f;
  for (int i = 0; i < 3; ++i) f.ack(0);
  // RFC 6582 3.2 (3): the next hole, as soon as PRR has room for it.
  for (const std::uint32_t hole : {4U, 6U}) {
    Sent sent = f.what(f.ack(hole));
    EXPECT_EQ(f.end.cb.recovery, RecoveryState::kRecovery);
    for (int i = 0; i < 3 && sent.empty(); ++i) sent = f.what(f.ack(hole));
    ASSERT_FALSE(sent.empty());
    EXPECT_EQ(sent[0], -static_cast<int>(hole));
  }
  for (int i = 0; i < 2; ++i) f.ack(f.sent_segments());  // all of it, then something above high_seq
  EXPECT_EQ(f.end.cb.recovery, RecoveryState::kOpen);
  EXPECT_GE(f.end.cb.cwnd, f.end.cb.ssthresh);
  EXPECT_EQ(f.end.cb.cold, nullptr);
}

// With all others lost or counted, the first is what makes it one too many (seed 102929 of the simulator).
TEST(NewReno, APartialAckCountsNoMoreThanIsOut) {
  Sender f(0, 10, 10);
  ControlBlock& cb = f.end.cb;
  Flight& flight = *cb.flight;
  cb.recovery = RecoveryState::kRecovery;
  for (auto p = flight.sent.first() + 3; p != flight.sent.end(); ++p) mark_lost(cb, p);
  reno_add_duplicates(cb, 3);
  reno_mark_first(cb, true);
  EXPECT_EQ(flight.lost, 8U);
  EXPECT_EQ(flight.sacked, 2U);
}

TEST(NewReno, StateIsKeptUntilSomethingAboveTheRecoveryPointIsAcknowledged) {
  Sender f;
  for (int i = 0; i < 3; ++i) f.ack(0);
  const std::uint32_t point = bytes_between(Seq(kOurSeq), f.end.cb.high_seq) / kMss;
  f.ack(point - 1);
  f.ack(point);
  if (f.end.cb.snd_una != f.end.cb.snd_nxt) {
    EXPECT_EQ(f.end.cb.recovery, RecoveryState::kRecovery);
    for (int i = 0; i < 5; ++i) {
      for (const int segment : f.what(f.ack(point)))
        EXPECT_GE(segment, 0) << "nothing is retransmitted for echoes of our own";
    }
  }
  f.ack(point + 1);
  EXPECT_EQ(f.end.cb.recovery, RecoveryState::kOpen);
}

TEST(SackRecovery, RetransmitsTheHolesOnly) {
  Sender f(kOptSack, 20);
  f.ack(0, {{1, 2}});
  f.ack(0, {{1, 2}, {3, 4}});
  EXPECT_EQ(f.end.cb.recovery, RecoveryState::kDisorder);
  Sent sent = f.what(f.ack(0, {{5, 6}, {3, 4}, {1, 2}}));
  ASSERT_FALSE(sent.empty());
  EXPECT_EQ(sent[0], -1000);
  Sent more;
  for (std::uint32_t edge = 7; edge <= 19; ++edge) {
    for (const int segment : f.what(f.ack(0, {{5, edge}, {3, 4}, {1, 2}}))) more.push_back(segment);
  }
  // Segments 2 and 4 are holes with enough above them; then new data as the pipe drains.
  ASSERT_GE(more.size(), 2U);
  EXPECT_EQ(more[0], -2);
  EXPECT_EQ(more[1], -4);
  for (std::size_t i = 2; i < more.size(); ++i) EXPECT_GE(more[i], 20);
  f.ack(f.sent_segments());
  EXPECT_EQ(f.end.counters.segs_retransmitted, 3U);
  EXPECT_EQ(f.end.cb.recovery, RecoveryState::kOpen);
}

TEST(SackRecovery, OneReportOfManyBytesIsEnough) {
  Sender f(kOptSack, 10);
  const Sent sent = f.what(f.ack(0, {{1, 5}}));  // RFC 6675 4: more than (DupThresh - 1) * SMSS
  ASSERT_FALSE(sent.empty());
  EXPECT_EQ(sent[0], -1000);
}

TEST(SackRecovery, PipeCountsWhatIsInTheNetwork) {
  Sender f(kOptSack, 20);
  EXPECT_EQ(in_flight_bytes(f.end.cb), 20U * kMss);
  wire::Segment segment = from_peer();
  segment.options.sack_count = 1;
  segment.options.sack[0] = {Seq(kOurSeq + 5 * kMss), Seq(kOurSeq + 10 * kMss)};
  f.end.receive(segment, "", at_ms(10));
  EXPECT_EQ(in_flight_bytes(f.end.cb), 10U * kMss) << "5 reported, 5 lost";
  SegmentPlan plan;
  ASSERT_TRUE(poll_transmit(f.end.cb, f.end, at_ms(10), plan));
  EXPECT_EQ(in_flight_bytes(f.end.cb), 11U * kMss) << "one of them sent again";
}

TEST(SackRecovery, APartialAckShowsTheNextLoss) {
  Sender f(kOptSack, 20);
  f.ack(0, {{1, 10}});
  // Segment 10 has nothing reported above it, but a retransmission that was sent later has arrived (RFC 8985 6.2).
  const Sent sent = f.what(f.ack(10, {}, at_ms(21)));
  ASSERT_FALSE(sent.empty());
  EXPECT_EQ(sent[0], -10);
}

TEST(SackRecovery, ReportsOutsideTheFlightAreIgnored) {
  Sender f(kOptSack, 10);
  f.ack(0, {{20, 30}});
  f.ack(0, {{5, 5}});
  f.ack(0, {{6, 4}});
  EXPECT_EQ(in_flight_bytes(f.end.cb), 10U * kMss);
  EXPECT_EQ(f.end.cb.recovery, RecoveryState::kOpen);
  f.ack(2, {{0, 1}});  // DSACK
  EXPECT_EQ(f.end.cb.recovery, RecoveryState::kOpen);
}

TEST(Timeout, GoesBackToTheFirstAndSkipsWhatIsReported) {
  Sender f(kOptSack, 10, 10);
  f.ack(0, {{4, 6}});
  Time at = at_ms(10);
  Sent sent;
  while (f.end.cb.recovery != RecoveryState::kLoss) {  // the reordering timer, fast recovery, all of it in vain
    at = f.end.fire(at);
    sent = f.what(f.end.poll(at));
  }
  EXPECT_EQ(sent, Sent{-1000});
  EXPECT_EQ(f.end.cb.cwnd, 1U);
  EXPECT_EQ(f.what(f.ack(1, {}, at)), (Sent{-1, -2}));
  EXPECT_EQ(f.what(f.ack(3, {}, at)), (Sent{-3, -6, -7, -8}));
  f.ack(10, {}, at);
  EXPECT_EQ(f.end.cb.recovery, RecoveryState::kOpen);
  EXPECT_TRUE(is_drained(f.end.cb));
}

TEST(Timeout, ThresholdIsNotLoweredAgainForTheSameData) {
  Sender f(0, 10);
  Time at = f.end.fire(at_ms(0));
  f.end.poll(at);
  EXPECT_EQ(f.end.cb.ssthresh, 5U);
  at = f.end.fire(at);
  f.end.poll(at);
  EXPECT_EQ(f.end.cb.ssthresh, 5U);
}

TEST(Timeout, RenegingIsNoticed) {
  Sender f(kOptSack, 10, 10);
  f.ack(0, {{1, 10}});
  f.ack(1);  // the reported bytes begin at snd_una now: they were dropped
  const Time at = f.end.fire(at_ms(10));
  EXPECT_EQ(f.what(f.end.poll(at)), Sent{-1});
  EXPECT_EQ(f.what(f.ack(2, {}, at)), (Sent{-2, -3}));
}

TEST(Timeout, ShrunkWindowStillGetsTheFirstSegment) {
  Sender f(0, 10);
  wire::Segment closed = from_peer(kPeerSeq + 1);
  closed.seq = Seq(kPeerSeq);
  closed.window = 0;
  f.end.cb.snd_wl1 = Seq(kPeerSeq - 1);
  f.end.receive(closed, "", at_ms(5));
  EXPECT_EQ(f.end.cb.snd_wnd, 0U);
  const Time at = f.end.fire(at_ms(5));
  EXPECT_EQ(f.what(f.end.poll(at)), Sent{-1000});
}

TEST(Ecn, EchoReducesOnceInAWindowAndIsAnsweredByCwr) {
  Sender f(kOptEcn, 10);
  wire::Segment echo = from_peer(kPeerSeq, kOurSeq + kMss);
  echo.flags = wire::kAck | wire::kEce;
  f.end.receive(echo, "", at_ms(10));
  EXPECT_EQ(f.end.cb.ssthresh, 5U);
  EXPECT_EQ(f.end.cb.recovery, RecoveryState::kReduced);
  echo.ack = Seq(kOurSeq + 2 * kMss);
  f.end.receive(echo, "", at_ms(10));
  EXPECT_EQ(f.end.cb.ssthresh, 5U);
  wire::Segment ack = from_peer(kPeerSeq, kOurSeq + 8 * kMss);
  f.end.receive(ack, "", at_ms(11));
  const auto plans = f.end.poll(at_ms(11));
  ASSERT_GE(plans.size(), 2U);
  EXPECT_TRUE(plans[0].segment.has(wire::kCwr));
  EXPECT_FALSE(plans[1].segment.has(wire::kCwr));
  echo.ack = Seq(kOurSeq + 10 * kMss);  // the peer has not seen CWR yet
  f.end.receive(echo, "", at_ms(12));
  EXPECT_EQ(f.end.cb.ssthresh, 5U);
  ack.ack = Seq(kOurSeq + 11 * kMss);
  f.end.receive(ack, "", at_ms(13));
  EXPECT_EQ(f.end.cb.recovery, RecoveryState::kOpen);
  EXPECT_EQ(f.end.cb.cwnd, 5U);
}

TEST(Ecn, ALossInTheSameWindowReducesNoFurther) {
  Sender f(kOptEcn, 10);
  wire::Segment echo = from_peer(kPeerSeq, kOurSeq + kMss);
  echo.flags = wire::kAck | wire::kEce;
  f.end.receive(echo, "", at_ms(10));
  f.end.poll(at_ms(10));
  for (int i = 0; i < 3; ++i) f.ack(1);
  EXPECT_EQ(f.end.cb.recovery, RecoveryState::kRecovery);
  EXPECT_EQ(f.end.cb.ssthresh, 5U);
}

// Karn (RFC 6298 3): an ACK that covers a retransmission as well measures nothing, not even by what was sent once.
TEST(Karn, AnAckOfRepeatedSegmentsIsNoSample) {
  Sender f(0, 10, 10);
  const Time timeout = f.end.fire(at_ms(1));
  ASSERT_FALSE(f.end.poll(timeout).empty());
  const std::uint32_t before = smoothed_rtt_us(f.end.cb);
  f.ack(10, {}, timeout + std::chrono::milliseconds(10));
  EXPECT_EQ(smoothed_rtt_us(f.end.cb), before);
}

// ... which could put it off for ever; reports of what was sent later do not (as Linux).
TEST(Timeout, IsPutOffByReportsOfWhatIsOlderThanTheRepetition) {
  Sender f(kOptSack, 10, 10);
  ASSERT_EQ(f.what(f.ack(0, {{1, 4}})), Sent{-1000});
  const Time before = next_deadline(f.end.cb, at_ms(10));
  f.ack(0, {{1, 5}}, at_ms(60));
  EXPECT_GE(next_deadline(f.end.cb, at_ms(60)), before + std::chrono::milliseconds(50));
}

// Before anything of a flight has arrived, too, what was sent a moment ago is not lost by a timeout.
TEST(Timeout, SparesWhatWasSentAMomentAgo) {
  Sender f(0, 2, 2);
  const Time due = next_deadline(f.end.cb, at_ms(0));
  f.end.cb.cwnd = 10;
  f.end.write(2 * f.mss, due - std::chrono::milliseconds(1));
  ASSERT_EQ(f.end.poll(due - std::chrono::milliseconds(1)).size(), 2U);
  f.end.fire(due);
  ASSERT_EQ(f.recovery(), RecoveryState::kLoss);
  EXPECT_EQ(f.flight().lost, 2U);
}

// A program that looks at TCP_INFO between two transfers sees how fast the last one was.
TEST(DeliveryRate, OutlivesTheFlight) {
  Sender f(kOptSack, 10, 10);
  f.ack(10);
  ASSERT_FALSE(f.end.cb.flight);
  TcpInfo info;
  fill_tcp_info(f.end.cb, f.end.counters, f.end.delivery_rate, at_ms(10), info);
  EXPECT_EQ(info.delivery_rate, 1000ULL * f.mss) << "ten segments in ten milliseconds";
  EXPECT_EQ(info.app_limited, 1);
}

TEST(DeliveryRate, GoesWithTheConnection) {
  for (const std::uint64_t rate : {1ULL, 1000ULL, 146'000ULL, 1'234'567'890ULL, 40'000'000'000ULL}) {
    MinTcp state = idle_state();
    state.options = kOptTimestamps;
    state.delivery_rate = rate;
    state.delivery_app_limited = 1;
    ControlBlock cb;
    ASSERT_TRUE(install(cb, state, at_ms(0)).has_value());
    const DeliveryRate got = delivery_rate_of(state, cb.mss);
    EXPECT_NEAR(static_cast<double>(bytes_per_second(got, cb.mss)), static_cast<double>(rate), 1 + 1e-3 * double(rate));
    EXPECT_TRUE(is_app_limited(got));
  }
  EXPECT_EQ(bytes_per_second(delivery_rate_of(idle_state(), kMss), kMss), 0U);
  MinTcp nonsense = idle_state();
  nonsense.delivery_rate = UINT64_MAX;
  EXPECT_GT(bytes_per_second(delivery_rate_of(nonsense, kMss), 65535), UINT64_MAX / 4);
}

}  // namespace
}  // namespace twinstack::tcp::test
