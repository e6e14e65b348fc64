// Hosts in disorder: random calls on random sockets over a bad network, and random segments at every state. Nothing may
// break, and once all is closed and quiet nothing may be left.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

#include "stack/test_support.h"

namespace twinstack::stack::test {
namespace {

#ifdef NDEBUG
constexpr std::uint64_t kSeeds = 150;
#else
constexpr std::uint64_t kSeeds = 20;
#endif

class Disorder {
 public:
  explicit Disorder(std::uint64_t seed) : net_(seed), rng_(net_.rng) {
    net_.keep = false;
    for (Config& config : net_.configs) {
      config.tcp_ecn = static_cast<std::uint8_t>(rng_.below(3));
      config.tcp_timestamps = rng_.below(2) == 0;
      config.tcp_sack = rng_.below(2) == 0;
      config.tcp_tw_reuse = static_cast<std::uint8_t>(rng_.below(2));
      config.tcp_fin_timeout_s = rng_.below(2) == 0 ? 60 : 100;
      config.tcp_max_tw_buckets = rng_.below(5) == 0 ? 3 : 1000;
      config.ip_local_port_last = 32800;
      config.tcp_retries2 = 6;
      config.tcp_abort_on_overflow = rng_.below(4) == 0;
    }
    net_.faults.loss_ppm = rng_.below(2) * rng_.below(200'000);
    net_.faults.duplicate_ppm = rng_.below(2) * rng_.below(200'000);
    net_.faults.reorder_ppm = rng_.below(2) * rng_.below(200'000);
    net_.faults.path_mtu = rng_.below(3) == 0 ? 900 : 65535;
  }

  void run() {
    for (int round = 0; round < 1500 && !::testing::Test::HasFailure(); ++round) {
      call(static_cast<int>(rng_.below(2)));
      if (rng_.below(3) == 0) net_.step(net_.now + Duration(rng_.below(50'000'000)));
      if (rng_.below(200) == 0) net_.run_for(seconds(rng_.below(20)));
    }
    end();
  }

 private:
  SoftStack& stack(int host) { return host == 0 ? net_.client() : net_.server(); }
  Address somewhere(int host) {
    const IpAddress ip =
        rng_.below(4) == 0 ? v6(static_cast<std::uint8_t>(host + 1)) : v4(static_cast<std::uint8_t>(host + 1));
    return {ip, static_cast<std::uint16_t>(80 + rng_.below(3))};
  }
  SocketId any_of(int host) {
    auto& all = sockets_[host];
    return all.empty() ? kNoSocket : all[rng_.below(static_cast<std::uint32_t>(all.size()))];
  }

  void open(int host) {
    if (sockets_[host].size() > 30) return;
    const SocketId id = stack(host).socket(rng_.below(4) == 0 ? Family::kV6 : Family::kV4);
    if (id >= 0) sockets_[host].push_back(id);
  }

  void transfer(int host, SocketId id) {
    Bytes bytes(rng_.below(20'000));
    const int flags = static_cast<int>(rng_.below(4) == 0 ? MSG_MORE : 0);
    if (rng_.below(2) == 0) {
      stack(host).send(id, bytes, flags, net_.now);
    } else {
      stack(host).recv(id, bytes, rng_.below(8) == 0 ? MSG_PEEK : 0, net_.now);
    }
  }

  void set_some_option(int host, SocketId id) {
    static constexpr struct {
      int level, name;
    } kOptions[] = {{SOL_SOCKET, SO_REUSEADDR},      {SOL_SOCKET, SO_KEEPALIVE},  {SOL_SOCKET, SO_SNDBUF},
                    {SOL_SOCKET, SO_RCVBUF},         {SOL_SOCKET, SO_RCVLOWAT},   {IPPROTO_TCP, TCP_NODELAY},
                    {IPPROTO_TCP, TCP_CORK},         {IPPROTO_TCP, TCP_KEEPIDLE}, {IPPROTO_TCP, TCP_LINGER2},
                    {IPPROTO_TCP, TCP_USER_TIMEOUT}, {IPPROTO_TCP, TCP_QUICKACK}, {IPPROTO_TCP, TCP_WINDOW_CLAMP},
                    {IPPROTO_TCP, TCP_DEFER_ACCEPT}, {IPPROTO_TCP, TCP_MAXSEG},   {IPPROTO_TCP, TCP_NOTSENT_LOWAT}};
    const auto& option = kOptions[rng_.below(std::size(kOptions))];
    const int values[] = {0, 1, 2, 100, 1500, 60'000, -1};
    stack(host).set_option(id, option.level, option.name, values[rng_.below(std::size(values))], net_.now);
    const linger wanted{.l_onoff = static_cast<int>(rng_.below(2)), .l_linger = static_cast<int>(rng_.below(2))};
    if (rng_.below(5) == 0) {
      stack(host).set_option(id, SOL_SOCKET, SO_LINGER, std::as_bytes(std::span(&wanted, 1)), net_.now);
    }
  }

  void close_one(int host, SocketId id) {
    EXPECT_EQ(stack(host).close(id, net_.now), 0);
    std::erase(sockets_[host], id);
  }

  void call(int host) {
    const SocketId id = any_of(host);
    switch (rng_.below(12)) {
      case 0:
        return open(host);
      case 1:
        stack(host).bind(id, somewhere(host));
        return;
      case 2:
        stack(host).listen(id, rng_.below(4), net_.now);
        return;
      case 3:
      case 4:
        stack(host).connect(id, somewhere(1 - host), net_.now);
        return;
      case 5:
      case 6:
        if (const SocketId child = stack(host).accept(id, nullptr, net_.now); child >= 0) {
          sockets_[host].push_back(child);
        }
        return;
      case 7:
        if (id >= 0) set_some_option(host, id);
        return;
      case 8:
        if (rng_.below(4) == 0) stack(host).shutdown(id, static_cast<int>(rng_.below(3)), net_.now);
        return;
      case 9:
        if (id >= 0 && rng_.below(3) == 0) close_one(host, id);
        return;
      case 10:
        if (rng_.below(6) == 0) stack(host).disconnect(id, net_.now);
        stack(host).poll(id);
        return;
      default:
        return transfer(host, id);
    }
  }

  void end() {
    for (int host = 0; host < 2; ++host) {
      while (!sockets_[host].empty()) close_one(host, sockets_[host].back());
    }
    net_.run_for(seconds(3000));
    for (int host = 0; host < 2; ++host) {
      EXPECT_EQ(stack(host).socket_count(), 0U);
      EXPECT_EQ(stack(host).time_wait_count(), 0U);
      EXPECT_EQ(stack(host).half_open_count(), 0U);
      EXPECT_EQ(stack(host).next_deadline(), kNever);
      EXPECT_EQ(stack(host).out_of_order_bytes(v4(static_cast<std::uint8_t>(2 - host))), 0U);
    }
  }

  TwoHosts net_;
  Rng& rng_;
  std::vector<SocketId> sockets_[2];
};

TEST(Disorder, NothingBreaksAndNothingIsLeft) {
  for (std::uint64_t seed = 1; seed <= kSeeds && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Disorder(seed).run();
  }
}

// Segments that nobody in his senses would send, near the numbers of a connection, in every state that it comes into.
TEST(Disorder, RandomSegmentsDoNoHarm) {
  for (std::uint64_t seed = 1; seed <= 4 * kSeeds && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    Config config = host_config(1);
    config.tcp_timestamps = rng.below(2) == 0;
    OneHost host(config);
    SocketId id = host.establish();
    const auto close_to = [&](std::uint32_t number) {
      return number - 3 + rng.below(3000) * rng.below(2) + rng.below(6);
    };
    for (int round = 0; round < 200; ++round) {
      wire::Segment segment;
      segment.flags = static_cast<std::uint8_t>(rng.next());
      if (rng.below(2) == 0) segment.flags = wire::kAck;
      segment.seq = Seq(close_to(1001));
      segment.ack = Seq(close_to(host.iss + 1));
      segment.window = static_cast<std::uint16_t>(rng.next());
      segment.options.has_timestamps = rng.below(3) == 0;
      segment.options.ts_val = rng.below(10);
      segment.options.has_mss = rng.below(8) == 0;
      segment.options.mss = static_cast<std::uint16_t>(rng.next());
      const std::string text(rng.below(4) * rng.below(800), 'x');
      host.inject(segment, text, 80, static_cast<std::uint16_t>(5000 + rng.below(2)));
      if (rng.below(10) == 0) host.stack->send(id, Bytes(rng.below(3000)), 0, host.now);
      if (rng.below(50) == 0) host.stack->shutdown(id, static_cast<int>(rng.below(3)), host.now);
      if (rng.below(80) == 0) {
        host.stack->close(id, host.now);
        id = kNoSocket;
      }
      if (const SocketId child = host.stack->accept(host.listener, nullptr, host.now); child >= 0) {
        if (id >= 0) host.stack->close(id, host.now);
        id = child;
      }
      host.advance(milliseconds(rng.below(300)));
      host.take();
    }
    if (id >= 0) host.stack->close(id, host.now);
    host.stack->close(host.listener, host.now);
    host.advance(seconds(5000));
    EXPECT_EQ(host.stack->socket_count(), 0U);
    EXPECT_EQ(host.stack->time_wait_count(), 0U);
    EXPECT_EQ(host.stack->next_deadline(), kNever);
  }
}

TEST(Disorder, RandomBytesDoNoHarm) {
  Rng rng(11);
  OneHost host;
  host.establish();
  for (int round = 0; round < 20'000; ++round) {
    Bytes bytes(rng.below(120));
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng.next());
    if (!bytes.empty() && rng.below(2) == 0) bytes[0] = std::byte{0x45};
    host.stack->on_ip_packet(bytes, host.now);
  }
  EXPECT_EQ(host.stack->socket_count(), 2U);
}

}  // namespace
}  // namespace twinstack::stack::test
