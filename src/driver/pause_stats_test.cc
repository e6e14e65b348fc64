#include "driver/pause_stats.h"

#include <gtest/gtest.h>

namespace twinstack::driver {
namespace {

using std::chrono::microseconds;

TEST(PauseStats, NothingYet) {
  const PauseSummary summary = PauseStats().summary();
  EXPECT_EQ(summary.count, 0U);
  EXPECT_EQ(summary.p50_us, 0.0);
  EXPECT_EQ(summary.max_us, 0.0);
}

TEST(PauseStats, OneMoveIsEveryPercentile) {
  PauseStats stats;
  stats.add(microseconds(37));
  const PauseSummary summary = stats.summary();
  EXPECT_EQ(summary.count, 1U);
  EXPECT_DOUBLE_EQ(summary.p50_us, 37.0);
  EXPECT_DOUBLE_EQ(summary.p99_us, 37.0);
  EXPECT_DOUBLE_EQ(summary.max_us, 37.0);
}

TEST(PauseStats, PercentilesAreExactWhateverTheOrder) {
  PauseStats stats;
  for (int i = 0; i < 101; ++i) stats.add(microseconds((i * 37) % 101));
  const PauseSummary summary = stats.summary();
  EXPECT_DOUBLE_EQ(summary.p50_us, 50.0);
  EXPECT_DOUBLE_EQ(summary.p99_us, 99.0);
  EXPECT_DOUBLE_EQ(summary.max_us, 100.0);
}

// Old moves leave the percentiles; count and maximum are over all.
TEST(PauseStats, PercentilesAreOfTheLastMoves) {
  PauseStats stats;
  for (int i = 0; i < 100; ++i) stats.add(microseconds(1'000'000));
  for (int i = 0; i < 65536; ++i) stats.add(microseconds(10));
  const PauseSummary summary = stats.summary();
  EXPECT_EQ(summary.count, 65636U);
  EXPECT_DOUBLE_EQ(summary.p99_us, 10.0);
  EXPECT_DOUBLE_EQ(summary.max_us, 1'000'000.0);
}

}  // namespace
}  // namespace twinstack::driver
