// What a restore loses of the path, taught to the kernel by a packet. A restored socket knows no round trip and not the
// peer's clock (R5, R10): it waits a second or three for its first timeout, sends no loss probe, and PAWS is off. Linux
// has no call that sets either. But it measures by timestamps (RFC 7323 4.1), so one acknowledgement is enough: the
// byte before snd_una, which the peer has long acknowledged, goes back as a segment of its own, and its acknowledgement
// is injected once more, with the TSecr of a segment that was sent one round trip ago and the peer's last TSval.
//
// Should the packet be lost, the peer's answer to the window probe acknowledges the byte; should that be lost, a
// retransmission of it is a duplicate to the peer. Without timestamps nothing is taught.
#pragma once

#include "base/result.h"
#include "handoff/connection.h"

namespace twinstack::handoff {

// Of the byte that goes back, at the front of RestoreQueues::unacked.
inline constexpr std::uint32_t kLessonBytes = 1;

// None that waits for more to fill a segment (MSG_MORE): an ACK would let that go. And none whose window would lose
// much, being that of a SYN, which is not scaled as that of the ACK is.
[[nodiscard]] bool can_be_taught(const tcp::MinTcp& min) noexcept;
// What to restore with: `min` as it was before the peer acknowledged the last kLessonBytes, with the congestion window
// that the ACK makes that of `min` (but CUBIC and NewReno grow by a segment when it was full). REQUIRES:
// can_be_taught().
[[nodiscard]] tcp::MinTcp before_lesson(const tcp::MinTcp& min) noexcept;
// The kernel measures `min.srtt_us`, or up to two milliseconds more (its clock ticks in milliseconds): never less,
// which a minimum would keep. `with_clock`: it learns the peer's clock as well. REQUIRES: the connection runs in the
// kernel.
Result<> teach(const Connection& conn, const tcp::MinTcp& min, bool with_clock);

}  // namespace twinstack::handoff
