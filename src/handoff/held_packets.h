// Packets that waited in the engine during a move, on their way into the kernel.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "handoff/connection.h"

namespace twinstack::handoff {

// Injects what the engine holds for the connection, oldest first, and what arrives meanwhile, until nothing is left or
// `rounds` are done. Returns the frames injected. REQUIRES: the engine holds the connection.
[[nodiscard]] Result<std::uint32_t> inject_held(Connection& conn, int rounds);

}  // namespace twinstack::handoff
