#include "kernel/address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace twinstack::kernel {

SocketAddress to_socket_address(const IpAddress& address, std::uint16_t port, std::uint32_t scope_id,
                                bool is_v6_socket) {
  SocketAddress to;
  if (is_v6_socket) {
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    std::copy(address.bytes.begin(), address.bytes.end(), std::begin(v6.sin6_addr.s6_addr));
    v6.sin6_scope_id = is_link_local_v6(address) ? scope_id : 0;
    std::memcpy(&to.storage, &v6, sizeof v6);
    to.length = sizeof v6;
    return to;
  }
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  const auto bytes = address.v4();
  std::memcpy(&v4.sin_addr, bytes.data(), bytes.size());
  std::memcpy(&to.storage, &v4, sizeof v4);
  to.length = sizeof v4;
  return to;
}

bool from_socket_address(const SocketAddress& from, IpAddress& address, std::uint16_t& port, std::uint32_t& scope_id) {
  if (from.storage.ss_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, &from.storage, sizeof v4);
    std::array<std::uint8_t, 4> bytes{};
    std::memcpy(bytes.data(), &v4.sin_addr, bytes.size());
    address = IpAddress::from_v4(bytes);
    port = ntohs(v4.sin_port);
    scope_id = 0;
    return true;
  }
  if (from.storage.ss_family != AF_INET6) return false;
  sockaddr_in6 v6{};
  std::memcpy(&v6, &from.storage, sizeof v6);
  std::copy(std::begin(v6.sin6_addr.s6_addr), std::end(v6.sin6_addr.s6_addr), address.bytes.begin());
  port = ntohs(v6.sin6_port);
  scope_id = v6.sin6_scope_id;
  return true;
}

namespace {

Result<Endpoint> endpoint_of(const SocketAddress& from) {
  Endpoint end;
  if (!from_socket_address(from, end.address, end.port, end.scope_id))
    return error(ErrorCode::kInvalid, "not an IPv4 or IPv6 socket");
  end.is_v6_socket = from.storage.ss_family == AF_INET6;
  return end;
}

}  // namespace

Result<Endpoint> local_endpoint(int fd) {
  SocketAddress at{.length = sizeof(sockaddr_storage)};
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&at.storage), &at.length) != 0) return system_error("getsockname");
  return endpoint_of(at);
}

Result<Endpoint> remote_endpoint(int fd) {
  SocketAddress at{.length = sizeof(sockaddr_storage)};
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&at.storage), &at.length) != 0) return system_error("getpeername");
  return endpoint_of(at);
}

bool is_link_local_v6(const IpAddress& address) noexcept {
  return address.bytes[0] == 0xfe && (address.bytes[1] & 0xc0) == 0x80;  // RFC 4291 2.5.6
}

bool is_loopback(const IpAddress& address) noexcept {
  if (address.is_v4()) return address.bytes[12] == 127;  // RFC 1122 3.2.1.3
  IpAddress one;
  one.bytes[15] = 1;
  return address == one;
}

}  // namespace twinstack::kernel
