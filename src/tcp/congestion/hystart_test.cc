// HyStart++: the numbers of RFC 9406 4.2 and 4.3, and what they are for on a path.
#include "tcp/congestion/hystart.h"

#include <gtest/gtest.h>

#include "tcp/congestion/test_block.h"
#include "tcp/congestion/test_path.h"
#include "tcp/flight.h"

namespace twinstack::tcp::test {
namespace {

class HyStart : public ::testing::TestWithParam<CongestionKind> {
 protected:
  HyStart() : cb(block(GetParam(), 10)) {}

  [[nodiscard]] HyStartPhase phase() const { return cb.congestion.window.phase; }

  // A round of `samples` ACKs for two segments each, all with this round trip but the first with another.
  void round(std::uint32_t rtt_us, int samples = 10, std::uint32_t first_us = 0) {
    cb.snd_nxt = cb.snd_una + 100'000;
    for (int i = 0; i < samples; ++i) {
      cb.snd_una = i + 1 < samples ? cb.snd_una + 1000 : cb.snd_nxt;
      acknowledge(cb, 2, i == 0 && first_us != 0 ? first_us : rtt_us, at_us(now_us += 1000));
    }
  }

  ControlBlock cb;
  std::int64_t now_us = 0;
};

INSTANTIATE_TEST_SUITE_P(All, HyStart, ::testing::Values(CongestionKind::kCubic, CongestionKind::kNewReno));

TEST_P(HyStart, RunsInTheInitialSlowStartOnly) {
  EXPECT_EQ(phase(), HyStartPhase::kStandard);
  const ControlBlock later = block(GetParam(), 10, 100);
  EXPECT_FALSE(hystart_running(later));
  cb.ssthresh = congestion_ops(cb).ssthresh(cb);
  EXPECT_EQ(phase(), HyStartPhase::kOff);
}

// L is infinite.
TEST_P(HyStart, AnAckCountsForAllThatItTakes) {
  acknowledge(cb, 5, 50'000, at_us(0));
  EXPECT_EQ(cb.cwnd, 15U);
  acknowledge(cb, 44, 50'000, at_us(0));
  EXPECT_EQ(cb.cwnd, 59U);
}

TEST_P(HyStart, TheThresholdIsAnEighthWithinBounds) {
  struct Case {
    std::uint32_t rtt_us, threshold_us;
  };
  for (const Case c : {Case{10'000, 4'000}, Case{80'000, 10'000}, Case{400'000, 16'000}}) {
    cb = block(GetParam(), 10);
    round(c.rtt_us);
    round(c.rtt_us);
    round(c.rtt_us + c.threshold_us - 1);
    EXPECT_EQ(phase(), HyStartPhase::kStandard) << c.rtt_us;
    cb = block(GetParam(), 10);
    round(c.rtt_us);
    round(c.rtt_us);
    round(c.rtt_us + c.threshold_us);
    EXPECT_EQ(phase(), HyStartPhase::kConservative) << c.rtt_us;
  }
}

TEST_P(HyStart, SevenSamplesAreNotEnough) {
  round(50'000);
  round(50'000);
  round(90'000, 7);
  EXPECT_EQ(phase(), HyStartPhase::kStandard);
  round(150'000, 8);
  EXPECT_EQ(phase(), HyStartPhase::kConservative);
}

// The shortest of a round counts: jitter alone does nothing.
TEST_P(HyStart, OneShortSampleInARoundIsEnough) {
  round(50'000);
  for (int i = 0; i < 20; ++i) {
    round(90'000, 10, 51'000);
    EXPECT_EQ(phase(), HyStartPhase::kStandard);
  }
}

TEST_P(HyStart, ConservativeGrowthIsAQuarter) {
  round(50'000);
  round(50'000);
  round(90'000);
  ASSERT_EQ(phase(), HyStartPhase::kConservative);
  const std::uint32_t before = cb.cwnd;
  cb.snd_nxt = cb.snd_una + 100'000;
  for (int i = 0; i < 20; ++i) acknowledge(cb, 2, 90'000, at_us(now_us));
  EXPECT_EQ(cb.cwnd, before + 10);
}

// The round in which it begins counts.
TEST_P(HyStart, FiveConservativeRoundsThenCongestionAvoidance) {
  round(50'000);
  round(50'000);
  round(90'000);
  for (int i = 0; i < 4; ++i) {
    round(100'000);
    ASSERT_EQ(phase(), HyStartPhase::kConservative) << i;
    ASSERT_EQ(cb.ssthresh, kInfiniteSsthresh);
  }
  round(100'000);  // its first ACK tells that the fifth is over
  EXPECT_EQ(phase(), HyStartPhase::kOff);
  EXPECT_LE(cb.ssthresh, cb.cwnd);
  EXPECT_GE(cb.ssthresh + 1, cb.cwnd);
  EXPECT_FALSE(in_slow_start(cb));
}

TEST_P(HyStart, ResumesWhenTheDelayFallsAgain) {
  round(50'000);
  round(50'000);
  round(90'000);
  ASSERT_EQ(phase(), HyStartPhase::kConservative);
  round(89'999);
  EXPECT_EQ(phase(), HyStartPhase::kStandard);
  const std::uint32_t before = cb.cwnd;
  acknowledge(cb, 2, 89'000, at_us(now_us));
  EXPECT_EQ(cb.cwnd, before + 2);
  round(130'000);
  EXPECT_EQ(phase(), HyStartPhase::kConservative) << "and is watched as before";
}

TEST_P(HyStart, ASlowStartThatWasLeftForNothingGoesOn) {
  cb.cwnd = 60;
  flight_of(cb).prior_cwnd = 60;
  cb.flight->prior_ssthresh = kInfiniteSsthresh;
  cb.ssthresh = congestion_ops(cb).ssthresh(cb);
  cb.cwnd = cb.ssthresh;
  EXPECT_EQ(congestion_ops(cb).undo_cwnd(cb), 60U);
  EXPECT_EQ(phase(), HyStartPhase::kStandard);
}

// A buffer of 17 products. Slow start as it was fills it and loses thousands of segments.
TEST_P(HyStart, LeavesSlowStartBeforeADeepBufferOverflows) {
  if (!kLongRuns) return;
  for (const bool used : {true, false}) {
    TestPath path({.rate = 12'500'000, .delay = std::chrono::milliseconds(20), .buffer_packets = 6000});
    Flow& flow = path.add({.kind = GetParam()});
    if (!used) hystart_stop(flow.sender.cb);
    path.run_for(std::chrono::seconds(2));
    ASSERT_LT(flow.sender.cb.ssthresh, kInfiniteSsthresh);
    EXPECT_GT(flow.sender.cb.ssthresh, 345U) << "not before the path is full";
    if (used) {
      EXPECT_EQ(flow.dropped, 0U);
      EXPECT_LT(path.take_queue_figures().most, 4500U);
    } else {
      EXPECT_GT(flow.dropped, 1000U);
    }
  }
}

// ACKs that come up to 10 ms late on an empty path: the window must reach the product all the same.
TEST_P(HyStart, JitterDoesNotEndSlowStartEarly) {
  if (!kLongRuns) return;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    TestPath path({.rate = 12'500'000,
                   .delay = std::chrono::milliseconds(40),
                   .buffer_packets = 5000,
                   .jitter = std::chrono::milliseconds(10),
                   .seed = seed});
    Flow& flow = path.add({.kind = GetParam()});
    while (flow.sender.cb.cwnd < 690 && path.now() < at_us(10'000'000)) {
      ASSERT_TRUE(hystart_running(flow.sender.cb)) << "seed " << seed << " at cwnd " << flow.sender.cb.cwnd;
      path.run_for(std::chrono::milliseconds(5));
    }
    EXPECT_LT(path.now(), at_us(1'500'000)) << "seed " << seed;
  }
}

}  // namespace
}  // namespace twinstack::tcp::test
