// BBR: the filters and formulas of draft-cardwell-iccrg-bbr-congestion-control-00 by themselves, and what it makes of a
// path.
#include "tcp/congestion/bbr.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/rng.h"
#include "tcp/congestion/bbr_model.h"
#include "tcp/congestion/bbr_state.h"
#include "tcp/congestion/test_block.h"
#include "tcp/congestion/test_path.h"
#include "tcp/flight.h"
#include "tcp/pacing.h"

namespace twinstack::tcp::test {
namespace {

constexpr std::uint32_t kStartupGain = 739;  // 2.885 and the rounding of Linux
constexpr std::uint32_t kDrainGain = 88;

double share(const TestPath& path, std::uint64_t bytes_per_second) {
  return static_cast<double>(bytes_per_second) / static_cast<double>(path.config.rate);
}

TEST(Bbr, RoundMaxIsTheMaximumOfTenRounds) {
  Rng rng(5);
  RoundMax filter;
  std::map<std::uint32_t, std::uint64_t> best;
  for (std::uint32_t round = 0xfffffff0; round != 400; round += rng.below(rng.below(5) == 0 ? 15 : 2)) {
    const std::uint64_t value = rng.below(1000) + 1;
    filter.take(round, value);
    best[round] = std::max(best[round], value);
    std::uint64_t wanted = 0;
    for (const auto& [r, v] : best) {
      if (round - r < 10) wanted = std::max(wanted, v);
    }
    ASSERT_EQ(filter.value(), wanted) << round;
    if (round < 0xfffffff0 && round >= 385) break;
  }
}

TEST(Bbr, ProductsAreRoundedUp) {
  ControlBlock cb = block(CongestionKind::kBbr, 10);
  EXPECT_EQ(bbr_bdp(cb, 1'000'000, kBbrUnit), 10U) << "no round trip is known yet: the initial window";
  Rng rng(11);
  for (int i = 0; i < 1000; ++i) {
    cb.mss = static_cast<std::uint16_t>(500 + rng.below(9000));
    cb.bbr->min_rtt_us = 10 + rng.below(300'000);
    const std::uint64_t bandwidth = 1 + (std::uint64_t{rng.below(1U << 30)} << rng.below(6));
    const std::uint32_t gain = 1 + rng.below(kStartupGain);
    const double exact = static_cast<double>(bandwidth) * cb.bbr->min_rtt_us * 1e-6 * gain / 256 / cb.mss;
    const std::uint32_t got = bbr_bdp(cb, bandwidth, gain);
    ASSERT_LE(got, std::ceil(exact));
    ASSERT_GE(got + 3.0 / cb.mss, exact - 0.01);
  }
  cb.bbr->min_rtt_us = UINT32_MAX;
  EXPECT_GT(bbr_bdp(cb, kBbrHighestRate, kStartupGain), 1'000'000'000U);
}

TEST(Bbr, BeginsWithTheWindowInARoundTrip) {
  const ControlBlock cb = block(CongestionKind::kBbr, 10, kInfiniteSsthresh, 50'000);
  const double wanted = 10 * 1000 / 0.05 * (kStartupGain / 256.0) * 0.99;
  EXPECT_NEAR(static_cast<double>(congestion_ops(cb).pacing_rate(cb)), wanted, wanted * 1e-4);
  EXPECT_EQ(bbr_info(cb).pacing_gain, kStartupGain);
  EXPECT_EQ(bbr_info(cb).cwnd_gain, kStartupGain);
  EXPECT_EQ(bbr_info(cb).bandwidth, 0U);
  EXPECT_EQ(bbr_info(cb).min_rtt_us, UINT32_MAX);
}

// ACKs one after the other, by the table. Ten segments an ACK, one ACK a round.
class BbrByHand : public ::testing::Test {
 protected:
  BbrByHand() : cb(block(CongestionKind::kBbr, 100)) { flight_of(cb); }

  // A round in which `segments` were delivered in `us`.
  void round(std::uint32_t segments, std::uint32_t us, bool app_limited = false, std::uint32_t lost = 0) {
    RateSample s;
    s.known = s.valid = true;
    s.prior_delivered = cb.delivered;
    s.delivered = s.newly_delivered = segments;
    s.interval_us = us;
    s.rtt_us = us;
    s.app_limited = app_limited;
    s.newly_lost = lost;
    cb.lost += lost;
    cb.delivered += segments;
    now_us += us;
    cb.flight->delivered_at = at_us(now_us);
    congestion_ops(cb).control(cb, s, at_us(now_us));
  }

  [[nodiscard]] std::uint64_t bandwidth() const { return bbr_info(cb).bandwidth; }

  ControlBlock cb;
  std::int64_t now_us = 0;
};

TEST_F(BbrByHand, BandwidthIsDeliveredOverTime) {
  round(100, 10'000);
  EXPECT_EQ(bandwidth(), 100 * 1000 * 100U);
  EXPECT_EQ(bbr_info(cb).min_rtt_us, 10'000U);
}

// Draft 4.3.2.2: three rounds without a quarter more.
TEST_F(BbrByHand, ThePipeIsFullAfterThreeRoundsWithoutGrowth) {
  double segments = 100;
  for (; segments < 1000; segments *= 1.26) {
    round(static_cast<std::uint32_t>(segments), 10'000);
    ASSERT_EQ(cb.bbr->full_pipe.rounds, 0);
  }
  for (int i = 0; i < 2; ++i) {
    segments *= 1.05;  // less than a quarter, in all three too
    round(static_cast<std::uint32_t>(segments / 1.26), 10'000);
    EXPECT_FALSE(cb.bbr->full_pipe.reached);
  }
  for (int i = 0; i < 5; ++i) round(500, 10'000, true);  // the program's doing does not count
  EXPECT_FALSE(cb.bbr->full_pipe.reached);
  round(static_cast<std::uint32_t>(segments / 1.26), 10'000);
  EXPECT_TRUE(cb.bbr->full_pipe.reached);
}

// Draft 4.2.1.
TEST_F(BbrByHand, UntilThePipeIsFullTheRateDoesNotFall) {
  const std::uint64_t guess = congestion_ops(cb).pacing_rate(cb);
  round(1, 100'000);
  EXPECT_EQ(congestion_ops(cb).pacing_rate(cb), guess);
  for (int i = 0; i < 4; ++i) round(1, 100'000);
  ASSERT_TRUE(cb.bbr->full_pipe.reached);
  EXPECT_LT(congestion_ops(cb).pacing_rate(cb), guess / 10);
}

// Draft 4.3.4.4.
TEST_F(BbrByHand, AfterIdlenessItPacesAtTheBandwidth) {
  for (int i = 0; i < 8; ++i) round(100, 10'000);
  ASSERT_EQ(cb.bbr->mode, BbrMode::kProbeBandwidth);
  cb.bbr->pacing_rate = 99'000'000;
  congestion_ops(cb).on_event(cb, CongestionEvent::kSendStart, at_us(now_us));
  EXPECT_EQ(congestion_ops(cb).pacing_rate(cb), 99'000'000U) << "the program was not the limit";
  cb.app_limited = 1;
  congestion_ops(cb).on_event(cb, CongestionEvent::kSendStart, at_us(now_us));
  EXPECT_EQ(congestion_ops(cb).pacing_rate(cb), 9'900'000U);
  EXPECT_TRUE(cb.bbr->idle_restart);
}

// Draft 4.1.1.4.
TEST_F(BbrByHand, WhatTheProgramLimitedCountsOnlyWhenItIsMore) {
  round(100, 10'000);
  for (int i = 0; i < 30; ++i) round(10, 10'000, true);
  EXPECT_EQ(bandwidth(), 10'000'000U) << "however long";
  round(200, 10'000, true);
  EXPECT_EQ(bandwidth(), 20'000'000U);
  for (int i = 0; i < 10; ++i) round(50, 10'000);
  EXPECT_EQ(bandwidth(), 5'000'000U);
}

// Draft 4.2.3.4: the first round of recovery sends a packet for a packet, then the window comes back.
TEST_F(BbrByHand, RecoveryConservesPacketsForARound) {
  for (int i = 0; i < 8; ++i) round(100, 10'000);
  const std::uint32_t before = cb.cwnd;
  congestion_ops(cb).ssthresh(cb);
  cb.recovery = RecoveryState::kRecovery;
  for (int i = 0; i < 30; ++i) add_sent(cb, cb.snd_nxt + 1000U * static_cast<std::uint32_t>(i), 1000, at_us(now_us));
  round(10, 10'000, false, 5);
  EXPECT_EQ(cb.cwnd, 30U + 10U) << "what is in flight and what was delivered";
  EXPECT_TRUE(cb.bbr->conserving);
  congestion_ops(cb).ssthresh(cb);  // a timeout within it does not take the lowered window for a good one
  round(10, 10'000);
  EXPECT_FALSE(cb.bbr->conserving);
  cb.recovery = RecoveryState::kOpen;
  round(10, 10'000);
  EXPECT_GE(cb.cwnd, before - 2);
}

TEST_F(BbrByHand, ATimeoutIsNoSignalButEndsARound) {
  for (int i = 0; i < 8; ++i) round(100, 10'000);
  const std::uint32_t before = cb.cwnd;
  const std::uint64_t rate = bandwidth();
  congestion_ops(cb).ssthresh(cb);
  cb.cwnd = 1;
  congestion_ops(cb).on_recovery(cb, RecoveryState::kLoss);
  cb.recovery = RecoveryState::kLoss;
  round(10, 10'000);
  EXPECT_LT(cb.cwnd, before);
  EXPECT_EQ(bandwidth(), rate);
  cb.recovery = RecoveryState::kOpen;
  round(10, 10'000);
  EXPECT_GE(cb.cwnd, before - 2);
}

// As Linux: the largest excess over what the bandwidth explains is added to cwnd, and forgotten after ten rounds.
TEST_F(BbrByHand, AggregationIsAllowedFor) {
  for (int i = 0; i < 12; ++i) round(100, 10'000);
  ASSERT_EQ(bbr_aggregation_allowance(cb), 100U) << "of the first ACK of an epoch all is excess";
  RateSample s;
  s.known = s.valid = true;
  s.prior_delivered = cb.delivered - 1;
  s.delivered = 100;
  s.newly_delivered = 60;
  s.interval_us = 10'000;
  s.rtt_us = 10'000;
  cb.cwnd = 1000;
  cb.flight->delivered_at = at_us(now_us);  // at the same instant
  cb.bbr->aggregation.acked = 100;
  cb.bbr->aggregation.epoch = at_us(now_us);
  cb.bbr->round_start = false;
  bbr_update_aggregation(cb, s);
  EXPECT_EQ(bbr_aggregation_allowance(cb), 160U);
  cb.bbr->min_rtt_us = 100'000;
  for (int i = 0; i < 12; ++i) round(10, 10'000, true);
  EXPECT_LT(bbr_aggregation_allowance(cb), 160U);
}

// Draft 4.2.3: twice the product, the excess, three bursts, rounded up to an even number, two more while it probes.
TEST_F(BbrByHand, TheWindowIsTwiceTheProductAndSlack) {
  for (int i = 0; i < 8; ++i) round(100, 10'000);
  for (int i = 0; i < 40; ++i) {
    cb.cwnd = 10'000;  // is cut down to the target
    round(33, 3'300);
    ASSERT_EQ(cb.bbr->mode, BbrMode::kProbeBandwidth);
    const std::uint32_t burst = std::max(2U, static_cast<std::uint32_t>(cb.bbr->pacing_rate / 1024 / cb.mss));
    std::uint32_t wanted = bbr_bdp(cb, bandwidth(), 512) + bbr_aggregation_allowance(cb) + 3 * burst;
    wanted += wanted % 2 + (cb.bbr->phase == 0 ? 2 : 0);
    ASSERT_EQ(cb.cwnd, wanted) << i;
  }
  cb.cwnd = 20;  // grows to it by what is delivered
  round(10, 1'000);
  EXPECT_EQ(cb.cwnd, 30U);
}

// The rate of a path that was away for minutes: found by fuzz_pair, where a connection stood for ten minutes.
TEST(Bbr, ASegmentIsHeldForASecondAtMost) {
  ControlBlock cb = block(CongestionKind::kBbr, 10);
  flight_of(cb);
  cb.bbr->pacing_rate = 2;
  pace_after(cb, 1000, at_us(0));
  EXPECT_TRUE(pacing_holds(cb, at_us(0)));
  EXPECT_FALSE(pacing_holds(cb, at_us(1'000'000)));
}

// What pacing still holds back will have left the network by the time it goes.
TEST_F(BbrByHand, DrainCountsWhatWillBeInTheNetwork) {
  for (const bool held : {false, true}) {
    cb = block(CongestionKind::kBbr, 100);
    flight_of(cb);
    for (int i = 0; i < 3; ++i) round(100, 10'000);
    for (std::uint32_t i = 0; i < 300; ++i) add_sent(cb, Seq(1000 * i), 1000, at_us(now_us));
    if (held) cb.flight->next_send = at_us(now_us + 10'000 + 1'000 + 20'000);  // two products later
    round(100, 10'000);
    EXPECT_EQ(cb.bbr->mode, held ? BbrMode::kProbeBandwidth : BbrMode::kDrain);
  }
}

// As Linux: two intervals of four rounds or more that lost a fifth and agree.
TEST_F(BbrByHand, APolicerIsTwoLossyIntervalsThatAgree) {
  struct Case {
    std::uint32_t lost, second;
    bool app_limited, found;
  };
  for (const Case c : {Case{30, 100, false, true}, Case{30, 112, false, true}, Case{30, 130, false, false},
                       Case{10, 100, false, false}, Case{30, 100, true, false}}) {
    cb = block(CongestionKind::kBbr, 100);
    flight_of(cb);
    round(400, 10'000);
    round(100, 10'000, false, 1);  // the first loss
    for (int i = 0; i < 4; ++i) round(100, 10'000, false, c.lost);
    EXPECT_FALSE(cb.bbr->policer.in_use);
    if (c.app_limited) round(100, 10'000, true);
    for (int i = 0; i < 4; ++i) round(c.second, 10'000, false, c.lost);
    EXPECT_EQ(cb.bbr->policer.in_use, c.found) << c.lost << ' ' << c.second << ' ' << c.app_limited;
    if (c.found) {
      EXPECT_NEAR(static_cast<double>(bandwidth()), 1e5 * (100 + c.second) / 2, 1e5 * 10);
    }
  }
}

TEST_F(BbrByHand, UndoLooksForTheFullPipeAnew) {
  for (int i = 0; i < 3; ++i) round(100, 10'000);
  ASSERT_GT(cb.bbr->full_pipe.rounds, 0);
  EXPECT_EQ(congestion_ops(cb).undo_cwnd(cb), cb.cwnd);
  EXPECT_EQ(cb.bbr->full_pipe.rounds, 0);
  EXPECT_EQ(cb.bbr->full_pipe.bandwidth, 0U);
}

// ---- On a path.

TEST(Bbr, FindsTheBandwidthAndKeepsTheQueueShort) {
  if (!kLongRuns) return;
  struct Case {
    std::uint64_t rate;
    std::int64_t delay_us;
    std::int64_t run_ms;
  };
  for (const Case c : {Case{125'000, 50'000, 4000}, Case{1'250'000, 20'000, 3000}, Case{12'500'000, 40'000, 2000},
                       Case{125'000'000, 500, 150}}) {
    SCOPED_TRACE(std::to_string(c.rate) + " B/s");
    TestPath path({.rate = c.rate, .delay = std::chrono::microseconds(c.delay_us), .buffer_packets = 10'000});
    Flow& flow = path.add({.kind = CongestionKind::kBbr});
    path.run_for(std::chrono::milliseconds(c.run_ms));
    path.take_queue_figures();
    const std::uint64_t before = flow.receiver.received;
    path.run_for(std::chrono::milliseconds(c.run_ms));
    const BbrInfo info = bbr_info(flow.sender.cb);
    EXPECT_NEAR(share(path, info.bandwidth), 1, 0.01);
    const double wire_us = 1e6 * kPathMss / static_cast<double>(c.rate);
    EXPECT_NEAR(info.min_rtt_us, 2.0 * static_cast<double>(c.delay_us) + wire_us, 2);
    EXPECT_GT(share(path, (flow.receiver.received - before) * 1000 / static_cast<std::uint64_t>(c.run_ms)), 0.97);
    const double product = static_cast<double>(c.rate) * 2e-6 * static_cast<double>(c.delay_us) / kPathMss;
    // A quarter of the product while it looks for more, and what is allowed for bursts in the hosts (which this path
    // has none of): three of a millisecond, or of 64 KiB.
    const double burst = std::clamp(std::min(static_cast<double>(c.rate) / 1024, 65'215.0) / kPathMss, 2.0, 127.0);
    EXPECT_LT(path.take_queue_figures().mean, 0.25 * product + 3 * burst + 2);
    EXPECT_EQ(bbr_info(flow.sender.cb).cwnd_gain, 512U);
    EXPECT_EQ(flow.dropped, 0U);
  }
}

TEST(Bbr, StartupFillsThePipeInLogarithmicTimeAndDrains) {
  TestPath path({.rate = 12'500'000, .delay = std::chrono::milliseconds(20), .buffer_packets = 10'000});
  Flow& flow = path.add({.kind = CongestionKind::kBbr});
  std::map<BbrMode, Time> first;
  for (int i = 0; i < 2000; ++i) {
    path.run_for(std::chrono::milliseconds(1));
    first.try_emplace(flow.sender.cb.bbr->mode, path.now());
  }
  // From 10 segments to 345 in flight: log2(34.5) rounds, then three without growth, whose round trips are longer.
  ASSERT_TRUE(first.contains(BbrMode::kDrain));
  EXPECT_LT(first[BbrMode::kDrain], at_us(20 * 40'000));
  ASSERT_TRUE(first.contains(BbrMode::kProbeBandwidth));
  EXPECT_LT(first[BbrMode::kProbeBandwidth] - first[BbrMode::kDrain], std::chrono::milliseconds(250));
  EXPECT_FALSE(first.contains(BbrMode::kProbeRtt));
}

// Draft 4.3.4.3: one phase in eight looks for more, one gives back; each lasts about a round trip.
TEST(Bbr, CyclesItsGain) {
  TestPath path({.rate = 1'250'000, .delay = std::chrono::milliseconds(20)});
  Flow& flow = path.add({.kind = CongestionKind::kBbr});
  path.run_for(std::chrono::seconds(2));
  std::map<std::uint32_t, int> seen;
  for (int i = 0; i < 6000; ++i) {
    path.run_for(std::chrono::milliseconds(1));
    ++seen[bbr_info(flow.sender.cb).pacing_gain];
  }
  EXPECT_EQ(seen.size(), 3U);
  EXPECT_NEAR(seen[320] / 6000.0, 1.0 / 8, 0.05);
  EXPECT_GT(seen[192], 0);
  EXPECT_GT(seen[256], 4000);
}

// Draft 4.3.5: every ten seconds, for 200 ms.
TEST(Bbr, ProbesTheRoundTripEveryTenSeconds) {
  if (!kLongRuns) return;
  TestPath path({.rate = 1'250'000, .delay = std::chrono::milliseconds(20)});
  Flow& flow = path.add({.kind = CongestionKind::kBbr});
  path.run_for(std::chrono::seconds(1));
  int in_it_ms = 0;
  int times = 0;
  std::uint32_t largest_window = 0;
  bool before = false;
  for (int i = 0; i < 40'000; ++i) {
    path.run_for(std::chrono::milliseconds(1));
    const bool in_it = flow.sender.cb.bbr->mode == BbrMode::kProbeRtt;
    times += in_it && !before ? 1 : 0;
    in_it_ms += in_it ? 1 : 0;
    if (in_it) largest_window = std::max(largest_window, flow.sender.cb.cwnd);
    before = in_it;
  }
  EXPECT_NEAR(times, 4, 1);
  EXPECT_NEAR(static_cast<double>(in_it_ms) / times, 260, 60);
  EXPECT_EQ(largest_window, 4U);
  EXPECT_EQ(bbr_info(flow.sender.cb).cwnd_gain, 512U);
}

// On a short path that is hundreds of rounds with next to nothing in flight: they are no measure of the bandwidth.
TEST(Bbr, ProbingTheRoundTripDoesNotForgetTheBandwidth) {
  TestPath path({.rate = 2'500'000, .delay = std::chrono::microseconds(500)});
  Flow& flow = path.add({.kind = CongestionKind::kBbr});
  path.run_for(std::chrono::seconds(9));
  bool probed = false;
  for (int i = 0; i < 2500; ++i) {
    path.run_for(std::chrono::milliseconds(1));
    probed |= flow.sender.cb.bbr->mode == BbrMode::kProbeRtt;
    ASSERT_GT(share(path, bbr_info(flow.sender.cb).bandwidth), 0.95);
  }
  EXPECT_TRUE(probed);
}

TEST(Bbr, FollowsThePathWhenItBecomesFasterAndSlower) {
  if (!kLongRuns) return;
  TestPath path({.rate = 1'250'000, .delay = std::chrono::milliseconds(20)});
  Flow& flow = path.add({.kind = CongestionKind::kBbr});
  path.run_for(std::chrono::seconds(5));
  path.config.rate = 5'000'000;
  path.run_for(std::chrono::seconds(5));  // a quarter more each cycle of eight round trips
  EXPECT_NEAR(share(path, bbr_info(flow.sender.cb).bandwidth), 1, 0.03);
  path.config.rate = 1'250'000;
  path.run_for(std::chrono::seconds(8));
  EXPECT_NEAR(share(path, bbr_info(flow.sender.cb).bandwidth), 1, 0.03);
}

// A longer route is noticed when the filter of the round trip forgets.
TEST(Bbr, LearnsALongerRoundTrip) {
  if (!kLongRuns) return;
  TestPath path({.rate = 1'250'000, .delay = std::chrono::milliseconds(20)});
  Flow& flow = path.add({.kind = CongestionKind::kBbr});
  path.run_for(std::chrono::seconds(3));
  path.config.delay = std::chrono::milliseconds(60);
  path.run_for(std::chrono::seconds(25));
  EXPECT_NEAR(bbr_info(flow.sender.cb).min_rtt_us, 121'158, 500);
}

TEST(Bbr, LossesThatAreNoCongestionCostLittle) {
  if (!kLongRuns) return;
  TestPath path({.rate = 1'250'000, .delay = std::chrono::milliseconds(20), .loss_ppm = 20'000});
  Flow& flow = path.add({.kind = CongestionKind::kBbr});
  for (int i = 0; i < 200; ++i) {
    path.run_for(std::chrono::milliseconds(100));
    ASSERT_FALSE(flow.sender.cb.bbr->policer.in_use);
  }
  EXPECT_GT(share(path, flow.receiver.received / 20), 0.9);
  TestPath other(path.config);
  Flow& cubic = other.add({.kind = CongestionKind::kCubic});
  other.run_for(std::chrono::seconds(20));
  EXPECT_LT(cubic.receiver.received * 3, flow.receiver.received);
}

// ACKs that come in one go every two round trips: what is in flight covers the silence.
TEST(Bbr, AggregatedAcksCostNoRate) {
  if (!kLongRuns) return;
  TestPath path(
      {.rate = 12'500'000, .delay = std::chrono::milliseconds(10), .ack_interval = std::chrono::milliseconds(40)});
  Flow& flow = path.add({.kind = CongestionKind::kBbr});
  path.run_for(std::chrono::seconds(3));
  const std::uint64_t before = flow.receiver.received;
  path.run_for(std::chrono::seconds(5));
  EXPECT_GT(share(path, (flow.receiver.received - before) / 5), 0.97);
  EXPECT_GT(bbr_aggregation_allowance(flow.sender.cb), 100U);
}

// A shallow buffer: losses from probing, no collapse.
TEST(Bbr, ShallowBuffer) {
  if (!kLongRuns) return;
  TestPath path({.rate = 12'500'000, .delay = std::chrono::milliseconds(20), .buffer_packets = 20});
  Flow& flow = path.add({.kind = CongestionKind::kBbr});
  path.run_for(std::chrono::seconds(2));
  const std::uint64_t received = flow.receiver.received;
  const std::uint64_t dropped = flow.dropped;
  const std::uint64_t sent = flow.sent;
  path.run_for(std::chrono::seconds(4));
  EXPECT_GT(share(path, (flow.receiver.received - received) / 4), 0.9);
  EXPECT_LT(static_cast<double>(flow.dropped - dropped) / static_cast<double>(flow.sent - sent), 0.05);
}

// As Linux: the rate of a token bucket is found, and the losses of exceeding it end but for a look now and then.
TEST(Bbr, FindsAPolicersRate) {
  if (!kLongRuns) return;
  TestPath path({.rate = 12'500'000,
                 .delay = std::chrono::milliseconds(20),
                 .policer_rate = 1'250'000,
                 .policer_bucket = 300'000});
  Flow& flow = path.add({.kind = CongestionKind::kBbr});
  path.run_for(std::chrono::seconds(5));
  std::uint64_t dropped = flow.dropped;
  const std::uint64_t sent = flow.sent;
  int in_use = 0;
  for (int i = 0; i < 150; ++i) {
    path.run_for(std::chrono::milliseconds(100));
    in_use += flow.sender.cb.bbr->policer.in_use ? 1 : 0;
    if (flow.sender.cb.bbr->policer.in_use) {
      ASSERT_NEAR(static_cast<double>(bbr_info(flow.sender.cb).bandwidth), 1'250'000, 125'000);
    }
  }
  EXPECT_GT(in_use, 100);
  dropped = flow.dropped - dropped;
  EXPECT_LT(static_cast<double>(dropped) / static_cast<double>(flow.sent - sent), 0.08);
}

// Draft 4.3.4.4: after idleness the model is what it was, no burst leaves, and PROBE_RTT is not needed.
TEST(Bbr, AfterIdlenessItGoesOnAtTheBandwidth) {
  TestPath path({.rate = 1'250'000, .delay = std::chrono::milliseconds(20), .buffer_packets = 40});
  Flow& flow = path.add({.kind = CongestionKind::kBbr, .unlimited = false});
  path.write(flow, 2'000'000);
  path.run_for(std::chrono::seconds(3));
  ASSERT_EQ(flow.receiver.received, 2'000'000U);
  const BbrInfo before = bbr_info(flow.sender.cb);
  ASSERT_NEAR(share(path, before.bandwidth), 1, 0.02);
  const std::uint64_t dropped = flow.dropped;
  path.run_for(std::chrono::seconds(30));
  path.take_queue_figures();
  path.write(flow, 500'000);
  path.run_for(std::chrono::milliseconds(100));
  EXPECT_NE(flow.sender.cb.bbr->mode, BbrMode::kProbeRtt);
  EXPECT_LT(path.take_queue_figures().most, 20U);
  path.run_for(std::chrono::milliseconds(500));
  EXPECT_EQ(flow.receiver.received, 2'500'000U);
  EXPECT_EQ(flow.dropped, dropped);
  EXPECT_NEAR(share(path, bbr_info(flow.sender.cb).bandwidth), 1, 0.02);
}

TEST(Bbr, SegmentsArePaced) {
  if (!kLongRuns) return;
  TestPath path({.rate = 12'500'000, .delay = std::chrono::milliseconds(20), .buffer_packets = 10'000});
  Flow& flow = path.add({.kind = CongestionKind::kBbr});
  path.run_for(std::chrono::seconds(3));
  std::uint64_t most = 0;
  for (int i = 0; i < 2000; ++i) {
    const std::uint64_t before = flow.sent;
    path.run_for(std::chrono::milliseconds(1));
    most = std::max(most, flow.sent - before);
  }
  // A millisecond at the highest gain, and the millisecond's worth that may go at once.
  EXPECT_LE(most, 2 * 12'500 * 5 / 4 / kPathMss + 2U);
}

// The hold outlives what was in flight.
TEST(Bbr, PacingHoldsOnWhenAllIsAcknowledged) {
  TestPath path({.rate = 1'250'000, .delay = std::chrono::milliseconds(1)});
  Flow& flow = path.add({.kind = CongestionKind::kBbr, .unlimited = false});
  bbr_seed(flow.sender.cb, 10 * kPathMss, 2'000);  // ten segments a second
  path.write(flow, 20 * kPathMss);
  path.run_for(std::chrono::milliseconds(90));
  EXPECT_EQ(flow.receiver.received, kPathMss) << "and no delayed ACK of the peer brings the next";
  EXPECT_EQ(packets_out(flow.sender.cb), 0U);
  path.run_for(std::chrono::seconds(1));
  EXPECT_EQ(flow.receiver.received, 20 * kPathMss);
}

// ---- Moves.

TEST(Bbr, GoesOnWithWhatAnotherStackMeasured) {
  TestPath path({.rate = 12'500'000, .delay = std::chrono::milliseconds(20), .buffer_packets = 700});
  Flow& flow = path.add({.kind = CongestionKind::kBbr, .cwnd = 700});
  bbr_seed(flow.sender.cb, 12'500'000, 40'000);
  EXPECT_EQ(bbr_info(flow.sender.cb).bandwidth, 12'500'000U);
  EXPECT_EQ(bbr_info(flow.sender.cb).min_rtt_us, 40'000U);
  EXPECT_EQ(bbr_info(flow.sender.cb).cwnd_gain, 512U);
  path.run_for(std::chrono::seconds(1));
  EXPECT_GT(share(path, flow.receiver.received), 0.93);
  EXPECT_LT(path.take_queue_figures().most, 350U) << "no second start-up";
  EXPECT_EQ(flow.dropped, 0U);
}

TEST(Bbr, TheGainsOfTheOtherStackTellItsMode) {
  struct Case {
    BbrInfo info;
    BbrMode mode;
    bool full;
  };
  for (const Case& c : {Case{{1'000'000, 20'000, kStartupGain, kStartupGain}, BbrMode::kStartup, false},
                        Case{{1'000'000, 20'000, kDrainGain, kStartupGain}, BbrMode::kDrain, true},
                        Case{{1'000'000, 20'000, 320, 512}, BbrMode::kProbeBandwidth, true},
                        Case{{1'000'000, 20'000, 256, 256}, BbrMode::kProbeBandwidth, true}}) {
    ControlBlock cb = block(CongestionKind::kBbr, 10);
    bbr_seed(cb, c.info);
    EXPECT_EQ(cb.bbr->mode, c.mode) << c.info.pacing_gain;
    EXPECT_EQ(cb.bbr->full_pipe.reached, c.full);
    EXPECT_GE(congestion_ops(cb).pacing_rate(cb), 1'000'000U * c.info.pacing_gain / 256 * 7 / 10 * (c.full ? 1 : 0));
  }
}

TEST(Bbr, ASeedOfNothingOrNonsenseDoesNoHarm) {
  ControlBlock cb = block(CongestionKind::kBbr, 10);
  bbr_seed(cb, {.bandwidth = 0, .min_rtt_us = 1, .pacing_gain = 256, .cwnd_gain = 512});
  EXPECT_EQ(cb.bbr->mode, BbrMode::kStartup);
  bbr_seed(cb, {.bandwidth = UINT64_MAX, .min_rtt_us = UINT32_MAX - 1, .pacing_gain = 0, .cwnd_gain = 0});
  EXPECT_LE(bbr_info(cb).bandwidth, kBbrHighestRate);
  EXPECT_LE(bbr_info(cb).min_rtt_us, kBbrLongestRttUs);
}

// The same numbers give the same phases, other numbers others.
TEST(Bbr, RandomnessComesFromTheConnection) {
  std::map<std::uint8_t, int> phases;
  for (std::uint32_t i = 0; i < 700; ++i) {
    ControlBlock cb = block(CongestionKind::kBbr, 10);
    ControlBlock same = block(CongestionKind::kBbr, 10);
    cb.snd_nxt = same.snd_nxt = Seq(i * 77'777);
    bbr_seed(cb, 1'000'000, 20'000);
    bbr_seed(same, 1'000'000, 20'000);
    EXPECT_EQ(cb.bbr->phase, same.bbr->phase);
    ++phases[cb.bbr->phase];
  }
  EXPECT_EQ(phases.size(), 7U);
  EXPECT_FALSE(phases.contains(1)) << "never with the phase that gives back";
  for (const auto& [phase, times] : phases) EXPECT_NEAR(times, 100, 40) << int{phase};
}

}  // namespace
}  // namespace twinstack::tcp::test
