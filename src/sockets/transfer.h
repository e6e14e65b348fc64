// The data calls of one connection: receive and send, whoever owns it. Blocking, time limits, MSG_* flags and EINTR
// hold as on the kernel's socket; no thread sleeps in that socket. Any thread; the caller holds a reference to the
// Sonode.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "sockets/errno_map.h"
#include "sockets/io_cursor.h"
#include "sockets/sonode.h"

namespace twinstack::sockets {

// Buffers of one readv() or writev() that are looked at; the call is a short one then.
inline constexpr std::size_t kPartsPerCall = 64;

// What recvmsg() gives beside the bytes: from the kernel's socket only, the engine's connections have none.
struct Ancillary {
  std::span<std::byte> room;  // msg_control
  std::size_t length = 0;     // of what was put there
  int flags = 0;              // msg_flags
};

// receive.cc. `flags`: MSG_*. 0: end of stream (or nothing was asked for).
[[nodiscard]] Outcome receive(Sonode& sonode, int fd, std::span<const iovec> parts, int flags,
                              Ancillary* ancillary = nullptr) noexcept;
// Bytes that lie in chunks and that the program has not read.
[[nodiscard]] std::uint64_t queued_bytes(Sonode& sonode) noexcept;
// Gives everything that lies in chunks back to the engine (the program closed the connection).
void drop_queued(Sonode& sonode) noexcept;

// send.cc. Raises SIGPIPE as the kernel would, unless MSG_NOSIGNAL.
[[nodiscard]] Outcome send(Sonode& sonode, int fd, std::span<const iovec> parts, int flags) noexcept;

// blocking.cc. A call in several steps that has moved bytes returns their count; the connection's error, which the
// kernel gives out once, is kept for the next call, as Linux would have kept it.
void keep_pending_error(Sonode& sonode, Outcome outcome) noexcept;
// 0 when there is none.
[[nodiscard]] Outcome take_pending_error(Sonode& sonode) noexcept;

// blocking.cc: O_NONBLOCK, SO_RCVTIMEO and SO_SNDTIMEO, asked of the kernel once and remembered.
[[nodiscard]] bool is_nonblocking(Sonode& sonode, int fd) noexcept;
[[nodiscard]] std::int64_t timeout_ns(Sonode& sonode, int fd, bool for_receive) noexcept;

}  // namespace twinstack::sockets
