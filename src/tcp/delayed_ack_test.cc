// When an ACK goes: at once, with the program's read, with its answer, or after a while (RFC 9293 3.8.6.3, and Linux's
// quick ACKs).
#include <gtest/gtest.h>

#include "tcp/receive.h"
#include "tcp/receiver_fixture.h"

namespace twinstack::tcp::test {
namespace {

constexpr std::uint8_t kAckPush = wire::kAck | wire::kPsh;

// A peer that sends small messages and waits for the ACK of each (Nagle) would be slowed down to one in 40 ms.
TEST(DelayedAck, ASmallMessageIsAcknowledgedWhenItIsRead) {
  Receiver r;
  r.get(0, 200, at_ms(1), kAckPush);
  EXPECT_TRUE(r.end.poll(at_ms(1)).empty());
  r.end.read(100, at_ms(2));
  EXPECT_TRUE(r.end.poll(at_ms(2)).empty()) << "half of it";
  r.end.read_all(at_ms(3));
  expect_ack(r.end.poll_one(at_ms(3)), kPeerSeq + 200);
  EXPECT_FALSE(owes_ack(r.end.cb));
}

TEST(DelayedAck, OfWhoAnswersItWaitsForTheAnswerUnlessTwoHaveCome) {
  Receiver r;
  set_quick_ack(r.end.cb, false);
  r.get(0, 200, at_ms(1), kAckPush);
  r.end.read_all(at_ms(1));
  EXPECT_TRUE(r.end.poll(at_ms(1)).empty());
  r.get(200, 200, at_ms(2), kAckPush);
  r.end.read_all(at_ms(2));
  expect_ack(r.end.poll_one(at_ms(2)), kPeerSeq + 400);
}

TEST(DelayedAck, AFullSegmentThatEndsAWriteIsAcknowledgedWhenItIsRead) {
  for (const std::uint8_t flags : {kAckPush, std::uint8_t{wire::kAck}}) {
    Receiver r;
    r.get(0, kMss, at_ms(1), flags);
    EXPECT_TRUE(r.end.poll(at_ms(1)).empty());
    r.end.read_all(at_ms(1));
    EXPECT_EQ(r.end.poll(at_ms(1)).size(), flags == kAckPush ? 1U : 0U);
  }
}

TEST(DelayedAck, WhatAnAnswerHasAcknowledgedIsNotAcknowledgedByTheRead) {
  Receiver r;
  r.get(0, 200, at_ms(1), kAckPush);
  r.end.write(100, at_ms(1));
  EXPECT_EQ(r.end.poll_one(at_ms(1)).segment.ack, Seq(kPeerSeq + 200));
  r.end.read_all(at_ms(2));
  EXPECT_TRUE(r.end.poll(at_ms(2)).empty());
}

// The peer has lost our ACK and begins anew with a small window: each of its next segments wants an ACK at once.
TEST(DelayedAck, DataThatComesAgainEndsTheWaiting) {
  Receiver r;
  set_quick_ack(r.end.cb, false);
  r.get(0, kMss);
  r.get(kMss, kMss);
  ASSERT_EQ(r.end.poll(at_ms(1)).size(), 1U);
  r.get(0, kMss, at_ms(300));
  expect_ack(r.end.poll_one(at_ms(300)), kPeerSeq + 2 * kMss);
  r.get(2 * kMss, kMss, at_ms(301));
  expect_ack(r.end.poll_one(at_ms(301)), kPeerSeq + 3 * kMss);
}

// A peer whose segments have become smaller, and whose window may be of two of them, need not wait for a delayed ACK.
TEST(DelayedAck, ThePeersSegmentsMayBecomeSmaller) {
  Receiver r;
  set_quick_ack(r.end.cb, false);
  r.get(0, kMss);
  r.get(kMss, kMss);
  ASSERT_EQ(r.end.poll(at_ms(1)).size(), 1U);
  std::uint32_t at = 2 * kMss;
  const auto two_smaller = [&] {
    for (int i = 0; i < 2; ++i, at += 500) r.get(at, 500, at_ms(2));
    return r.end.poll(at_ms(2)).size();
  };
  EXPECT_EQ(two_smaller(), 1U);
  EXPECT_EQ(r.end.cb.rcv_mss, 500U);
  EXPECT_EQ(two_smaller(), 1U);
  // The ends of writes tell nothing, nor does a single one.
  r.get(at, 300, at_ms(3), kAckPush);
  r.get(at + 300, 300, at_ms(3), kAckPush);
  r.get(at + 600, 300, at_ms(3));
  r.get(at + 900, 500, at_ms(3));
  r.get(at + 1400, 300, at_ms(3));
  EXPECT_EQ(r.end.cb.rcv_mss, 500U);
}

TEST(DelayedAck, SoDoesAProbeIntoAClosedWindow) {
  MinTcp state = idle_state();
  state.rcv_wnd = 0;
  Receiver r(state, 0);
  set_quick_ack(r.end.cb, false);
  r.end.cb.quick_acks = 0;
  r.get(0, 1, at_ms(100));
  EXPECT_EQ(r.end.poll(at_ms(100)).size(), 1U);
  EXPECT_FALSE(r.end.cb.has(kPingPong));
  EXPECT_GT(r.end.cb.quick_acks, 0U);
}

}  // namespace
}  // namespace twinstack::tcp::test
