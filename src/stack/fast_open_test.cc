// TCP Fast Open (RFC 7413) on both sides.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

#include "stack/test_support.h"

namespace twinstack::stack {
namespace {

using test::at_ms;
using test::Bytes;
using test::Seen;

constexpr int kTcpFastOpen = 23;
constexpr int kTcpFastOpenConnect = 30;
constexpr int kTcpFastOpenKey = 33;

Bytes bytes_of(std::string_view text) {
  const auto view = std::as_bytes(std::span(text));
  return {view.begin(), view.end()};
}

std::string read_all(SoftStack& stack, SocketId id, Time now) {
  std::string out(4096, '\0');
  const auto got = stack.recv(id, std::as_writable_bytes(std::span(out)), 0, now);
  out.resize(static_cast<std::size_t>(std::max<std::int64_t>(got, 0)));
  return out;
}

std::uint8_t info_options(SoftStack& stack, SocketId id, Time now) {
  TcpInfo info;
  EXPECT_EQ(stack.info(id, info, now), 0);
  return info.options;
}

Config server_config(std::uint32_t mode) {
  Config config = test::host_config(2);
  config.tcp_fastopen = mode;
  return config;
}

// --- A whole exchange of two hosts

class FastOpen : public ::testing::Test {
 protected:
  FastOpen() : hosts(1, test::host_config(1), server_config(kFastOpenServer)) {
    listener = hosts.listen();
    EXPECT_EQ(hosts.server().set_option(listener, IPPROTO_TCP, kTcpFastOpen, 5, hosts.now), 0);
  }
  SocketId begin(std::string_view data, std::int64_t expected, int flags = MSG_DONTWAIT) {
    const SocketId id = hosts.client().socket(Family::kV4);
    EXPECT_EQ(hosts.client().connect_with_data(id, peer, bytes_of(data), flags, hosts.now), expected);
    return id;
  }
  // Fetches a cookie.
  void warm_up() {
    const SocketId id = begin("", -EINPROGRESS);
    hosts.run_for(test::seconds(1));
    hosts.client().close(id, hosts.now);
    EXPECT_EQ(hosts.server().close(hosts.server().accept(listener, nullptr, hosts.now), hosts.now), 0);
    hosts.run_for(test::seconds(1));
    hosts.sent[0].clear();
    hosts.sent[1].clear();
  }

