// Pacing: segments leave no faster than the congestion control's rate, where it has one. The clock of a sender is
// coarse, so up to a millisecond's worth goes at once (as Linux's TSO bursts).
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

// Nothing may go yet; next_deadline() then tells when. REQUIRES: something could go otherwise.
[[nodiscard]] bool pacing_holds(ControlBlock& cb, Time now);
// When pacing lets the next segment go. REQUIRES: a flight.
[[nodiscard]] Time pacing_release(const ControlBlock& cb) noexcept;
// A segment of `bytes` payload was sent. REQUIRES: a flight.
void pace_after(ControlBlock& cb, std::uint32_t bytes, Time now);

}  // namespace twinstack::tcp
