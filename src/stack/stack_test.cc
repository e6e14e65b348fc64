// Whole lives of connections between two hosts of the stack.
#include "stack/stack.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

#include "stack/test_support.h"

namespace twinstack::stack::test {
namespace {

// A program on one end: writes its stream, reads the other's, ends when both are done.
struct Program {
  SoftStack& stack;
  SocketId id;
  std::uint64_t key;
  std::uint64_t peer_key;
  std::uint64_t to_write;
  std::uint64_t written = 0;
  std::uint64_t received = 0;
  std::uint64_t wrong = 0;
  bool ended = false;
  bool shut = false;
  std::int64_t error = 0;

  void turn(Time now) {
    while (written < to_write && error == 0) {
      const auto count = std::min<std::uint64_t>(to_write - written, 8000);
      const std::int64_t done = stack.send(id, stream_bytes(key, written, count), 0, now);
      if (done == -EAGAIN) break;
      if (done < 0) {
        error = done;
        return;
      }
      written += static_cast<std::uint64_t>(done);
    }
    if (written == to_write && !shut && error == 0) {
      EXPECT_EQ(stack.shutdown(id, SHUT_WR, now), 0);
      shut = true;
    }
    Bytes room(16384);
    while (!ended && error == 0) {
      const std::int64_t done = stack.recv(id, room, 0, now);
      if (done == -EAGAIN) break;
      if (done < 0) error = done;
      if (done == 0) ended = true;
      for (std::int64_t i = 0; i < done; ++i) {
        if (room[static_cast<std::size_t>(i)] != stream_byte(peer_key, received++)) ++wrong;
      }
    }
  }
  [[nodiscard]] bool done() const { return ended && shut; }
};

TEST(SoftStack, ConnectSendReceiveClose) {
  TwoHosts net;
  const SocketId listener = net.listen();
  const auto pair = net.connect(listener);
  EXPECT_EQ(net.client().send(pair.client, stream_bytes(1, 0, 3000), 0, net.now), 3000);
  net.run_for(milliseconds(50));
  Bytes room(5000);
  EXPECT_EQ(net.server().recv(pair.server, room, 0, net.now), 3000);
  room.resize(3000);
  EXPECT_EQ(room, stream_bytes(1, 0, 3000));
  EXPECT_EQ(net.server().recv(pair.server, room, 0, net.now), -EAGAIN);
  EXPECT_EQ(net.client().close(pair.client, net.now), 0);
  net.run_for(milliseconds(50));
  EXPECT_EQ(net.server().recv(pair.server, room, 0, net.now), 0);
  EXPECT_EQ(net.server().close(pair.server, net.now), 0);
  net.run_for(milliseconds(50));
  EXPECT_EQ(net.client().time_wait_count(), 1U);
  EXPECT_EQ(net.client().socket_count(), 0U);
  EXPECT_EQ(net.server().socket_count(), 1U) << "the listener";
  net.run_for(seconds(61));
  EXPECT_EQ(net.client().time_wait_count(), 0U);
  EXPECT_EQ(net.client().next_deadline(), kNever);
}

TEST(SoftStack, WholeLivesFromManySeeds) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    TwoHosts net(seed);
    net.keep = false;
    const Family family = net.rng.below(2) == 0 ? Family::kV4 : Family::kV6;
    for (Config& config : net.configs) {
      config.tcp_timestamps = net.rng.below(2) != 0;
      config.tcp_sack = net.rng.below(2) != 0;
      config.tcp_window_scaling = net.rng.below(2) != 0;
      config.tcp_ecn = static_cast<std::uint8_t>(net.rng.below(3));
    }
    net.faults.loss_ppm = net.rng.below(2) * net.rng.below(150'000);
    net.faults.duplicate_ppm = net.rng.below(2) * net.rng.below(100'000);
    net.faults.reorder_ppm = net.rng.below(2) * net.rng.below(200'000);
    const auto pair = net.connect(net.listen(80, 16, family), 80, family);
    Program a{net.client(), pair.client, 1, 2, net.rng.below(200'000)};
    Program b{net.server(), pair.server, 2, 1, net.rng.below(200'000)};
    const bool done = net.run_until_done(
        [&] {
          a.turn(net.now);
          b.turn(net.now);
          return a.done() && b.done();
        },
        seconds(5000));  // without timestamps a backed-off timeout stays long (Karn)
    EXPECT_TRUE(done) << a.received << '/' << b.to_write << ' ' << b.received << '/' << a.to_write;
    EXPECT_EQ(a.received, b.to_write);
    EXPECT_EQ(b.received, a.to_write);
    EXPECT_EQ(a.wrong + b.wrong, 0U);
    EXPECT_EQ(net.client().close(pair.client, net.now), 0);
    EXPECT_EQ(net.server().close(pair.server, net.now), 0);
    net.faults = {};
    net.run_for(seconds(600));
    EXPECT_EQ(net.client().socket_count(), 0U);
    EXPECT_EQ(net.server().socket_count(), 1U);
    EXPECT_EQ(net.client().time_wait_count() + net.server().time_wait_count(), 0U);
    if (HasFailure()) return;
  }
}

// Both bind, both connect: one connection comes of it.
TEST(SoftStack, SimultaneousOpen) {
  TwoHosts net;
  const SocketId a = net.client().socket(Family::kV4);
  const SocketId b = net.server().socket(Family::kV4);
  EXPECT_EQ(net.client().bind(a, {v4(1), 1000}), 0);
  EXPECT_EQ(net.server().bind(b, {v4(2), 2000}), 0);
  EXPECT_EQ(net.client().connect(a, {v4(2), 2000}, net.now), -EINPROGRESS);
  EXPECT_EQ(net.server().connect(b, {v4(1), 1000}, net.now), -EINPROGRESS);
  net.run_for(milliseconds(50));
  EXPECT_EQ(net.client().state(a), State::kEstablished);
  EXPECT_EQ(net.server().state(b), State::kEstablished);
  EXPECT_EQ(net.client().connect(a, {v4(2), 2000}, net.now), 0);
  EXPECT_EQ(net.client().send(a, stream_bytes(1, 0, 100), 0, net.now), 100);
  net.run_for(milliseconds(50));
  EXPECT_EQ(net.server().unread_bytes(b), 100);
}

TEST(SoftStack, BothCloseAtOnceFromManySeeds) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    TwoHosts net(seed);
    const auto pair = net.connect(net.listen());
    net.faults.loss_ppm = net.rng.below(2) * 200'000;
    net.client().send(pair.client, stream_bytes(1, 0, net.rng.below(3000)), 0, net.now);
    net.run_for(Duration(net.rng.below(30'000'000)));
    net.client().shutdown(pair.client, SHUT_WR, net.now);
    net.server().shutdown(pair.server, SHUT_WR, net.now);
    net.run_for(seconds(200));
    EXPECT_EQ(net.client().state(pair.client), State::kClosed);
    EXPECT_EQ(net.server().state(pair.server), State::kClosed);
    net.client().close(pair.client, net.now);
    net.server().close(pair.server, net.now);
    net.run_for(seconds(400));
    EXPECT_EQ(net.client().socket_count() + net.server().socket_count(), 1U);
    EXPECT_EQ(net.client().time_wait_count() + net.server().time_wait_count(), 0U);
    if (HasFailure()) return;
  }
}

// A router with a smaller MTU in the middle, IPv4 and IPv6, and one that changes its mind.
TEST(SoftStack, PathMtuIsDiscovered) {
  for (const Family family : {Family::kV4, Family::kV6}) {
    TwoHosts net;
    net.faults.path_mtu = 1400;
    const auto pair = net.connect(net.listen(80, 16, family), 80, family);
    Program a{net.client(), pair.client, 1, 2, 300'000};
    Program b{net.server(), pair.server, 2, 1, 100};
    const bool done = net.run_until_done([&] {
      a.turn(net.now);
      b.turn(net.now);
      if (b.received > 100'000) net.faults.path_mtu = 1300;
      return a.done() && b.done();
    });
    EXPECT_TRUE(done);
    EXPECT_EQ(a.wrong + b.wrong, 0U);
    EXPECT_EQ(net.client().connection(pair.client)->pmtu, 1300U);
    EXPECT_EQ(net.client().connection(pair.client)->counters.timeouts, 0U) << "no timeout was needed";
  }
}

}  // namespace
}  // namespace twinstack::stack::test
