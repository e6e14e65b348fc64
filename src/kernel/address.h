// FlowKey <-> sockaddr. Internal to this folder.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>

#include "base/result.h"
#include "wire/flow.h"

namespace twinstack::kernel {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// Of a v6 socket even IPv4 travels mapped (R13).
[[nodiscard]] SocketAddress to_socket_address(const IpAddress& address, std::uint16_t port, std::uint32_t scope_id,
                                              bool is_v6_socket);

struct Endpoint {
  IpAddress address;
  std::uint16_t port = 0;
  std::uint32_t scope_id = 0;
  bool is_v6_socket = false;
};
// Of getsockname() and getpeername(). kInvalid: neither IPv4 nor IPv6.
[[nodiscard]] Result<Endpoint> local_endpoint(int fd);
[[nodiscard]] Result<Endpoint> remote_endpoint(int fd);

// False when the family is neither AF_INET nor AF_INET6.
[[nodiscard]] bool from_socket_address(const SocketAddress& from, IpAddress& address, std::uint16_t& port,
                                       std::uint32_t& scope_id);

[[nodiscard]] bool is_link_local_v6(const IpAddress& address) noexcept;
[[nodiscard]] bool is_loopback(const IpAddress& address) noexcept;

}  // namespace twinstack::kernel
