// Socket options as Result<>, for the files of this folder. The text of an error is built only when there is one.
#pragma once

#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstdint>

#include "base/result.h"

namespace twinstack::kernel {

// Of TCP, for headers: <linux/tcp.h> and <netinet/tcp.h> exclude each other, and who includes those has one of them.
inline constexpr int kKeepIdleOption = 4;      // TCP_KEEPIDLE
inline constexpr int kKeepIntervalOption = 5;  // TCP_KEEPINTVL
inline constexpr int kWindowClampOption = 10;  // TCP_WINDOW_CLAMP
inline constexpr int kInfoOption = 11;         // TCP_INFO
inline constexpr int kUserTimeoutOption = 18;  // TCP_USER_TIMEOUT

template <typename T = int>
Result<T> get_option(int fd, int level, int name, const char* what) {
  T value{};
  socklen_t length = sizeof value;
  if (::getsockopt(fd, level, name, &value, &length) != 0) [[unlikely]] {
    return system_error(std::string("getsockopt(") + what + ")");
  }
  return value;
}

template <typename T>
Result<> set_option(int fd, int level, int name, const T& value, const char* what) {
  if (::setsockopt(fd, level, name, &value, sizeof value) != 0) [[unlikely]] {
    return system_error(std::string("setsockopt(") + what + ")");
  }
  return {};
}

// SIOCINQ, SIOCOUTQ.
inline Result<std::uint32_t> queue_bytes(int fd, unsigned long request, const char* what) {
  int value = 0;
  if (::ioctl(fd, request, &value) != 0) [[unlikely]] {
    return system_error(std::string("ioctl(") + what + ")");
  }
  return static_cast<std::uint32_t>(value);
}

}  // namespace twinstack::kernel
