// The end of a connection: close(), shutdown(), linger, orphans, in every order.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

#include "stack/test_support.h"

namespace twinstack::stack::test {
namespace {

struct Closing : ::testing::Test, OneHost {
  SoftStack& s() { return *stack; }
  void ack(std::uint32_t ours, std::uint32_t seq = 1001) { inject(segment(wire::kAck, seq, iss + ours)); }
  void fin(std::uint32_t ours, std::uint32_t seq = 1001) { inject(segment(wire::kFin | wire::kAck, seq, iss + ours)); }
  // Nothing but the listener is left.
  void expect_gone() {
    EXPECT_EQ(s().socket_count(), 1U);
    EXPECT_EQ(s().time_wait_count(), 0U);
    EXPECT_EQ(s().next_deadline(), kNever);
  }
};

TEST_F(Closing, LocalThenRemote) {
  const SocketId id = establish();
  s().close(id, now);
  const Seen out = take_one();
  EXPECT_EQ(flags_of(out.segment), "F.");
  EXPECT_EQ(out.segment.seq, Seq(iss + 1));
  ack(2);
  EXPECT_EQ(s().time_wait_count(), 1U) << "FIN-WAIT-2 of an orphan";
  fin(2);
  EXPECT_EQ(take_one().segment.ack, Seq(1002));
  advance(seconds(61));
  expect_gone();
}

TEST_F(Closing, RemoteThenLocal) {
  const SocketId id = establish();
  fin(1);
  take();
  s().close(id, now);
  const Seen out = take_one();
  EXPECT_EQ(flags_of(out.segment), "F.");
  EXPECT_EQ(out.segment.ack, Seq(1002));
  ack(2, 1002);
  expect_gone();
  ack(2, 1002);
  EXPECT_EQ(flags_of(take_one().segment), "R") << "nobody is there";
}

TEST_F(Closing, Simultaneous) {
  const SocketId id = establish();
  s().close(id, now);
  take();
  fin(1);
  EXPECT_EQ(take_one().segment.ack, Seq(1002)) << "CLOSING";
  EXPECT_EQ(s().time_wait_count(), 0U);
  ack(2, 1002);
  EXPECT_EQ(s().time_wait_count(), 1U);
  EXPECT_EQ(s().socket_count(), 1U);
}

TEST_F(Closing, UnreadBytesDrawAReset) {
  const SocketId id = establish();
  inject(segment(wire::kAck, 1001, iss + 1), "unread");
  take();
  s().close(id, now);
  const Seen out = take_one();
  EXPECT_EQ(flags_of(out.segment), "R.");
  EXPECT_EQ(out.segment.seq, Seq(iss + 1));
  EXPECT_EQ(out.segment.ack, Seq(1007));
  expect_gone();
  EXPECT_EQ(s().stats().abort_on_close, 1U);
}

TEST_F(Closing, LingerOfZeroDrawsAReset) {
  const SocketId id = establish();
  const linger zero{.l_onoff = 1, .l_linger = 0};
  EXPECT_EQ(s().set_option(id, SOL_SOCKET, SO_LINGER, std::as_bytes(std::span(&zero, 1)), now), 0);
  s().send(id, stream_bytes(1, 0, 100), 0, now);
  take();
  s().close(id, now);
  const Seen out = take_one();
  EXPECT_EQ(flags_of(out.segment), "R.");
  EXPECT_EQ(out.segment.seq, Seq(iss + 101));
  expect_gone();
}

TEST_F(Closing, QueuedBytesGoBeforeTheFin) {
  const SocketId id = establish();
  s().send(id, stream_bytes(1, 0, 20'000), 0, now);
  s().close(id, now);
  EXPECT_EQ(take().size(), 10U);
  ack(14601);
  const auto rest = take();
  ASSERT_EQ(rest.size(), 4U);
  EXPECT_TRUE(rest.back().segment.has(wire::kFin)) << "rides on the last";
  ack(20'002);
  fin(20'002);
  EXPECT_EQ(s().time_wait_count(), 1U);
}

TEST_F(Closing, DataAfterCloseDrawsAReset) {
  const SocketId id = establish();
  s().close(id, now);
  take();
  inject(segment(wire::kAck, 1001, iss + 1), "late");
  const Seen out = take_one();
  EXPECT_EQ(flags_of(out.segment), "R");
  EXPECT_EQ(out.segment.seq, Seq(iss + 1));
  expect_gone();
  EXPECT_EQ(s().stats().abort_on_data, 1U);
}

TEST_F(Closing, DataInFinWait2OfAnOrphanDrawsAReset) {
  const SocketId id = establish();
  s().close(id, now);
  ack(2);
  take();
  inject(segment(wire::kAck, 1001, iss + 2), "late");
  EXPECT_EQ(flags_of(take_one().segment), "R");
  expect_gone();
}

// RFC 5961 5.2: whoever only guesses ends nothing.
TEST_F(Closing, DataAfterCloseWithAnUnacceptableAckIsChallenged) {
  const SocketId id = establish();
  s().close(id, now);
  take();
  inject(segment(wire::kAck, 1001, iss + 1'000'000), "forged");
  const Seen out = take_one();
  EXPECT_EQ(flags_of(out.segment), ".");
  EXPECT_EQ(out.segment.seq, Seq(iss + 2));
  EXPECT_EQ(out.segment.ack, Seq(1001));
  inject(segment(wire::kAck, 1001, iss - 1'000'000), "forged");
  EXPECT_TRUE(take().empty()) << "challenges are limited in rate";
  EXPECT_EQ(s().socket_count(), 2U);
  EXPECT_EQ(s().stats().abort_on_data, 0U);
  inject(segment(wire::kAck, 1001, iss + 1), "late");
  EXPECT_EQ(flags_of(take_one().segment), "R");
  expect_gone();
}

// Also in FIN-WAIT-2 while it is not yet for a TIME-WAIT's memory.
TEST_F(Closing, DataAfterShutdownOfBothWithAnUnacceptableAckIsChallenged) {
  const SocketId id = establish();
  s().shutdown(id, SHUT_RDWR, now);
  ack(2);
  take();
  inject(segment(wire::kAck, 1001, iss + 3), "forged");
  EXPECT_EQ(flags_of(take_one().segment), ".");
  EXPECT_EQ(s().state(id), State::kFinWait2);
  inject(segment(wire::kAck, 1001, iss + 2), "late");
  EXPECT_EQ(flags_of(take_one().segment), "R");
  EXPECT_EQ(s().state(id), State::kClosed);
}

TEST_F(Closing, OldDataAfterCloseIsOnlyAcknowledged) {
  const SocketId id = establish();
  inject(segment(wire::kAck, 1001, iss + 1), "abc");
  Bytes room(3);
  s().recv(id, room, 0, now);
  s().close(id, now);
  take();
  inject(segment(wire::kAck, 1001, iss + 1), "abc");
  EXPECT_EQ(take_one().segment.ack, Seq(1004));
  EXPECT_EQ(s().socket_count(), 2U);
}

TEST_F(Closing, AnOrphanInFinWait2GivesUp) {
  const SocketId id = establish();
  s().close(id, now);
  ack(2);
  take();
  advance(seconds(59));
  EXPECT_EQ(s().time_wait_count(), 1U);
  advance(seconds(2));
  expect_gone();
  EXPECT_TRUE(take().empty());
}

TEST_F(Closing, ALongFinTimeoutKeepsTheConnection) {
  config.tcp_fin_timeout_s = 100;
  const SocketId id = establish();
  s().close(id, now);
  ack(2);
  EXPECT_EQ(s().time_wait_count(), 0U);
  EXPECT_EQ(s().socket_count(), 2U);
  advance(seconds(41));
  EXPECT_EQ(s().time_wait_count(), 1U);
  EXPECT_EQ(s().socket_count(), 1U);
  advance(seconds(60));
  expect_gone();
}

TEST_F(Closing, Linger2BelowZeroSkipsFinWait2) {
  const SocketId id = establish();
  EXPECT_EQ(s().set_option(id, IPPROTO_TCP, TCP_LINGER2, -1, now), 0);
  s().close(id, now);
  take();
  ack(2);
  EXPECT_EQ(flags_of(take_one().segment), "R.");
  expect_gone();
}

TEST_F(Closing, AnOrphanDoesNotRetransmitForEver) {
  const SocketId id = establish();
  s().close(id, now);
  advance(seconds(400));
  const auto sent = take();
  EXPECT_GE(sent.size(), 8U);
  EXPECT_LE(sent.size(), 11U);
  expect_gone();
}

// The peer closes its window and answers every probe, or every retransmission into it.
struct ClosedWindow : Closing, ::testing::WithParamInterface<bool> {};

TEST_P(ClosedWindow, KeepsNoOrphan) {
  const SocketId id = establish();
  wire::Segment closed = segment(wire::kAck, 1001, iss + 1);
  closed.window = 0;
  const bool in_flight = GetParam();
  if (!in_flight) inject(closed);
  EXPECT_EQ(s().send(id, Bytes(100), 0, now), 100);
  s().close(id, now);
  if (in_flight) inject(closed);
  for (int i = 0; i < 600 && s().socket_count() > 1; ++i) {
    advance(seconds(1));
    if (!take().empty()) inject(closed);
  }
  expect_gone();
}

INSTANTIATE_TEST_SUITE_P(All, ClosedWindow, ::testing::Bool(),
                         [](const auto& which) { return which.param ? "ThatShrank" : "ThatWasClosed"; });

TEST_F(Closing, TooManyOrphansAreReset) {
  config.tcp_max_orphans = 0;
  const SocketId id = establish();
  s().close(id, now);
  EXPECT_EQ(flags_of(take_one().segment), "R.");
  expect_gone();
}

TEST_F(Closing, AHalfClosedSocketGoesOnReading) {
  const SocketId id = establish();
  s().shutdown(id, SHUT_WR, now);
  EXPECT_EQ(s().state(id), State::kFinWait1);
  take();
  ack(2);
  EXPECT_EQ(s().state(id), State::kFinWait2);
  advance(seconds(300));
  EXPECT_EQ(s().state(id), State::kFinWait2) << "the program has it: no limit";
  inject(segment(wire::kAck, 1001, iss + 2), "hello");
  Bytes room(10);
  EXPECT_EQ(s().recv(id, room, 0, now), 5);
  fin(2, 1006);
  EXPECT_EQ(s().state(id), State::kClosed) << "TIME-WAIT lies beside the socket";
  EXPECT_EQ(s().poll(id), POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLHUP | POLLRDHUP);
  EXPECT_EQ(s().recv(id, room, 0, now), 0);
  EXPECT_EQ(s().time_wait_count(), 1U);
  EXPECT_EQ(s().close(id, now), 0);
}

TEST_F(Closing, UnreadBytesSurviveTimeWait) {
  const SocketId id = establish();
  s().shutdown(id, SHUT_WR, now);
  ack(2);
  inject(segment(wire::kFin | wire::kAck, 1001, iss + 2), "last");
  EXPECT_EQ(s().time_wait_count(), 1U);
  Bytes room(10);
  EXPECT_EQ(s().recv(id, room, 0, now), 4);
  EXPECT_EQ(s().recv(id, room, 0, now), 0);
}

TEST_F(Closing, AResetOfAnOrphan) {
  const SocketId id = establish();
  s().close(id, now);
  take();
  inject(segment(wire::kRst, 1001));
  expect_gone();
  EXPECT_TRUE(take().empty());
}

TEST_F(Closing, CloseOfASocketThatWasReset) {
  const SocketId id = establish();
  inject(segment(wire::kRst, 1001));
  s().close(id, now);
  expect_gone();
}

}  // namespace
}  // namespace twinstack::stack::test
