// The calls on sockets: what blocks, waits.
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <numeric>
#include <span>

#include "program.h"

namespace twinstack::packetdrill {

namespace {

std::size_t total_bytes(const msghdr& message) noexcept {
  const auto parts = parts_of(message);
  return std::accumulate(parts.begin(), parts.end(), std::size_t{0},
                         [](std::size_t sum, const iovec& part) { return sum + part.iov_len; });
}

// `message` without its first `skip` bytes; `parts` holds what it points to.
msghdr rest_of(const msghdr& message, std::size_t skip, std::vector<iovec>& parts) {
  parts.clear();
  for (iovec part : parts_of(message)) {
    const std::size_t here = std::min(skip, part.iov_len);
    skip -= here;
    if (here == part.iov_len && here > 0) continue;
    part.iov_base = static_cast<char*>(part.iov_base) + here;
    part.iov_len -= here;
    parts.push_back(part);
  }
  msghdr rest = message;
  rest.msg_iov = parts.data();
  rest.msg_iovlen = parts.size();
  return rest;
}

}  // namespace

bool Program::is_nonblocking(int fd) const {
  const auto found = nonblocking_.find(fd);
  return found != nonblocking_.end() && found->second;
}

int Program::socket(int domain, int type, int protocol) {
  const Lock lock(mutex_);
  const int fd = form_->socket(domain, type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC), protocol);
  if (fd >= 0) nonblocking_[fd] = (type & SOCK_NONBLOCK) != 0;
  return fd;
}

int Program::bind(int fd, const sockaddr* address, socklen_t length) {
  const Lock lock(mutex_);
  return form_->bind(fd, address, length);
}

int Program::listen(int fd, int backlog) {
  const Lock lock(mutex_);
  return form_->listen(fd, backlog);
}

int Program::accept(int fd, sockaddr* address, socklen_t* length) {
  Lock lock(mutex_);
  const Attempt attempt = [&] { return form_->accept(fd, address, length); };
  const auto made = static_cast<int>(is_nonblocking(fd) ? attempt() : wait_for(lock, kNever, attempt));
  if (made >= 0) nonblocking_[made] = false;
  retry_waiters();
  return made;
}

// The end of a connect() that waits: -EAGAIN until it is known.
ssize_t Program::finish_connect(int fd) {
  if ((form_->poll(fd) & (POLLOUT | POLLERR | POLLHUP)) == 0) return -EAGAIN;
  int error = 0;
  socklen_t length = sizeof error;
  const int result = form_->get_option(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  return result < 0 ? result : -error;
}

int Program::connect(int fd, const sockaddr* address, socklen_t length) {
  Lock lock(mutex_);
  const int begun = form_->connect(fd, address, length);
  if (begun != -EINPROGRESS || is_nonblocking(fd)) return begun;
  return static_cast<int>(wait_for(lock, kNever, [&] { return finish_connect(fd); }));
}

ssize_t Program::send(int fd, const msghdr& message, int flags) {
  Lock lock(mutex_);
  if (is_nonblocking(fd) || (flags & MSG_DONTWAIT) != 0) {
    const ssize_t sent = form_->send(fd, message, flags | MSG_DONTWAIT);
    retry_waiters();
    return sent;
  }
  const std::size_t total = total_bytes(message);
  std::size_t done = 0;
  bool tried = false;
  if (form_->begins_with_send(fd, flags)) {
    const ssize_t begun = form_->send(fd, message, flags);
    retry_waiters();
    if (begun < 0 && begun != -EINPROGRESS) return begun;
    done = static_cast<std::size_t>(std::max<ssize_t>(begun, 0));
    flags &= ~MSG_FASTOPEN;
    const ssize_t connected = wait_for(lock, kNever, [&] { return finish_connect(fd); });
    if (connected < 0) return connected;
    if (done == total) return static_cast<ssize_t>(done);
  }
  std::vector<iovec> parts;
  return wait_for(lock, kNever, [&]() -> ssize_t {
    // As Linux: who has waited for room goes on when a third of the buffer is free.
    if (tried && (form_->poll(fd) & (POLLOUT | POLLERR | POLLHUP)) == 0) return -EAGAIN;
    tried = true;
    const ssize_t sent = form_->send(fd, rest_of(message, done, parts), flags);
    if (sent >= 0) done += static_cast<std::size_t>(sent);
    if (done == total || (sent < 0 && sent != -EAGAIN && done > 0)) return static_cast<ssize_t>(done);
    return sent < 0 ? sent : -EAGAIN;
  });
}

ssize_t Program::receive(int fd, msghdr& message, int flags) {
  Lock lock(mutex_);
  const Attempt attempt = [&] { return form_->receive(fd, message, flags); };
  const bool waits = !is_nonblocking(fd) && (flags & (MSG_DONTWAIT | MSG_ERRQUEUE)) == 0;
  const ssize_t got = waits ? wait_for(lock, kNever, attempt) : attempt();
  retry_waiters();
  return got;
}

int Program::shutdown(int fd, int how) {
  const Lock lock(mutex_);
  const int result = form_->shutdown(fd, how);
  retry_waiters();
  return result;
}

int Program::set_option(int fd, int level, int name, const void* value, socklen_t length) {
  const Lock lock(mutex_);
  const int result = form_->set_option(fd, level, name, value, length);
  retry_waiters();
  return result;
}

int Program::get_option(int fd, int level, int name, void* value, socklen_t* length) {
  const Lock lock(mutex_);
  return form_->is_socket(fd) ? form_->get_option(fd, level, name, value, length) : -ENOTSOCK;
}

int Program::fcntl(int fd, int command, int argument) {
  const Lock lock(mutex_);
  switch (command) {
    case F_GETFL:
      return O_RDWR | (is_nonblocking(fd) ? O_NONBLOCK : 0);
    case F_SETFL:
      nonblocking_[fd] = (argument & O_NONBLOCK) != 0;
      return 0;
    default: {
      const int result = ::fcntl(fd, command, argument);
      return result < 0 ? -errno : result;
    }
  }
}

int Program::ioctl(int fd, unsigned long request, int* value) {
  const Lock lock(mutex_);
  return form_->ioctl(fd, request, value);
}

}  // namespace twinstack::packetdrill
