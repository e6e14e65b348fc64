// Bursts: which segments carry PSH. As Linux: the end of each write that is not followed by more (MSG_MORE), and the
// end of every run of two or more segments that leaves as one packet of the kernel's (TSO), so that the receiver's GRO
// need not wait. What leaves as one is about a millisecond's worth. We send segment by segment, but keep in mind what
// would have been one packet.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tcp/control_block.h"
#include "tcp/flight.h"

namespace twinstack::tcp {

inline constexpr std::uint8_t kSmallestBurst = 2;  // Linux tcp_min_tso_segs

// The program has queued bytes up to write_seq: marks their end, when nothing follows at once or very much has been
// queued since the last mark.
void note_push(ControlBlock& cb, bool more_follows);
// Before `bytes` of the same write are queued that make the kernel's buffer at the end longer: a mark at its end moves.
void move_push(ControlBlock& cb, std::uint32_t bytes) noexcept;
// The persist timer sends what waits, `length` from snd_nxt on: marks its end (as Linux tcp_write_wakeup()).
void push_next(ControlBlock& cb, std::uint32_t length) noexcept;

// Everything before `snd_nxt` has been sent.
void leave_records(Flight& flight, Seq snd_nxt) noexcept;

// The segment of `length` has been added to the flight as new data, `limit` being a full one: does it carry PSH?
// Counts it into the burst that runs.
[[nodiscard]] bool pushes_new(ControlBlock& cb, std::uint32_t length, std::uint32_t limit);
// To be called before it is added.
void begin_burst_if_due(ControlBlock& cb, std::uint32_t limit);

// The segment goes again: it carries PSH when a write ends with it, or when it ends a run of segments that were sent as
// one packet and go again as one.
[[nodiscard]] bool pushes_again(ControlBlock& cb, SentQueue::Position position);

}  // namespace twinstack::tcp
