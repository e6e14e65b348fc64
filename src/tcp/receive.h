// Segment arrival in ESTABLISHED: on_segment() of connection.h, one function for each step of RFC 9293 3.10.7.4. The
// parent holds the order and the verdicts; no step changes anything before all checks have passed, but for an ACK owed.
#pragma once

#include "base/clock.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

// Segments acknowledged at once before delayed ACKs begin (Linux tcp_incr_quickack).
[[nodiscard]] std::uint8_t initial_quick_acks(const ControlBlock& cb) noexcept;

}  // namespace twinstack::tcp
