// poll, epoll, and what moves bytes between a socket and a descriptor of another kind.
#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "program.h"

namespace twinstack::packetdrill {

namespace {

constexpr std::size_t kMostPerFileRead = 1U << 20;

std::uint32_t bits(short events) noexcept { return static_cast<unsigned short>(events); }

}  // namespace

int Program::close(int fd) {
  const Lock lock(mutex_);
  nonblocking_.erase(fd);
  for (auto& [epoll_fd, set] : epoll_sets_) set->forget(fd);
  if (epoll_sets_.erase(fd) > 0) return 0;
  if (!form_->is_socket(fd)) return ::close(fd) == 0 ? 0 : -errno;
  const int result = form_->close(fd);
  retry_waiters();
  return result;
}

int Program::count_ready(std::span<pollfd> fds) {
  int count = 0;
  for (pollfd& entry : fds) {
    entry.revents = 0;
    if (entry.fd < 0) continue;
    if (form_->is_socket(entry.fd)) {
      entry.revents = static_cast<short>(form_->poll(entry.fd) & (bits(entry.events) | POLLERR | POLLHUP));
    } else {
      (void)::poll(&entry, 1, 0);
    }
    if (entry.revents != 0) ++count;
  }
  return count;
}

int Program::poll(pollfd* fds, nfds_t count, int timeout_ms) {
  Lock lock(mutex_);
  const auto ready = wait_for(lock, deadline_of(timeout_ms), [&]() -> ssize_t {
    const int now = count_ready({fds, count});
    return now == 0 ? -EAGAIN : now;
  });
  return ready == -EAGAIN ? 0 : static_cast<int>(ready);
}

int Program::epoll_create(int size) {
  const Lock lock(mutex_);
  const int fd = ::epoll_create(size);
  if (fd < 0) return -errno;
  epoll_sets_[fd] = std::make_unique<EpollSet>(UniqueFd(fd), *form_);
  return fd;
}

int Program::epoll_control(int epoll_fd, int operation, int fd, epoll_event* event) {
  const Lock lock(mutex_);
  const auto found = epoll_sets_.find(epoll_fd);
  if (found == epoll_sets_.end()) return -EBADF;
  return found->second->control(operation, fd, event);
}

int Program::epoll_wait(int epoll_fd, epoll_event* events, int most, int timeout_ms) {
  Lock lock(mutex_);
  const auto found = epoll_sets_.find(epoll_fd);
  if (found == epoll_sets_.end()) return -EBADF;
  if (most <= 0) return -EINVAL;
  EpollSet& set = *found->second;
  const auto got = wait_for(lock, deadline_of(timeout_ms), [&]() -> ssize_t {
    const int now = set.collect({events, static_cast<std::size_t>(most)});
    return now == 0 ? -EAGAIN : now;
  });
  return got == -EAGAIN ? 0 : static_cast<int>(got);
}

// Out of a socket into a pipe; other ways are the kernel's.
ssize_t Program::splice(int in, int out, std::size_t bytes) {
  const Lock lock(mutex_);
  if (form_->is_socket(in)) return form_->splice(in, out, bytes);
  const ssize_t moved = ::splice(in, nullptr, out, nullptr, bytes, 0);
  return moved < 0 ? -errno : moved;
}

ssize_t Program::sendfile(int out, int in, off_t* offset, std::size_t bytes) {
  {
    const Lock lock(mutex_);
    if (!form_->is_socket(out)) return -ENOTSOCK;
  }
  std::vector<std::byte> data(std::min(bytes, kMostPerFileRead));
  const ssize_t got =
      offset != nullptr ? ::pread(in, data.data(), data.size(), *offset) : ::read(in, data.data(), data.size());
  if (got <= 0) return got < 0 ? -errno : 0;
  iovec part{.iov_base = data.data(), .iov_len = static_cast<std::size_t>(got)};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  const ssize_t sent = send(out, message, 0);
  if (sent > 0 && offset != nullptr) *offset += sent;
  return sent;
}

}  // namespace twinstack::packetdrill
