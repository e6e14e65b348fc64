// What counts as a congestion window gone wrong.
#include "sim/cwnd_watch.h"

#include <gtest/gtest.h>

#include "tcp/congestion/bbr_state.h"
#include "tcp/flight.h"
#include "tcp/min_tcp.h"

namespace twinstack::sim {
namespace {

using Holder = CwndWatch::Holder;
using tcp::RecoveryState;

// A connection as it is looked at: `out` segments in flight.
struct Watched {
  Watched() {
    cb.options = tcp::kOptSack;
    cb.cwnd = 10;
    cb.ssthresh = tcp::kInfiniteSsthresh;
    cb.congestion_kind = tcp::CongestionKind::kNewReno;
    send(10);
    cb.set(tcp::kCwndLimited);
    EXPECT_EQ(look(), "");
  }
  void send(std::uint32_t segments) {
    if (!cb.flight) cb.flight = tcp::FlightPtr(new tcp::Flight);
    for (std::uint32_t i = 0; i < segments; ++i) cb.flight->sent.push_back() = {};
    cb.flight->max_packets_out = cb.flight->sent.size();
  }
  void acknowledge(std::uint32_t segments) {
    for (std::uint32_t i = 0; i < segments; ++i) cb.flight->sent.pop_front();
    cb.delivered += segments;
  }
  std::string look(Holder holder = Holder::kKernel) { return watch.look(cb, holder, ++looks, sent); }

