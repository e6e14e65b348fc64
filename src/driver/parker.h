// Parker: waits out RCU grace periods for the driver in a thread of its own (milliseconds each, membarrier), one for
// many connections. The driver adds tickets; when a grace period that began after the ticket has passed, the event
// descriptor polls readable and completed() covers the ticket.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

#include "base/result.h"

namespace twinstack::driver {

class Parker {
 public:
  // `event_fd`: eventfd to write when completed() has moved on; stays the caller's.
  explicit Parker(int event_fd);
  ~Parker();
  Parker(const Parker&) = delete;
  Parker& operator=(const Parker&) = delete;

  // The number of the grace period that covers what happened before this call.
  [[nodiscard]] std::uint64_t request();
  // All tickets up to this number are covered.
  [[nodiscard]] std::uint64_t completed();

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