  test::TwoHosts hosts;
  SocketId listener = kNoSocket;
  const Address peer{test::v4(2), 80};
};

TEST_F(FastOpen, TheFirstTimeACookieIsAskedForAndGranted) {
  const SocketId id = begin("hello", -EINPROGRESS);
  ASSERT_EQ(hosts.sent[0].size(), 1U);
  EXPECT_TRUE(hosts.sent[0][0].segment.options.fast_open.present);
  EXPECT_EQ(hosts.sent[0][0].segment.options.fast_open.cookie_bytes, 0);
  EXPECT_EQ(hosts.sent[0][0].payload, "");
  hosts.run_for(test::seconds(1));
  EXPECT_EQ(hosts.sent[1][0].segment.options.fast_open.cookie_bytes, 8);
  EXPECT_EQ(hosts.client().state(id), State::kEstablished);
}

TEST_F(FastOpen, DataGoesWithTheSynAndTheAnswerComesBeforeItsAck) {
  warm_up();
  const SocketId id = begin("hello", 5);
  ASSERT_EQ(hosts.sent[0].size(), 1U);
  EXPECT_EQ(hosts.sent[0][0].payload, "hello");
  EXPECT_TRUE(hosts.run_until_done([&] { return (hosts.server().poll(listener) & POLLIN) != 0; }));
  const SocketId child = hosts.server().accept(listener, nullptr, hosts.now);
  ASSERT_GE(child, 0);
  EXPECT_EQ(hosts.server().state(child), State::kSynReceived);
  EXPECT_EQ(read_all(hosts.server(), child, hosts.now), "hello");
  EXPECT_EQ(hosts.server().send(child, bytes_of("world"), 0, hosts.now), 5);
  hosts.run_for(test::seconds(1));
  EXPECT_EQ(read_all(hosts.client(), id, hosts.now), "world");
  EXPECT_EQ(hosts.server().state(child), State::kEstablished);
  EXPECT_NE(info_options(hosts.client(), id, hosts.now) & tcp::kInfoSynData, 0);
  EXPECT_NE(info_options(hosts.server(), child, hosts.now) & tcp::kInfoSynData, 0);
}

TEST_F(FastOpen, AServerThatTakesNoDataGetsItAgainAtOnce) {
  warm_up();
  hosts.configs[1].tcp_fastopen = 0;
  const SocketId id = begin("hello", 5);
  hosts.run_for(test::seconds(1));
  const SocketId child = hosts.server().accept(listener, nullptr, hosts.now);
  EXPECT_EQ(read_all(hosts.server(), child, hosts.now), "hello");
  EXPECT_EQ(info_options(hosts.client(), id, hosts.now) & tcp::kInfoSynData, 0);
  EXPECT_EQ(hosts.sent[0][1].payload, "hello");
  EXPECT_LT(hosts.sent[0][1].at - hosts.sent[0][0].at, test::milliseconds(50));
}

TEST_F(FastOpen, ASynThatIsLostGoesAgainWithoutDataAndCookie) {
  warm_up();
  hosts.drop = [](int from, const Seen& seen) {
    return from == 0 && seen.segment.has(wire::kSyn) && !seen.payload.empty();
  };
  begin("hello", 5);
  hosts.run_for(test::seconds(3));
  ASSERT_GE(hosts.sent[0].size(), 3U);
  EXPECT_EQ(hosts.sent[0][1].payload, "");
  EXPECT_FALSE(hosts.sent[0][1].segment.options.fast_open.present);
  EXPECT_EQ(read_all(hosts.server(), hosts.server().accept(listener, nullptr, hosts.now), hosts.now), "hello");
}

TEST_F(FastOpen, ASynAckThatIsLostGoesAgainAndTheDataIsNotDoubled) {
  warm_up();
  int syn_acks = 0;
  hosts.drop = [&](int from, const Seen& seen) { return from == 1 && seen.segment.has(wire::kSyn) && syn_acks++ == 0; };
  const SocketId id = begin("hello", 5);
  hosts.run_for(test::seconds(10));
  const SocketId child = hosts.server().accept(listener, nullptr, hosts.now);
  EXPECT_EQ(read_all(hosts.server(), child, hosts.now), "hello");
  EXPECT_EQ(hosts.server().state(child), State::kEstablished);
  EXPECT_EQ(hosts.client().state(id), State::kEstablished);
}

TEST_F(FastOpen, ConnectWaitsForTheFirstWriteWhenACookieIsKnown) {
  warm_up();
  const SocketId id = hosts.client().socket(Family::kV4);
  EXPECT_EQ(hosts.client().set_option(id, IPPROTO_TCP, kTcpFastOpenConnect, 1, hosts.now), 0);
  EXPECT_EQ(hosts.client().connect(id, peer, hosts.now), 0);
  EXPECT_TRUE(hosts.client().is_deferred(id));
  EXPECT_EQ(hosts.client().connect(id, peer, hosts.now), -EISCONN);
  EXPECT_NE(hosts.client().poll(id) & POLLOUT, 0U);
  EXPECT_TRUE(hosts.sent[0].empty());
  EXPECT_EQ(hosts.client().send(id, bytes_of("hello"), MSG_DONTWAIT, hosts.now), 5);
  EXPECT_EQ(hosts.sent[0][0].payload, "hello");
  hosts.run_for(test::seconds(1));
  EXPECT_EQ(hosts.client().state(id), State::kEstablished);
}

TEST_F(FastOpen, SwitchedOffItIsNotSupported) {
  hosts.configs[0].tcp_fastopen = 0;
  begin("hello", -EOPNOTSUPP);
  const SocketId id = hosts.client().socket(Family::kV4);
  EXPECT_EQ(hosts.client().set_option(id, IPPROTO_TCP, kTcpFastOpenConnect, 1, hosts.now), -EOPNOTSUPP);
}

// --- A server and a peer that the test plays

class FastOpenServer : public ::testing::Test {
 protected:
  FastOpenServer() : host(one_config()) {
    listener = host.stack->socket(Family::kV4);
    EXPECT_EQ(host.stack->bind(listener, {any_v4(), 80}), 0);
    EXPECT_EQ(host.stack->listen(listener, 4, host.now), 0);
  }
  static Config one_config() {
    Config config = test::host_config(1);
    config.tcp_fastopen = kFastOpenServer | kFastOpenAllListeners;
    config.tcp_fastopen_keys = {{1, 2}};
    return config;
  }
  [[nodiscard]] static wire::Segment syn(const wire::FastOpen& option) {
    wire::Segment segment = test::OneHost::segment(wire::kSyn, 1000);
    segment.options.fast_open = option;
    return segment;
  }
  // Asks for a cookie, from another port.
  wire::FastOpen cookie() {
    host.inject(syn({.cookie = {}, .cookie_bytes = 0, .present = true, .experimental = false}), {}, 80, 4999);
    return host.take_one().segment.options.fast_open;
  }

