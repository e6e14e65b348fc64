// The flight against a plain model: one flag a segment, whatever order reports, ACKs, splits and repeats come in.
#include "tcp/flight.h"

#include <gtest/gtest.h>

#include <vector>

#include "tcp/ack_news.h"
#include "tcp/invariants.h"
#include "tcp/sack.h"
#include "tcp/sender_fixture.h"
#include "tcp/test_support.h"

namespace twinstack::tcp::test {
namespace {

constexpr std::uint32_t kBase = 0xffffff00;  // wraps within the test
constexpr std::uint32_t kSegments = 60;

class FlightModel {
 public:
  FlightModel() {
    cb_.options = kOptSack;
    cb_.mss = 10;
    cb_.cwnd = 100;
    cb_.ssthresh = 100;
    cb_.snd_una = cb_.snd_nxt = cb_.write_seq = cb_.high_seq = Seq(kBase);
    cb_.max_window = 1U << 20;
    for (std::uint32_t i = 0; i < kSegments; ++i) {
      add_sent(cb_, cb_.snd_nxt, 10, at_ms(i));
      cb_.snd_nxt += 10;
    }
    cb_.write_seq = cb_.snd_nxt;
    cb_.sender_timer = SenderTimer::kRetransmit;
  }

  void report(std::uint32_t left_bytes, std::uint32_t right_bytes) {
    wire::Segment segment;
    segment.ack = cb_.snd_una;
    segment.options.sack_count = 1;
    segment.options.sack[0] = {Seq(kBase) + left_bytes, Seq(kBase) + right_bytes};
    AckNews news;
    news.ack = news.prior_una = cb_.snd_una;
    take_sack_option(cb_, segment, news, counters_, at_ms(1000));
    if (segment.options.sack[0].left <= cb_.snd_una) return;
    for (std::uint32_t i = 0; i < kSegments; ++i) {
      if (i * 10 >= left_bytes && i * 10 + 10 <= right_bytes) sacked_[i] = true;
    }
  }

  void acknowledge(std::uint32_t bytes) {
    const Seq una = Seq(kBase) + bytes;
    if (una <= cb_.snd_una) return;
    cb_.snd_una = una;
    AckNews news;
    retire_acknowledged(cb_, news, at_ms(1000));
  }

  void compare() {
    ASSERT_EQ(broken_invariant(cb_), nullptr) << broken_invariant(cb_);
    const SentQueue& sent = cb_.flight->sent;
    for (auto p = sent.first(); p != sent.end(); ++p) {
      const std::uint32_t index = bytes_between(Seq(kBase), sent.at(p).end() - 1) / 10;
      ASSERT_EQ(sent.at(p).has(kSacked), sacked_[index]) << index;
      ASSERT_EQ(sent.find(sent.at(p).seq), p);
      ASSERT_EQ(sent.find(sent.at(p).end() - 1), p);
    }
    ASSERT_EQ(sent.find(cb_.snd_nxt), sent.end());
  }

