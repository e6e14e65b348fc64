// Timestamps and protection against wrapped sequence numbers (RFC 7323).
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tcp/control_block.h"
#include "wire/segment.h"

namespace twinstack::tcp {

// Our TSval at `now`: in milliseconds or microseconds, as the kernel that established the connection counted.
[[nodiscard]] std::uint32_t ts_clock(const ControlBlock& cb, Time now) noexcept;

// Makes ts_clock(now) equal to `ts_val`.
void set_ts_clock(ControlBlock& cb, std::uint32_t ts_val, Time now) noexcept;

// An echo ahead of our clock: the stack that had the connection before has sent with later stamps than it told (Linux,
// where it paces). The clock goes on from there, or the peer's PAWS would drop what we send.
void catch_up_with_echo(ControlBlock& cb, const wire::Segment& segment, Time now) noexcept;

// RFC 7323 5.3 R1: false when the segment is an old duplicate. A segment without the option passes, as on Linux.
[[nodiscard]] bool paws_accepts(const ControlBlock& cb, const wire::Segment& segment, Time now) noexcept;

// RFC 7323 4.3 (2). REQUIRES: the segment is acceptable.
void update_ts_recent(ControlBlock& cb, const wire::Segment& segment, Time now) noexcept;

// The round trip that the echo tells, microseconds; 0 when it tells none. At least one unit of the clock.
[[nodiscard]] std::uint32_t rtt_from_echo_us(const ControlBlock& cb, const wire::Segment& segment, Time now) noexcept;

}  // namespace twinstack::tcp
