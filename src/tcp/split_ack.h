// Split ACKs: ACKs for less than all that has arrived. A receiver that echoes marks as they come (RFC 8257 3.2) owes
// one up to where the mark changed, with the echo of before, although more has arrived when its turn to send comes.
// They go before anything else, in order; the ordinary ACK follows.
#pragma once

#include "base/clock.h"
#include "tcp/connection.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

// What has arrived in order and is not acknowledged is to be acknowledged up to here, with the echo (kEcnEcho) of now;
// the ACK of what comes next does not wait. To be called before rcv_nxt moves on.
void split_ack_here(ControlBlock& cb);
[[nodiscard]] bool plan_split_ack(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan);

}  // namespace twinstack::tcp
