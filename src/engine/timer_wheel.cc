#include "engine/timer_wheel.h"

#include <algorithm>
#include <bit>

#include "base/assert.h"

namespace twinstack::engine {

TimerWheel::TimerWheel(std::span<HwConn> conns, Time start) noexcept : conns_(conns), tick_(tick_floor(start)) {
  heads_.fill(kNone);
}

void TimerWheel::schedule(std::uint32_t index, Time deadline) noexcept {
  if (deadline == kNever || fires_by(index, deadline)) return;
  cancel(index);
  link(index, tick_of(deadline));
}

void TimerWheel::cancel(std::uint32_t index) noexcept {
  if (conns_[index].timer_slot != kNoTimerSlot) unlink(index);
}

void TimerWheel::link(std::uint32_t index, std::uint64_t tick) noexcept {
  constexpr std::uint64_t kHorizon = (1ULL << (kSlotBits * kLevels)) - 1;
  const std::uint64_t distance = std::min(tick - tick_, kHorizon);
  const std::uint64_t place = tick_ + distance;
  std::uint32_t level = 0;
  while (level + 1 < kLevels && distance >> (kSlotBits * (level + 1)) != 0) ++level;
  const auto slot = static_cast<std::uint32_t>(place >> (kSlotBits * level)) % kSlots;
  conns_[index].timer_tick = static_cast<std::uint32_t>(tick);
  link_into(index, level * kSlots + slot);
  occupied_[level] |= 1ULL << slot;
}

void TimerWheel::link_into(std::uint32_t index, std::uint32_t slot) noexcept {
  HwConn& conn = conns_[index];
  conn.timer_slot = static_cast<std::uint16_t>(slot);
  conn.timer_prev = kNone;
  conn.timer_next = head(slot);
  if (conn.timer_next != kNone) conns_[conn.timer_next].timer_prev = index;
  head(slot) = index;
}

void TimerWheel::unlink(std::uint32_t index) noexcept {
  HwConn& conn = conns_[index];
  ASSERT(conn.timer_slot != kNoTimerSlot);
  if (conn.timer_prev != kNone)
    conns_[conn.timer_prev].timer_next = conn.timer_next;
  else
    head(conn.timer_slot) = conn.timer_next;
  if (conn.timer_next != kNone) conns_[conn.timer_next].timer_prev = conn.timer_prev;
  const std::uint32_t slot = conn.timer_slot;
  if (slot != kDueSlot && heads_[slot] == kNone) occupied_[slot / kSlots] &= ~(1ULL << (slot % kSlots));
  conn.timer_slot = kNoTimerSlot;
}

void TimerWheel::cascade(std::uint32_t level) noexcept {
  const auto slot = static_cast<std::uint32_t>(tick_ >> (kSlotBits * level)) % kSlots;
  if (slot == 0 && level + 1 < kLevels) cascade(level + 1);
  while (heads_[level * kSlots + slot] != kNone) {
    const std::uint32_t index = heads_[level * kSlots + slot];
    unlink(index);
    // The distance to the deadline, from 32 bits of tick: deadlines are less than 2^31 ticks away.
    const auto left = static_cast<std::int32_t>(conns_[index].timer_tick - static_cast<std::uint32_t>(tick_));
    if (left <= 0)
      link_into(index, kDueSlot);
    else
      link(index, tick_ + static_cast<std::uint32_t>(left));
  }
}

void TimerWheel::step_to_next(std::uint64_t target) noexcept {
  tick_ = std::min(next_tick(), target);
  if (tick_ % kSlots == 0) cascade(1);
}

// The first tick after tick_ at which an entry is due or a slot is to be sorted into the level below.
std::uint64_t TimerWheel::next_tick() const noexcept {
  std::uint64_t earliest = UINT64_MAX;
  for (std::uint32_t level = 0; level < kLevels; ++level) {
    if (occupied_[level] == 0) continue;
    const std::uint64_t unit = tick_ >> (kSlotBits * level);
    const auto position = static_cast<int>(unit % kSlots);
    // Distance, 1 to 64, from the slot after the current one.
    const std::uint64_t rotated = std::rotr(occupied_[level], (position + 1) % 64);
    const std::uint64_t distance = static_cast<std::uint64_t>(std::countr_zero(rotated)) + 1;
    earliest = std::min(earliest, (unit + distance) << (kSlotBits * level));
  }
  return earliest;
}

Time TimerWheel::next() const noexcept {
  const std::uint64_t tick = next_tick();
  return tick == UINT64_MAX ? kNever : Time(Duration(static_cast<std::int64_t>(tick) * kTickNs));
}

}  // namespace twinstack::engine
