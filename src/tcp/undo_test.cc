// Reductions that were wrong are taken back: Eifel (RFC 3522), DSACK (RFC 3708), F-RTO (RFC 5682). And proportional
// rate reduction (RFC 6937) while they last.
#include "tcp/undo.h"

#include <gtest/gtest.h>

#include "tcp/invariants.h"
#include "tcp/sender_fixture.h"

namespace twinstack::tcp::test {
namespace {

using std::chrono::milliseconds;

TEST(Undo, AnEchoOlderThanTheRetransmissionEndsRecoveryAsIfNothingHadBeen) {
  Sender f(kSackAndStamps, 10, 10);
  ASSERT_EQ(f.what(f.ack(0, {{1, 4}}, at_ms(10), 0)), Sent{-1000});
  ASSERT_EQ(f.recovery(), RecoveryState::kRecovery);
  EXPECT_EQ(f.end.cb.ssthresh, 5U);
  f.ack(10, {}, at_ms(11), 0);  // all of it; the echo is of the first transmission
  EXPECT_EQ(f.recovery(), RecoveryState::kOpen);
  EXPECT_GE(f.end.cb.cwnd, 10U);
  EXPECT_EQ(f.end.cb.ssthresh, kInfiniteSsthresh);
}

TEST(Undo, AnEchoOfTheRetransmissionDoesNot) {
  Sender f(kSackAndStamps, 10, 10);
  f.ack(0, {{1, 4}}, at_ms(10), 0);
  f.ack(10, {}, at_ms(20), 10);
  EXPECT_EQ(f.recovery(), RecoveryState::kOpen);
  EXPECT_EQ(f.end.cb.ssthresh, 5U);
  EXPECT_LE(f.end.cb.cwnd, 6U);
}

TEST(Undo, DsacksForAllRetransmissionsDoAfterTheFact) {
  Sender f(kOptSack, 10, 10);
  ASSERT_EQ(f.what(f.ack(0, {{1, 4}})), Sent{-1000});
  f.ack(10, {}, at_ms(12));
  ASSERT_LE(f.end.cb.cwnd, 6U);
  f.ack(10, {{0, 1}}, at_ms(20));
  EXPECT_EQ(f.end.cb.ssthresh, kInfiniteSsthresh);
  EXPECT_GE(f.end.cb.cwnd, 10U);
}

TEST(Undo, OneDsackOfTwoIsNotEnough) {
  Sender f(kOptSack, 20, 20);
  Sent repeated;
  for (std::uint32_t edge = 5; edge <= 20; ++edge) {
    for (const int i : f.what(f.ack(0, {{2, edge}}))) repeated.push_back(i);
  }
  ASSERT_EQ(repeated, (Sent{-1000, -1}));
  f.ack(20, {}, at_ms(12));
  f.ack(20, {{0, 1}}, at_ms(20));
  EXPECT_EQ(f.end.cb.ssthresh, 10U);
  f.ack(20, {{1, 2}}, at_ms(20));
  EXPECT_EQ(f.end.cb.ssthresh, kInfiniteSsthresh);
}

TEST(Undo, ADuplicateThatTheNetworkMadeIsNoEvidence) {
  Sender f(kOptSack, 10, 10);
  f.ack(5);
  f.ack(5, {{0, 1}});  // nothing was retransmitted
  EXPECT_EQ(f.end.counters.dsack_dups, 1U);
  EXPECT_FALSE(f.end.cb.has(kDsackSeen));
  EXPECT_EQ(f.recovery(), RecoveryState::kOpen);
}

// Up to the timeout, which must come: no SACK, so no probe and no RACK.
Time time_out(Sender& f) {
  const Time at = f.end.fire(at_ms(0));
  EXPECT_EQ(f.recovery(), RecoveryState::kLoss);
  EXPECT_EQ(f.what(f.end.poll(at)), Sent{-1000});
  return at;
}

TEST(Frto, NewDataGoesFirstAndTheNextAckShowsThatTheTimeoutWasSpurious) {
  Sender f(0, 10, 100);
  const Time at = time_out(f);
  EXPECT_EQ(f.what(f.ack(1, {}, at)), (Sent{10, 11})) << "step 2.b: new data, not retransmissions";
  f.ack(2, {}, at + milliseconds(1));  // segment 1 was sent once
  EXPECT_EQ(f.end.cb.ssthresh, kInfiniteSsthresh) << "step 3.b";
  EXPECT_GE(f.end.cb.cwnd, 10U);
}

TEST(Frto, WithStampsTheFirstAckIsEnough) {
  Sender f(kOptTimestamps, 10, 100);
  const Time at = time_out(f);
  f.ack(1, {}, at + milliseconds(1), 0);
  EXPECT_EQ(f.end.cb.ssthresh, kInfiniteSsthresh);
  EXPECT_GE(f.end.cb.cwnd, 10U);
}

TEST(Frto, ADuplicateAckAfterTheNewDataShowsThatTheLossWasReal) {
  Sender f(0, 10, 100);
  const Time at = time_out(f);
  ASSERT_EQ(f.what(f.ack(1, {}, at)), (Sent{10, 11}));
  const Sent sent = f.what(f.ack(1, {}, at + milliseconds(1)));
  ASSERT_FALSE(sent.empty());
  EXPECT_EQ(sent[0], -1);
  EXPECT_EQ(f.end.cb.ssthresh, 5U);
}

TEST(Frto, WithoutNewDataTheConventionalWay) {
  Sender f(0, 10, 10);
  const Time at = time_out(f);
  EXPECT_EQ(f.what(f.ack(1, {}, at)), (Sent{-1, -2}));
}

// The probe may have been lost for its size, and everything behind it for the same reason as ever.
TEST(Frto, IsOffWhileASizeIsProbedFor) {
  Sender f(0, 10, 100);
  PathMtu& search = cold_state(f.end.cb).path_mtu;
  search.searching = true;
  search.probe = kMss + 100;
  search.probe_seq = Seq(kOurSeq + kMss);
  search.probe_end = f.end.cb.snd_nxt;
  const Time at = time_out(f);
  EXPECT_EQ(f.what(f.ack(1, {}, at)), (Sent{-1, -2}));
}

TEST(Frto, AReportOfWhatWasNeverRepeatedUndoesTheTimeout) {
  Sender f(kOptSack, 10, 10);
  Time at = at_ms(0);
  while (f.recovery() != RecoveryState::kLoss) {
    at = f.end.fire(at);
    f.end.poll(at);
  }
  EXPECT_EQ(f.end.cb.cwnd, 1U);
  f.ack(3, {}, at + milliseconds(1));  // 0 was repeated; 1 and 2 were not, and have arrived
  EXPECT_EQ(f.recovery(), RecoveryState::kOpen);
  EXPECT_EQ(f.end.cb.ssthresh, kInfiniteSsthresh);
}

TEST(Prr, SendsInProportionToWhatIsDelivered) {
  Sender f(kOptSack, 20, 200);
  std::uint32_t sent = 0;
  std::uint32_t edge = 4;
  f.ack(0, {{1, edge}});
  ASSERT_EQ(f.recovery(), RecoveryState::kRecovery);
  for (; edge < 20; ++edge) sent += static_cast<std::uint32_t>(f.ack(0, {{1, edge + 1}}).size());
  // 19 of 20 have arrived: half of that may have gone, the repair among it.
  EXPECT_NEAR(sent, 9, 1.5);
  EXPECT_LE(packets_in_flight(f.end.cb), f.end.cb.ssthresh + 1);
}

TEST(Prr, AfterHeavyLossItGrowsBackToTheThresholdAsInSlowStart) {
  Sender f(kOptSack, 20, 200);
  Sent sent = f.what(f.ack(0, {{17, 20}}));  // 17 lost
  EXPECT_EQ(sent.size(), 3U) << "packet conservation: one for each that arrived";
  for (std::uint32_t acked = 1; acked < 17; ++acked) {
    f.ack(acked, {{17, 20}}, at_ms(20 + acked));
    EXPECT_LE(packets_in_flight(f.end.cb), f.end.cb.ssthresh);
  }
  EXPECT_EQ(packets_in_flight(f.end.cb), f.end.cb.ssthresh);
}

// A flight that a move has brought is larger than the window that was 1, and its threshold may be larger, too.
TEST(Prr, NoMoreThanOneGoesForEachThatArrived) {
  Sender f(kOptSack, 20, 200);
  f.ack(0, {{1, 4}});
  ASSERT_EQ(f.recovery(), RecoveryState::kRecovery);
  f.end.cb.flight->prior_cwnd = 1;
  f.end.cb.flight->prr_delivered = f.end.cb.flight->prr_out = 0;
  for (std::uint32_t edge = 4; edge < 20; ++edge) EXPECT_LE(f.ack(0, {{1, edge + 1}}).size(), 1U);
}

TEST(LimitedTransmit, EachOfTheFirstDuplicatesLetsOneNewSegmentGo) {
  Sender f(kOptSack, 4, 100);
  EXPECT_EQ(f.what(f.ack(0, {{1, 2}})), Sent{4});
  EXPECT_EQ(f.what(f.ack(0, {{1, 3}})), Sent{5});
}

// Ten segments, all late: a probe repeats the last one, the timer runs out, everything is marked, and the timeout turns
// out to have been spurious. Returns the time.
Time undo_a_timeout(Sender& f) {
  f.end.cb.min_rtt_us = 5000;
  f.end.fire(at_ms(0));  // the tail loss probe
  f.end.poll(at_ms(30));
  const Time at = f.end.fire(at_ms(30));
  EXPECT_EQ(f.recovery(), RecoveryState::kLoss);
  f.end.poll(at);
  f.end.write(90 * f.mss, at);
  f.ack(1, {}, at + milliseconds(10));
  f.ack(2, {}, at + milliseconds(20));  // an original
  EXPECT_EQ(f.recovery(), RecoveryState::kOpen);
  EXPECT_EQ(f.flight().lost, 0U);
  EXPECT_EQ(broken_invariant(f.end.cb), nullptr);
  return at + milliseconds(20);
}

// What the timeout had marked and the undo unmarked is looked at again: here one that was lost after all.
TEST(Frto, ALossAmongWhatWasUnmarkedIsStillFound) {
  Sender f(kOptSack, 10, 10);
  const Time at = undo_a_timeout(f);
  Sent repeated;
  for (std::uint32_t edge = 4; edge <= 10; ++edge) {
    for (const int i : f.what(f.ack(2, {{3, edge}}, at + milliseconds(edge)))) {
      if (i < 0) repeated.push_back(i);
    }
  }
  ASSERT_FALSE(repeated.empty());
  EXPECT_EQ(repeated[0], -2);
}

// ... and one that was lost twice, as the last one and as the probe.
TEST(Frto, SoIsOneThatWasRepeated) {
  Sender f(kOptSack, 10, 10);
  const Time at = undo_a_timeout(f);
  f.ack(9, {}, at + milliseconds(1));
  Sent repeated;
  for (std::uint32_t edge = 11; edge <= 14; ++edge) {
    for (const int i : f.what(f.ack(9, {{10, edge}}, at + milliseconds(10 + edge)))) {
      if (i < 0) repeated.push_back(i);
    }
  }
  ASSERT_FALSE(repeated.empty());
  EXPECT_EQ(repeated[0], -9);
}

}  // namespace
}  // namespace twinstack::tcp::test
