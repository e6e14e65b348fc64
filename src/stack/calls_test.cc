// What socket calls return: errno by errno, as Linux.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

#include "stack/test_support.h"

namespace twinstack::stack::test {
namespace {

constexpr std::uint32_t kIn = POLLIN | POLLRDNORM;
constexpr std::uint32_t kOut = POLLOUT | POLLWRNORM;

Bytes some(std::size_t count = 100) { return stream_bytes(1, 0, count); }

struct Calls : ::testing::Test, OneHost {
  SoftStack& s() { return *stack; }
  SocketId fresh(Family family = Family::kV4) { return s().socket(family); }
  // SYN-SENT towards the peer's port 5000.
  SocketId connecting() {
    const SocketId id = fresh();
    EXPECT_EQ(s().connect(id, {v4(2), 5000}, now), -EINPROGRESS);
    const Seen syn = take_one();
    EXPECT_EQ(flags_of(syn.segment), "S");
    iss = syn.segment.seq.raw();
    port = syn.flow.remote_port;
    return id;
  }
  SocketId connected() {
    const SocketId id = connecting();
    inject(segment(wire::kSyn | wire::kAck, 1000, iss + 1), {}, port);
    EXPECT_EQ(flags_of(take_one().segment), ".");
    EXPECT_EQ(s().connect(id, {v4(2), 5000}, now), 0);
    return id;
  }
  std::int64_t read(SocketId id, int flags = 0) {
    Bytes room(100);
    return s().recv(id, room, flags, now);
  }
  void reset_it(SocketId, std::uint16_t to = 80) { inject(segment(wire::kRst, 1001), {}, to); }
  std::uint16_t port = 0;
};

TEST_F(Calls, AnUnknownSocket) {
  const SocketId id = fresh();
  EXPECT_EQ(s().close(id, now), 0);
  EXPECT_EQ(s().close(id, now), -EBADF);
  for (const SocketId wrong : {id, SocketId{-1}, SocketId{12345}}) {
    EXPECT_EQ(s().bind(wrong, {v4(1), 80}), -EBADF);
    EXPECT_EQ(s().listen(wrong, 1, now), -EBADF);
    EXPECT_EQ(s().accept(wrong, nullptr, now), -EBADF);
    EXPECT_EQ(s().connect(wrong, {v4(2), 80}, now), -EBADF);
    EXPECT_EQ(s().send(wrong, some(), 0, now), -EBADF);
    EXPECT_EQ(read(wrong), -EBADF);
    EXPECT_EQ(s().shutdown(wrong, SHUT_WR, now), -EBADF);
    EXPECT_EQ(s().set_option(wrong, SOL_SOCKET, SO_KEEPALIVE, 1, now), -EBADF);
    EXPECT_EQ(s().poll(wrong), POLLNVAL);
  }
}

TEST_F(Calls, AFreshSocket) {
  const SocketId id = fresh();
  EXPECT_EQ(s().state(id), State::kClosed);
  EXPECT_EQ(s().poll(id), POLLHUP | kOut);
  EXPECT_EQ(s().send(id, some(), 0, now), -EPIPE);
  EXPECT_EQ(read(id), -ENOTCONN);
  EXPECT_EQ(s().shutdown(id, SHUT_RDWR, now), -ENOTCONN);
  EXPECT_EQ(s().shutdown(id, 7, now), -EINVAL);
  EXPECT_EQ(s().accept(id, nullptr, now), -EINVAL);
  Address address;
  EXPECT_EQ(s().peer_address(id, address), -ENOTCONN);
}

TEST_F(Calls, Bind) {
  const SocketId id = fresh();
  EXPECT_EQ(s().bind(id, {v4(9), 80}), -EADDRNOTAVAIL);
  EXPECT_EQ(s().bind(id, {v6(1), 80}), -EAFNOSUPPORT);
  EXPECT_EQ(s().bind(id, {v4(1), 80}), 0);
  EXPECT_EQ(s().bind(id, {v4(1), 81}), -EINVAL) << "once";
  EXPECT_EQ(s().bind(fresh(), {v4(1), 80}), -EADDRINUSE);
  EXPECT_EQ(s().bind(fresh(), {any_v4(), 80}), -EADDRINUSE);
  Address address;
  EXPECT_EQ(s().local_address(id, address), 0);
  EXPECT_EQ(address, (Address{v4(1), 80}));
}

TEST_F(Calls, ListenAndAccept) {
  const SocketId id = fresh();
  EXPECT_EQ(s().listen(id, 5, now), 0) << "binds by itself";
  Address address;
  s().local_address(id, address);
  EXPECT_GE(address.port, 32768);
  EXPECT_EQ(s().listen(id, 7, now), 0) << "again: another backlog";
  EXPECT_EQ(s().accept(id, nullptr, now), -EAGAIN);
  EXPECT_EQ(s().poll(id), 0U);
  EXPECT_EQ(read(id), -ENOTCONN);
  EXPECT_EQ(s().send(id, some(), 0, now), -EPIPE);
  EXPECT_EQ(s().connect(id, {v4(2), 80}, now), -EISCONN);
  EXPECT_EQ(s().unread_bytes(id), -EINVAL);
}

TEST_F(Calls, ConnectInProgressThenDone) {
  const SocketId id = connecting();
  EXPECT_EQ(s().state(id), State::kSynSent);
  EXPECT_EQ(s().connect(id, {v4(2), 5000}, now), -EALREADY);
  EXPECT_EQ(s().send(id, some(), 0, now), -EAGAIN);
  EXPECT_EQ(read(id), -EAGAIN);
  EXPECT_EQ(s().poll(id), 0U);
  inject(segment(wire::kSyn | wire::kAck, 1000, iss + 1), {}, port);
  EXPECT_EQ(s().poll(id), kOut);
  EXPECT_NE(woken[id] & POLLOUT, 0U);
  EXPECT_EQ(s().connect(id, {v4(2), 5000}, now), 0);
  EXPECT_EQ(s().connect(id, {v4(2), 5000}, now), -EISCONN);
  Address address;
  EXPECT_EQ(s().peer_address(id, address), 0);
  EXPECT_EQ(address, (Address{v4(2), 5000}));
}

TEST_F(Calls, ConnectRefused) {
  const SocketId id = connecting();
  inject(segment(wire::kRst | wire::kAck, 0, iss + 1), {}, port);
  EXPECT_EQ(s().poll(id), kIn | kOut | POLLERR | POLLHUP | POLLRDHUP);
  int error = 0;
  EXPECT_EQ(s().get_option(id, SOL_SOCKET, SO_ERROR, &error, now), 4);
  EXPECT_EQ(error, ECONNREFUSED);
  s().get_option(id, SOL_SOCKET, SO_ERROR, &error, now);
  EXPECT_EQ(error, 0) << "once";
  EXPECT_EQ(s().connect(id, {v4(2), 5000}, now), -ECONNABORTED) << "the error was read off";
  EXPECT_EQ(s().connect(id, {v4(2), 5000}, now), -EINPROGRESS) << "and it may be tried again";
}

TEST_F(Calls, ConnectRefusedIsToldByConnect) {
  const SocketId id = connecting();
  inject(segment(wire::kRst | wire::kAck, 0, iss + 1), {}, port);
  EXPECT_EQ(s().connect(id, {v4(2), 5000}, now), -ECONNREFUSED);
  EXPECT_EQ(s().connect(id, {v4(2), 5000}, now), -EINPROGRESS);
}

TEST_F(Calls, ConnectTimesOut) {
  config.tcp_syn_retries = 2;
  config.tcp_syn_linear_timeouts = 0;
  const SocketId id = connecting();
  advance(milliseconds(6999));
  EXPECT_EQ(s().state(id), State::kSynSent);
  EXPECT_EQ(take().size(), 2U) << "at 1 s and 3 s";
  advance(milliseconds(1));
  EXPECT_EQ(s().state(id), State::kClosed);
  EXPECT_EQ(s().send(id, some(), 0, now), -ETIMEDOUT);
  EXPECT_EQ(s().send(id, some(), 0, now), -EPIPE);
}

TEST_F(Calls, ConnectToNowhere) {
  EXPECT_EQ(s().connect(fresh(), {v6(2), 80}, now), -EAFNOSUPPORT);
  EXPECT_EQ(s().connect(fresh(), {IpAddress::from_v4({224, 0, 0, 1}), 80}, now), -ENETUNREACH);
  config.addresses = {v6(1)};
  EXPECT_EQ(s().connect(fresh(), {v4(2), 80}, now), -ENETUNREACH);
  const SocketId id = fresh(Family::kV6);
  EXPECT_EQ(s().set_option(id, IPPROTO_IPV6, IPV6_V6ONLY, 1, now), 0);
  EXPECT_EQ(s().connect(id, {v4(2), 80}, now), -ENETUNREACH);
  EXPECT_TRUE(take().empty());
}

TEST_F(Calls, AV6SocketTalksToV4) {
  const SocketId id = fresh(Family::kV6);
  EXPECT_EQ(s().connect(id, {v4(2), 80}, now), -EINPROGRESS);
  EXPECT_TRUE(take_one().flow.is_v4());
}

TEST_F(Calls, CloseInSynSentTellsNobody) {
  const SocketId id = connecting();
  EXPECT_EQ(s().close(id, now), 0);
  EXPECT_TRUE(take().empty());
  inject(segment(wire::kSyn | wire::kAck, 1000, iss + 1), {}, port);
  const Seen reset = take_one();
  EXPECT_EQ(flags_of(reset.segment), "R");
  EXPECT_EQ(reset.segment.seq, Seq(iss + 1));
  EXPECT_EQ(s().socket_count(), 0U);
}

TEST_F(Calls, ShutdownInSynSentDisconnects) {
  const SocketId id = connecting();
  EXPECT_EQ(s().shutdown(id, SHUT_WR, now), 0);
  EXPECT_EQ(s().state(id), State::kClosed);
  EXPECT_TRUE(take().empty());
  EXPECT_EQ(s().connect(id, {v4(2), 5000}, now), -EINPROGRESS);
}

TEST_F(Calls, AReadAndItsEnd) {
  const SocketId id = connected();
  EXPECT_EQ(read(id), -EAGAIN);
  inject(segment(wire::kAck, 1001, iss + 1), "hello", port);
  EXPECT_EQ(s().poll(id), kIn | kOut);
  EXPECT_EQ(s().unread_bytes(id), 5);
  EXPECT_EQ(read(id, MSG_PEEK), 5);
  EXPECT_EQ(read(id, MSG_TRUNC), 5) << "discards";
  EXPECT_EQ(read(id, MSG_OOB), -EINVAL);
  EXPECT_EQ(s().inq_hint(id), 0);
  inject(segment(wire::kFin | wire::kAck, 1006, iss + 1), {}, port);
  EXPECT_EQ(s().state(id), State::kCloseWait);
  EXPECT_EQ(s().poll(id), kIn | kOut | POLLRDHUP);
  EXPECT_EQ(read(id), 0);
  EXPECT_EQ(read(id), 0);
  EXPECT_EQ(s().inq_hint(id), 1);
  EXPECT_EQ(s().send(id, some(), 0, now), 100) << "half closed";
}

TEST_F(Calls, AReadOfNothing) {
  const SocketId id = connected();
  Bytes none;
  EXPECT_EQ(s().recv(id, none, 0, now), 0);
  EXPECT_EQ(s().send(id, none, 0, now), 0);
  EXPECT_EQ(s().send(id, some(), MSG_OOB, now), -EOPNOTSUPP);
}

TEST_F(Calls, SendAfterShutdown) {
  const SocketId id = connected();
  EXPECT_EQ(s().shutdown(id, SHUT_WR, now), 0);
  EXPECT_EQ(s().send(id, some(), 0, now), -EPIPE);
  EXPECT_EQ(s().poll(id), kOut);
  EXPECT_EQ(s().shutdown(id, SHUT_WR, now), 0) << "again: nothing";
  EXPECT_EQ(take().size(), 1U) << "one FIN";
}

TEST_F(Calls, ShutdownOfReadingOnlyMarksTheEnd) {
  const SocketId id = connected();
  EXPECT_EQ(s().shutdown(id, SHUT_RD, now), 0);
  EXPECT_TRUE(take().empty());
  EXPECT_EQ(s().poll(id), kIn | kOut | POLLRDHUP);
  EXPECT_EQ(read(id), 0);
  inject(segment(wire::kAck, 1001, iss + 1), "late", port);
  EXPECT_EQ(read(id), 4) << "as Linux: what comes all the same can be read";
  EXPECT_EQ(read(id), 0);
}

TEST_F(Calls, ResetWhileEstablished) {
  const SocketId id = establish();
  inject(segment(wire::kAck, 1001, iss + 1), "abc");
  take();
  inject(segment(wire::kRst, 1004));
  EXPECT_TRUE(take().empty());
  EXPECT_EQ(s().poll(id), kIn | kOut | POLLERR | POLLHUP | POLLRDHUP);
  EXPECT_NE(woken[id] & POLLERR, 0U);
  EXPECT_EQ(read(id), 3) << "what came before stays";
  EXPECT_EQ(read(id), -ECONNRESET);
  EXPECT_EQ(read(id), 0) << "once";
  EXPECT_EQ(s().send(id, some(), 0, now), -EPIPE);
  EXPECT_EQ(s().state(id), State::kClosed);
  EXPECT_EQ(s().close(id, now), 0);
}

TEST_F(Calls, ResetIsToldBySend) {
  const SocketId id = establish();
  reset_it(id);
  EXPECT_EQ(s().send(id, some(), 0, now), -ECONNRESET);
  EXPECT_EQ(s().send(id, some(), 0, now), -EPIPE);
  EXPECT_EQ(read(id), 0);
}

TEST_F(Calls, ResetInCloseWaitIsEpipe) {
  const SocketId id = establish();
  inject(segment(wire::kFin | wire::kAck, 1001, iss + 1));
  inject(segment(wire::kRst, 1002));
  EXPECT_EQ(read(id), 0) << "the end of the stream was there first";
  int error = 0;
  s().get_option(id, SOL_SOCKET, SO_ERROR, &error, now);
  EXPECT_EQ(error, EPIPE);
}

TEST_F(Calls, DisconnectAndConnectAgain) {
  const SocketId id = connected();
  EXPECT_EQ(s().disconnect(id, now), 0);
  EXPECT_EQ(flags_of(take_one().segment), "R.");
  EXPECT_EQ(s().state(id), State::kClosed);
  EXPECT_EQ(read(id), -ENOTCONN);
  EXPECT_EQ(s().connect(id, {v4(2), 5000}, now), -EINPROGRESS);
}

TEST_F(Calls, DisconnectOfAListener) {
  const SocketId id = establish();
  EXPECT_EQ(s().shutdown(listener, SHUT_WR, now), 0);
  EXPECT_EQ(s().state(listener), State::kListen);
  EXPECT_EQ(s().shutdown(listener, SHUT_RD, now), 0);
  EXPECT_EQ(s().state(listener), State::kClosed);
  EXPECT_EQ(s().state(id), State::kEstablished);
  EXPECT_EQ(s().listen(listener, 3, now), -EADDRINUSE) << "the child has the port, without SO_REUSEADDR";
}

TEST_F(Calls, RetransmissionTimesOut) {
  config.tcp_retries2 = 3;
  const SocketId id = establish();
  EXPECT_EQ(s().send(id, some(), 0, now), 100);
  advance(seconds(60));
  EXPECT_EQ(s().state(id), State::kClosed);
  EXPECT_EQ(read(id), -ETIMEDOUT);
  for (const Seen& seen : take()) EXPECT_FALSE(seen.segment.has(wire::kRst)) << "as Linux: silently";
}

// tcp_retries2 1: 600 ms from the first retransmission on, whatever the number of retransmissions.
TEST_F(Calls, RetriesAreATime) {
  config.tcp_retries2 = 1;
  const SocketId id = establish();
  EXPECT_EQ(s().send(id, some(), 0, now), 100);
  advance(milliseconds(1300));
  EXPECT_EQ(s().state(id), State::kEstablished);
  EXPECT_EQ(take().size(), 3U) << "at once, after 200 ms and after 400 more";
  advance(milliseconds(300));
  EXPECT_EQ(s().state(id), State::kClosed);
  EXPECT_TRUE(take().empty());
}

TEST_F(Calls, KeepaliveTimesOutWithAReset) {
  const SocketId id = establish();
  EXPECT_EQ(s().set_option(id, IPPROTO_TCP, TCP_KEEPIDLE, 10, now), 0);
  EXPECT_EQ(s().set_option(id, IPPROTO_TCP, TCP_KEEPINTVL, 2, now), 0);
  EXPECT_EQ(s().set_option(id, IPPROTO_TCP, TCP_KEEPCNT, 3, now), 0);
  EXPECT_EQ(s().set_option(id, SOL_SOCKET, SO_KEEPALIVE, 1, now), 0);
  advance(seconds(20));
  const auto sent = take();
  ASSERT_EQ(sent.size(), 4U);
  EXPECT_EQ(sent[0].segment.seq, Seq(iss)) << "one below what the peer waits for";
  EXPECT_EQ(flags_of(sent[3].segment), "R.");
  EXPECT_EQ(read(id), -ETIMEDOUT);
}

TEST_F(Calls, SendUntilFullThenRoom) {
  const SocketId id = establish();
  std::int64_t total = 0;
  while (true) {
    const std::int64_t done = s().send(id, some(10'000), 0, now);
    if (done == -EAGAIN) break;
    ASSERT_GT(done, 0);
    total += done;
  }
  EXPECT_EQ(total, s().unacknowledged_bytes(id));
  EXPECT_EQ(s().poll(id), 0U);
  woken.clear();
  const auto sent = take();
  ASSERT_EQ(sent.size(), 10U) << "the initial window";
  const std::uint32_t end = sent.back().segment.seq.raw() + static_cast<std::uint32_t>(sent.back().payload.size());
  inject(segment(wire::kAck, 1001, end));
  EXPECT_EQ(s().unacknowledged_bytes(id), total - (end - iss - 1));
  while ((s().poll(id) & POLLOUT) == 0) {
    const auto more = take();
    ASSERT_FALSE(more.empty());
    const Seen& last = more.back();
    inject(segment(wire::kAck, 1001, (last.segment.seq + static_cast<std::uint32_t>(last.payload.size())).raw()));
  }
  EXPECT_NE(woken[id] & POLLOUT, 0U);
}

TEST_F(Calls, OutOfOrderDataOfOnePeerIsBounded) {
  config.max_out_of_order_bytes_per_peer = 2500;
  const SocketId id = establish();
  const std::string text(1000, 'x');
  for (std::uint32_t i = 1; i <= 4; ++i) inject(segment(wire::kAck, 1001 + 1000 * i, iss + 1), text);
  EXPECT_EQ(s().out_of_order_bytes(v4(2)), 2000U);
  EXPECT_EQ(s().stats().peer_limit_drops, 2U);
  inject(segment(wire::kAck, 1001, iss + 1), text);
  EXPECT_EQ(s().out_of_order_bytes(v4(2)), 0U);
  EXPECT_EQ(s().unread_bytes(id), 3000);
  inject(segment(wire::kAck, 6001, iss + 1), text);
  inject(segment(wire::kRst, 4001));
  EXPECT_EQ(s().out_of_order_bytes(v4(2)), 0U) << "given back with the connection";
}

TEST_F(Calls, SocketsAreBounded) {
  config.max_sockets = 3;
  for (int i = 0; i < 3; ++i) EXPECT_GE(fresh(), 0);
  EXPECT_EQ(fresh(), -ENFILE);
}

}  // namespace
}  // namespace twinstack::stack::test
