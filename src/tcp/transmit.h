// Transmit: what to send now (poll_transmit() of connection.h is implemented here). Order: retransmissions, new data,
// probes, a bare ACK.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tcp/connection.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

// Payload of a full segment: the MSS, but at most half the largest window that the peer ever offered, so that a small
// window does not wait for ever for a segment that cannot fit (RFC 9293 3.8.6.2.1, Fs = 1/2).
[[nodiscard]] std::uint32_t full_segment_bytes(const ControlBlock& cb) noexcept;

// New data of `length` bytes goes, from snd_nxt on: flight, timers, congestion control. `limit`: of a full segment.
// REQUIRES: a flight; restart_after_idle() before, when nothing is out.
void account_new_data(ControlBlock& cb, std::uint32_t length, std::uint32_t limit, Time now);

// poll_transmit() without the short way that it takes to the segment that answers a request. For tests.
bool poll_transmit_in_steps(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan);

}  // namespace twinstack::tcp
