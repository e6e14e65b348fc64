// Use of the congestion window: what was not used must not grow, and decays (RFC 2861, RFC 7661's aim, as Linux).
#pragma once

#include "base/clock.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

// After a transmission, or when cwnd forbade one (`limited`): tracks over one window whether cwnd was the limit, and
// lowers a window that the program has left unused for a timeout.
void note_cwnd_use(ControlBlock& cb, bool limited, Time now);

// cwnd was what held data back, so it may grow. In slow start also when half of it was used: a program that
// sends in bursts is let grow it.
[[nodiscard]] bool cwnd_was_limit(const ControlBlock& cb) noexcept;

// Data is about to be sent while nothing is in flight: cwnd decays by half for each timeout of idleness, down to the
// initial window (RFC 2861 3.2, RFC 5681 4.1).
void restart_after_idle(ControlBlock& cb, Time now);

}  // namespace twinstack::tcp
