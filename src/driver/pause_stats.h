// PauseStats: the pauses of the moves of one direction, exact percentiles over the last moves. One thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "driver/control_target.h"

namespace twinstack::driver {

class PauseStats {
 public:
  void add(Duration pause);
  // Percentiles over at most the last kKept moves; `count` and `max` over all.
  [[nodiscard]] PauseSummary summary() const;

 private:
  static constexpr std::size_t kKept = 65536;

  std::vector<std::int64_t> kept_ns_;
  std::size_t next_ = 0;
  std::uint64_t count_ = 0;
  std::int64_t max_ns_ = 0;
};

}  // namespace twinstack::driver
