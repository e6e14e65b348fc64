// LISTEN: exact replies, the two queues and their bounds, deferred accept, a listener that goes.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

#include "stack/test_support.h"

namespace twinstack::stack::test {
namespace {

struct Listening : ::testing::Test, OneHost {
  SoftStack& s() { return *stack; }
  SocketId open(std::uint32_t backlog = 8, std::uint16_t port = 80, const IpAddress& ip = any_v4()) {
    listener = s().socket(ip.is_v4() ? Family::kV4 : Family::kV6);
    EXPECT_EQ(s().bind(listener, {ip, port}), 0);
    EXPECT_EQ(s().listen(listener, backlog, now), 0);
    return listener;
  }
  // SYN of the peer's `port`; the SYN-ACK's number.
  std::uint32_t syn(std::uint16_t port) {
    inject(segment(wire::kSyn, 1000), {}, 80, port);
    const auto all = take();
    return all.size() == 1 ? all[0].segment.seq.raw() : 0;
  }
  void complete(std::uint16_t port, std::uint32_t number, std::string_view text = {}) {
    inject(segment(wire::kAck, 1001, number + 1), text, 80, port);
  }
};

TEST_F(Listening, ExactReplies) {
  open();
  inject(segment(wire::kRst, 5));
  inject(segment(wire::kFin, 5));
  inject(segment(0, 5));
  inject(segment(wire::kSyn | wire::kFin, 5));
  EXPECT_TRUE(take().empty());
  inject(segment(wire::kAck, 5, 77));
  const Seen reset = take_one();
  EXPECT_EQ(flags_of(reset.segment), "R");
  EXPECT_EQ(reset.segment.seq, Seq(77));
  EXPECT_EQ(reset.segment.ack, Seq(0));
  EXPECT_EQ(reset.segment.window, 0);
  inject(segment(wire::kSyn, 1000));
  const Seen answer = take_one();
  EXPECT_EQ(flags_of(answer.segment), "S.");
  EXPECT_EQ(answer.segment.ack, Seq(1001));
  EXPECT_EQ(answer.segment.options.mss, 1460);
  EXPECT_EQ(answer.segment.window, 64240) << "44 segments of a buffer's half";
}

TEST_F(Listening, ClosedPortsAnswerByReset) {
  inject(segment(wire::kSyn, 1000), {}, 81);
  const Seen reset = take_one();
  EXPECT_EQ(flags_of(reset.segment), "R.");
  EXPECT_EQ(reset.segment.seq, Seq(0));
  EXPECT_EQ(reset.segment.ack, Seq(1001));
  inject(segment(wire::kAck, 1000, 55), "text", 81);
  EXPECT_EQ(take_one().segment.seq, Seq(55));
  inject(segment(wire::kRst, 1000), {}, 81);
  EXPECT_TRUE(take().empty()) << "never a reset for a reset";
}

TEST_F(Listening, WhatIsNotForUsIsDropped) {
  open();
  config.addresses = {v4(7)};
  inject(segment(wire::kSyn, 1000));
  EXPECT_TRUE(take().empty());
  EXPECT_EQ(s().stats().not_for_us, 1U);
}

TEST_F(Listening, AcceptInOrder) {
  open();
  const std::uint32_t first = syn(5001);
  const std::uint32_t second = syn(5002);
  EXPECT_EQ(s().half_open_count(), 2U);
  complete(5002, second);
  complete(5001, first);
  EXPECT_EQ(s().half_open_count(), 0U);
  EXPECT_EQ(s().poll(listener), POLLIN | POLLRDNORM);
  EXPECT_NE(woken[listener] & POLLIN, 0U);
  Address peer;
  EXPECT_GE(s().accept(listener, &peer, now), 0);
  EXPECT_EQ(peer, (Address{v4(2), 5002}));
  EXPECT_GE(s().accept(listener, &peer, now), 0);
  EXPECT_EQ(peer.port, 5001);
  EXPECT_EQ(s().accept(listener, &peer, now), -EAGAIN);
}

TEST_F(Listening, DataWithTheAckIsThereAtAccept) {
  open();
  complete(5001, syn(5001), "hello");
  const SocketId id = s().accept(listener, nullptr, now);
  EXPECT_EQ(s().unread_bytes(id), 5);
}

TEST_F(Listening, AFullAcceptQueueDropsTheAckAndThenSyns) {
  open(1);  // two fit
  complete(5001, syn(5001));
  const std::uint32_t second = syn(5002);
  complete(5002, second);
  EXPECT_EQ(syn(5003), 0U) << "dropped without an answer";
  EXPECT_EQ(s().stats().listen_overflows, 1U);
  EXPECT_EQ(s().stats().listen_drops, 1U);
  EXPECT_GE(s().accept(listener, nullptr, now), 0);
  const std::uint32_t third = syn(5003);
  EXPECT_NE(third, 0U);
  complete(5003, third);
  EXPECT_GE(s().accept(listener, nullptr, now), 0);
  EXPECT_GE(s().accept(listener, nullptr, now), 0);
}

TEST_F(Listening, AnAckThatFindsTheQueueFullIsDroppedAndTheSynAckRepeated) {
  open(1);
  const std::uint32_t a = syn(5001);
  complete(5001, a);
  config.tcp_max_syn_backlog = 100;
  const std::uint32_t b = syn(5002);
  complete(5002, b);
  // A third got in while there was room for it.
  s().listen(listener, 2, now);
  const std::uint32_t c = syn(5003);
  ASSERT_NE(c, 0U);
  s().listen(listener, 1, now);
  complete(5003, c);
  EXPECT_TRUE(take().empty());
  EXPECT_EQ(s().half_open_count(), 1U);
  advance(milliseconds(1000));
  EXPECT_EQ(flags_of(take_one().segment), "S.");
  EXPECT_GE(s().accept(listener, nullptr, now), 0);
  complete(5003, c);
  EXPECT_EQ(s().half_open_count(), 0U);
}

TEST_F(Listening, AbortOnOverflow) {
  config.tcp_abort_on_overflow = true;
  open(1);
  complete(5001, syn(5001));
  s().listen(listener, 2, now);
  const std::uint32_t b = syn(5002);
  const std::uint32_t c = syn(5003);
  s().listen(listener, 0, now);
  complete(5002, b);
  EXPECT_EQ(flags_of(take_one().segment), "R");
  complete(5003, c);
  EXPECT_EQ(flags_of(take_one().segment), "R");
  EXPECT_EQ(s().half_open_count(), 0U);
}

TEST_F(Listening, HalfOpenConnectionsAreBounded) {
  open(4);
  for (std::uint16_t port = 1; port <= 5; ++port) EXPECT_NE(syn(port), 0U) << "one more than the backlog, as Linux";
  EXPECT_EQ(syn(6), 0U);
  EXPECT_EQ(s().half_open_count(), 5U);
  advance(seconds(64));
  EXPECT_EQ(s().half_open_count(), 0U) << "five repetitions, 63 s";
  EXPECT_EQ(s().next_deadline(), kNever);
}

TEST_F(Listening, APeerMayHaveOnlySoMany) {
  config.max_half_open_per_peer = 3;
  open(100);
  for (std::uint16_t port = 1; port <= 3; ++port) EXPECT_NE(syn(port), 0U);
  EXPECT_EQ(syn(4), 0U);
  EXPECT_EQ(s().stats().peer_limit_drops, 1U);
}

TEST_F(Listening, ABacklogOfNoneTakesOne) {
  open(0);
  complete(1, syn(1));
  EXPECT_GE(s().accept(listener, nullptr, now), 0);
}

// Who has a /64 has all addresses in it.
TEST_F(Listening, APeersAddressesOfOneNetworkCountAsOne) {
  config.max_half_open_per_peer = 3;
  open(100, 80, any_v6());
  const auto syn_from = [&](std::uint8_t network, std::uint8_t host) {
    IpAddress peer = v6(host);
    peer.bytes[7] = network;
    inject_from({peer, v6(1), 5000, 80}, segment(wire::kSyn, 1000));
    return !take().empty();
  };
  for (std::uint8_t host = 1; host <= 3; ++host) EXPECT_TRUE(syn_from(1, host));
  EXPECT_FALSE(syn_from(1, 4));
  EXPECT_TRUE(syn_from(2, 1));
}

TEST_F(Listening, SynAcksAreRepeatedFiveTimes) {
  open();
  syn(5001);
  advance(seconds(100));
  const auto sent = take();
  ASSERT_EQ(sent.size(), 5U);
  EXPECT_EQ(sent[0].at - at_ms(0), seconds(1));
  EXPECT_EQ(sent[4].at - at_ms(0), seconds(31));
}

TEST_F(Listening, DeferredAcceptWaitsForData) {
  open();
  EXPECT_EQ(s().set_option(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3, now), 0);
  int seconds_told = 0;
  s().get_option(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds_told, now);
  EXPECT_EQ(seconds_told, 3);
  const std::uint32_t number = syn(5001);
  complete(5001, number);
  EXPECT_EQ(s().accept(listener, nullptr, now), -EAGAIN);
  EXPECT_EQ(s().half_open_count(), 1U);
  complete(5001, number, "data");
  const SocketId id = s().accept(listener, nullptr, now);
  ASSERT_GE(id, 0);
  EXPECT_EQ(s().unread_bytes(id), 4);
}

TEST_F(Listening, DeferredAcceptGivesInAfterAWhile) {
  open();
  s().set_option(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3, now);  // two repetitions
  const std::uint32_t number = syn(5001);
  complete(5001, number);
  advance(milliseconds(2999));
  EXPECT_EQ(take().size(), 1U) << "the last before the end goes: the first, silent one was at 1 s";
  advance(seconds(1));
  take();
  complete(5001, number);
  EXPECT_GE(s().accept(listener, nullptr, now), 0);
}

TEST_F(Listening, DataOutOfOrderWidensTheBufferOnceAccepted) {
  open();
  const std::uint32_t number = syn(5001);
  complete(5001, number);
  const std::string text(1000, 'x');
  inject(segment(wire::kAck, 41'001, number + 1), text, 80, 5001);
  const SocketId id = s().accept(listener, nullptr, now);
  ASSERT_GE(id, 0);
  EXPECT_EQ(s().connection(id)->receive.buffer_bytes(), 131'072U);
  inject(segment(wire::kAck, 43'001, number + 1), text, 80, 5001);
  EXPECT_GT(s().connection(id)->receive.buffer_bytes(), 131'072U);
}

TEST_F(Listening, AListenerThatCloses) {
  open();
  const std::uint32_t half = syn(5001);
  complete(5002, syn(5002));
  s().close(listener, now);
  EXPECT_EQ(flags_of(take_one().segment), "R.") << "the one that was never accepted";
  complete(5001, half);
  EXPECT_EQ(flags_of(take_one().segment), "R") << "forgotten";
  EXPECT_EQ(s().socket_count(), 0U);
  EXPECT_EQ(s().half_open_count(), 0U);
  EXPECT_EQ(s().next_deadline(), kNever);
}

TEST_F(Listening, AChildThatIsResetIsAcceptedAllTheSame) {
  open();
  complete(5001, syn(5001), "abc");
  inject(segment(wire::kRst, 1004), {}, 80, 5001);
  const SocketId id = s().accept(listener, nullptr, now);
  ASSERT_GE(id, 0);
  Bytes room(10);
  EXPECT_EQ(s().recv(id, room, 0, now), 3);
  EXPECT_EQ(s().recv(id, room, 0, now), -ECONNRESET);
}

TEST_F(Listening, TheMoreSpecificListenerWins) {
  const SocketId all = open(8, 80, any_v4());
  s().set_option(all, SOL_SOCKET, SO_REUSEADDR, 1, now);
  const SocketId one = s().socket(Family::kV4);
  EXPECT_EQ(s().bind(one, {v4(1), 80}), -EADDRINUSE) << "one listens, whatever SO_REUSEADDR says";
  s().close(all, now);
  const SocketId specific = open(8, 80, v4(1));
  const SocketId v6_all = open(8, 81, any_v6());
  EXPECT_EQ(s().bind(s().socket(Family::kV4), {any_v4(), 81}), -EADDRINUSE) << "IPv6 takes both";
  complete(5001, syn(5001));
  EXPECT_GE(s().accept(specific, nullptr, now), 0);
  inject(segment(wire::kSyn, 1000), {}, 81, 5001);
  const Seen answer = take_one();
  inject(segment(wire::kAck, 1001, answer.segment.seq.raw() + 1), {}, 81, 5001);
  EXPECT_GE(s().accept(v6_all, nullptr, now), 0);
}

TEST_F(Listening, OptionsAreInherited) {
  open();
  s().set_option(listener, IPPROTO_TCP, TCP_NODELAY, 1, now);
  s().set_option(listener, SOL_SOCKET, SO_RCVBUF, 5000, now);
  complete(5001, syn(5001));
  const SocketId id = s().accept(listener, nullptr, now);
  int value = 0;
  s().get_option(id, IPPROTO_TCP, TCP_NODELAY, &value, now);
  EXPECT_EQ(value, 1);
  s().get_option(id, SOL_SOCKET, SO_RCVBUF, &value, now);
  EXPECT_EQ(value, 10000);
}

}  // namespace
}  // namespace twinstack::stack::test
