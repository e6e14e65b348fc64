// poll, ppoll, select, pselect over descriptors of which some are connections that may move. Any thread.
#pragma once

#include <poll.h>
#include <sys/select.h>

#include <csignal>
#include <cstdint>
#include <span>

#include "sockets/errno_map.h"
#include "sockets/sonode.h"

namespace twinstack::sockets {

// Whether one of the descriptors needs the layer; the real call will do for the others.
[[nodiscard]] bool needs_layer(std::span<const pollfd> fds) noexcept;
[[nodiscard]] bool needs_layer(int count, const fd_set* readable, const fd_set* writable,
                               const fd_set* special) noexcept;

// `timeout_ns` < 0: none. The number of entries with events, or -errno.
[[nodiscard]] Outcome poll_descriptors(std::span<pollfd> fds, std::int64_t timeout_ns, const sigset_t* mask) noexcept;
[[nodiscard]] Outcome select_descriptors(int count, fd_set* readable, fd_set* writable, fd_set* special,
                                         std::int64_t timeout_ns, const sigset_t* mask) noexcept;

// What the kernel says of the bits `wanted` of a connection now, when it is the kernel's and no move is under way; else
// 0. Never waits.
[[nodiscard]] std::uint32_t kernel_readiness(const Sonode& sonode, int fd, std::uint32_t wanted) noexcept;
// Whether the kernel owns the connection (at this instant).
[[nodiscard]] bool kernel_speaks_for(const Sonode& sonode) noexcept;

}  // namespace twinstack::sockets
