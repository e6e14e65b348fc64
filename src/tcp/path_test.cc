// What the path and the program change while a connection lives: MTU, quick ACKs, NODELAY under a cork, idle windows.
#include <gtest/gtest.h>

#include "tcp/flight.h"
#include "tcp/invariants.h"
#include "tcp/test_support.h"

namespace twinstack::tcp::test {
namespace {

struct Running {
  explicit Running(std::uint16_t options = kOptSack) : end(state(options), at_ms(0)) { end.poll(at_ms(0)); }
  static MinTcp state(std::uint16_t options) {
    MinTcp out = idle_state();
    out.options = options;
    out.srtt_us = 10'000;
    out.rttvar_us = 5'000;
    return out;
  }
  TestEnd end;
};

TEST(MtuReduced, WhatWasTooLargeGoesAgainInPieces) {
  for (const std::uint16_t options : {std::uint16_t{kOptSack}, std::uint16_t{0}}) {
    Running r(options);
    r.end.write(4 * kMss, at_ms(0));
    EXPECT_EQ(r.end.poll(at_ms(0)).size(), 4U);
    const std::uint32_t cwnd = r.end.cb.cwnd;
    on_mtu_reduced(r.end.cb, 1000, at_ms(0));
    EXPECT_EQ(r.end.cb.mss, 1000);
    EXPECT_EQ(r.end.cb.cwnd, cwnd) << "no congestion";
    std::uint32_t bytes = 0;
    for (const SegmentPlan& plan : r.end.poll(at_ms(1))) {
      EXPECT_TRUE(plan.retransmission);
      EXPECT_LE(plan.payload_bytes, 1000U);
      bytes += plan.payload_bytes;
    }
    EXPECT_EQ(bytes, 4U * kMss);
    EXPECT_EQ(broken_invariant(r.end.cb), nullptr);
    r.end.receive(from_peer(kPeerSeq, kOurSeq + 4 * kMss), "", at_ms(12));
    // Without SACK a repeated ACK could still be of the old flight (RFC 6582).
    EXPECT_EQ(r.end.cb.recovery, options == 0 ? RecoveryState::kLoss : RecoveryState::kOpen);
  }
}

TEST(MtuReduced, SmallSegmentsAreLeftAlone) {
  Running r;
  r.end.write(500, at_ms(0));
  r.end.poll(at_ms(0));
  on_mtu_reduced(r.end.cb, 1000, at_ms(0));
  EXPECT_TRUE(r.end.poll(at_ms(1)).empty());
  EXPECT_EQ(r.end.cb.recovery, RecoveryState::kOpen);
}

TEST(MtuReduced, ALargerMtuIsNoNews) {
  Running r;
  on_mtu_reduced(r.end.cb, 9000, at_ms(0));
  EXPECT_EQ(r.end.cb.mss, kMss);
}

TEST(QuickAck, SendsWhatWaits) {
  Running r;
  r.end.receive(from_peer(), "abc", at_ms(0));
  r.end.cb.quick_acks = 0;
  r.end.poll(at_ms(0));
  r.end.receive(from_peer(kPeerSeq + 3), "def", at_ms(1));
  EXPECT_TRUE(r.end.poll(at_ms(1)).empty());
  set_quick_ack(r.end.cb, true);
  EXPECT_EQ(r.end.poll_one(at_ms(1)).segment.ack, Seq(kPeerSeq + 6));
}

TEST(NoDelay, LetsWhatWaitsGoUnderACorkThatStays) {
  Running r;
  set_flags(r.end.cb, kFlagCork, at_ms(0));
  r.end.write(40, at_ms(0));
  EXPECT_TRUE(r.end.poll(at_ms(0)).empty());
  set_flags(r.end.cb, kFlagCork | kFlagNoDelay, at_ms(1));
  EXPECT_EQ(r.end.poll_one(at_ms(1)).payload_bytes, 40U);
  r.end.write(40, at_ms(2));
  EXPECT_TRUE(r.end.poll(at_ms(2)).empty()) << "the cork holds what came later";
}

TEST(IdleWindow, IsKeptWhenAskedFor) {
  for (const bool restart : {true, false}) {
    Running r;
    r.end.cb.cwnd = 40;
    set_restart_after_idle(r.end.cb, restart);
    r.end.write(100, at_ms(5000));
    r.end.poll(at_ms(5000));
    EXPECT_EQ(r.end.cb.cwnd, restart ? 10U : 40U);
  }
}

}  // namespace
}  // namespace twinstack::tcp::test
