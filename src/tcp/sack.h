// Selective acknowledgements as the sender reads them (RFC 2018, RFC 2883), and the cumulative ones: which segments of
// the flight have arrived.
#pragma once

#include "base/clock.h"
#include "tcp/ack_news.h"
#include "tcp/connection.h"
#include "tcp/control_block.h"
#include "wire/segment.h"

namespace twinstack::tcp {

[[nodiscard]] inline bool uses_sack(const ControlBlock& cb) noexcept { return (cb.options & kOptSack) != 0; }

// End of the highest segment that the peer has reported; snd_una when it has reported none.
[[nodiscard]] Seq highest_sacked(const ControlBlock& cb) noexcept;

// Marks what the SACK option of an acceptable ACK reports. REQUIRES: snd_una is
// updated, what it acknowledges is not yet retired.
void take_sack_option(ControlBlock& cb, const wire::Segment& segment, AckNews& news, Counters& counters, Time now);

// Takes what lies below snd_una out of the flight. REQUIRES: a flight.
void retire_acknowledged(ControlBlock& cb, AckNews& news, Time now);

// The path delivers out of order: `from` arrived after later segments.
void note_reordering(ControlBlock& cb, Seq from) noexcept;

}  // namespace twinstack::tcp
