// Reading the queues and TCP_INFO of a socket. Internal to this folder.
#pragma once

#include <cstddef>
#include <span>

#include "base/result.h"

namespace twinstack::kernel {

// All bytes of the queue that repair mode has selected, left in place. kNoResource when they do not fit (the room must
// exceed them by one byte at least, or the call cannot know).
Result<std::size_t> peek_all(int fd, std::span<std::byte> room, const char* what);

// The peer's FIN has come in, or the connection is over.
[[nodiscard]] bool has_ended(int fd) noexcept;
// ... by its FIN, with the connection still there.
[[nodiscard]] bool has_fin(int fd) noexcept;

}  // namespace twinstack::kernel
