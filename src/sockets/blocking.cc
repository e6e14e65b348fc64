#include "sockets/blocking.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "sockets/layer.h"
#include "sockets/real_calls.h"

namespace twinstack::sockets {

bool is_nonblocking(Sonode& sonode, int fd) noexcept {
  const Toggle known = sonode.nonblocking.load(std::memory_order_acquire);
  if (known != Toggle::kUnknown) return known == Toggle::kYes;
  const int flags = real().fcntl(fd, F_GETFL, nullptr);
  const bool set = flags >= 0 && (flags & O_NONBLOCK) != 0;
  // A child of fork may change the flag of the open file description that we share with it.
  if (g_layer.forks.load(std::memory_order_relaxed) == 0)
    sonode.nonblocking.store(set ? Toggle::kYes : Toggle::kNo, std::memory_order_release);
  return set;
}

std::int64_t timeout_ns(Sonode& sonode, int fd, bool for_receive) noexcept {
  std::atomic<std::int64_t>& cached = for_receive ? sonode.receive_timeout_ns : sonode.send_timeout_ns;
  std::int64_t known = cached.load(std::memory_order_acquire);
  if (known == Sonode::kTimeoutUnknown) {
    timeval value{};
    socklen_t length = sizeof(value);
    real().getsockopt(fd, SOL_SOCKET, for_receive ? SO_RCVTIMEO : SO_SNDTIMEO, &value, &length);
    known = std::int64_t{value.tv_sec} * 1'000'000'000 + std::int64_t{value.tv_usec} * 1000;
    cached.store(known, std::memory_order_release);
  }
  return known == 0 ? Wait::kForever : known;
}

void keep_pending_error(Sonode& sonode, Outcome outcome) noexcept {
  switch (-outcome) {
    case ECONNRESET:
    case ECONNABORTED:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
      sonode.pending_error.store(static_cast<int>(-outcome), std::memory_order_relaxed);
      return;
    default:  // not the connection's, or one that it tells again
      return;
  }
}

Outcome take_pending_error(Sonode& sonode) noexcept {
  if (sonode.pending_error.load(std::memory_order_relaxed) == 0) [[likely]]
    return 0;
  return -sonode.pending_error.exchange(0, std::memory_order_relaxed);
}

}  // namespace twinstack::sockets
