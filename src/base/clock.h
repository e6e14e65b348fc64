// CoreClock: the time of the pure parts (wire, tcp, engine). It has no now(): time is an argument, so reading a clock
// in the core does not compile and a whole network can run in virtual time. The service fills it from CLOCK_MONOTONIC.
#pragma once

#include <chrono>
#include <cstdint>

namespace twinstack {

struct CoreClock {
  using rep = std::int64_t;
  using period = std::nano;
  using duration = std::chrono::duration<rep, period>;
  using time_point = std::chrono::time_point<CoreClock>;
  static constexpr bool is_steady = true;  // NOLINT(readability-identifier-naming): the name that std::chrono asks for
};

using Duration = CoreClock::duration;
using Time = CoreClock::time_point;

inline constexpr Time kNever = Time::max();

}  // namespace twinstack
