// Segment arrival in the synchronized states: on_segment() of connection.h, one function for each step of RFC
// 9293 3.10.7.4. The parent holds the order and the verdicts; no step changes anything before all checks have passed,
// but for an ACK owed.
#pragma once

#include "base/clock.h"
#include "tcp/connection.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

// The next `most` segments are acknowledged at once, half a window of them at most, at least two (Linux
// tcp_incr_quickack()).
void add_quick_acks(ControlBlock& cb, std::uint32_t most) noexcept;

// The FIN that came before something that it follows, once all of that is there.
void take_known_fin(ControlBlock& cb, Time now);

// on_segment() without the short way that it takes with the segments that nearly all are. For tests.
Arrival on_segment_in_steps(ControlBlock& cb, const wire::Segment& segment, const Payload& payload, Host& host,
                            Time now);

}  // namespace twinstack::tcp
