// See stream_io.h. The vector forms cut the buffer in three, so that a short count may end in any of the parts.
#include "stream_io.h"

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>

namespace twinstack::peers {
namespace {

std::array<iovec, 3> cut(void* data, std::size_t size) {
  auto* bytes = static_cast<std::byte*>(data);
  const std::size_t a = size / 5;
  const std::size_t b = size / 3;
  return {iovec{bytes, a}, iovec{bytes + a, b}, iovec{bytes + a + b, size - a - b}};
}

msghdr message(std::array<iovec, 3>& parts) {
  msghdr header{};
  header.msg_iov = parts.data();
  header.msg_iovlen = parts.size();
  return header;
}

}  // namespace

ssize_t receive_some(int fd, std::span<std::byte> into, IoKind io) {
  if (io == IoKind::kReadWrite) return read(fd, into.data(), into.size());
  if (io == IoKind::kSendRecv) return recv(fd, into.data(), into.size(), 0);
  auto parts = cut(into.data(), into.size());
  if (io == IoKind::kVector) return readv(fd, parts.data(), static_cast<int>(parts.size()));
  msghdr header = message(parts);
  return recvmsg(fd, &header, 0);
}

ssize_t send_some(int fd, std::span<const std::byte> bytes, IoKind io) {
  if (io == IoKind::kReadWrite) return write(fd, bytes.data(), bytes.size());
  if (io == IoKind::kSendRecv) return send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  auto parts = cut(const_cast<std::byte*>(bytes.data()), bytes.size());  // iovec has no const form
  if (io == IoKind::kVector) return writev(fd, parts.data(), static_cast<int>(parts.size()));
  const msghdr header = message(parts);
  return sendmsg(fd, &header, MSG_NOSIGNAL);
}

}  // namespace twinstack::peers
