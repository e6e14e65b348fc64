// RACK (RFC 8985): a segment is lost when one that was sent sufficiently later has arrived. Time, not duplicate ACKs,
// decides; how much later is the reordering window, which grows when DSACKs show that it was too small.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tcp/control_block.h"
#include "tcp/flight.h"
#include "tcp/rate.h"

namespace twinstack::tcp {

// `segment` has arrived (RFC 8985 6.2 step 2). REQUIRES: its flags are still those of its last transmission.
void rack_on_arrival(ControlBlock& cb, const SentSegment& segment, Time now) noexcept;

// Marks what is lost, if anything arrived since it was last looked for. True when the reordering timer was armed for
// what may only be late (step 5).
bool rack_mark_lost(ControlBlock& cb, Time now);

// The reordering timer: marks whatever has arrived. True when something was marked.
bool rack_on_timer(ControlBlock& cb, Time now);

// RFC 8985 6.2 step 4: grows by a quarter of min_rtt for each round trip with a DSACK, falls back after 16 recoveries.
void rack_adapt_window(ControlBlock& cb, const RateSample& sample) noexcept;

// How long `segment` may still be under way, when reordering is not waited for; not positive: it is overdue.
[[nodiscard]] Duration rack_patience(const ControlBlock& cb, const SentSegment& segment, Time now) noexcept;

// A retransmission of [seq, ...) was sent at `now`.
void rack_on_repeat(Flight& flight, Seq seq, Time now);

}  // namespace twinstack::tcp
