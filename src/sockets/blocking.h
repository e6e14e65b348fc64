// The loop of every call that may have to wait: try, and when it would block, wait without being in the kernel socket,
// and try again. Header-only because the attempt is a lambda of the caller.
#pragma once

#include <poll.h>

#include "sockets/errno_map.h"
#include "sockets/sonode.h"
#include "sockets/transfer.h"
#include "sockets/wait.h"

namespace twinstack::sockets {

// Waits for `events` between attempts. `attempt()` returns an Outcome; while that is EAGAIN the call goes on waiting.
// `timeout_ns` < 0: no limit. EAGAIN at the end: the time is over.
template <typename Attempt>
Outcome try_until(Sonode& sonode, int fd, short events, std::int64_t timeout_ns, Attempt&& attempt) noexcept {
  Outcome outcome = attempt();
  if (!would_block(outcome)) return outcome;
  Wait wait(timeout_ns);
  if (!wait.is_ready()) return fail(Failure::kNoMemory);
  wait.watch(sonode);
  for (;;) {
    outcome = attempt();
    if (!would_block(outcome)) return outcome;
    // What the kernel says of a socket that the engine owns means nothing (it is always writable).
    const bool ask_kernel = sonode.owner() != ipc::Owner::kEngine || sonode.plain.load(std::memory_order_relaxed);
    pollfd entry{.fd = ask_kernel ? fd : -1, .events = events, .revents = 0};
    switch (wait.sleep({&entry, 1}, nullptr)) {
      case Woken::kLookAgain:
        break;
      case Woken::kTimeout:
        return attempt();
      case Woken::kFailed:
        return fail(Failure::kNoMemory);
      case Woken::kInterrupted:
        // signal(7): a call with a time limit is never restarted.
        if (timeout_ns >= 0 || !handlers_restart()) return fail(Failure::kInterrupted);
        break;
    }
  }
}

}  // namespace twinstack::sockets
