// Congestion control: the table of algorithms and what they share. Each has its own test beside it.
#include "tcp/congestion/congestion.h"

#include <gtest/gtest.h>

#include "tcp/congestion/hystart.h"
#include "tcp/congestion/test_block.h"
#include "tcp/congestion/test_path.h"
#include "tcp/flight.h"

namespace twinstack::tcp::test {
namespace {

constexpr CongestionKind kAll[] = {CongestionKind::kCubic, CongestionKind::kNewReno, CongestionKind::kDctcp,
                                   CongestionKind::kBbr};

TEST(Congestion, NamesAreThoseOfLinux) {
  EXPECT_EQ(congestion_ops(CongestionKind::kCubic).name, "cubic");
  EXPECT_EQ(congestion_ops(CongestionKind::kNewReno).name, "reno");
  EXPECT_EQ(congestion_ops(CongestionKind::kDctcp).name, "dctcp");
  EXPECT_EQ(congestion_ops(CongestionKind::kBbr).name, "bbr");
  for (const CongestionKind kind : kAll) EXPECT_EQ(congestion_kind(congestion_ops(kind).name), kind);
  EXPECT_EQ(congestion_kind("vegas"), CongestionKind::kCubic);
  EXPECT_EQ(congestion_kind("bbr2"), CongestionKind::kCubic);
  EXPECT_EQ(congestion_kind(""), CongestionKind::kCubic);
}

TEST(Congestion, TablesAreComplete) {
  for (const CongestionKind kind : kAll) {
    const CongestionOps& ops = congestion_ops(kind);
    EXPECT_NE(ops.init, nullptr);
    EXPECT_NE(ops.ssthresh, nullptr);
    EXPECT_NE(ops.undo_cwnd, nullptr);
    EXPECT_TRUE(ops.grow != nullptr || ops.control != nullptr) << ops.name;
    EXPECT_EQ(ops.wants_ecn, kind == CongestionKind::kDctcp);
    EXPECT_EQ(ops.pacing_rate != nullptr, kind == CongestionKind::kBbr);
  }
}

TEST(Congestion, SlowStartStopsAtTheThresholdAndReturnsTheRest) {
  ControlBlock cb;
  cb.cwnd = 10;
  cb.ssthresh = 35;
  EXPECT_EQ(slow_start(cb, 10), 0U);
  EXPECT_EQ(cb.cwnd, 20U);
  EXPECT_EQ(slow_start(cb, 20), 5U);
  EXPECT_EQ(cb.cwnd, 35U);
  EXPECT_EQ(slow_start(cb, 7), 7U);
  EXPECT_EQ(cb.cwnd, 35U);
}

TEST(Congestion, AdditiveGrowthCountsAcknowledgedSegments) {
  ControlBlock cb;
  cb.cwnd = 10;
  grow_additively(cb, 10, 9);
  EXPECT_EQ(cb.cwnd, 10U);
  grow_additively(cb, 10, 1);
  EXPECT_EQ(cb.cwnd, 11U);
  grow_additively(cb, 11, 25);
  EXPECT_EQ(cb.cwnd, 13U);
  EXPECT_EQ(cb.cwnd_count, 3U);
  cb.cwnd_count = 1000;  // of a window that was larger
  grow_additively(cb, 10, 1);
  EXPECT_EQ(cb.cwnd, 14U);
  EXPECT_EQ(cb.cwnd_count, 1U);
  grow_additively(cb, 0, 1);  // not a division by zero
}

TEST(Congestion, TheWindowHasBounds) {
  ControlBlock cb;
  set_cwnd(cb, 0);
  EXPECT_EQ(cb.cwnd, 1U);
  set_cwnd(cb, UINT32_MAX);
  EXPECT_EQ(cb.cwnd, 1U << 20);
}

// RFC 5681 4.1, RFC 7661: what is not used must not grow. A program that writes one segment each round trip. (BBR's
// window is a bound, not what sends.)
TEST(Congestion, AProgramThatDoesNotFillTheWindowDoesNotGrowIt) {
  for (const CongestionKind kind : {CongestionKind::kCubic, CongestionKind::kNewReno, CongestionKind::kDctcp}) {
    TestPath path(PathConfig{});
    Flow& flow = path.add({.kind = kind, .ecn = true, .cwnd = 50, .ssthresh = 50, .unlimited = false});
    for (int i = 0; i < 500; ++i) {
      path.write(flow, 1000);
      path.run_for(std::chrono::milliseconds(20));
    }
    EXPECT_EQ(flow.receiver.received, 500'000U);
    EXPECT_LE(flow.sender.cb.cwnd, 50U) << congestion_ops(kind).name;
  }
}

// A segment that is only late: the retransmission was needless, and everything is given back.
TEST(Congestion, AReductionForNothingIsUndone) {
  for (const CongestionKind kind : kAll) {
    SCOPED_TRACE(congestion_ops(kind).name);
    TestPath path({.buffer_packets = 10'000});
    Flow& flow = path.add({.kind = kind, .ecn = true, .cwnd = 60, .ssthresh = 50});
    path.run_for(std::chrono::seconds(2));
    const std::uint32_t cwnd = flow.sender.cb.cwnd;
    const std::uint32_t ssthresh = flow.sender.cb.ssthresh;
    path.delay_next(std::chrono::milliseconds(30));
    bool reduced = false;
    for (int i = 0; i < 300; ++i) {
      path.run_for(std::chrono::milliseconds(1));
      reduced |= flow.sender.cb.recovery == RecoveryState::kRecovery;
    }
    EXPECT_TRUE(reduced);
    EXPECT_GT(flow.sender.counters.segs_retransmitted, 0U);
    EXPECT_EQ(flow.sender.cb.recovery, RecoveryState::kOpen);
    EXPECT_GE(flow.sender.cb.cwnd + 4, cwnd);  // BBR's breathes with its cycle
    EXPECT_GE(flow.sender.cb.ssthresh, ssthresh);
  }
}

// An outage of the path for longer than the timeout, and nothing lost: F-RTO (RFC 5682) sees it, and slow start goes
// on.
TEST(Congestion, ATimeoutForNothingIsUndone) {
  for (const CongestionKind kind : kAll) {
    SCOPED_TRACE(congestion_ops(kind).name);
    TestPath path({.rate = 12'500'000, .delay = std::chrono::milliseconds(20), .buffer_packets = 10'000});
    Flow& flow = path.add({.kind = kind, .ecn = true});
    path.run_for(std::chrono::milliseconds(150));
    const std::uint32_t cwnd = flow.sender.cb.cwnd;
    const std::uint32_t timeouts = flow.sender.counters.timeouts;
    path.hold_acks(std::chrono::seconds(1));
    path.run_for(std::chrono::milliseconds(1200));
    EXPECT_GT(flow.sender.counters.timeouts, timeouts);
    EXPECT_EQ(flow.sender.cb.recovery, RecoveryState::kOpen);
    EXPECT_GE(flow.sender.cb.cwnd, cwnd);
    if (kind != CongestionKind::kBbr) {
      EXPECT_EQ(flow.sender.cb.ssthresh, kInfiniteSsthresh);
    }
    if (kind == CongestionKind::kCubic || kind == CongestionKind::kNewReno) {
      EXPECT_TRUE(hystart_running(flow.sender.cb));
    }
  }
}

// Every algorithm fills a path and shares it with its like.
TEST(Congestion, EveryAlgorithmFillsThePathAndSharesIt) {
  if (!kLongRuns) return;
  for (const CongestionKind kind : kAll) {
    SCOPED_TRACE(congestion_ops(kind).name);
    const bool dctcp = kind == CongestionKind::kDctcp;
    TestPath path({.buffer_packets = 60, .mark_from_packets = dctcp ? 20U : 0U});
    Flow& a = path.add({.kind = kind, .ecn = dctcp});
    Flow& b = path.add({.kind = kind, .ecn = dctcp});
    path.run_for(std::chrono::seconds(20));
    const std::uint64_t before_a = a.receiver.received;
    const std::uint64_t before_b = b.receiver.received;
    path.run_for(std::chrono::seconds(60));
    const auto got_a = static_cast<double>(a.receiver.received - before_a);
    const auto got_b = static_cast<double>(b.receiver.received - before_b);
    EXPECT_GT((got_a + got_b) / 60 / static_cast<double>(path.config.rate), 0.95);
    const double jain = (got_a + got_b) * (got_a + got_b) / (2 * (got_a * got_a + got_b * got_b));
    EXPECT_GT(jain, 0.95) << got_a << ' ' << got_b;
    EXPECT_EQ(a.sender.counters.timeouts + b.sender.counters.timeouts, 0U);
  }
}

}  // namespace
}  // namespace twinstack::tcp::test
