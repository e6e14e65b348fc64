// PolicyLook: when the policy looks at a connection of the kernel again. Soon as long as there is traffic, ever more
// seldom while there is none, for a look costs a system call.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/clock.h"

namespace twinstack::driver {

class PolicyLook {
 public:
  static constexpr Duration kSoon = std::chrono::milliseconds(100);
  static constexpr Duration kSeldom = std::chrono::seconds(3);

  [[nodiscard]] Time due() const noexcept { return due_; }
  // It was looked at and had received so many segments in this stay.
  void looked(Time now, std::uint32_t segments) noexcept {
    interval_ = segments != segments_ ? kSoon : std::min(interval_ * 2, kSeldom);
    segments_ = segments;
    due_ = now + interval_;
  }

 private:
  Time due_ = Time::min();
  Duration interval_ = kSoon / 2;  // the first look doubles it
  std::uint32_t segments_ = 0;
};

}  // namespace twinstack::driver
