// DCTCP: RFC 8257 3.2 (the receiver's echo), 3.3 (alpha), 3.5 (losses), and what it is for: a short queue.
#include "tcp/congestion/dctcp.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/rng.h"
#include "tcp/congestion/test_block.h"
#include "tcp/congestion/test_path.h"
#include "tcp/flight.h"
#include "tcp/window.h"

namespace twinstack::tcp::test {
namespace {

ControlBlock dctcp_block(std::uint32_t cwnd) { return block(CongestionKind::kDctcp, cwnd, 10); }

// A window of which `marked` of `all` segments were reported with ECE.
void one_window(ControlBlock& cb, std::uint32_t marked, std::uint32_t all) {
  cb.delivered += all;
  cb.delivered_ce += marked;
  cb.snd_una = cb.snd_nxt;
  cb.snd_nxt += 1000 * all;
  congestion_ops(cb).on_ack(cb, marked > 0);
}

TEST(Dctcp, AlphaIsTheMovingShareOfMarks) {
  ControlBlock cb = dctcp_block(100);
  EXPECT_EQ(dctcp_info(cb).alpha, kDctcpAlphaOne);
  Rng rng(3);
  double alpha = 1;
  for (int i = 0; i < 500; ++i) {
    const std::uint32_t all = 1 + rng.below(200);
    const std::uint32_t marked = rng.below(2) == 0 ? 0 : rng.below(all + 1);
    one_window(cb, marked, all);
    alpha += (static_cast<double>(marked) / all - alpha) / 16;
    ASSERT_NEAR(dctcp_info(cb).alpha / 1024.0, alpha, 0.02) << "window " << i;
  }
}

TEST(Dctcp, AlphaDecaysToNothingAndStaysUnderOne) {
  ControlBlock cb = dctcp_block(100);
  for (int i = 0; i < 200; ++i) one_window(cb, 0, 100);
  EXPECT_EQ(dctcp_info(cb).alpha, 0U);
  for (int i = 0; i < 500; ++i) one_window(cb, 100, 100);
  EXPECT_GE(dctcp_info(cb).alpha, 1008U);  // rounding keeps it below 1 by up to a sixteenth of 1/64
  EXPECT_LE(dctcp_info(cb).alpha, kDctcpAlphaOne);
}

TEST(Dctcp, AlphaMovesOnceAWindow) {
  ControlBlock cb = dctcp_block(100);
  cb.snd_nxt += 100'000;
  one_window(cb, 0, 100);
  const std::uint32_t alpha = dctcp_info(cb).alpha;
  cb.snd_una += 1000;  // within the window
  cb.delivered += 1;
  congestion_ops(cb).on_ack(cb, false);
  EXPECT_EQ(dctcp_info(cb).alpha, alpha);
}

TEST(Dctcp, MarksLowerTheWindowByHalfOfAlpha) {
  ControlBlock cb = dctcp_block(100);
  for (const std::uint32_t alpha : {0U, 64U, 512U, 1024U}) {
    dctcp_seed(cb, false, alpha);
    EXPECT_EQ(congestion_ops(cb).ssthresh(cb), 100 - 100 * alpha / 2048);
  }
  cb.cwnd = 2;
  EXPECT_EQ(congestion_ops(cb).ssthresh(cb), 2U);
}

// RFC 8257 3.5.
TEST(Dctcp, ALossHalvesWhateverAlphaSays) {
  for (const bool timeout : {false, true}) {
    ControlBlock cb = dctcp_block(100);
    const CongestionOps& ops = congestion_ops(cb);
    dctcp_seed(cb, false, 64);
    cb.ssthresh = ops.ssthresh(cb);
    EXPECT_EQ(cb.ssthresh, 97U);
    if (timeout) {
      ops.on_event(cb, CongestionEvent::kTimeout, at_us(0));
    } else {
      ops.on_recovery(cb, RecoveryState::kRecovery);
    }
    EXPECT_EQ(cb.ssthresh, 50U);
    cb.cwnd = 50;
    EXPECT_EQ(ops.undo_cwnd(cb), 100U);
  }
}

TEST(Dctcp, GrowsLikeReno) {
  ControlBlock cb = block(CongestionKind::kDctcp, 20, 20);
  std::int64_t now_us = 0;
  for (int i = 0; i < 10; ++i) now_us = one_round(cb, now_us);
  EXPECT_EQ(cb.cwnd, 30U);
}

TEST(Dctcp, WithoutEcnNewRenoIsInCharge) {
  TestPath path(PathConfig{});
  Flow& with = path.add({.kind = CongestionKind::kDctcp, .ecn = true});
  Flow& without = path.add({.kind = CongestionKind::kDctcp, .ecn = false});
  EXPECT_EQ(with.sender.cb.congestion_kind, CongestionKind::kDctcp);
  EXPECT_EQ(without.sender.cb.congestion_kind, CongestionKind::kNewReno);
  path.run_for(std::chrono::seconds(1));
  EXPECT_EQ(without.marked, 0U);
  EXPECT_GT(without.receiver.received, 100'000U);
}

TEST(Dctcp, GoesOnWithTheStateOfAnotherStack) {
  ControlBlock cb = dctcp_block(100);
  dctcp_seed(cb, true, 100);
  EXPECT_EQ(dctcp_info(cb).alpha, 100U);
  EXPECT_TRUE(dctcp_info(cb).ce_state);
  EXPECT_TRUE(cb.has(kEcnEcho));
  dctcp_seed(cb, false, 5000);
  EXPECT_EQ(dctcp_info(cb).alpha, kDctcpAlphaOne);
}

// The receiver.
class DctcpReceiver : public ::testing::Test {
 protected:
  DctcpReceiver() : flow({.kind = CongestionKind::kDctcp, .ecn = true}, at_us(0)), end(flow.receiver) {
    poll();         // the ACK that an installed connection owes
    arrive(false);  // the first is acknowledged at once
    poll();
  }

  void arrive(bool ce, std::uint32_t skip_bytes = 0) {
    static const std::array<std::byte, 1000> kBytes{};
    const ByteView part(kBytes);
    wire::Segment segment;
    segment.seq = next + skip_bytes;
    segment.ack = end.cb.snd_nxt;
    segment.window = 30000;
    segment.flags = wire::kAck;
    segment.ecn = ce ? wire::Ecn::kCe : wire::Ecn::kEct0;
    segment.options.has_timestamps = true;
    segment.options.ts_val = static_cast<std::uint32_t>(now_us += 100);
    ASSERT_EQ(on_segment(end.cb, segment, Payload(std::span(&part, 1), 0, 1000), end, at_us(now_us)),
              Arrival::kAccepted);
    end.cb.quick_acks = 0;
    if (skip_bytes == 0) next += 1000;
  }

  std::vector<wire::Segment> poll() {
    edge = window_right_edge(end.cb);
    std::vector<wire::Segment> out;
    SegmentPlan plan;
    while (poll_transmit(end.cb, end, at_us(now_us), plan)) out.push_back(plan.segment);
    return out;
  }

  void expect(const wire::Segment& segment, Seq ack, bool ece) {
    EXPECT_EQ(segment.ack.raw(), ack.raw());
    EXPECT_EQ(segment.has(wire::kEce), ece);
    EXPECT_EQ(segment.ecn, wire::Ecn::kEct0);  // as Linux: ACKs too
    const Seq offered = segment.ack + (std::uint32_t{segment.window} << end.cb.rcv_wscale);
    EXPECT_GE(offered - edge, -(1 << end.cb.rcv_wscale)) << "the window shrank";
  }

  Flow flow;
  PathEnd& end;
  Seq next{1000};
  Seq edge;  // of the window, as offered before the last poll()
  std::int64_t now_us = 0;
};

TEST_F(DctcpReceiver, WithoutAChangeTheEchoIsThatOfAllSegments) {
  arrive(false);
  EXPECT_TRUE(poll().empty());  // delayed
  arrive(false);
  auto acks = poll();
  ASSERT_EQ(acks.size(), 1U);
  expect(acks[0], next, false);
}

TEST_F(DctcpReceiver, AChangeIsAcknowledgedOnBothSides) {
  arrive(false);
  ASSERT_TRUE(poll().empty());
  const Seq before = next;
  arrive(true);
  auto acks = poll();
  ASSERT_EQ(acks.size(), 2U);
  expect(acks[0], before, false);
  expect(acks[1], next, true);
  // Marked ones are delayed like others, and the echo is not held until CWR.
  arrive(true);
  EXPECT_TRUE(poll().empty());
  const Seq marked = next;
  arrive(false);
  acks = poll();
  ASSERT_EQ(acks.size(), 2U);
  expect(acks[0], marked, true);
  expect(acks[1], next, false);
  EXPECT_EQ(end.cb.cold, nullptr);
}

TEST_F(DctcpReceiver, WhatIsAcknowledgedAlreadyIsNotAgain) {
  arrive(false);
  arrive(false);
  ASSERT_EQ(poll().size(), 1U);
  arrive(true);
  auto acks = poll();
  ASSERT_EQ(acks.size(), 1U);
  expect(acks[0], next, true);
}

// Several changes before there is a chance to send: each run of segments is acknowledged for itself.
TEST_F(DctcpReceiver, ChangesWithinABatchKeepTheirOrder) {
  std::vector<std::pair<Seq, bool>> wanted;
  bool ce = false;
  for (const int run : {1, 3, 2, 1, 1, 4}) {
    for (int i = 0; i < run; ++i) arrive(ce);
    wanted.emplace_back(next, ce);
    ce = !ce;
  }
  const auto acks = poll();
  ASSERT_EQ(acks.size(), wanted.size());
  for (std::size_t i = 0; i < acks.size(); ++i) expect(acks[i], wanted[i].first, wanted[i].second);
}

TEST_F(DctcpReceiver, OutOfOrderSegmentsMakeNoAcksOfTheirOwn) {
  for (int i = 0; i < 10; ++i) arrive(i % 2 == 0, 2000U * static_cast<std::uint32_t>(i + 1));
  const auto acks = poll();
  ASSERT_EQ(acks.size(), 1U);
  EXPECT_EQ(acks[0].ack.raw(), next.raw());
}

TEST_F(DctcpReceiver, WhatIsOwedIsAcknowledgedOnceBeforeThem) {
  arrive(false);
  for (int i = 0; i < 10; ++i) arrive(i % 2 == 0, 2000U * static_cast<std::uint32_t>(i + 1));
  const auto acks = poll();
  ASSERT_EQ(acks.size(), 2U);
  expect(acks[0], next, false);
  EXPECT_EQ(acks[1].ack.raw(), next.raw());
}

TEST_F(DctcpReceiver, AHostileSenderGetsABoundedNumber) {
  for (int i = 0; i < 1000; ++i) arrive(i % 2 == 0);
  const auto acks = poll();
  EXPECT_LE(acks.size(), 65U);
  EXPECT_EQ(acks.back().ack.raw(), next.raw());
}

// What the sender counts is what the path marked, whatever the pattern and delayed ACKs.
TEST(Dctcp, TheSenderLearnsHowManyWereMarked) {
  if (!kLongRuns) return;
  TestPath path({.rate = 125'000'000, .delay = std::chrono::microseconds(50), .mark_from_packets = 20});
  Flow& flow = path.add({.kind = CongestionKind::kDctcp, .ecn = true});
  path.run_for(std::chrono::milliseconds(300));
  EXPECT_GT(flow.marked, 1000U);
  EXPECT_NEAR(flow.sender.cb.delivered_ce, static_cast<double>(flow.marked), 0.01 * static_cast<double>(flow.marked));
}

// RFC 8257 1: high throughput with a queue near the threshold; Reno with ECN on the same path swings between empty and
// twice as much.
TEST(Dctcp, KeepsTheQueueAtTheThreshold) {
  if (!kLongRuns) return;
  constexpr std::uint32_t kThreshold = 40;
  TestPath path({.rate = 125'000'000, .delay = std::chrono::microseconds(100), .mark_from_packets = kThreshold});
  Flow& a = path.add({.kind = CongestionKind::kDctcp, .ecn = true});
  Flow& b = path.add({.kind = CongestionKind::kDctcp, .ecn = true});
  path.run_for(std::chrono::milliseconds(200));
  path.take_queue_figures();
  const std::uint64_t before = a.receiver.received + b.receiver.received;
  path.run_for(std::chrono::milliseconds(300));
  const auto queue = path.take_queue_figures();
  EXPECT_GT(queue.least, kThreshold / 2);
  EXPECT_LT(queue.most, kThreshold + 16);
  EXPECT_NEAR(queue.mean, kThreshold, 8);
  EXPECT_GT(static_cast<double>(a.receiver.received + b.receiver.received - before) / 0.3, 0.99 * 125'000'000);
  EXPECT_EQ(a.dropped + b.dropped, 0U);
  EXPECT_LT(dctcp_info(a.sender.cb).alpha, 512U);
}

TEST(Dctcp, RenoWithEcnDoesNot) {
  if (!kLongRuns) return;
  TestPath path({.rate = 125'000'000, .delay = std::chrono::microseconds(100), .mark_from_packets = 40});
  path.add({.kind = CongestionKind::kNewReno, .ecn = true});
  path.run_for(std::chrono::milliseconds(200));
  path.take_queue_figures();
  path.run_for(std::chrono::milliseconds(300));
  EXPECT_LT(path.take_queue_figures().least, 20U);
}

}  // namespace
}  // namespace twinstack::tcp::test
