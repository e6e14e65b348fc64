// VirtualClock: the time that packetdrill and the stack under test share. It stands still but for advance_to(), and for
// a microsecond with each reading by packetdrill, which waits for short times by reading on. Who moves it holds the
// lock of the Program.
#pragma once

#include <ctime>

#include "base/assert.h"
#include "base/clock.h"

namespace twinstack::packetdrill {

class VirtualClock {
 public:
  // Begins at the system's time of day, so that what the kernel stamps lies near it.
  VirtualClock() noexcept {
    timespec ts{};
    clock_gettime(CLOCK_REALTIME, &ts);
    now_ = Time(std::chrono::seconds(ts.tv_sec) + std::chrono::microseconds(ts.tv_nsec / 1000));
  }

  [[nodiscard]] const Time& now() const noexcept { return now_; }
  [[nodiscard]] long long now_us() const noexcept { return to_us(now_); }
  void advance_to(Time time) noexcept {
    ASSERT(time >= now_);
    now_ = time;
  }

  [[nodiscard]] static long long to_us(Time time) noexcept {
    return std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch()).count();
  }

 private:
  Time now_;
};

}  // namespace twinstack::packetdrill
