// What a kernel socket took in after its snapshot, by packets that were past the filter: it has acknowledged that, so
// that the peer will not send it again.
#pragma once

#include "base/result.h"
#include "handoff/connection.h"

namespace twinstack::handoff {

// After offload() and kernel::wait_grace_period(): parks the kernel socket, off the critical path. Bytes that the
// kernel took in after the snapshot are given to the engine. A FIN is kept (Connection::acknowledged_fin): the caller
// has the connection go back. kBroken: the stream cannot be kept, reset the connection.
[[nodiscard]] Result<> park(Connection& conn, MoveTools& tools);

// Gives such a FIN to the kernel, where the connection is again: behind all that the engine held. `known`: the state
// that was restored. An error: the program would wait for it for ever, reset the connection.
[[nodiscard]] Result<> give_acknowledged_fin(Connection& conn, const tcp::MinTcp& known);

}  // namespace twinstack::handoff
