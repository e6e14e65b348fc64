// TimerHeap: the deadlines of many things, the earliest first; ties in the order in which they were set, so that a run
// repeats itself. What waits embeds a Timer, which knows its place. O(log n) to set, O(1) to look.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/clock.h"

namespace twinstack::stack {

struct Timer {
  Time deadline = kNever;
  std::uint64_t order = 0;
  std::uint32_t place = kNowhere;

  static constexpr std::uint32_t kNowhere = UINT32_MAX;
  [[nodiscard]] bool is_set() const noexcept { return place != kNowhere; }
};

class TimerHeap {
 public:
  // kNever takes it out. REQUIRES: `timer` stays where it is in memory until it is taken out.
  void set(Timer& timer, Time deadline);
  void cancel(Timer& timer) { set(timer, kNever); }
  // nullptr when none is set.
  [[nodiscard]] Timer* earliest() const noexcept { return heap_.empty() ? nullptr : heap_.front(); }
  [[nodiscard]] std::size_t size() const noexcept { return heap_.size(); }

 private:
  void put(std::size_t at, Timer* timer) noexcept;
  void rise(std::size_t at) noexcept;
  void sink(std::size_t at) noexcept;
  void remove(Timer& timer) noexcept;

  std::vector<Timer*> heap_;
  std::uint64_t next_order_ = 0;
};

}  // namespace twinstack::stack
