// Loss marks: which segments of the flight count as lost. Who decides that is RACK, the timeout, or, for a peer without
// SACK, the duplicate ACKs.
#pragma once

#include "base/clock.h"
#include "tcp/control_block.h"
#include "tcp/flight.h"

namespace twinstack::tcp {

// The segment has not arrived and will not; if it was a retransmission, that one. Does nothing to a SACKed one.
void mark_lost(ControlBlock& cb, SentQueue::Position position) noexcept;

// A timeout: everything that is not SACKed, but for what was sent so lately that RACK would still wait for it. When the
// first segment is SACKed, the peer has dropped what it had reported (RFC 2018 8): all reports are void.
void mark_lost_by_timeout(ControlBlock& cb, Time now) noexcept;

// No retransmission of the segments that are marked was needed after all.
void unmark_all(Flight& flight) noexcept;

// Peers without SACK (RFC 6582): duplicate ACKs count as arrivals of unknown segments.
void reno_add_duplicates(ControlBlock& cb, std::uint32_t duplicates) noexcept;
void reno_on_progress(ControlBlock& cb, std::uint32_t acked_segments) noexcept;
void reno_mark_first(ControlBlock& cb, bool una_advanced) noexcept;

}  // namespace twinstack::tcp