  tcp::ControlBlock cb;
  CwndWatch watch;
  std::uint64_t looks = 0;
  std::uint64_t sent = 10;
};

TEST(CwndWatch, GrowsByWhatWasDelivered) {
  Watched w;
  w.acknowledge(2);
  w.cb.cwnd = 12;
  EXPECT_EQ(w.look(), "");
  w.acknowledge(2);
  w.cb.cwnd = 15;
  EXPECT_EQ(w.look().find("grew from 12 by 2 delivered to 15"), 0U);
}

// A recovery goes on after its reduction was undone, and ends with the window that it has.
TEST(CwndWatch, AnUndoneRecoveryKeepsItsWindow) {
  for (const bool undone : {true, false}) {
    Watched w;
    w.cb.recovery = RecoveryState::kRecovery;
    w.cb.ssthresh = 5;
    w.cb.flight->undo_possible = true;
    EXPECT_EQ(w.look(), "");
    w.cb.flight->undo_possible = !undone;
    EXPECT_EQ(w.look(), "");
    w.acknowledge(1);
    w.cb.recovery = RecoveryState::kOpen;
    w.cb.flight->undo_possible = false;
    const std::string wrong = undone ? "" : "is 10 after a reduction to 5";
    if (!undone) w.cb.flight->undo_possible = true;
    EXPECT_EQ(w.look().substr(0, wrong.size()), wrong) << undone;
  }
}

// A loss in CWR gives DCTCP a lower threshold; what PRR has not let out of what arrived before it may go then.
TEST(CwndWatch, ALossInCwrGoesOnCountingWithDctcp) {
  for (const auto kind : {tcp::CongestionKind::kDctcp, tcp::CongestionKind::kNewReno}) {
    Watched w;
    w.cb.congestion_kind = kind;
    w.cb.recovery = RecoveryState::kReduced;
    w.cb.ssthresh = 10;
    w.cb.flight->prr_delivered = 8;
    static_cast<void>(w.look());  // another algorithm
    EXPECT_EQ(w.look(), "");
    w.cb.recovery = RecoveryState::kRecovery;
    w.cb.flight->undo_possible = true;
    w.cb.ssthresh = 5;
    w.cb.cwnd = 14;
    EXPECT_EQ(w.look().empty(), kind == tcp::CongestionKind::kDctcp);
  }
}

TEST(CwndWatch, DoesNotGrowUnused) {
  Watched w;
  w.acknowledge(10);
  w.cb.flight.reset();
  w.cb.cwnd = 20;
  EXPECT_EQ(w.look(), "");
  w.cb.clear(tcp::kCwndLimited);
  w.send(1);
  EXPECT_EQ(w.look(), "");
  w.acknowledge(1);
  w.cb.cwnd = 21;
  EXPECT_NE(w.look(), "");
}

TEST(CwndWatch, ALossLowersTheThreshold) {
  for (const bool lowered : {true, false}) {
    Watched w;
    w.cb.recovery = RecoveryState::kRecovery;
    w.cb.flight->undo_possible = true;
    w.cb.ssthresh = lowered ? 5 : 8;
    EXPECT_EQ(w.look().empty(), lowered);
  }
}

TEST(CwndWatch, AReductionEndsAtTheThreshold) {
  for (const bool kept : {true, false}) {
    Watched w;
    w.cb.recovery = RecoveryState::kReduced;
    w.cb.ssthresh = 5;
    EXPECT_EQ(w.look(), "");
    w.acknowledge(1);
    w.cb.recovery = RecoveryState::kOpen;
    w.cb.cwnd = kept ? 10 : 6;
    EXPECT_EQ(w.look().find("is 10 after a reduction to 5"), kept ? 0U : std::string::npos);
  }
}

TEST(CwndWatch, ALossFoundAndUndoneBetweenTwoLooksEndsAReductionEarly) {
  for (const bool undone : {true, false}) {
    Watched w;
    w.cb.recovery = RecoveryState::kReduced;
    w.cb.ssthresh = 5;
    w.cb.cwnd = 9;
    EXPECT_EQ(w.look(), "");
    w.acknowledge(1);
    w.cb.recovery = RecoveryState::kOpen;
    if (undone) w.cb.flight->undo_marker = Seq(1);
    EXPECT_EQ(w.look().empty(), undone);
  }
}

TEST(CwndWatch, ATimeoutLeavesOneMoreThanIsInFlight) {
  for (const std::uint32_t cwnd : {1U, 10U}) {
    Watched w;
    w.cb.recovery = RecoveryState::kLoss;
    w.cb.retries = 1;
    w.cb.flight->lost = 10;
    w.cb.cwnd = cwnd;
    EXPECT_EQ(w.look().empty(), cwnd == 1) << cwnd;
  }
}

TEST(CwndWatch, AnUndoGivesBackWhatWas) {
  for (const std::uint32_t cwnd : {10U, 12U}) {
    Watched w;
    w.cb.recovery = RecoveryState::kLoss;
    w.cb.flight->undo_possible = true;
    w.cb.flight->lost = 10;
    w.cb.cwnd = 1;
    EXPECT_EQ(w.look(), "");
    w.cb.recovery = RecoveryState::kOpen;
    w.cb.flight->undo_possible = false;
    w.cb.flight->lost = 0;
    w.acknowledge(1);
    w.cb.cwnd = cwnd;
    EXPECT_EQ(w.look().empty(), cwnd == 10) << cwnd;
  }
}

TEST(CwndWatch, AMoveTakesItAlong) {
  for (const std::uint32_t cwnd : {10U, 11U, 22U}) {
    Watched w;
    w.cb.cwnd = cwnd;
    EXPECT_EQ(w.look(Holder::kEngine).empty(), cwnd <= 21) << cwnd;
  }
}

TEST(CwndWatch, AMoveAddsNothingToThatOfBbr) {
  for (const std::uint32_t cwnd : {10U, 11U}) {
    Watched w;
    w.cb.congestion_kind = tcp::CongestionKind::kBbr;
    w.acknowledge(10);
    EXPECT_EQ(w.look(), "");
    EXPECT_EQ(w.look(Holder::kEngine), "");
    w.cb.cwnd = cwnd;
    EXPECT_EQ(w.look().empty(), cwnd == 10);
  }
}

// However much is delivered meanwhile, only what BBR has saved comes back.
TEST(CwndWatch, ThatOfBbrComesBackAsItWas) {
  for (const std::uint32_t cwnd : {31U, 32U}) {
    Watched w;
    w.cb.congestion_kind = tcp::CongestionKind::kBbr;
    w.cb.bbr = tcp::BbrStatePtr(new tcp::BbrState);
    w.cb.bbr->prior_cwnd = 30;
    w.cb.recovery = RecoveryState::kRecovery;
    w.cb.flight->undo_possible = true;
    for (int i = 0; i < 100; ++i) {
      EXPECT_EQ(w.look(), "");
      w.acknowledge(10);
      w.send(10);
    }
    EXPECT_EQ(w.look(), "");
    w.acknowledge(1);
    w.cb.recovery = RecoveryState::kOpen;
    w.cb.cwnd = cwnd;
    EXPECT_EQ(w.look().empty(), cwnd == 31) << cwnd;
  }
}

// Long after a recovery one that may still be undone holds the window to what is used.
TEST(CwndWatch, WhatMayBeUndoneIsJudgedAsWell) {
  for (const bool undone : {true, false}) {
    Watched w;
    w.cb.recovery = RecoveryState::kOpen;
    w.cb.flight->undo_possible = true;
    w.cb.clear(tcp::kCwndLimited);
    w.cb.ssthresh = 5;
    EXPECT_EQ(w.look(), "");
    w.acknowledge(5);
    w.cb.flight->undo_possible = !undone;
    w.cb.flight->max_packets_out = 5;
    w.send(0);
    w.cb.cwnd = 11;
    EXPECT_EQ(w.look().empty(), undone);
  }
}

TEST(CwndWatch, WithoutAHookItBeginsAnew) {
  for (const bool forgotten : {true, false}) {
    Watched w;
    w.acknowledge(10);
    w.cb.cwnd = 2;
    EXPECT_EQ(w.look(), "");
    if (forgotten) w.watch.forgotten();
    w.cb.cwnd = 10;
    EXPECT_EQ(w.look(Holder::kEngine).empty(), forgotten);
  }
}

}  // namespace
}  // namespace twinstack::sim
