// Undo: a reduction of cwnd is taken back when it turns out that nothing had been lost. Evidence: the timestamp that
// the ACK echoes is older than the first retransmission (Eifel, RFC 3522, RFC 4015), DSACKs for all retransmissions
// (RFC 3708), or F-RTO (RFC 5682).
#pragma once

#include "base/clock.h"
#include "tcp/ack_news.h"
#include "tcp/connection.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

// Something of the flight has been retransmitted and not yet been acknowledged.
[[nodiscard]] bool any_repeat_out(const ControlBlock& cb) noexcept;

// Each is true when it undid the reduction, or found a reason to wait (said at the function).
// high_seq has been reached. True also when the state must be kept (RFC 6582 4.1, without SACK): the caller is done.
bool try_undo_recovery(ControlBlock& cb, const AckNews& news, Time now);
// A partial ACK within fast recovery. True also when retransmissions are out that must be heard of first.
bool try_undo_partial(ControlBlock& cb, const AckNews& news, Time now);
bool try_undo_by_dsack(ControlBlock& cb, Time now);
// After a timeout; `by_frto`: F-RTO has shown that the timeout was spurious.
bool try_undo_loss(ControlBlock& cb, const AckNews& news, bool by_frto, Time now);

}  // namespace twinstack::tcp
