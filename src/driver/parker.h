// Parker: waits out RCU grace periods for the driver in a thread of its own (milliseconds each, membarrier), one for
// many connections. The driver adds tickets; when a grace period that began after the ticket has passed, the event
// descriptor polls readable and completed() covers the ticket.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

#include "base/result.h"
#include "driver/grace_periods.h"

namespace twinstack::driver {

class Parker final : public GracePeriods {
 public:
  // `event_fd`: eventfd to write when completed() has moved on; stays the caller's.
  explicit Parker(int event_fd);
  ~Parker() override;
  Parker(const Parker&) = delete;
  Parker& operator=(const Parker&) = delete;

  [[nodiscard]] std::uint64_t request() override;
  [[nodiscard]] std::uint64_t completed() override;

 private:
  void run();

  int event_fd_;
  std::mutex mutex_;
  std::condition_variable wanted_changed_;
  std::uint64_t started_ = 0;
  std::uint64_t wanted_ = 0;
  std::uint64_t completed_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace twinstack::driver
