// TCP_INFO, with a kernel older or newer than the header: what the kernel does not fill is 0. Internal to this folder.
#pragma once

#include <linux/tcp.h>

#include <cstdint>

#include "base/result.h"

namespace twinstack::kernel {

inline constexpr std::uint8_t kTcpEstablished = 1;  // TCP_ESTABLISHED
inline constexpr std::uint8_t kTcpClosed = 7;       // TCP_CLOSE

Result<tcp_info> read_tcp_info(int fd);

}  // namespace twinstack::kernel
