// The system calls by which stream_peer moves bytes: one name for each family that a program may use.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>

#include "stream_options.h"

namespace twinstack::peers {

// As read(2)/write(2): count, 0 at end of file, or -1 and errno.
[[nodiscard]] ssize_t receive_some(int fd, std::span<std::byte> into, IoKind io);
[[nodiscard]] ssize_t send_some(int fd, std::span<const std::byte> bytes, IoKind io);

}  // namespace twinstack::peers
