// What happens to descriptors and to the process: accept, connect, close, dup, fork, and descriptors that leave for
// other processes. Any thread.
#pragma once

#include <sys/socket.h>

#include <cstdint>

#include "sockets/errno_map.h"
#include "sockets/sonode.h"

namespace twinstack::sockets {

// After accept() on `listener` gave `fd`: gives it a Sonode when it is TCP. `peer_family`: of the address that accept()
// filled in, AF_UNSPEC when none was asked for.
void on_accepted(int listener, int fd, bool nonblocking) noexcept;
// After connect() returned: success, or EINPROGRESS.
void on_connected(int fd, const sockaddr* address, bool in_progress) noexcept;
// The first call on a connection whose connect() was under way: tells the service once it is established.
void confirm_connected(Sonode& sonode, int fd) noexcept;

// `fd` is about to be closed or replaced: drops what the layer knows of it.
void forget(int fd) noexcept;
// `copy` now refers to the same open file as `fd`.
void on_duplicated(int fd, int copy) noexcept;
[[nodiscard]] Outcome close_descriptor(int fd) noexcept;
[[nodiscard]] Outcome close_descriptors(std::uint32_t first, std::uint32_t last, int flags) noexcept;
// dup2() and dup3() (`flags` < 0: dup2).
[[nodiscard]] Outcome duplicate_to(int fd, int wanted, int flags) noexcept;

// Brings the connection back to the kernel for ever and waits until it is there; real calls may then sleep in the
// socket. < 0: -errno.
[[nodiscard]] Outcome keep_in_kernel(Sonode& sonode, const char* reason) noexcept;
// Brings it back and runs `call(fd)` inside the gate. REQUIRES: `call` does not sleep.
template <typename Call>
[[nodiscard]] Outcome run_in_kernel(Sonode& sonode, const char* reason, Call&& call) noexcept;
// Asks for an upload and waits until the kernel owns it (for a moment at least). < 0: -errno.
[[nodiscard]] Outcome bring_back(Sonode& sonode, bool stay, const char* reason) noexcept;

// pthread_atfork handlers.
void after_fork_in_parent() noexcept;
void after_fork_in_child() noexcept;
// In a forked child: the first call on a connection of the parent's. The connection goes to the kernel for ever, and
// this process uses the kernel's socket; bytes that the engine had received come first.
void take_inherited(Sonode& sonode) noexcept;

template <typename Call>
Outcome run_in_kernel(Sonode& sonode, const char* reason, Call&& call) noexcept {
  for (;;) {
    {
      const GateScope gate(sonode);
      switch (gate.access()) {
        case Access::kKernel:
        case Access::kPlain:
          return call();
        case Access::kAborted:
          return fail(Failure::kAborted);
        case Access::kClosed:
          return fail(Failure::kBadDescriptor);
        case Access::kEngine:
          break;
      }
    }
    if (const Outcome back = bring_back(sonode, false, reason); back < 0) return back;
  }
}

}  // namespace twinstack::sockets
