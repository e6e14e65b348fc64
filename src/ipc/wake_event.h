// WakeEvent: how the service wakes a program that it does not trust. An eventfd alone is shared with its flags: a
// program that takes O_NONBLOCK off and leaves the counter at its maximum would make the service wait in write(2). So
// the eventfd stays with the service, and the program gets an epoll set that holds it. Any thread.
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"

namespace twinstack::ipc {

class WakeEvent {
 public:
  [[nodiscard]] static Result<WakeEvent> create();

  // Makes the set show EPOLLIN; whoever watches it edge-triggered sees an edge each time. Never blocks.
  void signal() const noexcept { signal(event_.get()); }
  static void signal(int signal_fd) noexcept;
  [[nodiscard]] int signal_fd() const noexcept { return event_.get(); }

  // For the program: in poll(2) or in an epoll set of its own. -1 after close_watch().
  [[nodiscard]] int watch_fd() const noexcept { return watch_.get(); }
  // The program has its own descriptor of the set.
  void close_watch() noexcept { watch_.reset(); }
  // The program's side: until the next signal the set shows nothing.
  static void clear(int watch_fd) noexcept;

 private:
  UniqueFd event_;
  UniqueFd watch_;
};

}  // namespace twinstack::ipc
