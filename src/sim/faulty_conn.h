// FaultyConn: a KernelConn in front of another one, whose calls can be made to fail, midway too. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "handoff/connection.h"
#include "kernel/kernel_conn.h"
#include "sim/event.h"

namespace twinstack::sim {

inline constexpr std::size_t kOffloadSteps = 8;
inline constexpr std::size_t kUploadSteps = 6;  // its commit cannot fail

// What was done to a connection that leads the driver to reset it, as its stream cannot be kept.
enum class ResetCause : std::uint8_t {
  kNone,          // nothing: a reset is a failure
  kNoShell,       // parked midway, with what the kernel did last
  kNoRoom,        // too little memory or room in the ring for what the frozen socket took in
  kNotReleased,   // the kernel did not let it go on, twice
  kPartReleased,  // ... or not with all unsent bytes
  kPurged,        // the kernel acknowledged bytes and threw them away (F2)
  kNotTakenBack,  // the kernel did not undo a freeze, or a filter is left
};
inline constexpr std::size_t kResetCauses = 7;
[[nodiscard]] const char* name(ResetCause cause) noexcept;

// What the next moves of one connection will meet: how often each still fails.
struct MoveFaults {
  std::array<std::uint8_t, kOffloadSteps> refuse_offload{};
  std::array<std::uint8_t, kUploadSteps> refuse_upload{};
  std::uint8_t check = 0;
  std::uint8_t attach = 0;
  std::uint8_t freeze = 0;
  std::uint8_t park = 0;
  std::uint8_t park_gap = 0;
  std::uint8_t restore = 0;
  std::uint8_t release = 0;
  std::uint8_t option_set = 0;
  std::uint8_t purge = 0;
  std::uint8_t lose_ack = 0;
  std::uint8_t part_release = 0;
  std::uint8_t thaw = 0;
  std::uint8_t detach = 0;
  // What they have met: the driver may reset the connection now, and for nothing else.
  ResetCause reset_cause = ResetCause::kNone;
  std::uint8_t release_refusals = 0;  // of this move; one is survived
  // Tests of the simulator: bugs that the product does not have.
  std::uint8_t turn_byte = 0;      // of the next snapshot's send queue
  std::uint8_t lose_received = 0;  // of the next snapshot's unread bytes
  std::uint8_t grow_window = 0;    // of the next snapshot
  std::uint8_t lose_byte = 0;      // of the unsent bytes of the next release
  std::uint8_t hide_purge = 0;     // of the next park
  std::uint8_t no_release = 0;     // refused, and the checkers know of nothing

  // Called when one is met: only then has it begun.
  std::function<void(EventKind)> on_met = [](EventKind) {};
  // Whether one of `count` is left, which is met now.
  [[nodiscard]] bool meets(std::uint8_t& count, EventKind kind) const {
    if (count == 0) return false;
    --count;
    on_met(kind);
    return true;
  }
  // No more of them.
  void end() {
    auto told = std::move(on_met);
    *this = {};
    on_met = std::move(told);
  }
};

void refuse_release(MoveFaults& faults) noexcept;
[[nodiscard]] inline bool take(std::uint8_t& count) noexcept {
  if (count == 0) return false;
  --count;
  return true;
}

class FaultyConn final : public kernel::KernelConn {
 public:
  // REQUIRES: `faults` and `is_dead` outlive it. When the service is dead no call reaches the kernel any more.
  FaultyConn(std::unique_ptr<kernel::KernelConn> inner, MoveFaults& faults, const bool& is_dead)
      : inner_(std::move(inner)), faults_(faults), is_dead_(is_dead) {}

  [[nodiscard]] std::uint64_t cookie() const noexcept override { return inner_->cookie(); }
  [[nodiscard]] std::uint64_t netns_cookie() const noexcept override { return inner_->netns_cookie(); }
  [[nodiscard]] const FlowKey& flow() const noexcept override { return inner_->flow(); }
  [[nodiscard]] int fd() const noexcept override { return inner_->fd(); }
  [[nodiscard]] kernel::Phase phase() const noexcept override {
    return in_gap_ ? kernel::Phase::kGap : inner_->phase();
  }
  [[nodiscard]] bool is_untouched() const noexcept override { return inner_->is_untouched(); }
  [[nodiscard]] kernel::RouteHints route_hints() const noexcept override { return inner_->route_hints(); }
  Result<> check_eligible(const kernel::Limits& limits) override;
  [[nodiscard]] kernel::QueueSizes checked_queues() const noexcept override { return inner_->checked_queues(); }
  [[nodiscard]] kernel::Reason reason() const noexcept override { return inner_->reason(); }
  Result<> attach_late_filter() override;
  Result<> detach_late_filter() override;
  Result<kernel::Snapshot> freeze(const kernel::QueueRoom& room) override;
  Result<> thaw() override;
  Result<kernel::LateBytes> park(std::span<std::byte> room) override;
  Result<kernel::RestoreReport> restore(const tcp::MinTcp& min, const kernel::RestoreQueues& queues) override;
  Result<kernel::ReleaseReport> release(std::span<const std::byte> unsent, bool probe) override;
  void prepare_close(bool unread) noexcept override;
  void reset() noexcept override;
  [[nodiscard]] tcp::InfoCounters past_counters() const noexcept override { return inner_->past_counters(); }
  Result<> expire() override { return inner_->expire(); }
  Result<> make_room(std::uint32_t packets) override { return inner_->make_room(packets); }
  bool settle(bool in_any_case) override { return inner_->settle(in_any_case); }
  [[nodiscard]] bool is_settled() const noexcept override { return inner_->is_settled(); }
  Result<std::uint32_t> timestamp_clock() override { return inner_->timestamp_clock(); }
  Result<std::uint32_t> rcv_queue_seq() override { return inner_->rcv_queue_seq(); }
  Result<bool> stray_write_detected() override { return inner_->stray_write_detected(); }

 private:
  std::unique_ptr<kernel::KernelConn> inner_;
  MoveFaults& faults_;
  const bool& is_dead_;
  bool in_gap_ = false;
  std::uint32_t frozen_snd_nxt_ = 0;
};

}  // namespace twinstack::sim
