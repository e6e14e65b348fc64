#include "driver/parker.h"

#include <unistd.h>

#include "base/log.h"
#include "kernel/linux_kernel_conn.h"

namespace twinstack::driver {
namespace {

// No packet is under way in the kernel for so long, whatever keeps us from proving it.
constexpr std::chrono::seconds kInstead(1);

}  // namespace

Parker::Parker(int event_fd) : event_fd_(event_fd), thread_([this] { run(); }) {}

Parker::~Parker() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wanted_changed_.notify_one();
  thread_.join();
}

std::uint64_t Parker::request() {
  const std::lock_guard lock(mutex_);
  // A grace period that runs already may have begun too early: the next one counts.
  wanted_ = started_ + 1;
  wanted_changed_.notify_one();
  return wanted_;
}

std::uint64_t Parker::completed() {
  const std::lock_guard lock(mutex_);
  return completed_;
}

void Parker::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wanted_changed_.wait(lock, [this] { return stopping_ || wanted_ > started_; });
    if (stopping_) return;
    const std::uint64_t number = ++started_;
    lock.unlock();
    const auto waited = kernel::wait_grace_period();
    lock.lock();
    if (!waited) {
      spdlog::error("grace period, {} s instead: {}", kInstead.count(), waited.error().message());
      wanted_changed_.wait_for(lock, kInstead, [this] { return stopping_; });
    }
    completed_ = number;
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(event_fd_, &one, sizeof(one));
  }
}

}  // namespace twinstack::driver
