// Congestion control: numbers of RFC 9438 and RFC 5681.
#include "tcp/congestion/congestion.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tcp/test_support.h"

namespace twinstack::tcp::test {
namespace {

ControlBlock block(CongestionKind kind, std::uint32_t cwnd_segments, std::uint32_t ssthresh_segments) {
  ControlBlock cb;
  cb.mss = 1000;
  cb.cwnd = cwnd_segments * 1000;
  cb.ssthresh = ssthresh_segments * 1000;
  cb.srtt_us = 100'000;
  cb.congestion_kind = kind;
  congestion_ops(kind).init(cb);
  return cb;
}

// A whole window acknowledged, segment by segment, in one round trip.
void one_round(ControlBlock& cb, Time now) {
  const CongestionOps& ops = congestion_ops(cb.congestion_kind);
  for (std::uint32_t left = cb.cwnd / cb.mss; left > 0; --left) ops.on_ack(cb, cb.mss, now);
}

TEST(Congestion, NamesAreKnown) {
  EXPECT_EQ(congestion_kind("reno"), CongestionKind::kNewReno);
  EXPECT_EQ(congestion_kind("cubic"), CongestionKind::kCubic);
  EXPECT_EQ(congestion_kind("bbr"), CongestionKind::kCubic);
  EXPECT_EQ(congestion_ops(CongestionKind::kCubic).name, "cubic");
}

TEST(Congestion, SlowStartDoublesAndStopsAtTheThreshold) {
  for (const auto kind : {CongestionKind::kCubic, CongestionKind::kNewReno}) {
    ControlBlock cb = block(kind, 10, 35);
    one_round(cb, at_ms(0));
    EXPECT_EQ(cb.cwnd, 20'000U);
    EXPECT_EQ(slow_start(cb, 20'000), 5'000U);
    EXPECT_EQ(cb.cwnd, 35'000U);
    EXPECT_FALSE(in_slow_start(cb));
  }
}

TEST(NewReno, OneSegmentForEachRound) {
  ControlBlock cb = block(CongestionKind::kNewReno, 20, 20);
  for (int i = 0; i < 10; ++i) one_round(cb, at_ms(i * 100));
  EXPECT_EQ(cb.cwnd, 30'000U);
  EXPECT_EQ(congestion_ops(cb.congestion_kind).on_congestion(cb), 15'000U);
  cb.cwnd = 1000;
  EXPECT_EQ(congestion_ops(cb.congestion_kind).on_congestion(cb), 2'000U);
}

// RFC 9438 figure 1 with C = 0.4 and beta = 0.7, by the book in double precision.
double w_cubic(double w_max, double cwnd_epoch, double t) {
  const double k = std::cbrt((w_max - cwnd_epoch) / 0.4);
  return 0.4 * std::pow(t - k, 3) + w_max;
}

TEST(Cubic, GrowsAlongTheCurve) {
  ControlBlock cb = block(CongestionKind::kCubic, 1000, 1000);
  const CongestionOps& ops = congestion_ops(cb.congestion_kind);
  cb.ssthresh = cb.cwnd = ops.on_congestion(cb);
  EXPECT_EQ(cb.cwnd, 700'000U);
  for (int round = 0; round <= 150; ++round) {
    one_round(cb, at_ms(round * 100));
    // After the round that began at t the window is where the curve is at t + RTT, unless Reno would be faster.
    const double wanted = w_cubic(1000, 700, (round + 1) * 0.1);
    const double reno = 700 + 9.0 / 17.0 * (round + 1);
    EXPECT_NEAR(cb.cwnd / 1000.0, std::max(wanted, reno), 12) << "round " << round;
  }
  EXPECT_GT(cb.cwnd, 1'000'000U) << "past the plateau";
}

TEST(Cubic, RenoFriendlyWhereWindowsAreSmall) {
  ControlBlock cb = block(CongestionKind::kCubic, 20, 20);
  cb.srtt_us = 10'000;
  const CongestionOps& ops = congestion_ops(cb.congestion_kind);
  cb.ssthresh = cb.cwnd = ops.on_congestion(cb);
  EXPECT_EQ(cb.cwnd, 14'000U);
  for (int round = 0; round < 10; ++round) one_round(cb, at_ms(round * 10));
  EXPECT_NEAR(cb.cwnd, 14'000 + 10 * 9.0 / 17.0 * 1000, 600);  // alpha = 3 * 0.3 / 1.7
}

TEST(Cubic, FastConvergenceReleasesBandwidth) {
  ControlBlock cb = block(CongestionKind::kCubic, 100, 100);
  const CongestionOps& ops = congestion_ops(cb.congestion_kind);
  ops.on_congestion(cb);
  EXPECT_FLOAT_EQ(cb.congestion.cubic.w_max, 100);
  cb.cwnd = 80'000;
  ops.on_congestion(cb);
  EXPECT_FLOAT_EQ(cb.congestion.cubic.w_max, 80 * 0.85F);
  cb.cwnd = 90'000;
  ops.on_congestion(cb);
  EXPECT_FLOAT_EQ(cb.congestion.cubic.w_max, 90);
}

TEST(Cubic, IdleTimeDoesNotCount) {
  ControlBlock busy = block(CongestionKind::kCubic, 1000, 1000);
  ControlBlock paused = block(CongestionKind::kCubic, 1000, 1000);
  const CongestionOps& ops = congestion_ops(CongestionKind::kCubic);
  for (ControlBlock* cb : {&busy, &paused}) {
    cb->ssthresh = cb->cwnd = ops.on_congestion(*cb);
    one_round(*cb, at_ms(0));
  }
  ops.on_restart(paused, std::chrono::seconds(100));
  one_round(busy, at_ms(100));
  one_round(paused, at_ms(100'100));
  EXPECT_NEAR(busy.cwnd, paused.cwnd, 1000);
}

TEST(Cubic, GrowthInOneRoundIsBounded) {
  ControlBlock cb = block(CongestionKind::kCubic, 100, 100);
  const CongestionOps& ops = congestion_ops(cb.congestion_kind);
  ops.on_ack(cb, 1000, at_ms(0));
  const std::uint32_t before = cb.cwnd;
  one_round(cb, at_ms(1'000'000));  // the curve is far away
  EXPECT_LE(cb.cwnd, before * 17 / 10);
  EXPECT_GT(cb.cwnd, before * 14 / 10);
}

TEST(Cubic, AfterATimeoutTheCurveStartsFlat) {
  ControlBlock cb = block(CongestionKind::kCubic, 1000, 1000);
  const CongestionOps& ops = congestion_ops(cb.congestion_kind);
  cb.ssthresh = ops.on_congestion(cb);
  ops.on_timeout(cb);
  cb.cwnd = cb.ssthresh;
  ops.on_ack(cb, 1000, at_ms(0));
  EXPECT_FLOAT_EQ(cb.congestion.cubic.k_seconds, 0);  // RFC 9438 4.8
  EXPECT_FLOAT_EQ(cb.congestion.cubic.w_max, 700);
}

TEST(Cubic, AnEpochLongerThanTheTickStartsAnew) {
  ControlBlock cb = block(CongestionKind::kCubic, 100, 100);
  const CongestionOps& ops = congestion_ops(cb.congestion_kind);
  ops.on_ack(cb, 1000, at_ms(0));
  const std::uint32_t before = cb.cwnd;
  ops.on_ack(cb, 1000, at_ms(0) + std::chrono::hours(50));
  EXPECT_GE(cb.cwnd, before);
  EXPECT_LE(cb.cwnd, before + 1000);
}

}  // namespace
}  // namespace twinstack::tcp::test
