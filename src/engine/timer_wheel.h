// TimerWheel: one deadline per connection, in a hierarchical wheel of 1 ms ticks (Varghese and Lauck 1987): 4 levels of
// 64 slots, 4.6 hours; later deadlines wait in the last slot and are sorted in again. Links lie in the HwConns: no
// allocation. A deadline moved later is not relinked: the entry fires early and the owner schedules it again.
// One thread at a time.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "base/clock.h"
#include "engine/hw_conn.h"

namespace twinstack::engine {

class TimerWheel {
 public:
  TimerWheel(std::span<HwConn> conns, Time start) noexcept;

  // Fires at or after `deadline` (rounded up to a tick), or earlier when a shorter one was scheduled before, or when it
  // is more than 12 days away.
  void schedule(std::uint32_t index, Time deadline) noexcept;
  void cancel(std::uint32_t index) noexcept;

  // Moves the wheel on to `now` and calls fire(index) for each entry that is due; entries are out of the wheel when
  // fire() is called and may be scheduled again by it.
  template <typename Fire>
  void advance(Time now, Fire&& fire) {
    const std::uint64_t target = tick_floor(now);
    while (tick_ < target) {
      step_to_next(target);
      fire_all(kDueSlot, fire);
      fire_all(static_cast<std::uint32_t>(tick_ % kSlots), fire);
    }
  }

  // Whether schedule() has nothing to do: the entry fires at or before `deadline` as it is.
  [[nodiscard]] bool fires_by(std::uint32_t index, Time deadline) const noexcept {
    const HwConn& conn = conns_[index];
    return conn.timer_slot != kNoTimerSlot &&
           static_cast<std::int32_t>(static_cast<std::uint32_t>(tick_of(deadline)) - conn.timer_tick) >= 0;
  }

  // When the next entry may fire; kNever when the wheel is empty. Never later than the first deadline's tick.
  [[nodiscard]] Time next() const noexcept;

 private:
  static constexpr std::uint32_t kLevels = 4;
  static constexpr std::uint32_t kSlotBits = 6;
  static constexpr std::uint32_t kSlots = 1U << kSlotBits;
  static constexpr std::uint32_t kDueSlot = kLevels * kSlots;  // entries that are due now
  static constexpr std::int64_t kTickNs = 1'000'000;

  [[nodiscard]] static std::uint64_t tick_floor(Time time) noexcept {
    return static_cast<std::uint64_t>(std::max<std::int64_t>(time.time_since_epoch().count(), 0) / kTickNs);
  }
  // The tick at which an entry fires, rounded up so that it is never before its deadline.
  [[nodiscard]] std::uint64_t tick_of(Time deadline) const noexcept {
    constexpr std::uint64_t kFarthest = 1U << 30;  // entries keep 32 bits of their tick
    return std::clamp(tick_floor(deadline - Duration(1)) + 1, tick_ + 1, tick_ + kFarthest);
  }
  // fire() puts nothing into the list that is being fired: its ticks lie ahead.
  template <typename Fire>
  void fire_all(std::uint32_t slot, Fire& fire) {
    while (head(slot) != kNone) {
      const std::uint32_t index = head(slot);
      unlink(index);
      if (head(slot) != kNone) __builtin_prefetch(&conns_[head(slot)].timer_next, 1);
      fire(index);
    }
  }
  // Lists are by slot number, level * 64 + slot, and kDueSlot.
  std::uint32_t& head(std::uint32_t slot) noexcept { return slot == kDueSlot ? due_ : heads_[slot]; }
  void link(std::uint32_t index, std::uint64_t tick) noexcept;
  void link_into(std::uint32_t index, std::uint32_t slot) noexcept;
  void unlink(std::uint32_t index) noexcept;
  [[nodiscard]] std::uint64_t next_tick() const noexcept;
  void step_to_next(std::uint64_t target) noexcept;
  void cascade(std::uint32_t level) noexcept;

  std::span<HwConn> conns_;
  std::uint64_t tick_;  // all entries with a deadline at or before this tick have fired
  std::array<std::uint32_t, std::size_t{kLevels} * kSlots> heads_;
  std::array<std::uint64_t, kLevels> occupied_{};  // a bit per slot
  std::uint32_t due_ = kNone;
};

}  // namespace twinstack::engine
