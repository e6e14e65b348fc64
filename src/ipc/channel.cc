#include "ipc/channel.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>

namespace twinstack::ipc {
namespace {

// As many as the kernel lets one message carry: what is cut off it closes on the receiving thread.
constexpr std::size_t kScmMaxFds = 253;

Result<sockaddr_un> make_address(std::string_view path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path))
    return error(ErrorCode::kInvalid, "socket path '" + std::string(path) + "' is empty or longer than 107 bytes");
  std::copy(path.begin(), path.end(), address.sun_path);
  return address;
}

}  // namespace

Result<> send_message(int socket, std::span<const std::byte> message, std::span<const int> fds) {
  iovec part{.iov_base = const_cast<std::byte*>(message.data()), .iov_len = message.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxMessageFds * sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (!fds.empty()) {
    if (fds.size() > kMaxMessageFds) return error(ErrorCode::kInvalid, "too many descriptors in a message");
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
  }
  for (;;) {
    if (::sendmsg(socket, &header, MSG_NOSIGNAL) >= 0) return {};
    if (errno != EINTR) return system_error("sendmsg(unix socket)");
  }
}

Result<Received> receive_message(int socket, std::span<std::byte> buffer, int flags) {
  iovec part{.iov_base = buffer.data(), .iov_len = buffer.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kScmMaxFds * sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t size = -1;
  do {
    size = ::recvmsg(socket, &header, flags | MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  if (size < 0) return system_error("recvmsg(unix socket)");
  Received received;
  received.size_bytes = static_cast<std::size_t>(size);
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      received.fds.emplace_back(fd);
    }
  }
  received.is_cut = (header.msg_flags & MSG_TRUNC) != 0;
  received.has_lost_fds = (header.msg_flags & MSG_CTRUNC) != 0;
  return received;
}

Result<UniqueFd> connect_to(std::string_view path) {
  ASSIGN_OR_RETURN(const sockaddr_un address, make_address(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd) return system_error("socket(AF_UNIX)");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    return system_error("connect(" + std::string(path) + ")");
  return fd;
}

Result<UniqueFd> listen_on(std::string_view path, int type) {
  ASSIGN_OR_RETURN(const sockaddr_un address, make_address(path));
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return system_error("socket(AF_UNIX)");
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    return system_error("bind(" + std::string(path) + ")");
  if (::listen(fd.get(), 128) != 0) return system_error("listen(" + std::string(path) + ")");
  return fd;
}

}  // namespace twinstack::ipc
