// upload(): moves a connection from the engine back to the kernel. The kernel can never refuse: until the kernel socket
// is restored a failure leaves the connection running in the engine; after that it runs in the kernel.
#pragma once

#include "base/result.h"
#include "handoff/connection.h"

namespace twinstack::handoff {

// REQUIRES: owner kEngine, conn.hw set; when the kernel socket is not parked yet, a grace period has passed since the
// offload. Draining before it (Command kDrain) is the caller's choice; what is unacknowledged travels otherwise. On
// success hw is 0. kBroken and hw 0: the stream cannot be kept; the engine has let go of it, the connection has been
// reset.
[[nodiscard]] Result<MoveReport> upload(Connection& conn, MoveTools& tools);

}  // namespace twinstack::handoff
