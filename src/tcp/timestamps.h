// Timestamps and protection against wrapped sequence numbers (RFC 7323).
#pragma once

#include <chrono>
#include <cstdint>

#include "base/clock.h"
#include "tcp/control_block.h"
#include "wire/segment.h"

namespace twinstack::tcp {

// For so long the peer's last timestamp can be compared with (RFC 7323 5.5). The RFC names 24 days, for clocks that
// count milliseconds; one that counts microseconds has gone half around by then (Linux since 6.7: TCP_PAWS_WRAP).
inline constexpr std::chrono::seconds kTsRecentLasts{2147};

// RFC 7323 5.3, across the wrap. Nothing is older than 0, which some stacks send before their clock runs (as Linux).
[[nodiscard]] constexpr bool is_older_stamp(std::uint32_t ts_val, std::uint32_t ts_recent) noexcept {
  return ts_recent != 0 && static_cast<std::int32_t>(ts_val - ts_recent) < 0;
}

// Our TSval at `now`: in milliseconds or microseconds, as the kernel that established the connection counted.
[[nodiscard]] std::uint32_t ts_clock(const ControlBlock& cb, Time now) noexcept;

// Makes ts_clock(now) equal to `ts_val`.
void set_ts_clock(ControlBlock& cb, std::uint32_t ts_val, Time now) noexcept;

// An echo ahead of our clock: the stack that had the connection before has sent with later stamps than it told (Linux,
// where it paces). The clock goes on from there, or the peer's PAWS would drop what we send.
void catch_up_with_echo(ControlBlock& cb, const wire::Segment& segment, Time now) noexcept;

// RFC 7323 5.3 R1: false when the segment is an old duplicate. A segment without the option passes, as on Linux.
[[nodiscard]] bool paws_accepts(const ControlBlock& cb, const wire::Segment& segment, Time now) noexcept;

// What the peer's next segments are compared with; 0 when nothing is.
[[nodiscard]] std::uint32_t known_ts_recent(const ControlBlock& cb, Time now) noexcept;

// RFC 7323 4.3 (2). REQUIRES: the segment is acceptable.
void update_ts_recent(ControlBlock& cb, const wire::Segment& segment, Time now) noexcept;

// The round trip that the echo tells, microseconds; 0 when it tells none. At least one unit of the clock.
[[nodiscard]] std::uint32_t rtt_from_echo_us(const ControlBlock& cb, const wire::Segment& segment, Time now) noexcept;

}  // namespace twinstack::tcp
