// How the layer's own outcomes become errno. This is the one place: inside the layer a call returns a count or -errno
// (Outcome), and only api.cc turns that into -1 and errno. What the kernel answered is handed on as it is.
#pragma once

#include <sys/types.h>

#include <cerrno>
#include <cstdint>

namespace twinstack::sockets {

// >= 0: the result; < 0: -errno.
using Outcome = ssize_t;

enum class Failure : std::uint8_t {
  kWouldBlock,     // nothing to read, or no room, and the call may not wait (or has waited SO_RCVTIMEO/SO_SNDTIMEO)
  kInterrupted,    // a signal handler ran while the call waited
  kAborted,        // the service died with the connection in its hands
  kBadDescriptor,  // closed by another thread meanwhile, or one of the layer's own descriptors
  kInvalid,        // an argument that Linux refuses
  kTooMany,        // an iov array or set larger than Linux allows
  kNoMemory,
};

[[nodiscard]] int to_errno(Failure failure) noexcept;
[[nodiscard]] inline Outcome fail(Failure failure) noexcept { return -to_errno(failure); }
// The outcome of a real call that has just returned `result`.
[[nodiscard]] inline Outcome outcome_of(ssize_t result) noexcept { return result < 0 ? -errno : result; }

[[nodiscard]] inline bool would_block(Outcome outcome) noexcept { return outcome == -EAGAIN; }

// What a ts_* function returns: sets errno.
template <typename T>
[[nodiscard]] T finish(Outcome outcome) noexcept {
  if (outcome >= 0) return static_cast<T>(outcome);
  errno = static_cast<int>(-outcome);
  return -1;
}

}  // namespace twinstack::sockets
