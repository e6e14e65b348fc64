// Small helpers of the peers around plain POSIX sockets. Blocking or not as said; any thread.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace twinstack::peers {

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;

  [[nodiscard]] const sockaddr* raw() const noexcept {
    return reinterpret_cast<const sockaddr*>(&storage);  // the socket API's own idiom
  }
};

// A numeric IPv4 or IPv6 address ("::", "10.0.0.1", "fe80::1%eth0").
[[nodiscard]] Result<Address> parse_address(const std::string& host, std::uint16_t port);

// `buffer_bytes`, here and below: SO_RCVBUF and SO_SNDBUF before the connection is made; 0 = the system's way.
// Non-blocking listener with SO_REUSEADDR; port 0 = any free one.
[[nodiscard]] Result<UniqueFd> listen_on(const Address& address, int backlog, int buffer_bytes = 0);
[[nodiscard]] Result<std::uint16_t> local_port(int fd);

// Starts a non-blocking connect; writable means done, connect_error() then tells how it went (0 = connected).
[[nodiscard]] Result<UniqueFd> start_connect(const Address& address, int buffer_bytes = 0);
[[nodiscard]] int connect_error(int fd);
// Connects and returns a blocking socket.
[[nodiscard]] Result<UniqueFd> connect_blocking(const Address& address, int buffer_bytes = 0);

[[nodiscard]] Result<> set_nonblocking(int fd, bool nonblocking);
void set_no_delay(int fd);

// SIGTERM and SIGINT become readable on this descriptor and SIGPIPE is ignored. To be called before threads are made.
[[nodiscard]] Result<UniqueFd> stop_signals_fd();

// CLOCK_MONOTONIC.
[[nodiscard]] std::uint64_t now_ns();
// User + system time of this process (getrusage).
[[nodiscard]] std::uint64_t own_cpu_us();

// Prints `ready PORT` on stdout, for the script that started us.
void print_ready(std::uint16_t port);
// Raises RLIMIT_NOFILE to its hard limit.
void raise_descriptor_limit();

}  // namespace twinstack::peers
