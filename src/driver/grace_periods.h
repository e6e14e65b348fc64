// GracePeriods: waits until no CPU can still be at work on a packet from before, without holding anybody up.
#pragma once

#include <cstdint>

namespace twinstack::driver {

class GracePeriods {
 public:
  virtual ~GracePeriods() = default;

  // The number of the grace period that covers what happened before this call.
  [[nodiscard]] virtual std::uint64_t request() = 0;
  // All tickets up to this number are covered.
  [[nodiscard]] virtual std::uint64_t completed() = 0;
};

}  // namespace twinstack::driver
