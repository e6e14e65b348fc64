// Deadlines of connections: each is kept to the millisecond, whatever list it waits in until then.
#include <gtest/gtest.h>

#include "engine/lane_fixture.h"

namespace twinstack::engine {
namespace {

using namespace test;
using std::chrono::milliseconds;

class LaneTimers : public LaneFixture {
 protected:
  // The first ACKs of a connection do not wait.
  void start_past_quick_acks() {
    start();
    for (int i = 0; i < 40; ++i) {
      peer.send(peer_bytes(10));
      poll(milliseconds(1));
      program.read(conn);
      poll();
    }
    got();
  }
  // Goes from deadline to deadline, as a lane's thread does, until the lane sends something; when that was.
  Time next_sent(Duration limit) {
    const Time end = now + limit;
    while (now < end) {
      const Time next = box.lane.next_deadline();
      if (next == kNever) return kNever;
      now = std::max(next, now);
      poll();
      ++wake_ups;
      if (!(sent = got()).empty()) return now;
    }
    return kNever;
  }
  std::vector<RawPeer::Got> sent;
  int wake_ups = 0;
};

TEST_F(LaneTimers, ADelayedAckIsSentWhenItIsDue) {
  start_past_quick_acks();
  const Time begin = now;
  peer.send(peer_bytes(10));
  poll();
  ASSERT_TRUE(got().empty());
  const Time at = next_sent(milliseconds(200));
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].segment.ack, peer.seq);
  EXPECT_GE(at, begin + milliseconds(40));
  EXPECT_LE(at, begin + milliseconds(42));
}

TEST_F(LaneTimers, ARetransmissionIsSentWhenItIsDue) {
  start();
  got();
  const auto rto = std::chrono::microseconds(box.conn(id()).tcb.rto_us);
  ASSERT_GE(rto, milliseconds(150));
  program.write(conn, 100);
  poll();
  ASSERT_EQ(got().size(), 1U);
  const Time begin = now;
  const Time at = next_sent(std::chrono::seconds(2));
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].payload.size(), 100U);
  EXPECT_GE(at, begin + rto);
  EXPECT_LE(at, begin + rto + milliseconds(2));
}

// A deadline that is set while the connection waits to be looked at for another: the nearer one counts.
TEST_F(LaneTimers, ANearerDeadlineIsNotMissed) {
  start_past_quick_acks();
  program.write(conn, 100);
  poll();
  ASSERT_EQ(got().size(), 1U);
  peer.ack = peer.ack - 100;  // did not come: the peer acknowledges nothing, and wants an ACK itself
  peer.send(peer_bytes(10));
  poll(milliseconds(25));
  ASSERT_TRUE(got().empty());
  const Time begin = now;
  const Time at = next_sent(std::chrono::seconds(2));
  EXPECT_GE(at, begin + milliseconds(40));
  EXPECT_LE(at, begin + milliseconds(42)) << "the delayed ACK, before the retransmission";
}

// It had been running in the other stack, and is due sooner than the list looks.
TEST_F(LaneTimers, ADeadlineThatIsAlmostThereDoesNotWaitForALook) {
  Moved moved = idle();
  moved.send_queue = stream_bytes(conn.send_key, 0, 100);
  moved.min.snd_nxt += 100;
  moved.min.write_seq += 100;
  moved.min.stalled_us = moved.min.rto_us - 10'000;
  start(moved);
  ASSERT_EQ(box.call({.op = CommandOp::kSilent, .id = id(), .min = moved.min}).status, Status::kOk);
  poll();
  got();
  const Time begin = now;
  const Time at = next_sent(std::chrono::seconds(2));
  EXPECT_GE(at, begin + milliseconds(10));
  EXPECT_LE(at, begin + milliseconds(12));
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].payload.size(), 100U);
}

TEST_F(LaneTimers, WhatIsAcknowledgedLeavesNoDeadlineBehind) {
  start();
  got();
  program.write(conn, 100);
  poll();
  got();
  peer.send({});
  poll(milliseconds(1));
  EXPECT_EQ(next_sent(std::chrono::hours(1)), kNever);
  EXPECT_LE(wake_ups, 3);
  EXPECT_EQ(box.lane.next_deadline(), kNever);
}

// The slot's next connection is noted already; its own deadline is kept all the same.
TEST_F(LaneTimers, ASlotThatIsUsedAgainWhileItWaitsKeepsTheNewDeadline) {
  start();
  program.write(conn, 100);
  poll();
  const std::uint32_t slot_of_lane = id().index();
  extract(box, program, conn);
  program.pump();
  poll(milliseconds(20));
  start();
  ASSERT_EQ(id().index(), slot_of_lane);
  got();
  program.write(conn, 100);
  poll();
  got();
  const Time begin = now;
  const auto rto = std::chrono::microseconds(box.conn(id()).tcb.rto_us);
  const Time at = next_sent(std::chrono::seconds(2));
  EXPECT_GE(at, begin + rto);
  EXPECT_LE(at, begin + rto + milliseconds(2));
}

TEST_F(LaneTimers, AHeldConnectionSendsNothingWhenItsDeadlineComes) {
  start();
  program.write(conn, 100);
  poll();
  got();
  ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = id()}).status, Status::kOk);
  got();
  EXPECT_EQ(next_sent(std::chrono::seconds(5)), kNever);
  ASSERT_EQ(box.call({.op = CommandOp::kActivate, .id = id()}).status, Status::kOk);
  poll();
  got();
  EXPECT_NE(next_sent(std::chrono::seconds(5)), kNever) << "and goes on where it was";
  EXPECT_EQ(sent[0].payload.size(), 100U);
}

// A peer that sends small messages and waits for each ACK is answered as soon as the program has read. It is asked to
// wake the lane for that, and not when nothing waits for it.
TEST_F(LaneTimers, AnAckThatWaitsForTheReadGoesWithIt) {
  start_past_quick_acks();
  auto& want_read = program.arena().slot(5).want_read;
  peer.send(peer_bytes(10));
  poll();
  ASSERT_TRUE(got().empty());
  EXPECT_EQ(want_read.load(), ipc::WantRead::kLast);
  program.read(conn);
  poll();
  sent = got();
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].segment.ack, peer.seq);
  program.write(conn, 10);  // it answers: ACKs wait for answers
  poll();
  peer.send(peer_bytes(10));
  poll();
  EXPECT_EQ(want_read.load(), ipc::WantRead::kNone);
}

// The ACK of what fills a small buffer goes at once and says that the window is closed. The peer waits for it to open:
// the program is to wake the lane with each read.
TEST_F(LaneTimers, AClosedWindowIsOpenedByTheRead) {
  Moved moved = idle();
  moved.min.rcv_buf_bytes = 16384;
  moved.min.rcv_wnd = 8192;
  start(moved);
  got();
  auto& want_read = program.arena().slot(5).want_read;
  for (int i = 0; i < 8; ++i) peer.send(peer_bytes(1024));
  poll();
  sent = got();
  ASSERT_FALSE(sent.empty());
  ASSERT_EQ(sent.back().segment.window, 0U);
  EXPECT_EQ(want_read.load(), ipc::WantRead::kEvery);
  program.read(conn);
  poll();
  sent = got();
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].segment.window << moved.min.rcv_wscale, 8192U);
  EXPECT_EQ(want_read.load(), ipc::WantRead::kNone) << "it has been told";
}

}  // namespace
}  // namespace twinstack::engine
