// Test support: one end of a connection with its buffers (TestEnd), makers of states and segments, and two ends joined
// by a virtual network that loses, duplicates, reorders and delays from a seed (TestNetwork). Virtual time, one thread.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "base/rng.h"
#include "tcp/cold_state.h"
#include "tcp/connection.h"
#include "tcp/min_tcp.h"
#include "wire/payload.h"
#include "wire/segment.h"

namespace twinstack::tcp::test {

inline constexpr std::uint16_t kMss = 1460;
inline constexpr std::uint32_t kOurSeq = 1000;
inline constexpr std::uint32_t kPeerSeq = 5000;
inline constexpr std::uint32_t kWindow = 65536;

inline Time at_ms(std::int64_t ms) { return Time(std::chrono::milliseconds(1'000'000 + ms)); }

// An idle connection: nothing in flight, windows of kWindow without scaling, no options, cwnd of ten segments.
MinTcp idle_state();

// A bare ACK of the peer of idle_state(); tests change what they need.
wire::Segment from_peer(std::uint32_t seq = kPeerSeq, std::uint32_t ack = kOurSeq);

// One end: control block and the buffers that an engine would hold. The stream's bytes are given by their position.
class TestEnd final : public Host {
 public:
  explicit TestEnd(const MinTcp& state, Time now, std::uint32_t receive_capacity = kWindow);
  TestEnd(const TestEnd&) = delete;

  std::uint32_t deliver(const Payload& payload) override;
  std::uint32_t receive_space() override;
  bool all_read() override { return unread == 0; }

  // The program writes `bytes` more of its stream; reads everything; reads up to `bytes`.
  void write(std::uint32_t bytes, Time now, bool more_follows = false);
  std::uint32_t read(std::uint32_t bytes, Time now);
  void read_all(Time now) { read(~0U, now); }

  Arrival receive(const wire::Segment& segment, std::string_view payload, Time now);
  Arrival receive(const wire::Segment& segment, std::span<const std::byte> payload, Time now);
  // All that poll_transmit() has, payload checked against the send queue's bounds.
  std::vector<SegmentPlan> poll(Time now);
  // REQUIRES that exactly one segment is there (the test fails otherwise).
  SegmentPlan poll_one(Time now);
  // on_timer() at the next deadline, which is returned.
  Time fire(Time now, TimerVerdict* verdict = nullptr);
  std::vector<std::byte> payload_of(const SegmentPlan& plan) const;

  std::uint32_t receive_capacity() override { return capacity; }
  std::uint16_t announced_mss() override { return announced; }

  // As a move out and in again: what is out of order is lost.
  void move(Time now);

  ControlBlock cb;
  Counters counters;
  DeliveryRate delivery_rate;
  std::uint16_t announced = 0;  // announced_mss()
  std::uint32_t capacity = kWindow;
  std::uint32_t deliver_limit = ~0U;  // takes at most so much at once
  std::uint64_t written = 0;          // stream position of write_seq
  std::uint64_t received = 0;         // stream position of rcv_nxt
  std::uint64_t unread = 0;
  std::uint64_t wrong_bytes = 0;  // received bytes that are not the peer's stream
  std::uint8_t send_key = 1;      // streams of the two ends differ
  std::uint8_t receive_key = 2;
  std::string text;  // what was received, while `keep_text`
  bool keep_text = true;
};

// Byte `position` of the stream with `key`.
std::byte stream_byte(std::uint8_t key, std::uint64_t position);

struct NetworkFaults {
  std::uint32_t loss_ppm = 0;
  std::uint32_t duplicate_ppm = 0;
  std::uint32_t reorder_ppm = 0;  // delayed by up to `reorder_delay` more
  std::uint32_t batch_end_ppm =
      500'000;            // how often an end sends before it has taken all that arrived at the same time
  bool coalesce = false;  // the receiver's GRO
  std::uint32_t largest_payload = UINT32_MAX;  // what is larger vanishes: a black hole
  Duration delay = std::chrono::microseconds(500);
  Duration reorder_delay = std::chrono::milliseconds(2);
};

class TestNetwork {
 public:
  TestNetwork(std::uint64_t seed, TestEnd& a, TestEnd& b, Time start);

  // Puts everything that the ends have to send on the wire.
  void flush();
  // Goes to the next event not after `limit`; false when there is none (time is then `limit`).
  bool step(Time limit);
  void run_until(Time limit);

  NetworkFaults faults;
  Rng rng;
  Time now;
  std::uint64_t packets = 0;
  bool failed_timer = false;  // an end wants to give up
  Arrival last_to_software = Arrival::kAccepted;

 private:
  struct Packet {
    int to = 0;
    wire::Segment segment;
    std::vector<std::byte> payload;
  };
  void send(int to, const wire::Segment& segment, const std::vector<std::byte>& payload);
  void coalesce(Packet& packet);
  void arrive(Packet& packet);
  void check_wire(const wire::Segment& segment, const std::vector<std::byte>& payload) const;
  void check(const TestEnd& end, const SegmentPlan& plan);

  TestEnd* ends_[2];
  std::multimap<Time, Packet> in_flight_;
  Seq highest_edge_[2];
  Seq highest_una_[2];
};

}  // namespace twinstack::tcp::test
