// Segment arrival, step by step of RFC 9293 3.10.7.4: a segment in, the verdict and the exact answer out.
#include "tcp/receive.h"

#include <gtest/gtest.h>

#include "tcp/ack.h"
#include "tcp/receiver_fixture.h"
#include "tcp/timers.h"
#include "tcp/window.h"

namespace twinstack::tcp::test {
namespace {

TEST(Receive, FirstSmallSegmentIsAcknowledgedAfter40Milliseconds) {
  Receiver r;
  EXPECT_EQ(r.get(0, 100), Arrival::kAccepted);
  EXPECT_EQ(r.end.text, stream(0, 100));
  EXPECT_TRUE(r.end.poll(at_ms(1)).empty());
  EXPECT_TRUE(owes_ack(r.end.cb));
  const Time at = r.end.fire(at_ms(1));
  EXPECT_GE(at, at_ms(41));
  EXPECT_LT(at, at_ms(42));
  expect_ack(r.end.poll_one(at), kPeerSeq + 100);
  EXPECT_EQ(next_deadline(r.end.cb, at), kNever);
}

TEST(Receive, SecondFullSegmentIsAcknowledgedAtOnce) {
  Receiver r;
  for (std::uint32_t i = 0; i < 6; ++i) {
    r.get(i * kMss, kMss);
    EXPECT_EQ(r.end.poll(at_ms(1)).size(), i % 2) << i;
  }
}

TEST(Receive, OneFullSegmentWaits) {
  Receiver r;
  r.end.cb.rcv_mss = kMss;
  r.get(0, kMss);
  EXPECT_TRUE(r.end.poll(at_ms(1)).empty());
  r.get(kMss, 1);
  expect_ack(r.end.poll_one(at_ms(1)), kPeerSeq + kMss + 1);
}

TEST(Receive, SuperPacketIsAcknowledgedAtOnce) {
  Receiver r;
  EXPECT_EQ(r.get(0, 60000), Arrival::kAccepted);
  EXPECT_EQ(r.end.received, 60000U);
  expect_ack(r.end.poll_one(at_ms(1)), kPeerSeq + 60000);
}

TEST(Receive, QuickAcksAfterInstall) {
  TestEnd end(idle_state(), at_ms(0));
  expect_ack(end.poll_one(at_ms(0)), kPeerSeq);  // owed since the move
  EXPECT_EQ(end.receive(from_peer(), stream(0, 10), at_ms(1)), Arrival::kAccepted);
  expect_ack(end.poll_one(at_ms(1)), kPeerSeq + 10);
}

TEST(Receive, AnAnswerCarriesTheAckAndEndsQuickAcks) {
  TestEnd end(idle_state(), at_ms(0));
  end.poll(at_ms(0));
  end.receive(from_peer(), stream(0, 10), at_ms(1));
  end.write(5, at_ms(1));
  const SegmentPlan plan = end.poll_one(at_ms(1));
  EXPECT_EQ(plan.payload_bytes, 5U);
  EXPECT_EQ(plan.segment.ack, Seq(kPeerSeq + 10));
  end.receive(from_peer(kPeerSeq + 10, kOurSeq + 5), stream(10, 10), at_ms(2));
  EXPECT_TRUE(end.poll(at_ms(2)).empty()) << "interactive now: the ACK waits for the next answer";
}

TEST(Receive, OutOfOrderIsReportedBySackMostRecentFirst) {
  Receiver r(with(kOptSack));
  EXPECT_EQ(r.get(100, 100), Arrival::kAccepted);
  SegmentPlan ack = r.end.poll_one(at_ms(1));
  expect_ack(ack, kPeerSeq);
  ASSERT_EQ(ack.segment.options.sack_count, 1);
  EXPECT_EQ(ack.segment.options.sack[0], (wire::SackBlock{Seq(kPeerSeq + 100), Seq(kPeerSeq + 200)}));

  r.get(400, 100);
  ack = r.end.poll_one(at_ms(1));
  ASSERT_EQ(ack.segment.options.sack_count, 2);
  EXPECT_EQ(ack.segment.options.sack[0], (wire::SackBlock{Seq(kPeerSeq + 400), Seq(kPeerSeq + 500)}));
  EXPECT_EQ(ack.segment.options.sack[1], (wire::SackBlock{Seq(kPeerSeq + 100), Seq(kPeerSeq + 200)}));

  r.get(200, 200);  // joins both
  ack = r.end.poll_one(at_ms(1));
  ASSERT_EQ(ack.segment.options.sack_count, 1);
  EXPECT_EQ(ack.segment.options.sack[0], (wire::SackBlock{Seq(kPeerSeq + 100), Seq(kPeerSeq + 500)}));
  EXPECT_TRUE(has_out_of_order_data(r.end.cb));

  r.get(0, 100);  // fills the hole: at once
  ack = r.end.poll_one(at_ms(1));
  expect_ack(ack, kPeerSeq + 500);
  EXPECT_EQ(ack.segment.options.sack_count, 0);
  EXPECT_EQ(r.end.text, stream(0, 500));
  EXPECT_FALSE(has_out_of_order_data(r.end.cb));
  r.end.poll(at_ms(1));
  EXPECT_EQ(r.end.cb.cold, nullptr);
}

TEST(Receive, WithoutSackEverySegmentOutOfOrderGetsItsDuplicateAck) {
  Receiver r;
  r.get(100, 100);
  r.get(200, 100);
  r.get(300, 100);
  const auto acks = r.end.poll(at_ms(1));
  ASSERT_EQ(acks.size(), 3U);
  for (const auto& ack : acks) {
    expect_ack(ack, kPeerSeq);
    EXPECT_EQ(ack.segment.options.sack_count, 0);
  }
}

TEST(Receive, DuplicateAcksDieWhenTheHoleFillsInTheSameBatch) {
  Receiver r;
  r.get(100, 100);
  r.get(200, 100);
  r.get(0, 100);
  expect_ack(r.end.poll_one(at_ms(1)), kPeerSeq + 300);
}

TEST(Receive, OldDataIsAnsweredByDsack) {
  Receiver r(with(kOptSack));
  r.get(0, 200);
  r.end.poll(at_ms(41));
  acknowledge_now(r.end.cb);
  r.end.poll(at_ms(41));
  EXPECT_EQ(r.get(0, 100), Arrival::kDroppedOutOfWindow);
  SegmentPlan ack = r.end.poll_one(at_ms(42));
  ASSERT_EQ(ack.segment.options.sack_count, 1);
  EXPECT_EQ(ack.segment.options.sack[0], (wire::SackBlock{Seq(kPeerSeq), Seq(kPeerSeq + 100)}));
  EXPECT_EQ(r.get(100, 150), Arrival::kAccepted);  // half old
  ack = r.end.poll_one(at_ms(42));
  expect_ack(ack, kPeerSeq + 250);
  ASSERT_EQ(ack.segment.options.sack_count, 1);
  EXPECT_EQ(ack.segment.options.sack[0], (wire::SackBlock{Seq(kPeerSeq + 100), Seq(kPeerSeq + 200)}));
  EXPECT_EQ(r.end.text, stream(0, 250));
}

TEST(Receive, TextBeyondTheWindowIsCutOff) {
  MinTcp state = idle_state();
  state.rcv_wnd = 1000;
  Receiver r(state, 1000);
  EXPECT_EQ(r.get(900, 200), Arrival::kAccepted);
  EXPECT_EQ(r.get(0, 900), Arrival::kAccepted);
  EXPECT_EQ(r.end.received, 1000U);
  const SegmentPlan ack = r.end.poll_one(at_ms(1));
  expect_ack(ack, kPeerSeq + 1000);
  EXPECT_EQ(ack.segment.window, 0);
  EXPECT_EQ(r.get(1001, 10), Arrival::kDroppedOutOfWindow);
  expect_ack(r.end.poll_one(at_ms(1)), kPeerSeq + 1000);
}

// Has offered 1000 bytes, and has room for 5000.
struct RoomyReceiver : Receiver {
  RoomyReceiver() : Receiver(idle_with_window(1000), 1000) { end.capacity = 5000; }
  static MinTcp idle_with_window(std::uint32_t bytes) {
    MinTcp state = with(kOptSack);
    state.rcv_wnd = bytes;
    return state;
  }
};

TEST(Receive, TextBeyondTheWindowIsTakenWholeWhenNothingIsUnread) {
  RoomyReceiver r;
  EXPECT_EQ(r.get(0, 2500), Arrival::kAccepted);
  EXPECT_EQ(r.end.text, stream(0, 2500));
  EXPECT_TRUE(r.end.poll(at_ms(1)).empty()) << "the window is closed: the ACK may wait for the reader";
  EXPECT_EQ(offered_window(r.end.cb), 0U);
  EXPECT_EQ(r.get(2500, 0), Arrival::kAccepted) << "what comes next is in the window";
  EXPECT_EQ(r.get(2500, 100), Arrival::kAccepted);
  EXPECT_EQ(r.end.received, 2500U) << "now something is unread, and the window closed";
  const SegmentPlan ack = r.end.poll_one(at_ms(1));
  expect_ack(ack, kPeerSeq + 2500);
  EXPECT_EQ(ack.segment.window, kMss) << "whole segments, where windows are not scaled";
}

TEST(Receive, TextThatUsesTheWindowUpIsAcknowledgedByTheReader) {
  RoomyReceiver r;
  r.get(0, 1000);
  EXPECT_TRUE(r.end.poll(at_ms(1)).empty());
  r.end.read(1000, at_ms(2));
  const SegmentPlan ack = r.end.poll_one(at_ms(2));
  expect_ack(ack, kPeerSeq + 1000);
  EXPECT_EQ(ack.segment.window, 5000);
}

TEST(Receive, AFinIntoAClosedWindowIsAcknowledgedAtOnce) {
  RoomyReceiver r;
  r.end.cb.set(kWholeMachine);
  r.get(0, 2500);
  EXPECT_TRUE(r.end.poll(at_ms(1)).empty());
  EXPECT_EQ(r.get(2500, 0, at_ms(2), wire::kAck | wire::kFin), Arrival::kAccepted);
  expect_ack(r.end.poll_one(at_ms(2)), kPeerSeq + 2501);
}

TEST(Receive, AResetBehindTextBeyondTheWindowIsExact) {
  RoomyReceiver r;
  r.get(0, 2500);
  EXPECT_EQ(r.get(2500, 0, at_ms(1), wire::kRst | wire::kAck), Arrival::kToSoftwareReset);
}

TEST(Receive, TextOutOfOrderBeyondTheWindowIsKeptWhole) {
  RoomyReceiver r;
  EXPECT_EQ(r.get(900, 600), Arrival::kAccepted);
  EXPECT_EQ(r.end.poll_one(at_ms(1)).segment.options.sack[0],
            (wire::SackBlock{Seq(kPeerSeq + 900), Seq(kPeerSeq + 1500)}));
  EXPECT_EQ(r.get(0, 900), Arrival::kAccepted);
  EXPECT_EQ(r.end.text, stream(0, 1500));
}

TEST(Receive, ZeroWindowProbeIsAnsweredAndItsAckCounts) {
  MinTcp state = idle_state();
  state.rcv_wnd = 0;
  Receiver r(state, 0);
  r.end.write(10, at_ms(1));
  r.end.poll(at_ms(1));
  EXPECT_EQ(r.end.receive(from_peer(kPeerSeq, kOurSeq + 10), stream(0, 1), at_ms(2)), Arrival::kAccepted);
  EXPECT_EQ(r.end.received, 0U);
  EXPECT_TRUE(is_drained(r.end.cb));
  EXPECT_EQ(r.end.poll_one(at_ms(2)).segment.ack, Seq(kPeerSeq));
}

TEST(Receive, ReadingAClosedWindowOpensItAtOnce) {
  Receiver r(idle_state(), 20000);
  r.end.cb.rcv_wnd = 20000;
  r.get(0, 20000);
  EXPECT_EQ(r.end.poll_one(r.end.fire(at_ms(1))).segment.window, 0);
  r.end.read(100, at_ms(42));
  EXPECT_TRUE(r.end.poll(at_ms(42)).empty()) << "silly window (RFC 9293 3.8.6.2.2)";
  r.end.read(5000, at_ms(43));
  EXPECT_EQ(r.end.poll_one(at_ms(43)).segment.window, 3 * kMss) << "whole segments, where windows are not scaled";
}

// The window stays where it is while it is within a segment of the space (RFC 9293 3.8.6.2.2).
TEST(Receive, ReadingLittleDoesNotMoveAWindowThatIsNotScaled) {
  Receiver r(idle_state(), 20 * kMss);
  r.get(0, kMss);
  std::uint32_t edge = 0;
  for (std::uint32_t i = 1; i < 6; ++i) {
    r.end.read(10, at_ms(1));
    r.get(i * kMss, kMss);
    r.end.poll(at_ms(1));
    const std::uint32_t now = bytes_between(Seq(kPeerSeq), r.end.cb.rcv_wup + r.end.cb.rcv_wnd);
    if (edge != 0) {
      EXPECT_TRUE(now == edge || now >= edge + kMss) << now - edge;
    }
    edge = now;
  }
}

// A buffer under a segment is offered again from its half on.
TEST(Receive, ASmallBufferIsOfferedFromItsHalfOn) {
  Receiver r(idle_state(), 1000);
  r.end.cb.rcv_wnd = 1000;
  r.get(0, 1000);
  r.end.poll(r.end.fire(at_ms(1)));
  r.end.read(400, at_ms(50));
  r.get(1000, 0);
  r.end.poll(at_ms(50));
  EXPECT_EQ(offered_window(r.end.cb), 0U);
  r.end.read(400, at_ms(51));
  EXPECT_EQ(r.end.poll_one(at_ms(51)).segment.window, 800);
}

// What several segments that came as one weigh is bounded by what the peer was told, not by what it takes itself.
TEST(Receive, ThePeersSegmentsMayBeLargerThanOurs) {
  MinTcp state = idle_state();
  state.mss = 536;
  Receiver r(state, 60'000);
  r.end.announced = 1460;
  r.get(0, 1460);
  EXPECT_EQ(r.end.cb.rcv_mss, 1460);
  r.get(1460, 4380);
  EXPECT_EQ(r.end.cb.rcv_mss, 1460);
}

TEST(Receive, KeepaliveOfEitherFormIsAnswered) {
  for (const std::uint32_t garbage : {0U, 1U}) {
    Receiver r;
    r.get(0, 50);  // the delayed ACK is pending: the probe lies in what was not acknowledged yet
    wire::Segment probe = from_peer(kPeerSeq + 49);
    r.end.receive(probe, stream(49, garbage), at_ms(2));
    expect_ack(r.end.poll_one(at_ms(2)), kPeerSeq + 50);
    for (int i = 0; i < 3; ++i) {
      r.end.receive(probe, stream(49, garbage), at_ms(3 + 501 * i));
      expect_ack(r.end.poll_one(at_ms(3 + 501 * i)), kPeerSeq + 50);
    }
    EXPECT_EQ(r.end.text, stream(0, 50));
  }
}

// Linux tcp_oow_rate_limited(): two ends whose numbers differ would else answer each other for ever.
TEST(Receive, WhatTakesNoSpaceIsAnsweredTwiceASecondAtMost) {
  const struct {
    std::int32_t offset;
    std::uint32_t bytes;
    std::uint8_t flags;
    bool limited;
  } segments[] = {{-1, 0, wire::kAck, true},
                  {-1000, 0, wire::kAck, true},
                  {1'000'000, 0, wire::kAck, true},
                  {-1000, 0, wire::kAck | wire::kSyn, true},
                  {-1000, 10, wire::kAck | wire::kSyn, true},
                  {-1, 1, wire::kAck, false},
                  {-1000, 10, wire::kAck, false},
                  {-1000, 0, wire::kAck | wire::kFin, false}};
  for (const auto& what : segments) {
    Receiver r;
    r.get(0, 2000);
    acknowledge_now(r.end.cb);
    r.end.poll(at_ms(1));
    std::size_t answers = 0;
    for (int i = 0; i < 10; ++i) {
      wire::Segment segment = from_peer(kPeerSeq + 2000 + static_cast<std::uint32_t>(what.offset));
      segment.flags = what.flags;
      r.end.receive(segment, stream(0, what.bytes), at_ms(2 + 60 * i));
      answers += r.end.poll(at_ms(2 + 60 * i)).size();
    }
    EXPECT_EQ(answers, what.limited ? 2U : 10U) << what.offset << ", " << what.bytes;
  }
}

TEST(Receive, TwoEndsThatDisagreeDoNotAnswerEachOtherForEver) {
  MinTcp theirs = idle_state();
  theirs.snd_una = theirs.snd_nxt = theirs.write_seq = kPeerSeq - 1;
  theirs.rcv_nxt = theirs.rcv_wup = theirs.copied_seq = theirs.snd_wl1 = kOurSeq + 1;
  Receiver a;
  Receiver b(theirs);
  acknowledge_now(a.end.cb);
  std::size_t segments = 0;
  for (int turn = 0; turn < 200; ++turn) {
    Receiver& from = turn % 2 == 0 ? a : b;
    Receiver& to = turn % 2 == 0 ? b : a;
    for (const SegmentPlan& plan : from.end.poll(at_ms(2 + turn))) {
      ++segments;
      to.end.receive(plan.segment, "", at_ms(2 + turn));
    }
  }
  EXPECT_LE(segments, 3U);
}

TEST(Receive, ResetOnlyAtTheExactSequenceNumber) {
  Receiver r;
  EXPECT_EQ(r.get(0, 0, at_ms(1), wire::kRst), Arrival::kToSoftwareReset);
  EXPECT_EQ(r.get(0, 0, at_ms(1), wire::kRst | wire::kAck), Arrival::kToSoftwareReset);
  EXPECT_TRUE(r.end.poll(at_ms(1)).empty());
  EXPECT_EQ(r.get(1, 0, at_ms(1), wire::kRst), Arrival::kDroppedReset);
  expect_ack(r.end.poll_one(at_ms(1)), kPeerSeq);  // challenge
  EXPECT_EQ(r.get(2, 0, at_ms(2), wire::kRst), Arrival::kDroppedReset);
  EXPECT_TRUE(r.end.poll(at_ms(2)).empty()) << "rate limited";
  EXPECT_EQ(r.get(70000, 0, at_ms(600), wire::kRst), Arrival::kDroppedOutOfWindow);
  EXPECT_TRUE(r.end.poll(at_ms(600)).empty()) << "outside the window: silence";
  EXPECT_EQ(r.get(2, 0, at_ms(600), wire::kRst), Arrival::kDroppedReset);
  expect_ack(r.end.poll_one(at_ms(600)), kPeerSeq);
}

// The clock of the limit wraps: an old challenge must not look like one to come.
TEST(Receive, AChallengeFollowsOneOfDaysAgo) {
  for (const int hours : {1, 39, 50, 77, 80}) {
    Receiver r;
    EXPECT_EQ(r.get(1, 0, at_ms(1), wire::kRst), Arrival::kDroppedReset);
    expect_ack(r.end.poll_one(at_ms(1)), kPeerSeq);
    const Time later = at_ms(1) + std::chrono::hours(hours);
    EXPECT_EQ(r.get(1, 0, later, wire::kRst), Arrival::kDroppedReset);
    const auto answers = r.end.poll(later);
    EXPECT_EQ(answers.size(), 1U) << hours << " hours";
  }
}

// A peer without memory takes its window back by an ACK that repeats the last one (Linux 6.6).
TEST(Receive, AClosedWindowCountsWithoutAnythingNewBeside) {
  Receiver r;
  auto closes = from_peer(kPeerSeq, kOurSeq);
  r.end.cb.snd_wl1 = closes.seq;
  closes.window = 0;
  ASSERT_GT(r.end.cb.snd_wnd, 0U);
  EXPECT_EQ(r.end.receive(closes, stream(0, 0), at_ms(1)), Arrival::kAccepted);
  EXPECT_EQ(r.end.cb.snd_wnd, 0U);
}

TEST(Receive, SynIsChallenged) {
  Receiver r;
  EXPECT_EQ(r.get(0, 0, at_ms(1), wire::kSyn), Arrival::kDroppedSyn);
  expect_ack(r.end.poll_one(at_ms(1)), kPeerSeq);
}

TEST(Receive, SegmentWithoutAckIsDropped) {
  Receiver r;
  EXPECT_EQ(r.get(0, 10, at_ms(1), wire::kPsh), Arrival::kDroppedNoAck);
  EXPECT_TRUE(r.end.poll(at_ms(1)).empty());
  EXPECT_EQ(r.end.received, 0U);
}

TEST(Receive, AckOfWhatWasNeverSentIsChallengedAndItsTextDropped) {
  MinTcp state = idle_state();
  state.bytes_acked = 1'000'000;
  Receiver r(state);
  EXPECT_EQ(r.end.receive(from_peer(kPeerSeq, kOurSeq + 1), stream(0, 10), at_ms(1)), Arrival::kDroppedBadAck);
  EXPECT_EQ(r.end.received, 0U);
  expect_ack(r.end.poll_one(at_ms(1)), kPeerSeq);
  // RFC 5961 5.2: too old is as bad; old within the largest window is not.
  EXPECT_EQ(r.end.receive(from_peer(kPeerSeq, kOurSeq - 65536), stream(0, 10), at_ms(600)), Arrival::kDroppedBadAck);
  EXPECT_EQ(r.end.receive(from_peer(kPeerSeq, kOurSeq - 65535), stream(0, 10), at_ms(601)), Arrival::kAccepted);
}

// As Linux, whatever the window: what was never sent cannot be acknowledged.
TEST(Receive, NoAckIsOlderThanTheFirstThatCame) {
  Receiver r;
  EXPECT_EQ(r.end.receive(from_peer(kPeerSeq, kOurSeq - 1), stream(0, 10), at_ms(1)), Arrival::kDroppedBadAck);
  expect_ack(r.end.poll_one(at_ms(1)), kPeerSeq);
  r.end.write(100, at_ms(1));
  r.end.poll(at_ms(1));
  EXPECT_EQ(r.end.receive(from_peer(kPeerSeq, kOurSeq + 100), "", at_ms(2)), Arrival::kAccepted);
  EXPECT_EQ(r.end.receive(from_peer(kPeerSeq, kOurSeq - 1), stream(0, 10), at_ms(3)), Arrival::kDroppedBadAck);
  EXPECT_EQ(r.end.receive(from_peer(kPeerSeq, kOurSeq), stream(0, 10), at_ms(3)), Arrival::kAccepted);
}

TEST(Receive, WhatWasAcknowledgedBeforeAMoveCounts) {
  MinTcp state = idle_state();
  state.bytes_acked = 100;
  Receiver r(state);
  EXPECT_EQ(r.end.receive(from_peer(kPeerSeq, kOurSeq - 200), stream(0, 10), at_ms(1)), Arrival::kDroppedBadAck);
  EXPECT_EQ(r.end.receive(from_peer(kPeerSeq, kOurSeq - 100), stream(0, 10), at_ms(1)), Arrival::kAccepted);
  EXPECT_GE(ever_acked(r.end.cb, 50), 150U) << "for the next move";
  EXPECT_LE(ever_acked(r.end.cb, 50), 250U);
}

TEST(Receive, FinGoesToSoftwareAndNothingOfItIsProcessed) {
  for (const std::uint32_t offset : {0U, 500U}) {
    Receiver r(with(kOptTimestamps | kOptSack));
    r.end.write(100, at_ms(1));
    r.end.poll(at_ms(1));
    MinTcp before;
    extract(r.end.cb, at_ms(2), before);
    wire::Segment fin = from_peer(kPeerSeq + offset, kOurSeq + 100);
    fin.flags = wire::kAck | wire::kFin;
    fin.options.has_timestamps = true;
    fin.options.ts_val = 77;
    EXPECT_EQ(r.end.receive(fin, stream(offset, 10), at_ms(2)), Arrival::kToSoftwareFin);
    MinTcp after;
    extract(r.end.cb, at_ms(2), after);
    EXPECT_EQ(std::memcmp(&before, &after, sizeof before), 0);
    EXPECT_EQ(r.end.received, 0U);
    EXPECT_EQ(r.end.cb.cold, nullptr);
    EXPECT_TRUE(r.end.poll(at_ms(2)).empty());
  }
}

TEST(Receive, FinBeyondTheWindowIsNotSeen) {
  MinTcp state = idle_state();
  state.rcv_wnd = 100;
  Receiver r(state, 100);
  EXPECT_EQ(r.get(0, 101, at_ms(1), wire::kAck | wire::kFin), Arrival::kAccepted);
  EXPECT_EQ(r.end.received, 100U);
}

TEST(Receive, UrgentDataGoesToSoftware) {
  Receiver r;
  EXPECT_EQ(r.get(0, 10, at_ms(1), wire::kAck | wire::kUrg), Arrival::kToSoftwareUrgent);
  EXPECT_EQ(r.end.received, 0U);
}

TEST(Receive, ShortMemoryTakesWhatFits) {
  Receiver r;
  r.end.deliver_limit = 30;
  EXPECT_EQ(r.get(0, 100), Arrival::kAccepted);
  EXPECT_EQ(r.end.received, 30U);
  expect_ack(r.end.poll_one(at_ms(1)), kPeerSeq + 30);
  r.end.deliver_limit = 0;
  EXPECT_EQ(r.get(30, 70), Arrival::kDroppedNoMemory);
  expect_ack(r.end.poll_one(at_ms(1)), kPeerSeq + 30);
}

TEST(Receive, OutOfOrderDataThatFindsNoMemoryWaitsForTheReader) {
  Receiver r;
  r.get(100, 200);
  r.end.poll(at_ms(1));
  r.end.deliver_limit = 100;
  r.get(0, 100);
  EXPECT_EQ(r.end.received, 200U);
  EXPECT_TRUE(has_out_of_order_data(r.end.cb));
  EXPECT_EQ(r.end.poll_one(at_ms(1)).segment.ack, Seq(kPeerSeq + 200));
  r.end.read_all(at_ms(2));
  EXPECT_EQ(r.end.text, stream(0, 300));
  EXPECT_FALSE(has_out_of_order_data(r.end.cb));
}

TEST(Ecn, MarkIsEchoedUntilThePeerReduces) {
  Receiver r(with(kOptEcn));
  wire::Segment marked = from_peer();
  marked.ecn = wire::Ecn::kCe;
  r.end.receive(marked, stream(0, 10), at_ms(1));
  EXPECT_EQ(r.end.poll_one(at_ms(1)).segment.flags, wire::kAck | wire::kEce);
  r.get(10, 10);
  acknowledge_now(r.end.cb);
  EXPECT_EQ(r.end.poll_one(at_ms(1)).segment.flags, wire::kAck | wire::kEce);
  r.get(20, 10, at_ms(1), wire::kAck | wire::kCwr);
  acknowledge_now(r.end.cb);
  EXPECT_EQ(r.end.poll_one(at_ms(1)).segment.flags, wire::kAck);
}

TEST(Ecn, MarkOnADuplicateIsIgnored) {
  Receiver r(with(kOptEcn));
  r.get(0, 10);
  acknowledge_now(r.end.cb);
  r.end.poll_one(at_ms(1));
  wire::Segment marked = from_peer();
  marked.ecn = wire::Ecn::kCe;
  r.end.receive(marked, stream(0, 10), at_ms(1));
  EXPECT_EQ(r.end.poll_one(at_ms(1)).segment.flags, wire::kAck);
}

TEST(Ecn, MarksMeanNothingWhenNotNegotiated) {
  Receiver r;
  wire::Segment marked = from_peer();
  marked.ecn = wire::Ecn::kCe;
  r.end.receive(marked, stream(0, 10), at_ms(1));
  acknowledge_now(r.end.cb);
  EXPECT_EQ(r.end.poll_one(at_ms(1)).segment.flags, wire::kAck);
}

TEST(Window, RightEdgeNeverMovesLeft) {
  MinTcp state = idle_state();
  state.rcv_wscale = 7;
  state.rcv_wnd = 60032;
  Receiver r(state, 60032);
  const Seq edge = window_right_edge(r.end.cb);
  r.end.capacity = 1000;  // memory became short: what was offered stays offered
  r.get(0, 500);
  acknowledge_now(r.end.cb);
  const SegmentPlan ack = r.end.poll_one(at_ms(1));
  const Seq now_edge = ack.segment.ack + (std::uint32_t{ack.segment.window} << 7);
  EXPECT_GE(now_edge, edge);
  EXPECT_LT(now_edge - edge, 128);
}

TEST(Receive, VerdictsHaveNames) {
  for (std::size_t i = 0; i < kArrivals; ++i) EXPECT_NE(name(static_cast<Arrival>(i)), "unknown");
}

}  // namespace
}  // namespace twinstack::tcp::test
