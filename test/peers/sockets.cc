// See sockets.h.
#include "sockets.h"

#include <fcntl.h>
#include <linux/tcp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>

namespace twinstack::peers {
namespace {

void set_flag(int fd, int level, int option) {
  const int one = 1;
  // Only tuning: a socket without it still works.
  (void)setsockopt(fd, level, option, &one, sizeof one);
}

Result<> set_buffers(int fd, int bytes) {
  if (bytes == 0) return {};
  for (const int option : {SO_RCVBUF, SO_SNDBUF})
    if (setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof bytes) != 0) return system_error("setsockopt(buffer)");
  return {};
}

}  // namespace

Result<Address> parse_address(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int code = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found); code != 0) {
    return error(ErrorCode::kInvalid, "address '" + host + "': " + gai_strerror(code));
  }
  Address address;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  address.length = found->ai_addrlen;
  freeaddrinfo(found);
  return address;
}

Result<UniqueFd> listen_on(const Address& address, int backlog, int buffer_bytes) {
  UniqueFd fd(socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return system_error("socket");
  set_flag(fd.get(), SOL_SOCKET, SO_REUSEADDR);
  TRY(set_buffers(fd.get(), buffer_bytes));
  if (bind(fd.get(), address.raw(), address.length) != 0) return system_error("bind");
  if (listen(fd.get(), backlog) != 0) return system_error("listen");
  return fd;
}

Result<std::uint16_t> local_port(int fd) {
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length) != 0) return system_error("getsockname");
  in_port_t port = 0;
  if (name.ss_family == AF_INET6) {
    port = reinterpret_cast<const sockaddr_in6*>(&name)->sin6_port;
  } else {
    port = reinterpret_cast<const sockaddr_in*>(&name)->sin_port;
  }
  return ntohs(port);
}

Result<UniqueFd> start_connect(const Address& address, int buffer_bytes) {
  UniqueFd fd(socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return system_error("socket");
  TRY(set_buffers(fd.get(), buffer_bytes));
  if (connect(fd.get(), address.raw(), address.length) != 0 && errno != EINPROGRESS) return system_error("connect");
  return fd;
}

int connect_error(int fd) {
  int value = 0;
  socklen_t length = sizeof value;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &length) == 0 ? value : errno;
}

Result<UniqueFd> connect_blocking(const Address& address, int buffer_bytes) {
  UniqueFd fd(socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return system_error("socket");
  TRY(set_buffers(fd.get(), buffer_bytes));
  if (connect(fd.get(), address.raw(), address.length) != 0) return system_error("connect");
  return fd;
}

Result<> set_nonblocking(int fd, bool nonblocking) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return system_error("fcntl(F_GETFL)");
  const int wanted = nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  if (fcntl(fd, F_SETFL, wanted) != 0) return system_error("fcntl(F_SETFL)");
  return {};
}

void set_no_delay(int fd) { set_flag(fd, IPPROTO_TCP, TCP_NODELAY); }

Result<UniqueFd> stop_signals_fd() {
  (void)signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  if (sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return system_error("sigprocmask");
  UniqueFd fd(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!fd) return system_error("signalfd");
  return fd;
}

std::uint64_t now_ns() {
  timespec ts{};
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return static_cast<std::uint64_t>(ts.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(ts.tv_nsec);
}

std::uint64_t own_cpu_us() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto us = [](const timeval& tv) {
    return static_cast<std::uint64_t>(tv.tv_sec) * 1'000'000 + static_cast<std::uint64_t>(tv.tv_usec);
  };
  return us(usage.ru_utime) + us(usage.ru_stime);
}

void print_ready(std::uint16_t port) {
  std::printf("ready %u\n", unsigned{port});
  std::fflush(stdout);
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace twinstack::peers
