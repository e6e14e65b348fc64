// option_rules: what a socket option means while the engine owns the connection. A table; also for test hosts that
// stand in for the socket layer. Pure.
#pragma once

#include <cstdint>

namespace twinstack::sockets {

enum class Treatment : std::uint8_t {
  kKernelSocket,  // the kernel's socket keeps it through a move, and the engine has nothing to do with it
  kTellEngine,    // the kernel's socket keeps it, and the engine does the same from then on
  kBringBack,     // the kernel does it; the connection may be moved again afterwards
  kStay,          // the engine does not do it, and never will for this connection
};

// Of setsockopt() when it `sets`, else of getsockopt().
[[nodiscard]] Treatment treatment(int level, int name, bool sets) noexcept;

}  // namespace twinstack::sockets
