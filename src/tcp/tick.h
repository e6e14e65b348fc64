// Tick: a short time for the control block: 2^16 ns (65.536 us) in 32 bits. It wraps after 78 hours; two ticks are
// compared by distance, so an interval under 39 hours is measured rightly. Timers round up, never fire early. Of
// stamps, which lie in the past, the age is right up to 77 hours and never negative. What may last longer and must be
// told exactly is a CoarseTick: 2^19 ns (0.52 ms), good for 26 days.
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

// Time since `stamp`. One that lies less than 18 minutes ahead counts as of now. REQUIRES: it is less than 77 hours
// old; else what is over that counts.
[[nodiscard]] constexpr Duration age(Tick stamp, Time now) noexcept {
  constexpr Tick kAhead = Tick{0} - (Tick{1} << 24);
  const Tick passed = to_tick(now) - stamp;
  return passed >= kAhead ? Duration::zero() : Duration(std::int64_t{passed} * kTickNs);
}

// Whether `stamp` lies less than `interval` before `now`. One that seems to lie ahead is an old one.
[[nodiscard]] constexpr bool within(Tick stamp, Duration interval, Time now) noexcept {
  return Duration(std::int64_t{to_tick(now) - stamp} * kTickNs) < interval;
}

// The instant at which `tick` begins. REQUIRES: it lies less than 39 hours from `now`.
[[nodiscard]] constexpr Time tick_start(Tick tick, Time now) noexcept {
  const std::int64_t wide = wide_tick(now) + static_cast<std::int32_t>(tick - to_tick(now));
  return Time(Duration(wide * kTickNs));
}

enum class CoarseTick : std::uint32_t {};

inline constexpr int kCoarseTickShift = 19;
inline constexpr Duration kCoarseTick{std::int64_t{1} << kCoarseTickShift};
inline constexpr std::uint32_t kCoarseAhead = 0U - (1U << 21);  // a stamp that lies less ahead counts as of now

// Rounded up: what is measured from it is never too long.
[[nodiscard]] constexpr CoarseTick to_coarse_tick(Time at) noexcept {
  return static_cast<CoarseTick>((at.time_since_epoch().count() + kCoarseTick.count() - 1) >> kCoarseTickShift);
}

// The tick that `at` lies in, and the ticks that have begun since `stamp`: what is carried from stack to stack. They
// add up to what has passed in all however often that happens, where anything rounded each time would not.
[[nodiscard]] constexpr CoarseTick coarse_tick_of(Time at) noexcept {
  return static_cast<CoarseTick>(at.time_since_epoch().count() >> kCoarseTickShift);
}
[[nodiscard]] constexpr Duration coarse_ticks_since(CoarseTick stamp, Time now) noexcept {
  const auto passed = static_cast<std::uint32_t>(coarse_tick_of(now)) - static_cast<std::uint32_t>(stamp);
  return passed >= kCoarseAhead ? Duration::zero() : passed * kCoarseTick;
}

// Time since `stamp`; as above, with 26 days.
[[nodiscard]] constexpr Duration age(CoarseTick stamp, Time now) noexcept {
  const auto passed = static_cast<std::uint32_t>(coarse_tick_of(now)) - static_cast<std::uint32_t>(stamp);
  if (passed >= kCoarseAhead) return Duration::zero();
  return passed * kCoarseTick + Duration(now.time_since_epoch().count() & (kCoarseTick.count() - 1));
}

}  // namespace twinstack::tcp
