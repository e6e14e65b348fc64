// A frame that did not come by the wire, given to the engine.
#pragma once

#include "handoff/connection.h"

namespace twinstack::handoff {

// As if it had come to the lane that serves the connection now. Refused, it leaves nothing behind.
[[nodiscard]] Result<> inject_frame(Connection& conn, ByteView frame);

}  // namespace twinstack::handoff
