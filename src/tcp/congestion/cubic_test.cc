// CUBIC against RFC 9438, whose figures are computed here again in double precision.
#include "tcp/congestion/cubic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "tcp/congestion/hystart.h"
#include "tcp/congestion/test_block.h"
#include "tcp/congestion/test_path.h"
#include "tcp/flight.h"

namespace twinstack::tcp::test {
namespace {

constexpr double kC = 0.4;
constexpr double kBeta = 0.7;

// RFC 9438 4.1 to 4.7, windows as real numbers, every formula at every ACK.
struct Rfc9438 {
  double cwnd = 0;
  double w_max = 0;
  double cwnd_prior = 0;
  double k = 0;
  double w_est = 0;
  double t_epoch = -1;

  void lose() {
    w_max = cwnd < w_max ? cwnd * (1 + kBeta) / 2 : cwnd;
    cwnd_prior = cwnd;
    cwnd *= kBeta;
    t_epoch = -1;
  }

  void acknowledge(double acked, double now, double rtt) {
    if (t_epoch < 0) {
      t_epoch = now;
      w_est = cwnd;
      w_max = std::max(w_max, cwnd);
      k = std::cbrt((w_max - cwnd) / kC);
    }
    const double alpha = w_est < cwnd_prior ? 3 * (1 - kBeta) / (1 + kBeta) : 1;
    w_est += alpha * acked / cwnd;
    const double t = now - t_epoch;
    if (curve(t) < w_est) {
      cwnd = std::max(cwnd, w_est);
    } else {
      const double target = std::clamp(curve(t + rtt), cwnd, 1.5 * cwnd);
      cwnd += (target - cwnd) / cwnd * acked;
    }
  }

