// NewReno: RFC 5681 3.1 with byte counting.
#include "tcp/congestion/new_reno.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tcp/congestion/test_block.h"
#include "tcp/congestion/test_path.h"
#include "tcp/flight.h"

namespace twinstack::tcp::test {
namespace {

TEST(NewReno, OneSegmentForEachRound) {
  ControlBlock cb = block(CongestionKind::kNewReno, 20, 20);
  std::int64_t now_us = 0;
  for (int i = 0; i < 10; ++i) now_us = one_round(cb, now_us);
  EXPECT_EQ(cb.cwnd, 30U);
}

// As Linux: an ACK may count for any number of segments (L of RFC 3465 is not bounded).
TEST(NewReno, SlowStartCountsAllThatAnAckAcknowledges) {
  ControlBlock cb = block(CongestionKind::kNewReno, 10, 64);
  acknowledge(cb, 44, 100'000, at_us(0));
  EXPECT_EQ(cb.cwnd, 54U);
  acknowledge(cb, 44, 100'000, at_us(0));
  EXPECT_EQ(cb.cwnd, 64U);
  EXPECT_EQ(cb.cwnd_count, 34U) << "the rest counts for congestion avoidance";
}

TEST(NewReno, HalfAfterALossAndTwoAtLeast) {
  ControlBlock cb = block(CongestionKind::kNewReno, 31, 20);
  EXPECT_EQ(congestion_ops(cb).ssthresh(cb), 15U);
  cb.cwnd = 3;
  EXPECT_EQ(congestion_ops(cb).ssthresh(cb), 2U);
}

TEST(NewReno, UndoGoesBackToTheWindowBefore) {
  ControlBlock cb = block(CongestionKind::kNewReno, 40, 20);
  flight_of(cb).prior_cwnd = 40;
  cb.flight->prior_ssthresh = 30;
  cb.cwnd = congestion_ops(cb).ssthresh(cb);
  EXPECT_EQ(congestion_ops(cb).undo_cwnd(cb), 40U);
  cb.cwnd = 50;
  EXPECT_EQ(congestion_ops(cb).undo_cwnd(cb), 50U) << "never down";
}

// The sawtooth between half and all of what path and buffer hold, once every W/2 round trips.
TEST(NewReno, SawtoothOnAPath) {
  if (!kLongRuns) return;
  constexpr std::uint32_t kBuffer = 30;
  TestPath path({.rate = 1'250'000, .delay = std::chrono::milliseconds(10), .buffer_packets = kBuffer});
  Flow& flow = path.add({.kind = CongestionKind::kNewReno});
  path.run_for(std::chrono::seconds(5));
  const std::uint32_t before = flow.sender.counters.fast_recoveries;
  std::uint32_t most = 0;
  std::uint32_t least = UINT32_MAX;
  for (int i = 0; i < 6000; ++i) {
    path.run_for(std::chrono::milliseconds(10));
    if (flow.sender.cb.recovery != RecoveryState::kOpen) continue;
    most = std::max(most, flow.sender.cb.cwnd);
    least = std::min(least, flow.sender.cb.cwnd);
  }
  const double product = 1'250'000 * 0.02 / kPathMss;
  EXPECT_NEAR(most, product + kBuffer, 3);
  EXPECT_NEAR(least, most / 2, 2);
  // A cycle is W/2 round trips, whose length is what is in flight over the rate.
  const double cycle = 0.375 * most * most * kPathMss / 1'250'000;
  EXPECT_NEAR(flow.sender.counters.fast_recoveries - before, 60 / cycle, 0.1 * 60 / cycle);
}

// Flows that started apart meet.
TEST(NewReno, TwoFlowsBecomeEqual) {
  if (!kLongRuns) return;
  TestPath path({.rate = 1'250'000, .delay = std::chrono::milliseconds(10), .buffer_packets = 30, .loss_ppm = 50});
  Flow& first = path.add({.kind = CongestionKind::kNewReno});
  path.run_for(std::chrono::seconds(10));
  Flow& second = path.add({.kind = CongestionKind::kNewReno, .cwnd = 2, .ssthresh = 2});
  path.run_for(std::chrono::seconds(30));
  const std::uint64_t before = first.receiver.received;
  const std::uint64_t before_second = second.receiver.received;
  path.run_for(std::chrono::seconds(120));
  const auto a = static_cast<double>(first.receiver.received - before);
  const auto b = static_cast<double>(second.receiver.received - before_second);
  EXPECT_NEAR(a / (a + b), 0.5, 0.1);
}

}  // namespace
}  // namespace twinstack::tcp::test
