// Bursts: which segments carry PSH. As Linux: the end of each write that is not followed by more (MSG_MORE, TCP_CORK),
// and the end of every run of two or more segments that leaves as one, so that the receiver's GRO need not wait. What
// leaves as one is what Linux would put into one TSO packet: about a millisecond's worth.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tcp/control_block.h"
#include "tcp/flight.h"

namespace twinstack::tcp {

// The program has queued bytes up to write_seq: marks their end, when nothing follows at once or very much has been
// queued since the last mark.
void note_push(ControlBlock& cb, bool more_follows) noexcept;

// The segment of `length` at snd_nxt is about to be sent as new data, `limit` being a full one: does it carry PSH?
// Counts it into the burst that runs.
[[nodiscard]] bool pushes_new(ControlBlock& cb, std::uint32_t length, std::uint32_t limit);
// The segment that was added to the flight last did, or not.
void keep_push(ControlBlock& cb, bool pushes) noexcept;

// The segment goes again: it carries PSH when it did before and its burst is still whole.
[[nodiscard]] bool pushes_again(const Flight& flight, SentQueue::Position position) noexcept;

}  // namespace twinstack::tcp