  test::OneHost host;
  SocketId listener = kNoSocket;
};

TEST_F(FastOpenServer, ACookieThatIsNotItsOwnOpensNothingAndIsReplaced) {
  const wire::FastOpen good = cookie();
  wire::FastOpen bad = good;
  bad.cookie[0] ^= std::byte{1};
  host.inject(syn(bad), "hello");
  const Seen answer = host.take_one();
  EXPECT_EQ(answer.segment.ack, Seq(1001));
  EXPECT_EQ(answer.segment.options.fast_open, good);
  EXPECT_EQ(host.stack->accept(listener, nullptr, host.now), -EAGAIN);
}

TEST_F(FastOpenServer, AnOldKeyIsAcceptedAndTheNewCookieTold) {
  const wire::FastOpen old = cookie();
  host.config.tcp_fastopen_keys = {{3, 4}, {1, 2}};
  host.inject(syn(old), "hello");
  const Seen answer = host.take_one();
  EXPECT_EQ(answer.segment.ack, Seq(1006));
  EXPECT_TRUE(answer.segment.options.fast_open.present);
  EXPECT_NE(answer.segment.options.fast_open, old);
}

TEST_F(FastOpenServer, AResetBeforeTheAckLeavesTheDataReadable) {
  host.inject(syn(cookie()), "hello");
  const Seen answer = host.take_one();
  EXPECT_EQ(answer.segment.ack, Seq(1006));
  EXPECT_FALSE(answer.segment.options.fast_open.present);
  host.inject(test::OneHost::segment(wire::kRst | wire::kAck, 1006, answer.segment.seq.raw()));
  const SocketId child = host.stack->accept(listener, nullptr, host.now);
  ASSERT_GE(child, 0);
  EXPECT_EQ(host.stack->state(child), State::kClosed);
  EXPECT_EQ(read_all(*host.stack, child, host.now), "hello");
  std::array<std::byte, 8> room{};
  EXPECT_EQ(host.stack->recv(child, room, 0, host.now), -ECONNRESET);
}

TEST_F(FastOpenServer, ManyThatAreNotAcknowledgedOpenAsOthersDo) {
  host.stack->set_option(listener, IPPROTO_TCP, kTcpFastOpen, 1, host.now);
  const wire::FastOpen good = cookie();
  host.inject(syn(good), "one");
  EXPECT_EQ(host.take_one().segment.ack, Seq(1004));
  host.inject(syn(good), "two", 80, 5001);
  EXPECT_EQ(host.take_one().segment.ack, Seq(1001));
}

TEST_F(FastOpenServer, OneThatOutlivesItsListenerIsCountedOnce) {
  host.stack->set_option(listener, IPPROTO_TCP, kTcpFastOpen, 1, host.now);
  host.stack->set_option(listener, SOL_SOCKET, SO_REUSEADDR, 1, host.now);
  const wire::FastOpen good = cookie();
  host.inject(syn(good), "one");
  const Seen syn_ack = host.take_one();
  EXPECT_GE(host.stack->accept(listener, nullptr, host.now), 0);
  EXPECT_EQ(host.stack->shutdown(listener, SHUT_RD, host.now), 0);
  EXPECT_EQ(host.stack->listen(listener, 4, host.now), 0);
  host.inject(syn(good), "two", 80, 5001);
  EXPECT_EQ(host.take_one().segment.ack, Seq(1001)) << "the first is still open";
  host.inject(test::OneHost::segment(wire::kAck, 1004, syn_ack.segment.seq.raw() + 1));
  host.take();
  host.inject(syn(good), "three", 80, 5002);
  EXPECT_EQ(host.take_one().segment.ack, Seq(1006));
}

TEST_F(FastOpenServer, TheSynAckIsGivenUpInTheEnd) {
  host.inject(syn(cookie()), "hello");
  host.take();
  host.advance(test::seconds(200));
  const SocketId child = host.stack->accept(listener, nullptr, host.now);
  EXPECT_EQ(host.stack->state(child), State::kClosed);
  EXPECT_EQ(read_all(*host.stack, child, host.now), "hello");
}

TEST_F(FastOpenServer, KeysAreOneOrTwo) {
  const Bytes key(16);
  EXPECT_EQ(host.stack->set_option(listener, IPPROTO_TCP, kTcpFastOpenKey, ByteView(key), host.now), 0);
  EXPECT_EQ(host.stack->set_option(listener, IPPROTO_TCP, kTcpFastOpenKey, ByteView(key).first(3), host.now), -EINVAL);
  EXPECT_EQ(host.stack->set_option(listener, IPPROTO_TCP, kTcpFastOpenKey, ByteView{}, host.now), -EINVAL);
}

}  // namespace
}  // namespace twinstack::stack
