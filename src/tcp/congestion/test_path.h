// Test support: flows of whole control blocks through one bottleneck with a rate, a buffer and a delay, in virtual time
// and without chance but for a seed. What is not modelled: the wire's bytes, offloads of the network card.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <queue>
#include <vector>

#include "base/rng.h"
#include "tcp/congestion/congestion.h"
#include "tcp/connection.h"
#include "tcp/control_block.h"
#include "tcp/min_tcp.h"

namespace twinstack::tcp::test {

struct PathConfig {
  std::uint64_t rate = 1'250'000;                  // bytes a second, headers not counted
  Duration delay = std::chrono::milliseconds(10);  // one way
  std::uint32_t buffer_packets = 1000;             // that wait; beyond it they are dropped
  std::uint32_t mark_from_packets = 0;             // CE when so many wait already; 0 = never
  Duration jitter{};                               // up to so much longer for an ACK; order is kept
  Duration ack_interval{};                         // the receiver sends only so often; 0 = at once
  std::uint32_t loss_ppm = 0;                      // of data, before the queue
  std::uint64_t policer_rate = 0;                  // bytes a second that a token bucket lets into the queue; 0 = all
  std::uint64_t policer_bucket = 0;                // its size, bytes
  std::uint64_t seed = 1;
};

struct FlowConfig {
  CongestionKind kind = CongestionKind::kCubic;
  bool ecn = false;
  std::uint32_t cwnd = 10;
  std::uint32_t ssthresh = kInfiniteSsthresh;
  bool unlimited = true;  // the program always has more
};

// One end of a connection; discards what it receives.
class PathEnd final : public Host {
 public:
  explicit PathEnd(const MinTcp& state, Time now);
  std::uint32_t deliver(const Payload& payload) override;
  std::uint32_t receive_space() override;

  ControlBlock cb;
  Counters counters;
  DeliveryRate delivery_rate;
  std::uint64_t received = 0;
};

struct Flow {
  Flow(const FlowConfig& config, Time now);

  FlowConfig config;
  PathEnd sender;
  PathEnd receiver;
  std::uint64_t dropped = 0;  // packets
  std::uint64_t marked = 0;
  std::uint64_t sent = 0;
};

class TestPath {
 public:
  explicit TestPath(const PathConfig& config);

  Flow& add(const FlowConfig& flow);
  // The next segment that is sent arrives so much later than its turn, after those behind it.
  void delay_next(Duration by) { delay_next_ = by; }
  // For so long no ACK arrives that is not on its way yet.
  void hold_acks(Duration time) { acks_from_ = now_ + time; }
  // The program of a flow that is not unlimited.
  void write(Flow& flow, std::uint32_t bytes);
  void run_for(Duration time);
  [[nodiscard]] Time now() const { return now_; }

  PathConfig config;  // may be changed between runs

  // The queue since the last call, packets.
  struct Queue {
    double mean = 0;
    std::uint32_t most = 0;
    std::uint32_t least = 0;
  };
  Queue take_queue_figures();

 private:
  struct Event {
    Time at;
    std::uint64_t order = 0;
    Flow* flow = nullptr;
    bool to_receiver = false;
    bool poll = false;  // no packet: the receiver may send
    std::uint32_t payload_bytes = 0;
    wire::Segment segment;

    bool operator<(const Event& other) const {
      return at != other.at ? at > other.at : order > other.order;  // the earliest is the greatest
    }
  };

  bool step(Time limit);
  void flush(Flow& flow, bool sender);
  void flush_all();
  void send_data(Flow& flow, const SegmentPlan& plan);
  void send_ack(Flow& flow, const SegmentPlan& plan);
  void arrive(const Event& event);
  bool policed(std::uint32_t bytes);
  std::uint32_t waiting();
  void note_queue();
  void push(Event event);

  Time now_;
  Rng rng_;
  std::vector<std::unique_ptr<Flow>> flows_;
  std::priority_queue<Event> events_;
  std::uint64_t order_ = 0;
  std::deque<Time> departures_;  // of what is in the queue
  Time last_departure_;
  Duration delay_next_{};
  Time last_ack_arrival_;
  Time acks_from_;
  double tokens_ = 0;
  Time tokens_at_;
  // Figures.
  Time queue_from_;
  Time queue_at_;
  double queue_area_ = 0;  // packets x seconds
  std::uint32_t queue_now_ = 0;
  std::uint32_t queue_most_ = 0;
  std::uint32_t queue_least_ = UINT32_MAX;
};

inline constexpr std::uint32_t kPathMss = 1448;

// Debug and sanitized builds are tens of times slower: long runs are left to the others.
#ifdef NDEBUG
inline constexpr bool kLongRuns = true;
#else
inline constexpr bool kLongRuns = false;
#endif

}  // namespace twinstack::tcp::test
