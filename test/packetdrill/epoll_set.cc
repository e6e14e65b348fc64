#include "epoll_set.h"

#include <algorithm>
#include <cerrno>

namespace twinstack::packetdrill {

namespace {

// Always asked for.
constexpr std::uint32_t kAlways = EPOLLERR | EPOLLHUP;
constexpr std::uint32_t kModes = EPOLLET | EPOLLONESHOT | EPOLLWAKEUP | EPOLLEXCLUSIVE;

std::uint32_t wanted(const epoll_event& event) noexcept { return (event.events & ~kModes) | kAlways; }
// EPOLLONESHOT has fired: nothing counts until EPOLL_CTL_MOD.
bool is_off(const epoll_event& event) noexcept { return (event.events & ~kModes) == 0; }

}  // namespace

int EpollSet::control(int operation, int fd, epoll_event* event) {
  if (operation != EPOLL_CTL_DEL && event == nullptr) return -EFAULT;
  const auto found = entries_.find(fd);
  if (operation == EPOLL_CTL_ADD && found != entries_.end()) return -EEXIST;
  if (operation != EPOLL_CTL_ADD && found == entries_.end()) return -ENOENT;
  if (operation == EPOLL_CTL_MOD && (event->events & EPOLLEXCLUSIVE) != 0) return -EINVAL;
  if (form_.is_kernels(fd) && ::epoll_ctl(real_.get(), operation, fd, event) != 0) return -errno;
  if (operation == EPOLL_CTL_DEL) {
    forget(fd);
    return 0;
  }
  Entry& entry = entries_[fd];
  entry.event = *event;
  look(fd, entry);
  return 0;
}

void EpollSet::look(int fd, Entry& entry) {
  if (form_.is_kernels(fd) || is_off(entry.event)) return;
  if ((form_.poll(fd) & wanted(entry.event)) != 0) enter(fd, entry);
}

void EpollSet::enter(int fd, Entry& entry) {
  if (entry.ready) return;
  entry.ready = true;
  ready_.push_back(fd);
}

void EpollSet::wake(int fd, std::uint32_t events) {
  const auto found = entries_.find(fd);
  if (found == entries_.end() || is_off(found->second.event)) return;
  if ((events & wanted(found->second.event)) != 0) enter(fd, found->second);
}

int EpollSet::collect(std::span<epoll_event> room) {
  const int from_kernel = ::epoll_wait(real_.get(), room.data(), static_cast<int>(room.size()), 0);
  std::size_t count = static_cast<std::size_t>(std::max(from_kernel, 0));
  std::list<int> again;
  for (const int fd : std::exchange(ready_, {})) {
    Entry& entry = entries_[fd];
    const std::uint32_t events = form_.poll(fd) & wanted(entry.event);
    const bool room_left = count < room.size();
    entry.ready = events != 0 && (!room_left || (entry.event.events & EPOLLET) == 0);
    if (events != 0 && room_left) {
      room[count++] = {.events = events, .data = entry.event.data};
      if ((entry.event.events & EPOLLONESHOT) != 0) {
        entry.event.events &= kModes;
        entry.ready = false;
      }
    }
    if (entry.ready) again.push_back(fd);
  }
  ready_.splice(ready_.end(), again);
  return static_cast<int>(count);
}

void EpollSet::moved(int fd) {
  const auto found = entries_.find(fd);
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  ready_.remove(fd);
  entry.ready = false;
  if (form_.is_kernels(fd)) {
    (void)::epoll_ctl(real_.get(), EPOLL_CTL_ADD, fd, &entry.event);
    return;
  }
  (void)::epoll_ctl(real_.get(), EPOLL_CTL_DEL, fd, nullptr);
  look(fd, entry);
}

void EpollSet::forget(int fd) {
  entries_.erase(fd);
  ready_.remove(fd);
}

}  // namespace twinstack::packetdrill
