// Tail loss probe (RFC 8985 7): when the end of a flight draws no ACK, one segment more makes the peer say what it has,
// long before the retransmission timeout would.
#pragma once

#include "base/clock.h"
#include "tcp/ack_news.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

// RFC 8985 7.2: arms the probe instead of the retransmission timer, where that is allowed. `new_rto`: the timeout would
// begin anew now; else it goes on from the first segment's transmission. False when it is not allowed.
bool schedule_loss_probe(ControlBlock& cb, bool new_rto, Time now);

// The same for the first segment of a flight, sent at `now`. REQUIRES: SACK, recovery kOpen.
void arm_first_loss_probe(ControlBlock& cb, Time now) noexcept;

// RFC 8985 7.4: what an ACK says about the probe that is out.
void probe_on_ack(ControlBlock& cb, const AckNews& news, Time now);

}  // namespace twinstack::tcp