  [[nodiscard]] double curve(double t) const { return kC * std::pow(t - k, 3) + w_max; }
};

// As begin_reduction() does it.
void lose(ControlBlock& cb) {
  cb.ssthresh = congestion_ops(cb).ssthresh(cb);
  cb.cwnd = cb.ssthresh;
  cb.cwnd_count = 0;
}

ControlBlock after_loss(std::uint32_t cwnd, std::uint32_t rtt_us = 100'000) {
  ControlBlock cb = block(CongestionKind::kCubic, cwnd, cwnd, rtt_us);
  lose(cb);
  return cb;
}

TEST(Cubic, GrowsAlongTheCurve) {
  ControlBlock cb = after_loss(1000);
  EXPECT_EQ(cb.cwnd, 700U);
  Rfc9438 rfc{.cwnd = 700, .w_max = 1000, .cwnd_prior = 1000};
  std::int64_t now_us = 0;
  for (int round = 0; round < 150; ++round) {
    now_us = one_round(cb, now_us);
    rfc.acknowledge(0, 0, 0.1);
    // After the round that began at t the window is where the curve is at t + RTT.
    EXPECT_NEAR(cb.cwnd, rfc.curve(static_cast<double>(now_us) * 1e-6), 8) << "round " << round;
  }
  EXPECT_GT(cb.cwnd, 1000U) << "past the plateau";
}

// Losses at random, paths of every length: the window is that of the formulas.
TEST(Cubic, FollowsTheRfcThroughLosses) {
  Rng rng(7);
  for (const std::uint32_t rtt_us : {1'000U, 10'000U, 50'000U, 200'000U}) {
    ControlBlock cb = block(CongestionKind::kCubic, 300, 300, rtt_us);
    Rfc9438 rfc{.cwnd = 300};
    lose(cb);
    rfc.lose();
    std::int64_t now_us = 0;
    for (int step = 0; step < (kLongRuns ? 60'000 : 5'000); ++step) {
      now_us += std::max<std::int64_t>(2 * rtt_us / cb.cwnd, 1);
      acknowledge(cb, 2, rtt_us, at_us(now_us));
      rfc.acknowledge(2, static_cast<double>(now_us) * 1e-6, rtt_us * 1e-6);
      // Counting in whole numbers is up to a third faster where the curve is steep, yet ends where the curve will be.
      const double now = static_cast<double>(now_us) * 1e-6;
      const double slack = 4 + 0.03 * rfc.cwnd;
      ASSERT_GE(cb.cwnd, rfc.cwnd - slack) << "RTT " << rtt_us << " step " << step;
      ASSERT_LE(cb.cwnd, std::max(rfc.cwnd, rfc.curve(now - rfc.t_epoch + rtt_us * 1e-6)) + slack)
          << "RTT " << rtt_us << " step " << step;
      if (rng.below(4000) != 0) continue;
      rfc.cwnd = cb.cwnd;  // differences do not add up
      lose(cb);
      rfc.lose();
      rfc.cwnd = cb.cwnd;
    }
  }
}

// RFC 9438 4.3: alpha = 9/17 up to the window before the loss, then 1.
TEST(Cubic, RenoFriendlyWhereThatIsFaster) {
  ControlBlock cb = after_loss(20, 10'000);
  EXPECT_EQ(cb.cwnd, 14U);
  std::int64_t now_us = 0;
  for (int round = 0; round < 10; ++round) now_us = one_round(cb, now_us);
  EXPECT_NEAR(cb.cwnd, 14 + 10 * 9.0 / 17, 1.5);
  while (cb.cwnd < 20) now_us = one_round(cb, now_us);
  for (int round = 0; round < 3; ++round) now_us = one_round(cb, now_us);
  const std::uint32_t before = cb.cwnd;
  for (int round = 0; round < 10; ++round) now_us = one_round(cb, now_us);
  EXPECT_NEAR(cb.cwnd, before + 10, 1.5);
}

// The estimate counts: it does not drown in a large window.
TEST(Cubic, RenoFriendlyWithLargeWindowsToo) {
  ControlBlock cb = after_loss(100'000, 1'000);
  std::int64_t now_us = 0;
  for (int round = 0; round < 10; ++round) now_us = one_round(cb, now_us);
  EXPECT_NEAR(cb.congestion.window.cubic.w_est, 70'000 + 10 * 9.0 / 17, 1);
}

TEST(Cubic, FastConvergenceReleasesBandwidth) {
  ControlBlock cb = block(CongestionKind::kCubic, 100, 100);
  lose(cb);
  EXPECT_FLOAT_EQ(cb.congestion.window.cubic.w_max, 100);
  cb.cwnd = 80;
  lose(cb);
  EXPECT_FLOAT_EQ(cb.congestion.window.cubic.w_max, 80 * 0.85F);
  cb.cwnd = 90;
  lose(cb);
  EXPECT_FLOAT_EQ(cb.congestion.window.cubic.w_max, 90);
}

TEST(Cubic, TheThresholdIsTwoAtLeast) {
  ControlBlock cb = block(CongestionKind::kCubic, 1, 10);
  EXPECT_EQ(congestion_ops(cb).ssthresh(cb), 2U);
}

// As Linux: one for two acknowledged at most, also for an ACK that comes long after the last.
TEST(Cubic, ALoneAckAddsAtMostHalfOfWhatItAcknowledges) {
  ControlBlock cb = after_loss(100);
  acknowledge(cb, 2, 100'000, at_us(0));
  cb.cwnd_count = 0;
  std::uint32_t before = cb.cwnd;
  acknowledge(cb, 40, 100'000, at_us(1'000'000'000));
  EXPECT_EQ(cb.cwnd, before + 20);
  before = cb.cwnd;
  acknowledge(cb, 1, 100'000, at_us(1'000'000'000));
  acknowledge(cb, 1, 100'000, at_us(1'000'000'000));
  EXPECT_LE(cb.cwnd, before + 1);
}

TEST(Cubic, UntilALossTellsTheTopAtwentiethEachRound) {
  ControlBlock cb = block(CongestionKind::kCubic, 400, 400, 1'000);
  std::int64_t now_us = 0;
  for (int round = 0; round < 3; ++round) now_us = one_round(cb, now_us);
  EXPECT_NEAR(cb.cwnd, 400 * std::pow(1.05, 3), 2);
  lose(cb);
  const std::uint32_t before = cb.cwnd;
  now_us = one_round(cb, now_us);
  EXPECT_LE(cb.cwnd, before + 4);
}

// RFC 9438 4.2, 5.8.
TEST(Cubic, IdleTimeDoesNotCount) {
  ControlBlock busy = after_loss(1000);
  ControlBlock idle = after_loss(1000);
  std::int64_t now_us = 0;
  for (int round = 0; round < 5; ++round) {
    one_round(busy, now_us);
    now_us = one_round(idle, now_us);
  }
  constexpr std::int64_t kIdleUs = 100'000'000;
  idle.last_send = to_tick(at_us(now_us));
  congestion_ops(idle).on_event(idle, CongestionEvent::kSendStart, at_us(now_us + kIdleUs));
  for (int round = 0; round < 20; ++round) {
    one_round(busy, now_us);
    one_round(idle, now_us + kIdleUs);
    now_us += 100'000;
    ASSERT_NEAR(idle.cwnd, busy.cwnd, 2) << "round " << round;
  }
}

TEST(Cubic, TimeInWhichTheProgramWasTheLimitDoesNotCount) {
  ControlBlock busy = after_loss(1000);
  ControlBlock slow = after_loss(1000);
  std::int64_t now_us = one_round(busy, 0);
  std::int64_t slow_us = one_round(slow, 0);
  // A minute in which a segment is acknowledged every 300 ms.
  slow.clear(kCwndLimited);
  const std::uint32_t before = slow.cwnd;
  acknowledge(slow, 1, 100'000, at_us(slow_us));
  for (int i = 0; i < 200; ++i) acknowledge(slow, 1, 100'000, at_us(slow_us += 300'000));
  EXPECT_EQ(slow.cwnd, before);
  slow.set(kCwndLimited);
  for (int round = 0; round < 20; ++round) {
    now_us = one_round(busy, now_us);
    slow_us = one_round(slow, slow_us);
    ASSERT_NEAR(slow.cwnd, busy.cwnd, 3) << "round " << round;
  }
}

TEST(Cubic, AfterATimeoutTheCurveStartsFlat) {
  ControlBlock cb = block(CongestionKind::kCubic, 1000, 1000);
  const CongestionOps& ops = congestion_ops(cb);
  cb.ssthresh = ops.ssthresh(cb);
  ops.on_event(cb, CongestionEvent::kTimeout, at_us(0));
  ops.on_recovery(cb, RecoveryState::kLoss);
  cb.cwnd = cb.ssthresh;
  acknowledge(cb, 2, 100'000, at_us(0));
  EXPECT_FLOAT_EQ(cb.congestion.window.cubic.k_seconds, 0);  // RFC 9438 4.8
  EXPECT_FLOAT_EQ(cb.congestion.window.cubic.w_max, 700);
  EXPECT_EQ(cb.congestion.window.cwnd_prior, 1000U);
}

TEST(Cubic, AnEpochLongerThanTheTickStartsAnew) {
  ControlBlock fresh = after_loss(1000);
  ControlBlock old = after_loss(1000);
  acknowledge(old, 2, 100'000, at_us(0));
  std::int64_t old_us = 50 * 3'600'000'000;
  std::int64_t now_us = 0;
  for (int round = 0; round < 60; ++round) {
    old_us = one_round(old, old_us);
    now_us = one_round(fresh, now_us);
    ASSERT_NEAR(old.cwnd, fresh.cwnd, 2) << "round " << round;
  }
}

TEST(Cubic, UndoGoesBackToTheWindowBefore) {
  ControlBlock cb = block(CongestionKind::kCubic, 100, 100);
  flight_of(cb).prior_cwnd = 100;
  cb.flight->prior_ssthresh = 80;
  lose(cb);
  EXPECT_EQ(congestion_ops(cb).undo_cwnd(cb), 100U);
  EXPECT_FALSE(hystart_running(cb));
}

// The sawtooth on a path with a buffer of one product: full use, few losses.
TEST(Cubic, FillsAPathWithABufferOfOneProduct) {
  if (!kLongRuns) return;
  TestPath path({.rate = 2'500'000, .delay = std::chrono::milliseconds(20), .buffer_packets = 69});
  Flow& flow = path.add({.kind = CongestionKind::kCubic});
  path.run_for(std::chrono::seconds(10));
  const std::uint64_t before = flow.receiver.received;
  const std::uint64_t dropped = flow.dropped;
  path.run_for(std::chrono::seconds(60));
  EXPECT_GT(static_cast<double>(flow.receiver.received - before) / 60, 0.99 * 2'500'000);
  EXPECT_GE(flow.dropped, dropped + 2) << "it probes";
  EXPECT_LE(flow.dropped, dropped + 200);
  EXPECT_EQ(flow.sender.counters.timeouts, 0U);
}

}  // namespace
}  // namespace twinstack::tcp::test
