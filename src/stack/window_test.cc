// Windows and buffers that tune themselves, and the throughput that comes of it.
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

#include "stack/test_support.h"
#include "tcp/window.h"

namespace twinstack::stack::test {
namespace {

// A bulk transfer from client to server: bytes received in `span` after `warm_up`.
struct Bulk {
  explicit Bulk(std::uint64_t seed) : net(seed) {
    net.keep = false;
    net.check_interval = 100;
  }
  void start() { pair = net.connect(net.listen()); }
  void write_all() {
    static const Bytes chunk(65536);
    while (net.client().send(pair.client, chunk, 0, net.now) > 0) continue;
  }
  void read_all() {
    Bytes room(65536);
    for (std::int64_t done = 1; done > 0;) {
      done = net.server().recv(pair.server, room, 0, net.now);
      if (done > 0) received += static_cast<std::uint64_t>(done);
    }
  }
  std::uint64_t run(Duration span) {
    const std::uint64_t before = received;
    net.run_until_done(
        [&] {
          write_all();
          read_all();
          return false;
        },
        span);
    return received - before;
  }
  TwoHosts net;
  TwoHosts::Pair pair;
  std::uint64_t received = 0;
};

TEST(Windows, AutoTuningReachesTheBandwidthDelayProduct) {
  Bulk bulk(1);
  bulk.net.faults.delay = milliseconds(50);
  bulk.net.faults.rate_bytes_s = 12'500'000;  // 100 Mbit/s, 1.25 MB in flight
  bulk.net.faults.queue_bytes = 1'250'000;
  bulk.start();
  bulk.run(seconds(10));
  const std::uint64_t got = bulk.run(seconds(5));
  EXPECT_GT(got, 5 * 12'500'000 * 0.9) << "of the link";
  const Connection& receiver = *bulk.net.server().connection(bulk.pair.server);
  EXPECT_GT(receiver.receive.buffer_bytes(), 2'500'000U);
  EXPECT_LE(receiver.receive.buffer_bytes(), 6U << 20);
}

TEST(Windows, WithoutModerationTheBufferStays) {
  Bulk bulk(1);
  bulk.net.configs[1].tcp_moderate_rcvbuf = false;
  bulk.net.faults.delay = milliseconds(50);
  bulk.start();
  bulk.run(seconds(5));
  EXPECT_EQ(bulk.net.server().connection(bulk.pair.server)->receive.buffer_bytes(), 131072U);
}

TEST(Windows, AReceiverThatDoesNotReadStopsTheSenderAndStartsItAgain) {
  Bulk bulk(1);
  bulk.net.faults.rate_bytes_s = 12'500'000;
  bulk.start();
  bulk.write_all();
  bulk.net.run_for(seconds(30));
  const Connection& sender = *bulk.net.client().connection(bulk.pair.client);
  const Connection& receiver = *bulk.net.server().connection(bulk.pair.server);
  EXPECT_LE(receiver.receive.bytes.size(), 131072U);
  EXPECT_GT(receiver.receive.bytes.size(), 50'000U);
  EXPECT_EQ(sender.cb.snd_una, sender.cb.snd_nxt) << "nothing in flight: the window is closed";
  EXPECT_GT(bulk.run(seconds(10)), 1'000'000U);
}

// The right edge that a host has offered never moves left, whatever the program does.
TEST(Windows, TheRightEdgeNeverMovesLeft) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Bulk bulk(seed);
    bulk.net.faults.rate_bytes_s = 12'500'000;
    bulk.net.faults.loss_ppm = 20'000;
    bulk.net.faults.reorder_ppm = 50'000;
    bulk.start();
    bool known = false;
    Seq edge;
    const std::uint8_t scale = bulk.net.server().connection(bulk.pair.server)->cb.rcv_wscale;
    bulk.net.drop = [&](int from, const Seen& seen) {
      if (from != TwoHosts::kServer || seen.segment.has(wire::kSyn)) return false;
      const Seq right = seen.segment.ack + (std::uint32_t{seen.segment.window} << scale);
      EXPECT_TRUE(!known || right >= edge);
      edge = right;
      known = true;
      return false;
    };
    for (int i = 0; i < 200; ++i) {
      bulk.write_all();
      bulk.net.run_for(milliseconds(20));
      Bytes room(bulk.net.rng.below(30'000) + 1);
      if (bulk.net.rng.below(3) == 0) bulk.net.server().recv(bulk.pair.server, room, 0, bulk.net.now);
      if (bulk.net.rng.below(50) == 0) {
        bulk.net.server().set_option(bulk.pair.server, SOL_SOCKET, SO_RCVBUF,
                                     static_cast<int>(bulk.net.rng.below(200'000)), bulk.net.now);
      }
    }
    bulk.read_all();
    EXPECT_GT(bulk.run(seconds(5)), 10'000U);
    if (::testing::Test::HasFailure()) return;
  }
}

// A window that closes is rounded up to its unit with each ACK: a peer must not make memory of that.
TEST(Windows, AreNoWayToFillTheMemory) {
  OneHost host;
  const SocketId listener = host.stack->socket(Family::kV4);
  ASSERT_EQ(host.stack->bind(listener, {any_v4(), 80}), 0);
  ASSERT_EQ(host.stack->listen(listener, 8, host.now), 0);
  wire::Segment syn = OneHost::segment(wire::kSyn, 1000);
  syn.options.has_window_scale = true;
  syn.options.window_scale = 7;
  host.inject(syn);
  const std::uint32_t ack = host.take_one().segment.seq.raw() + 1;
  host.inject(OneHost::segment(wire::kAck, 1001, ack));
  const SocketId id = host.stack->accept(listener, nullptr, host.now);
  const Connection& conn = *host.stack->connection(id);
  const std::uint32_t unit = 1U << conn.cb.rcv_wscale;
  ASSERT_EQ(unit, 128U);
  for (int i = 0; i < 5000; ++i) {
    const auto window = static_cast<std::uint32_t>(tcp::window_right_edge(conn.cb) - conn.cb.rcv_nxt);
    host.inject(OneHost::segment(wire::kAck, conn.cb.rcv_nxt.raw(), ack),
                std::string(window > 1460 ? 1460 : std::min(window, unit - 1), 'x'));
    host.advance(milliseconds(50));  // the ACK
  }
  const std::uint32_t held = conn.receive.bytes.size();
  EXPECT_GT(held, 65536U);
  EXPECT_LE(held, conn.receive.buffer_bytes() + (64U << 10) + 4 * unit);
  Bytes room(held);
  EXPECT_EQ(host.stack->recv(id, room, 0, host.now), held);
  host.take();
  host.inject(OneHost::segment(wire::kAck, conn.cb.rcv_nxt.raw(), ack), "more");
  EXPECT_EQ(conn.receive.bytes.size(), 4U);
}

TEST(Throughput, OnePercentLossAtFiftyMilliseconds) {
  Bulk bulk(1);
  bulk.net.faults.delay = milliseconds(25);
  bulk.net.faults.loss_ppm = 10'000;
  bulk.start();
  bulk.run(seconds(5));
  const auto got = static_cast<double>(bulk.run(seconds(60)));
  const double kilobits = got * 8 / 60 / 1000;
  RecordProperty("kbit_s", std::to_string(kilobits));
  // RFC 9438 4.3 and Mathis: some 12 segments in a round trip of 50 ms, of 1448 bytes.
  EXPECT_GT(kilobits, 2'500);
  std::printf("1 %% loss, 50 ms: %.0f kbit/s\n", kilobits);
}

TEST(Memory, AnIdleConnectionIsSmall) {
  std::printf("Socket %zu, Connection %zu, HalfOpen %zu, TimeWait %zu bytes\n", sizeof(Socket), sizeof(Connection),
              sizeof(HalfOpen), sizeof(TimeWait));
  EXPECT_LE(sizeof(Socket) + sizeof(Connection), 1024U);
  EXPECT_LE(sizeof(HalfOpen), 640U);
  EXPECT_LE(sizeof(TimeWait), 200U);
}

}  // namespace
}  // namespace twinstack::stack::test
