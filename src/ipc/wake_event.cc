#include "ipc/wake_event.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace twinstack::ipc {

Result<WakeEvent> WakeEvent::create() {
  WakeEvent self;
  self.event_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!self.event_) return system_error("eventfd");
  self.watch_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!self.watch_) return system_error("epoll_create1");
  // Edge-triggered: nobody reads the counter.
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {}};
  if (::epoll_ctl(self.watch_.get(), EPOLL_CTL_ADD, self.event_.get(), &event) != 0) return system_error("epoll_ctl");
  return self;
}

void WakeEvent::signal(int signal_fd) noexcept {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(signal_fd, &one, sizeof(one));
}

void WakeEvent::clear(int watch_fd) noexcept {
  // The system call itself: the socket layer interposes libc's.
  epoll_event event;
  ::syscall(SYS_epoll_pwait, watch_fd, &event, 1, 0, nullptr, sizeof(std::uint64_t));
}

}  // namespace twinstack::ipc
