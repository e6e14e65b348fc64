// Test support: two hosts of the stack (a client at 10.0.0.1, a server at 10.0.0.2, the same in IPv6) joined by a wire
// that loses, duplicates, reorders and delays from a seed; and one host with a hand-made peer. Virtual time, one
// thread.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "stack/stack.h"

namespace twinstack::stack::test {

using Bytes = std::vector<std::byte>;
using std::chrono::milliseconds;
using std::chrono::seconds;

inline Time at_ms(std::int64_t ms) { return Time(milliseconds(1'000'000 + ms)); }
inline IpAddress v4(std::uint8_t last) { return IpAddress::from_v4({10, 0, 0, last}); }
IpAddress v6(std::uint8_t last);
Config host_config(std::uint8_t last);

// Byte `position` of the stream with `key`.
std::byte stream_byte(std::uint64_t key, std::uint64_t position);
Bytes stream_bytes(std::uint64_t key, std::uint64_t position, std::size_t count);

// A packet taken apart, with its own copy of the payload.
struct Seen {
  FlowKey flow;  // local = destination
  wire::Segment segment;
  std::string payload;
  Time at{};
};
Seen take_apart(const Bytes& packet, Time at = {});
// "S", "S.", ".", "P.", "F.", "R", "R."
std::string flags_of(const wire::Segment& segment);

struct Faults {
  std::uint32_t loss_ppm = 0;
  std::uint32_t duplicate_ppm = 0;
  std::uint32_t reorder_ppm = 0;
  Duration delay = milliseconds(5);
  Duration reorder_delay = milliseconds(20);
  std::uint64_t rate_bytes_s = 0;  // of the link, each way; 0 = without limit
  std::uint32_t queue_bytes = 1U << 20;
  std::uint32_t mark_bytes = UINT32_MAX;  // so much in the queue is told by ECN
  std::uint32_t path_mtu = 65535;         // of a router on the way, which tells when a packet exceeds it
};

class TwoHosts {
 public:
  static constexpr int kClient = 0;
  static constexpr int kServer = 1;

  explicit TwoHosts(std::uint64_t seed = 1);
  TwoHosts(std::uint64_t seed, const Config& client, const Config& server);

  // Goes to the next event not after `limit`; false when there is none (time is then `limit`).
  bool step(Time limit);
  void run_for(Duration span) { run_until(now + span); }
  void run_until(Time limit);
  // Until `done` or `limit` has passed; whether it is done.
  bool run_until_done(const std::function<bool()>& done, Duration limit = seconds(600));

  SoftStack& client() { return *stacks_[kClient]; }
  SoftStack& server() { return *stacks_[kServer]; }

  // A listener of the server; a connection to it, ESTABLISHED on both sides.
  SocketId listen(std::uint16_t port = 80, std::uint32_t backlog = 16, Family family = Family::kV4);
  struct Pair {
    SocketId client = kNoSocket;
    SocketId server = kNoSocket;
  };
  Pair connect(SocketId listener, std::uint16_t port = 80, Family family = Family::kV4);

  Config configs[2];
  Faults faults;
  Rng rng;
  Time now;
  // Packets that left each host, while `keep`; events of each.
  bool keep = true;
  std::uint32_t check_interval = 1;  // steps between two looks at the invariants
  std::vector<Seen> sent[2];
  std::map<SocketId, std::uint32_t> woken[2];
  // True: this one is lost.
  std::function<bool(int from, const Seen&)> drop;

 private:
  struct End final : Outlet, Watcher {
    void transmit(ByteView packet) override { net->carry(index, packet); }
    void wake(SocketId id, std::uint32_t events) override { net->woken[index][id] |= events; }
    TwoHosts* net = nullptr;
    int index = 0;
  };
  void carry(int from, ByteView packet);
  [[nodiscard]] Time pass_link(int from, std::span<std::byte> packet, bool& lost);
  void check();

  End ends_[2];
  std::unique_ptr<SoftStack> stacks_[2];
  struct Packet {
    int to = 0;
    Bytes bytes;
  };
  std::multimap<Time, Packet> in_flight_;
  Time link_free_[2];
  std::uint32_t steps_ = 0;
};

// One host, and a peer that the test plays: 10.0.0.2 port 5000, sequence numbers from 1000 on.
class OneHost {
 public:
  explicit OneHost(const Config& config = host_config(1));

  // A segment of the peer; `local_port` of the host.
  void inject(wire::Segment segment, std::string_view payload = {}, std::uint16_t local_port = 80,
              std::uint16_t peer_port = 5000);
  // The same of any peer; `flow`: its own view.
  void inject_from(const FlowKey& flow, const wire::Segment& segment, std::string_view payload = {});
  // What the host has sent since the last call.
  std::vector<Seen> take();
  // Exactly one, or the test fails.
  Seen take_one();
  void advance(Duration span);

  // A listener on port 80 and a connection to it, past accept(); peer's seq 1001, `iss` known.
  SocketId establish();
  // Segments of the peer within that connection.
  static wire::Segment segment(std::uint8_t flags, std::uint32_t seq, std::uint32_t ack = 0);

  Config config;
  Time now = at_ms(0);
  SocketId listener = kNoSocket;
  std::uint32_t iss = 0;  // ours, of establish()
  std::map<SocketId, std::uint32_t> woken;

 private:
  struct End final : Outlet, Watcher {
    void transmit(ByteView packet) override;
    void wake(SocketId id, std::uint32_t events) override { host->woken[id] |= events; }
    OneHost* host = nullptr;
  };
  End end_;
  std::vector<Seen> seen_;

 public:
  std::unique_ptr<SoftStack> stack;
};

}  // namespace twinstack::stack::test
