// Wait: how a thread sleeps for a connection. Never in the kernel socket itself: in ppoll() on the program's
// descriptors, an eventfd of its own, and, if it is the leader, the WakeEvents of all rings. One waiting thread leads;
// it takes in what the rings hold and wakes whom it concerns, so that a thousand blocked threads do not all run for
// every completion. (Epoll sets watch the rings for themselves, see epoll_set.h.)
//
// Not a cancellation point. Errors of ppoll other than EINTR are impossible by construction.
#pragma once

#include <poll.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <span>

#include "base/unique_fd.h"
#include "sockets/mutex.h"
#include "sockets/sonode.h"

namespace twinstack::sockets {

// A thread's place in the waiting room; pooled, so that blocking calls need no thread-local storage and no allocation
// after the first.
struct Waiter {
  UniqueFd event;
  std::atomic<bool> signaled = false;
  Waiter* next = nullptr;      // in the room, or in the pool
  Waiter* previous = nullptr;  // in the room

  void signal() noexcept;
};

class WaitRoom {
 public:
  constexpr WaitRoom() noexcept = default;

  // nullptr: no memory or descriptor.
  [[nodiscard]] Waiter* enter() noexcept TS_EXCLUDES(mutex_);
  void leave(Waiter* waiter) noexcept TS_EXCLUDES(mutex_);
  // Whether `waiter` leads (now, if nobody did).
  [[nodiscard]] bool lead(Waiter* waiter) noexcept TS_EXCLUDES(mutex_);
  // There is a session that the leader, who may sleep, does not watch.
  void on_new_session() noexcept TS_EXCLUDES(mutex_);
  void reset_after_fork() noexcept;

 private:
  Mutex mutex_;
  Waiter* inside_ TS_GUARDED_BY(mutex_) = nullptr;
  Waiter* leader_ TS_GUARDED_BY(mutex_) = nullptr;
  Waiter* pool_ TS_GUARDED_BY(mutex_) = nullptr;
};

enum class Woken : std::uint8_t { kLookAgain, kTimeout, kInterrupted, kFailed };

class Wait {
 public:
  static constexpr std::int64_t kForever = -1;

  // For at most `capacity` connections.
  explicit Wait(std::int64_t timeout_ns, std::size_t capacity = 1) noexcept;
  ~Wait();
  Wait(const Wait&) = delete;
  Wait& operator=(const Wait&) = delete;

  // Whether there was memory and a descriptor for it.
  [[nodiscard]] bool is_ready() const noexcept { return waiter_ != nullptr && entries_ != nullptr; }
  // From now on a change of the connection ends sleep(). Call it, look whether it is ready, then sleep. The caller
  // holds a reference until the Wait ends. REQUIRES: is_ready(), not more than `capacity` calls.
  void watch(Sonode& sonode) noexcept;
  // Sleeps until one of `fds` has an event (their revents are set; negative numbers are skipped), a watched connection
  // changed, the time is over, or a signal handler ran under `mask`.
  [[nodiscard]] Woken sleep(std::span<pollfd> fds, const sigset_t* mask) noexcept;
  [[nodiscard]] bool is_over() const noexcept;

 private:
  struct Entry final : Watch {
    void on_change() noexcept override { waiter->signal(); }
    Waiter* waiter = nullptr;
    Sonode* sonode = nullptr;
  };
  static constexpr std::size_t kInlineEntries = 4;

  [[nodiscard]] Woken sleep_among(std::span<pollfd> all, std::size_t count, const sigset_t* mask) const noexcept;
  void drain_signaled(std::span<const pollfd> service) const noexcept;

  Waiter* waiter_;
  std::int64_t deadline_ns_;
  std::array<Entry, kInlineEntries> inline_entries_;
  Entry* entries_ = nullptr;
  std::size_t count_ = 0;
};

// Whether the kernel would restart a call that a signal handler has interrupted: every handler of the process was
// installed with SA_RESTART.
[[nodiscard]] bool handlers_restart() noexcept;

extern WaitRoom g_wait_room;

}  // namespace twinstack::sockets
