#include "kernel/peek.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "kernel/sockopt.h"
#include "kernel/tcp_info.h"

namespace twinstack::kernel {

Result<std::size_t> peek_all(int fd, std::span<std::byte> room, const char* what) {
  const ssize_t got = ::recv(fd, room.data(), room.size(), MSG_PEEK | MSG_DONTWAIT);
  if (got >= 0 && static_cast<std::size_t>(got) < room.size()) return static_cast<std::size_t>(got);
  if (got < 0 && errno == EAGAIN) return std::size_t{0};
  if (got < 0) return system_error(std::string("peek at ") + what);
  return error(ErrorCode::kNoResource, std::string("no room for ") + what);
}

bool has_ended(int fd) noexcept {
  pollfd events{.fd = fd, .events = POLLRDHUP, .revents = 0};
  return ::poll(&events, 1, 0) < 0 || (events.revents & (POLLHUP | POLLRDHUP)) != 0;
}

bool has_fin(int fd) noexcept {
  pollfd events{.fd = fd, .events = POLLRDHUP, .revents = 0};
  return ::poll(&events, 1, 0) > 0 && (events.revents & (POLLHUP | POLLRDHUP)) == POLLRDHUP;
}

Result<tcp_info> read_tcp_info(int fd) {
  tcp_info info{};
  socklen_t length = sizeof info;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return system_error("getsockopt(TCP_INFO)");
  return info;
}

}  // namespace twinstack::kernel
