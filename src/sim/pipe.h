// Pipe: one direction of a link: a queue in front of a wire with bandwidth and delay, and the faults that are on at the
// moment. Virtual time; every decision comes from the seed of the event that brought the fault. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/rng.h"
#include "sim/event.h"
#include "sim/frame.h"

namespace twinstack::sim {

struct PipeShape {
  Duration delay = std::chrono::microseconds(100);
  Duration jitter{};                              // up to so much more, order kept
  std::uint64_t bits_per_second = 1'000'000'000;  // 0: no limit
  std::uint32_t queue_frames = 256;               // droptail
  std::uint32_t mark_frames = 0;                  // ECN: marked when more wait; 0 = never
};

struct PipeCounters {
  std::uint64_t frames = 0;
  std::uint64_t bytes = 0;  // delivered
  std::uint64_t queue_drops = 0;
  std::uint64_t marked = 0;
  std::array<std::uint64_t, kEventKinds> hit{};  // frames that met a fault, by kind
};

// What a router does with a packet that is too large for its next link.
struct Refusal {
  std::uint32_t mtu_bytes = 0;
  bool tells = true;       // the MTU
  bool is_silent = false;  // its answer is lost at once
  Duration later{};        // than it should have answered
};

class Pipe {
 public:
  // REQUIRES: `pool` outlives it.
  Pipe(const PipeShape& shape, FramePool& pool, std::uint64_t seed) : shape_(shape), pool_(pool), rng_(seed) {}

  void send(Frame frame, Time now);
  // The next frame that has arrived by `now`; false when there is none.
  [[nodiscard]] bool receive(Time now, Frame& frame);
  [[nodiscard]] Time next_arrival() const noexcept { return way_.empty() ? kNever : way_.front().arrives; }
  [[nodiscard]] bool is_empty() const noexcept { return way_.empty(); }

  // A link fault begins, and ends by itself. REQUIRES: is_link_fault(event.kind).
  void begin(const Event& event, Time now);
  void end_faults() noexcept { faults_.clear(); }
  // Of kind `kind`, at this instant.
  [[nodiscard]] bool suffers(EventKind kind, Time now) const noexcept;
  // Called for a packet that the router before this link has refused, and of which it tells the sender.
  std::function<void(const Frame&, const Refusal&)> on_too_big = [](const Frame&, const Refusal&) {};
  [[nodiscard]] const PipeCounters& counters() const noexcept { return counters_; }

 private:
  struct Fault {
    EventKind kind;
    std::uint32_t amount;
    Time until;
    Rng rng;
    bool in_burst = false;
  };
  struct Travelling {
    Time arrives;
    Frame bytes;
  };
  struct Fate {
    bool lost = false;
    bool corrupted = false;
    Duration later{};  // others may overtake
    Duration held{};   // and those behind it as well
    std::optional<Duration> copy_later;
    std::optional<Refusal> refusal;
  };

  void drop_old_faults(Time now);
  [[nodiscard]] Fate decide(Frame& frame);
  void apply(Fault& fault, Frame& frame, Fate& fate);
  [[nodiscard]] static bool refuse(Fault& fault, const Frame& frame, Fate& fate);
  [[nodiscard]] std::size_t waiting(Time now);
  [[nodiscard]] std::uint64_t rate() const noexcept;
  [[nodiscard]] std::uint32_t queue_limit() const noexcept;
  void put(Frame frame, Time arrives);

  PipeShape shape_;
  FramePool& pool_;
  Rng rng_;
  std::vector<Fault> faults_;
  std::deque<Travelling> way_;   // ordered by `arrives`
  std::deque<Time> departures_;  // of what waits: when its last bit is on the wire
  Time free_at_{};               // when the wire has sent all that was given to it
  Time last_arrival_{};          // of what keeps its order
  PipeCounters counters_;
};

}  // namespace twinstack::sim
