// The one place where CoreClock meets the system: CLOCK_MONOTONIC as Time. Not to be included by wire, tcp or engine.
#pragma once

#include <ctime>

#include "base/clock.h"

namespace twinstack {

[[nodiscard]] inline Time monotonic_now() noexcept {
  timespec ts{};
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return Time(Duration(static_cast<std::int64_t>(ts.tv_sec) * 1'000'000'000 + ts.tv_nsec));
}

}  // namespace twinstack