  ControlBlock cb_;
  Counters counters_;
  std::vector<bool> sacked_ = std::vector<bool>(kSegments);
};

TEST(Flight, AgreesWithAModelOfSegments) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    FlightModel model;
    for (int step = 0; step < 60; ++step) {
      const std::uint32_t left = rng.below(kSegments * 10);
      const std::uint32_t right = std::min(left + 1 + rng.below(120), kSegments * 10);
      if (rng.below(8) == 0) {
        model.acknowledge(std::min(left, bytes_between(Seq(kBase), model.cb_.snd_una) + 40));
      } else {
        model.report(left, right);
      }
      model.compare();
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Flight, ASplitKeepsCountsAndHints) {
  FlightModel model;
  model.report(100, 200);
  Flight& f = *model.cb_.flight;
  for (std::uint32_t i = 0; i < 10; ++i) f.sent.at(f.sent.first() + i).set(kEverRetransmitted);
  f.rack_first = f.sent.first() + 15;
  f.next_retransmit = f.sent.first() + 3;
  split_sent(f, f.sent.first() + 12, 4);
  EXPECT_EQ(broken_invariant(model.cb_), nullptr);
  EXPECT_EQ(f.sacked, 11U);
  EXPECT_EQ(f.rack_first, f.sent.first() + 16);
  EXPECT_EQ(f.next_retransmit, f.sent.first() + 3);
  EXPECT_EQ(f.sent.at(f.sent.first() + 12).length, 4U);
  EXPECT_EQ(f.sent.at(f.sent.first() + 13).length, 6U);
}

// RACK looks for what was sent again by its repeats: what is cut off has one too, in the order of time.
TEST(Flight, WhatASplitCutsOffWasSentAgainAsWell) {
  FlightModel model;
  Flight& f = *model.cb_.flight;
  const Time now{std::chrono::seconds(10)};
  for (std::uint32_t i = 0; i < 3; ++i) note_repeat(model.cb_, f.sent.first() + i, now + std::chrono::milliseconds(i));
  const std::uint32_t before = f.retransmitted;
  split_sent(f, f.sent.first() + 1, 4);
  EXPECT_EQ(f.retransmitted, before + 1);
  ASSERT_EQ(f.repeats.size(), 4U);
  EXPECT_EQ(f.repeats[1].seq, f.sent.at(f.sent.first() + 1).seq);
  EXPECT_EQ(f.repeats[2].seq, f.sent.at(f.sent.first() + 2).seq);
  EXPECT_EQ(f.repeats[2].sent, f.repeats[1].sent);
  EXPECT_EQ(f.repeats[3].seq, f.sent.at(f.sent.first() + 3).seq);
}

TEST(Flight, WhatAnotherStackSentIsInSegmentsAndGivesNoRates) {
  ControlBlock cb;
  cb.mss = 1000;
  cb.snd_nxt = Seq(2500);
  add_foreign(cb, Seq(0), Seq(2500), at_ms(5));
  ASSERT_EQ(packets_out(cb), 3U);
  EXPECT_EQ(cb.flight->sent.back().length, 500U);
  EXPECT_TRUE(cb.flight->sent.front().has(kForeign));
  EXPECT_TRUE(cb.flight->sent.front().has(kRateTaken));
}

TEST(Flight, OneFromThePoolIsNew) {
  FlightPool pool;
  ControlBlock cb;
  cb.mss = 10;
  const Flight* const first = &flight_of(cb, &pool);
  for (std::uint32_t i = 0; i < 20; ++i) add_sent(cb, Seq(i * 10), 10, at_ms(i));
  Flight& f = *cb.flight;
  f.lost = f.undo_repeats = 3;
  f.undo_possible = f.probe_out = true;
  f.repeats.push_back({Seq(0), at_ms(1)});
  f.record_ends.push_back(Seq(400));
  f.push_marks.push_back(Seq(300));
  cb.flight.reset();
  cb.snd_una = Seq(777);
  Flight& again = flight_of(cb, &pool);
  ASSERT_EQ(&again, first);
  EXPECT_TRUE(again.sent.empty() && again.repeats.empty() && again.record_ends.empty() && again.push_marks.empty());
  EXPECT_FALSE(again.undo_possible || again.probe_out);
  EXPECT_EQ(again.lost + static_cast<std::uint32_t>(again.undo_repeats), 0U);
  EXPECT_EQ(again.cwnd_usage_seq, Seq(777));
  add_sent(cb, Seq(777), 10, at_ms(50));
  EXPECT_EQ(again.sent.size(), 1U);
  EXPECT_EQ(again.sent.front().flags, 0U);
}

// As Linux writes a send queue that it takes over: in one call.
TEST(Flight, WhatAnotherStackSentEndsWithPushAndMayBeSmall) {
  ControlBlock cb;
  cb.mss = 1000;
  cb.snd_nxt = Seq(2000);
  add_foreign(cb, Seq(0), Seq(2000), at_ms(5));
  EXPECT_EQ(cb.snd_sml, Seq(0));
  EXPECT_FALSE(cb.flight->sent.front().has(kPushed));
  EXPECT_TRUE(cb.flight->sent.back().has(kPushed));
  add_foreign(cb, Seq(2000), Seq(2100), at_ms(5));
  EXPECT_EQ(cb.snd_sml, Seq(2100)) << "Nagle holds the next small one back";
}

// After 4 GiB the numbers come round: what was reported then is nobody's report now.
TEST(Flight, ReportsOfAnEarlierRoundOfNumbersAreForgotten) {
  Sender f(kOptSack, 10, 100);
  f.ack(0, {{1, 5}});
  f.ack(10, {}, at_ms(20));
  ASSERT_TRUE(f.end.cb.flight) << "a D-SACK may still tell";
  const std::uint32_t lap = 0U - bytes_between(Seq(kOurSeq), f.end.cb.snd_una);
  for (Seq* seq : {&f.end.cb.snd_una, &f.end.cb.snd_nxt, &f.end.cb.write_seq, &f.end.cb.high_seq}) *seq += lap;
  auto& sent = f.end.cb.flight->sent;
  for (auto p = sent.first(); p != sent.end(); ++p) sent.at(p).seq += lap;
  ASSERT_EQ(f.end.cb.snd_una, Seq(kOurSeq));
  f.ack(0, {{1, 5}}, at_ms(40));
  EXPECT_EQ(f.flight().sacked, 4U);
}

// Once nothing can be undone any more the connection is as before the loss.
TEST(Flight, IsGivenBackSomeTimeAfterALoss) {
  Sender f(kOptSack, 10, 10);
  ASSERT_EQ(f.what(f.ack(0, {{1, 4}})), Sent{-1000});
  f.ack(10, {}, at_ms(20));
  ASSERT_TRUE(f.end.cb.flight) << "a D-SACK may still tell";
  f.end.write(100, at_ms(1000));
  f.end.poll(at_ms(1000));
  wire::Segment ack = from_peer(kPeerSeq, kOurSeq + 10 * f.mss + 100);
  f.end.receive(ack, "", at_ms(1010));
  EXPECT_FALSE(f.end.cb.flight);
}

TEST(Flight, HoldsNoMemoryOfALongRepairWhenItIsOver) {
  Sender f(kOptSack, 1000, 1000);
  f.ack(0, {{990, 1000}});
  f.end.cb.cwnd = 1000;
  f.end.poll(at_ms(10));
  ASSERT_GT(f.flight().repeats.capacity(), 500U);
  f.ack(1000, {}, at_ms(20));
  ASSERT_TRUE(f.end.cb.flight);
  EXPECT_LE(f.flight().repeats.capacity(), 16U);
}

// While we report holes of the peer's stream, what was sent before is as long as it was: nothing is cut in two.
TEST(Flight, ReportsOfOursDoNotSplitWhatGoesAgain) {
  Sender f(kOptSack, 10, 10);
  f.end.receive(from_peer(kPeerSeq + 1000, kOurSeq), "behind a hole", at_ms(5));
  const auto ack_of_it = f.end.poll(at_ms(5));
  ASSERT_EQ(ack_of_it.size(), 1U);
  ASSERT_EQ(ack_of_it[0].segment.options.sack_count, 1U);
  f.end.receive(from_peer(kPeerSeq + 2000, kOurSeq), "behind another", at_ms(10));
  ASSERT_TRUE(f.end.cb.has(kAckNow));
  wire::Segment report = from_peer(kPeerSeq, kOurSeq);
  report.options.sack_count = 1;
  report.options.sack[0] = {Seq(kOurSeq + f.mss), Seq(kOurSeq + 4 * f.mss)};
  f.end.receive(report, "", at_ms(10));
  const auto sent = f.end.poll(at_ms(10));
  ASSERT_EQ(sent.size(), 2U);
  EXPECT_TRUE(sent[0].retransmission);
  EXPECT_EQ(sent[0].payload_bytes, f.mss);
  EXPECT_EQ(sent[1].payload_bytes, 0U);
  EXPECT_EQ(sent[1].segment.options.sack_count, 2U) << "the report that was due goes by itself";
  EXPECT_EQ(f.flight().sent.size(), 10U);
}

}  // namespace
}  // namespace twinstack::tcp::test
