// SoftKernelConn: moves out of the stack and back in, with nobody in between, and the quirks of Linux one by one.
#include "stack/soft_kernel_conn.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

#include "stack/test_support.h"

namespace twinstack::stack::test {
namespace {

using kernel::Phase;
using kernel::Reason;

// What an engine would hold between park and restore.
struct Taken {
  tcp::MinTcp min;
  Bytes unread;
  Bytes unacked;
  Bytes unsent;
};

Bytes bytes_of(std::span<const std::byte> view) { return {view.begin(), view.end()}; }

struct Mover {
  Mover(SoftStack& stack, SocketId id, const Time& now) : conn(stack, id, [&now] { return now; }) {}

  Result<kernel::Snapshot> freeze() {
    TRY(conn.check_eligible(limits));
    TRY(conn.attach_late_filter());
    return conn.freeze({receive_room, send_room});
  }
  // Freeze and park; what came late is taken in.
  Result<> take_out() {
    ASSIGN_OR_RETURN(const kernel::Snapshot snapshot, freeze());
    taken = {snapshot.min, bytes_of(snapshot.unread), bytes_of(snapshot.unacked), bytes_of(snapshot.unsent)};
    return park();
  }
  Result<> park() {
    ASSIGN_OR_RETURN(const kernel::LateBytes late, conn.park(receive_room));
    take_late(late);
    return {};
  }
  void take_late(const kernel::LateBytes& late) {
    EXPECT_EQ(late.first_seq, taken.min.rcv_nxt);
    taken.unread.insert(taken.unread.end(), late.bytes.begin(), late.bytes.end());
    taken.min.rcv_nxt += static_cast<std::uint32_t>(late.bytes.size());
    taken.min.rcv_wup = taken.min.rcv_nxt;
    Bytes all = taken.unacked;
    all.insert(all.end(), taken.unsent.begin(), taken.unsent.end());
    all.erase(all.begin(), all.begin() + (late.snd_una - taken.min.snd_una));
    taken.min.snd_una = late.snd_una;
    taken.min.snd_nxt = late.snd_nxt;
    const auto sent = static_cast<std::ptrdiff_t>(late.snd_nxt - late.snd_una);
    taken.unacked.assign(all.begin(), all.begin() + sent);
    taken.unsent.assign(all.begin() + sent, all.end());
  }
  Result<kernel::ReleaseReport> bring_back(bool probe = true) {
    TRY(conn.restore(taken.min, {taken.unread, taken.unacked}));
    return conn.release(taken.unsent, probe);
  }

