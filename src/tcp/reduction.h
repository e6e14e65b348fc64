// Window reduction: cwnd on its way to ssthresh, by proportional rate reduction (RFC 6937) within one round trip, and
// what is remembered so that it can be undone.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

// A loss or an echo of congestion: a new ssthresh, and PRR begins. Up to snd_nxt it is one event.
void begin_reduction(ControlBlock& cb);
// `delivered` segments arrived: how many may go for them (RFC 6937 3, with the slow-start bound while losses are
// repaired at a good pace). cwnd becomes what is in flight and that.
void reduce_window(ControlBlock& cb, std::uint32_t delivered, std::uint32_t newly_lost, bool una_advanced) noexcept;
// The reduction is over: cwnd is ssthresh, unless it was `undone`.
void end_reduction(ControlBlock& cb, bool undone, Time now);

// The peer echoes congestion (RFC 3168 6.1.2), or a tail loss was repaired: once a window.
void enter_reduced(ControlBlock& cb);

// From here a wrong reduction can be undone, once nothing says any more that a retransmission was needed.
void begin_undo(ControlBlock& cb) noexcept;

// ssthresh that a window which was not used up leaves (RFC 2861): three quarters of cwnd.
[[nodiscard]] std::uint32_t current_ssthresh(const ControlBlock& cb) noexcept;

}  // namespace twinstack::tcp
