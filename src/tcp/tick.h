// Tick: a short time for the control block: 2^16 ns (65.536 us) in 32 bits. It wraps after 78 hours; two ticks are
// compared by distance, so an interval under 39 hours is measured rightly. Timers round up, never fire early.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace twinstack::tcp {

using Tick = std::uint32_t;

inline constexpr int kTickShift = 16;
inline constexpr std::int64_t kTickNs = std::int64_t{1} << kTickShift;

[[nodiscard]] constexpr std::int64_t wide_tick(Time now) noexcept {
  return now.time_since_epoch().count() >> kTickShift;
}

[[nodiscard]] constexpr Tick to_tick(Time now) noexcept { return static_cast<Tick>(wide_tick(now)); }

// The first tick that begins at or after `at`.
[[nodiscard]] constexpr Tick to_tick_ceil(Time at) noexcept {
  return static_cast<Tick>((at.time_since_epoch().count() + kTickNs - 1) >> kTickShift);
}

// Time from `from` to `to`; negative when `to` lies before. REQUIRES: less than 39 hours apart.
[[nodiscard]] constexpr Duration ticks_between(Tick from, Tick to) noexcept {
  return Duration(static_cast<std::int64_t>(static_cast<std::int32_t>(to - from)) * kTickNs);
}

// The instant at which `tick` begins. REQUIRES: it lies less than 39 hours from `now`.
[[nodiscard]] constexpr Time tick_start(Tick tick, Time now) noexcept {
  const std::int64_t wide = wide_tick(now) + static_cast<std::int32_t>(tick - to_tick(now));
  return Time(Duration(wide * kTickNs));
}

}  // namespace twinstack::tcp