  kernel::Limits limits;
  Bytes receive_room = Bytes(2U << 20);
  Bytes send_room = Bytes(5U << 20);
  Taken taken;
  SoftKernelConn conn;
};

struct Moves : ::testing::Test, OneHost {
  void SetUp() override {
    id = establish();
    mover = std::make_unique<Mover>(*stack, id, now);
  }
  SoftStack& s() { return *stack; }
  std::int64_t write(std::size_t count) { return s().send(id, stream_bytes(1, 0, count), 0, now); }
  const Connection& c() { return *s().connection(id); }
  void data(std::uint32_t seq, std::string_view text, std::uint32_t ours = 1) {
    inject(segment(wire::kAck, seq, iss + ours), text);
  }
  // As `data`, in spite of the filter.
  void past_filter(const wire::Segment& segment, std::string_view text = {}) {
    s().set_late_filter(id, false);
    inject(segment, text);
    s().set_late_filter(id, true);
  }
  SocketId id = kNoSocket;
  std::unique_ptr<Mover> mover;
};

TEST_F(Moves, OutAndBackUnnoticed) {
  write(2000);
  data(1001, "unread");
  take();
  ASSERT_TRUE(mover->take_out().has_value());
  EXPECT_EQ(mover->conn.phase(), Phase::kParked);
  EXPECT_EQ(mover->taken.unread.size(), 6U);
  EXPECT_EQ(mover->taken.unacked, stream_bytes(1, 0, 2000));
  EXPECT_TRUE(take().empty()) << "not a word to the peer";
  const auto report = mover->bring_back();
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(mover->conn.phase(), Phase::kRunning);
  const Seen probe = take_one();
  EXPECT_EQ(probe.segment.seq, Seq(iss)) << "R11";
  EXPECT_EQ(probe.segment.ack, Seq(1007));
  EXPECT_EQ(s().unread_bytes(id), 6);
  EXPECT_EQ(s().unacknowledged_bytes(id), 2000);
  EXPECT_EQ(s().state(id), State::kEstablished);
  EXPECT_NE(woken[id] & POLLIN, 0U) << "A5";
}

// Found by twinstack sim, seed 36: it stayed closed for ever.
TEST_F(Moves, AWindowThatWasClosedOpensAgain) {
  ASSERT_TRUE(mover->take_out().has_value());
  take();
  mover->taken.min.rcv_wnd = 0;
  mover->taken.min.rcv_wup = mover->taken.min.rcv_nxt;
  ASSERT_TRUE(mover->bring_back().has_value());
  EXPECT_GT(take_one().segment.window, 0U);
}

TEST_F(Moves, WhatARestoreLoses) {
  write(1000);
  advance(milliseconds(20));
  data(1001, "x", 1001);
  EXPECT_NE(c().cb.srtt_us8, 0U);
  const std::uint32_t srtt = c().cb.srtt_us8 / 8;
  ASSERT_TRUE(mover->take_out().has_value());
  EXPECT_EQ(mover->taken.min.srtt_us, srtt);
  ASSERT_TRUE(mover->bring_back().has_value());
  EXPECT_EQ(c().cb.srtt_us8, 0U);
  EXPECT_EQ(c().cb.rto_us, 3'000'000U) << "R5";
  EXPECT_EQ(c().counters.bytes_acked, 0U);
  EXPECT_EQ(mover->conn.past_counters().bytes_acked, 1000U);
  EXPECT_EQ(mover->conn.past_counters().bytes_received, 1U);
  ASSERT_TRUE(mover->take_out().has_value());
  EXPECT_EQ(mover->taken.min.srtt_us, srtt) << "R10: nothing was measured since";
}

TEST_F(Moves, ABufferThatTheProgramHasSetStaysAsItIs) {
  ASSERT_TRUE(mover->take_out().has_value());
  EXPECT_EQ(mover->taken.min.flags & tcp::kFlagFixedReceiveBuffer, 0);
  ASSERT_TRUE(mover->bring_back().has_value());
  s().set_option(id, SOL_SOCKET, SO_RCVBUF, 50'000, now);
  ASSERT_TRUE(mover->take_out().has_value());
  EXPECT_NE(mover->taken.min.flags & tcp::kFlagFixedReceiveBuffer, 0) << "auto-tuning is off in the engine too";
}

// RestoreQueues::acked_bytes: the byte is in flight until its ACK comes again, and counts once.
TEST_F(Moves, AByteThatTheKernelIsTaughtWithCountsOnce) {
  write(1000);
  data(1001, "", 1001);
  const Seq una = c().cb.snd_una;
  ASSERT_TRUE(mover->take_out().has_value());
  tcp::MinTcp before = mover->taken.min;
  before.snd_una -= 1;
  const Bytes zero(1);
  ASSERT_TRUE(mover->conn.restore(before, {.unread = {}, .unacked = zero, .acked_bytes = 1}).has_value());
  ASSERT_TRUE(mover->conn.release({}, false).has_value());
  EXPECT_EQ(c().cb.snd_una + 1, una);
  EXPECT_EQ(mover->conn.past_counters().bytes_acked, 999U);
  data(1001, "", 1001);
  EXPECT_EQ(c().cb.snd_una, una);
  EXPECT_EQ(c().counters.bytes_acked, 1U);
  ASSERT_TRUE(mover->take_out().has_value());
  EXPECT_EQ(mover->conn.past_counters().bytes_acked, 1000U);
  EXPECT_EQ(mover->taken.min.bytes_acked, 1000U);
}

// For tests that tell what Linux forgets from what a move breaks.
TEST_F(Moves, AKernelThatForgetsNothing) {
  mover->conn.quirks.forgets = false;
  write(1000);
  advance(milliseconds(20));
  data(1001, "x", 1001);
  const std::uint32_t srtt_us = c().cb.srtt_us8 / 8;
  const std::uint32_t rto_us = c().cb.rto_us;
  ASSERT_TRUE(mover->take_out().has_value());
  mover->taken.min.reordering_segments = 7;
  ASSERT_TRUE(mover->bring_back().has_value());
  EXPECT_EQ(c().cb.srtt_us8 / 8, srtt_us);
  EXPECT_NEAR(c().cb.rto_us, rto_us, 10);
  EXPECT_EQ(c().cb.reordering, 7U);
}

// As LinuxKernelConn::write_unsent().
TEST_F(Moves, WhatWasWrittenWithMoreToFollowGoesOnWaiting) {
  ASSERT_EQ(s().send(id, stream_bytes(1, 0, 100), MSG_MORE, now), 100);
  ASSERT_TRUE(mover->take_out().has_value());
  EXPECT_NE(mover->taken.min.flags & tcp::kFlagMoreFollows, 0);
  take();
  ASSERT_TRUE(mover->bring_back().has_value());
  EXPECT_EQ(take_one().payload, "") << "the probe";
  ASSERT_EQ(s().send(id, stream_bytes(1, 100, 100), 0, now), 100);
  EXPECT_EQ(take_one().payload.size(), 200U);
}

// As Linux, which counts what it writes in repair mode as sent in one call.
TEST_F(Moves, NagleHoldsBackBehindASmallSegmentOfBeforeTheMove) {
  write(100);
  ASSERT_EQ(s().send(id, stream_bytes(1, 100, 50), 0, now), 50);
  ASSERT_TRUE(mover->take_out().has_value());
  EXPECT_EQ(mover->taken.unsent.size(), 50U);
  take();
  ASSERT_TRUE(mover->bring_back().has_value());
  EXPECT_EQ(take_one().payload, "") << "the probe";
  data(1001, "", 101);
  const Seen held = take_one();
  EXPECT_EQ(held.payload.size(), 50U);
  EXPECT_EQ(flags_of(held.segment), "P.");
}

TEST_F(Moves, SentBytesThatWereLostReturnAfterASecond) {
  write(1000);
  ASSERT_TRUE(mover->take_out().has_value());
  take();
  ASSERT_TRUE(mover->bring_back(false).has_value());
  EXPECT_TRUE(take().empty());
  advance(milliseconds(999));
  EXPECT_TRUE(take().empty());
  advance(milliseconds(2));
  EXPECT_EQ(take_one().payload.size(), 1000U) << "R5";
}

TEST_F(Moves, WhoWasSilentForTooLongIsGivenUpAtTheNextTimeout) {
  write(1000);
  ASSERT_TRUE(mover->take_out().has_value());
  ASSERT_TRUE(mover->bring_back().has_value());
  ASSERT_TRUE(mover->conn.expire().has_value());
  advance(milliseconds(1100));
  EXPECT_EQ(s().state(id), State::kClosed);
  int error = 0;
  s().get_option(id, SOL_SOCKET, SO_ERROR, &error, now);
  EXPECT_EQ(error, ETIMEDOUT);
}

TEST_F(Moves, WhoIsHeardOfAfterAllGoesOnAsBefore) {
  const auto timeout = [&] {
    int value = 0;
    s().get_option(id, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, now);
    return value;
  };
  s().set_option(id, IPPROTO_TCP, TCP_USER_TIMEOUT, 30'000, now);
  ASSERT_TRUE(mover->take_out().has_value());
  ASSERT_TRUE(mover->bring_back().has_value());
  ASSERT_TRUE(mover->conn.expire().has_value());
  advance(milliseconds(100));
  EXPECT_FALSE(mover->conn.settle(false));
  EXPECT_EQ(timeout(), 1);
  data(1001, "here");
  EXPECT_TRUE(mover->conn.settle(false));
  EXPECT_EQ(timeout(), 30'000);
}

TEST_F(Moves, CongestionStateComesBackIfThereIsAHook) {
  for (const bool hook : {true, false}) {
    mover->conn.quirks.restores_congestion = hook;
    ASSERT_TRUE(mover->take_out().has_value());
    mover->taken.min.cwnd_segments = 77;
    mover->taken.min.ssthresh_segments = 50;
    ASSERT_TRUE(mover->bring_back().has_value());
    EXPECT_EQ(c().cb.cwnd, hook ? 77U : 10U);
    EXPECT_EQ(c().cb.ssthresh, hook ? 50U : tcp::kInfiniteSsthresh);
  }
}

TEST_F(Moves, TheFilterCatchesAndTheCallerInjects) {
  ASSERT_TRUE(mover->take_out().has_value());
  data(1001, "late");
  EXPECT_TRUE(take().empty());
  const auto late = s().take_late_packets();
  ASSERT_EQ(late.size(), 1U);
  EXPECT_EQ(late[0].cookie, mover->conn.cookie());
  ASSERT_TRUE(mover->bring_back().has_value());
  s().on_ip_packet(late[0].bytes, now);
  EXPECT_EQ(s().unread_bytes(id), 4);
}

TEST_F(Moves, LateBytesArePartOfThePark) {
  write(1000);
  ASSERT_TRUE(mover->freeze().has_value());
  mover->taken.min = {};
  const auto again = [&] {
    mover->taken.min.rcv_nxt = 1001;
    mover->taken.min.snd_una = iss + 1;
    mover->taken.unacked = stream_bytes(1, 0, 1000);
  };
  again();
  take();
  past_filter(segment(wire::kAck, 1001, iss + 501), "late");
  EXPECT_EQ(s().unread_bytes(id), 4) << "the frozen socket takes it in and acknowledges";
  ASSERT_TRUE(mover->park().has_value());
  EXPECT_EQ(mover->taken.unread.size(), 4U);
  EXPECT_EQ(mover->taken.min.rcv_nxt, 1005U);
  EXPECT_EQ(mover->taken.min.snd_una, iss + 501);
  EXPECT_EQ(mover->taken.unacked.size(), 500U);
}

TEST_F(Moves, AWindowThatOpensAfterTheSnapshotLetsMoreOut) {
  write(30'000);
  EXPECT_EQ(take().size(), 10U);
  mover->conn.quirks.opens_after_snapshot = true;
  ASSERT_TRUE(mover->freeze().has_value());
  EXPECT_TRUE(take().empty()) << "cwnd is full all the same";
  past_filter(segment(wire::kAck, 1001, iss + 1 + 14600));
  EXPECT_TRUE(take().empty()) << "R17: the window stays closed to new data";
}

TEST_F(Moves, FreezeSendsTheDelayedAckOrLosesIt) {
  for (const bool loses : {false, true}) {
    Bytes room(100);
    std::uint32_t seq = loses ? 1101 : 1001;
    data(seq, "abc");
    s().recv(id, room, 0, now);
    write(10);  // answers: from here ACKs may wait
    take();
    data(seq + 3, "def", c().cb.snd_nxt.raw() - iss);
    const bool waits = take().empty();
    ASSERT_TRUE(waits);
    mover->conn.quirks.loses_delayed_ack = loses;
    ASSERT_TRUE(mover->freeze().has_value());
    EXPECT_EQ(take().size(), loses ? 0U : 1U) << "F5";
    ASSERT_TRUE(mover->conn.thaw().has_value());
    take();
    if (!loses) data(1007, std::string(94, 'x'), c().cb.snd_nxt.raw() - iss);
    s().recv(id, room, 0, now);
  }
}

TEST_F(Moves, ThawGoesOnWhereItWas) {
  write(20'000);
  EXPECT_EQ(take().size(), 10U);
  ASSERT_TRUE(mover->freeze().has_value());
  EXPECT_EQ(s().send(id, stream_bytes(1, 0, 10), 0, now), -EINVAL) << "A3";
  Bytes room(10);
  EXPECT_EQ(s().recv(id, room, 0, now), -EPERM) << "A3";
  ASSERT_TRUE(mover->conn.thaw().has_value());
  EXPECT_EQ(mover->conn.phase(), Phase::kRunning);
  take();
  inject(segment(wire::kAck, 1001, iss + 1 + 14600));
  EXPECT_EQ(take().size(), 4U);
  EXPECT_EQ(s().send(id, stream_bytes(1, 0, 10), 0, now), 10);
}

TEST_F(Moves, AThawMayLeaveUnsentBytesCountedAsSent) {
  write(20'000);
  take();
  mover->conn.quirks.marks_unsent = true;
  ASSERT_TRUE(mover->freeze().has_value());
  ASSERT_TRUE(mover->conn.thaw().has_value());
  EXPECT_EQ(c().cb.snd_nxt, c().cb.write_seq) << "A3";
  take();
  inject(segment(wire::kAck, 1001, iss + 1 + 14600));
  EXPECT_TRUE(take().empty());
  advance(seconds(5));
  EXPECT_FALSE(take().empty()) << "a timer repairs it";
}

TEST_F(Moves, RefusalsAndTheirReasons) {
  const auto reason = [&] {
    EXPECT_FALSE(mover->conn.check_eligible(mover->limits).has_value());
    return mover->conn.reason();
  };
  mover->conn.fail.check = 1;
  EXPECT_EQ(reason(), Reason::kUrgentData);
  s().set_option(id, IPPROTO_TCP, 36, 1, now);
  EXPECT_EQ(reason(), Reason::kControlData);
  s().set_option(id, IPPROTO_TCP, 36, 0, now);
  s().set_option(id, SOL_SOCKET, SO_RCVLOWAT, 5, now);
  EXPECT_EQ(reason(), Reason::kLowWater);
  s().set_option(id, SOL_SOCKET, SO_RCVLOWAT, 1, now);
  data(1005, "hole before");
  EXPECT_EQ(reason(), Reason::kOutOfOrder);
  data(1001, "fill");
  mover->limits.receive_queue_bytes = 3;
  EXPECT_EQ(reason(), Reason::kReceiveQueueLimit);
  mover->limits = {};
  mover->limits.congestion_controls = {"bbr"};
  EXPECT_EQ(reason(), Reason::kCongestionControl);
  mover->limits = {};
  EXPECT_TRUE(mover->conn.check_eligible(mover->limits).has_value());
  inject(segment(wire::kFin | wire::kAck, 1016, iss + 1));
  EXPECT_EQ(reason(), Reason::kNotEstablished);
}

TEST_F(Moves, WhatComesUpAfterTheCheckIsFoundByTheFreeze) {
  ASSERT_TRUE(mover->conn.check_eligible(mover->limits).has_value());
  inject(segment(wire::kFin | wire::kAck, 1001, iss + 1));
  ASSERT_TRUE(mover->conn.attach_late_filter().has_value());
  const auto snapshot = mover->conn.freeze({mover->receive_room, mover->send_room});
  ASSERT_FALSE(snapshot.has_value());
  EXPECT_EQ(snapshot.error().code, ErrorCode::kNotEligible);
  EXPECT_EQ(mover->conn.phase(), Phase::kRunning);
}

TEST_F(Moves, AQueueThatExceedsTheRoom) {
  data(1001, "text");
  mover->receive_room.resize(4);
  const auto snapshot = mover->freeze();
  ASSERT_FALSE(snapshot.has_value());
  EXPECT_EQ(snapshot.error().code, ErrorCode::kNoResource);
}

TEST_F(Moves, StaleBytesBeforeTheSendQueue) {
  write(100);
  mover->conn.quirks.stale_bytes = 7;
  const auto snapshot = mover->freeze();
  ASSERT_TRUE(snapshot.has_value());
  EXPECT_EQ(bytes_of(snapshot->unacked), stream_bytes(1, 0, 100)) << "S8";
  EXPECT_EQ(snapshot->unacked.data() - mover->send_room.data(), 7);
}

TEST_F(Moves, EveryStepCanFail) {
  mover->conn.fail.attach = 1;
  EXPECT_FALSE(mover->conn.attach_late_filter().has_value());
  mover->conn.fail.freeze = 1;
  EXPECT_FALSE(mover->freeze().has_value());
  EXPECT_EQ(mover->conn.phase(), Phase::kRunning);
  ASSERT_TRUE(mover->freeze().has_value());
  mover->taken.min.rcv_nxt = 1001;
  mover->taken.min.snd_una = mover->taken.min.snd_nxt = iss + 1;
  mover->conn.fail.park = 1;
  EXPECT_FALSE(mover->park().has_value());
  EXPECT_EQ(mover->conn.phase(), Phase::kFrozen) << "nothing done";
  mover->conn.fail.park = 1;
  mover->conn.fail.park_leaves = Phase::kGap;
  EXPECT_FALSE(mover->park().has_value());
  EXPECT_EQ(mover->conn.phase(), Phase::kGap);
}

TEST_F(Moves, InTheGapAPacketDrawsAReset) {
  ASSERT_TRUE(mover->take_out().has_value());
  mover->conn.fail.restore = 1;
  EXPECT_FALSE(mover->bring_back().has_value());
  EXPECT_EQ(mover->conn.phase(), Phase::kGap);
  data(1001, "x");
  EXPECT_EQ(flags_of(take_one().segment), "R") << "F3";
  EXPECT_TRUE(mover->bring_back().has_value()) << "restore() may be tried again";
  EXPECT_EQ(s().state(id), State::kEstablished);
}

TEST_F(Moves, APurgeBreaksTheStream) {
  ASSERT_TRUE(mover->freeze().has_value());
  mover->conn.fail.purge = 1;
  const auto late = mover->conn.park(mover->receive_room);
  ASSERT_FALSE(late.has_value());
  EXPECT_EQ(late.error().code, ErrorCode::kBroken) << "F2";
  mover->conn.reset();
  EXPECT_EQ(s().state(id), State::kClosed);
}

TEST_F(Moves, WhatComesAfterTheLastLookIsAcknowledgedAndGone) {
  ASSERT_TRUE(mover->freeze().has_value());
  take();
  mover->conn.meanwhile = [&] {
    past_filter(segment(wire::kAck, 1001, iss + 1), "lost");
    past_filter(segment(wire::kAck, 1005, iss + 1), "too");
  };
  const auto late = mover->conn.park(mover->receive_room);
  ASSERT_FALSE(late.has_value());
  EXPECT_EQ(late.error().code, ErrorCode::kBroken) << "F2";
  EXPECT_FALSE(take().empty()) << "the peer will not send it again";
}

TEST_F(Moves, AFinPastTheFilterIsToldAndComesAgain) {
  ASSERT_TRUE(mover->freeze().has_value());
  past_filter(segment(wire::kFin | wire::kAck, 1001, iss + 1));
  const auto late = mover->conn.park(mover->receive_room);
  ASSERT_TRUE(late.has_value());
  EXPECT_TRUE(late->fin);
  EXPECT_TRUE(late->bytes.empty());
  EXPECT_EQ(mover->conn.rcv_queue_seq().value_or(0), 1001U);
}

// Found by twinstack sim, seed 300618: the program read in the kernel what it had read in the engine.
TEST_F(Moves, AResetLeavesNothingToRead) {
  data(1001, "unread");
  ASSERT_TRUE(mover->freeze().has_value());
  EXPECT_EQ(mover->conn.phase(), Phase::kFrozen);
  mover->conn.reset();
  Bytes room(100);
  EXPECT_EQ(s().recv(id, room, 0, now), -ENOTCONN);
  EXPECT_EQ(take().back().segment.flags & wire::kRst, wire::kRst);
}

TEST_F(Moves, SomebodyReceivesOnTheShell) {
  ASSERT_TRUE(mover->take_out().has_value());
  EXPECT_FALSE(mover->conn.stray_write_detected().value());
  past_filter(segment(wire::kAck, 1001, iss + 1), "stray");
  EXPECT_TRUE(mover->conn.stray_write_detected().value());
  EXPECT_EQ(mover->conn.rcv_queue_seq().value(), 1006U);
}

TEST_F(Moves, AnAckBeyondSndNxtIsDropped) {
  write(1000);
  ASSERT_TRUE(mover->take_out().has_value());
  ASSERT_TRUE(mover->bring_back().has_value());
  take();
  data(1001, "x", 2001);
  EXPECT_EQ(s().unacknowledged_bytes(id), 1000) << "R16";
  EXPECT_EQ(s().unread_bytes(id), 0);
  EXPECT_EQ(take().size(), 1U) << "a challenge";
}

TEST_F(Moves, AnOvertakenAckIsDropped) {
  write(1000);
  take();
  data(1001, "", 1001);
  ASSERT_TRUE(mover->take_out().has_value());
  ASSERT_TRUE(mover->bring_back().has_value());
  take();
  data(1001, "old", 501);
  EXPECT_EQ(s().unread_bytes(id), 0) << "R20";
  EXPECT_EQ(take().size(), 1U) << "a challenge";
  data(1001, "new", 1001);
  EXPECT_EQ(s().unread_bytes(id), 3);
}

TEST_F(Moves, UnsentBytesThatDoNotFit) {
  write(30'000);
  take();
  ASSERT_TRUE(mover->take_out().has_value());
  EXPECT_EQ(mover->taken.unsent.size(), 30'000U - 14'600U);
  mover->conn.fail.release_takes = 100;
  const auto report = mover->bring_back();
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->unsent_taken_bytes, 100U) << "R7";
}

TEST_F(Moves, AResetPastTheFilterIsToldOnce) {
  ASSERT_TRUE(mover->take_out().has_value());
  ASSERT_TRUE(mover->conn.restore(mover->taken.min, {}).has_value());
  past_filter(segment(wire::kRst, 1001));
  const auto report = mover->conn.release(stream_bytes(1, 0, 5), true);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->socket_error, ECONNRESET) << "R12";
  EXPECT_EQ(report->unsent_taken_bytes, 0U);
}

TEST_F(Moves, TheMoverKeepsTheSocketWhenTheProgramCloses) {
  EXPECT_EQ(s().close(id, now), 0);
  EXPECT_TRUE(take().empty());
  EXPECT_EQ(s().state(id), State::kEstablished);
  mover.reset();
  EXPECT_EQ(flags_of(take_one().segment), "F.");
}

TEST_F(Moves, ClosingInRepairModeTellsNobody) {
  ASSERT_TRUE(mover->take_out().has_value());
  s().close(id, now);
  mover.reset();
  EXPECT_TRUE(take().empty()) << "P5";
  EXPECT_EQ(s().socket_count(), 1U);
  data(1001, "x");
  EXPECT_EQ(flags_of(take_one().segment), "R");
}

// A stream both ways over a bad network, with the server's end taken out and brought back again and again. Packets that
// the filter caught are injected afterwards; of those that arrive at the frozen socket some are past the filter.
TEST(MovesUnderLoad, TheStreamIsWholeFromManySeeds) {
  int moves = 0;
  for (std::uint64_t seed = 1; seed <= 60 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    TwoHosts net(seed);
    net.keep = false;
    net.faults.loss_ppm = net.rng.below(2) * net.rng.below(50'000);
    net.faults.reorder_ppm = net.rng.below(2) * net.rng.below(100'000);
    net.configs[0].tcp_timestamps = net.rng.below(2) == 0;
    const auto pair = net.connect(net.listen());
    Mover mover(net.server(), pair.server, net.now);
    mover.limits.allow_loss_recovery = net.rng.below(2) == 0;
    std::uint64_t written[2] = {};
    std::uint64_t read[2] = {};
    constexpr std::uint64_t kAll = 400'000;
    Bytes left;  // of the server's stream, that a release did not take
    const auto turn = [&](SoftStack& stack, SocketId id, int me) {
      while (written[me] < kAll) {
        const auto piece = std::min<std::uint64_t>(4000, kAll - written[me]);
        const auto done = stack.send(id, stream_bytes(static_cast<std::uint64_t>(me), written[me], piece), 0, net.now);
        if (done <= 0) break;
        written[me] += static_cast<std::uint64_t>(done);
      }
      Bytes room(net.rng.below(20'000) + 1);
      const auto got = stack.recv(id, room, 0, net.now);
      for (std::int64_t i = 0; i < got; ++i) {
        EXPECT_EQ(room[static_cast<std::size_t>(i)], stream_byte(static_cast<std::uint64_t>(1 - me), read[me]++));
      }
    };
    const auto finish_server = [&] {
      if (mover.conn.phase() != Phase::kParked) return;
      ASSERT_TRUE(mover.bring_back(net.rng.below(4) != 0).has_value());
      for (const LatePacket& late : net.server().take_late_packets()) {
        net.server().on_ip_packet(late.bytes, net.now);
      }
      ++moves;
    };
    const Time end = net.now + seconds(2000);
    while (net.now < end && (read[0] < kAll || read[1] < kAll) && !::testing::Test::HasFailure()) {
      turn(net.client(), pair.client, 0);
      if (mover.conn.phase() == Phase::kRunning) {
        turn(net.server(), pair.server, 1);
        if (net.rng.below(20) == 0) static_cast<void>(mover.take_out());
        if (mover.conn.phase() == Phase::kRunning) static_cast<void>(mover.conn.detach_late_filter());
        if (mover.conn.phase() == Phase::kRunning) {
          for (const LatePacket& late : net.server().take_late_packets()) {
            net.server().on_ip_packet(late.bytes, net.now);
          }
        }
      } else if (net.rng.below(5) == 0) {
        finish_server();
      }
      net.step(std::min(end, net.now + milliseconds(10)));
    }
    EXPECT_EQ(read[0], kAll);
    EXPECT_EQ(read[1], kAll);
    EXPECT_EQ(net.client().state(pair.client), State::kEstablished);
  }
  EXPECT_GT(moves, 150);
}

}  // namespace
}  // namespace twinstack::stack::test
