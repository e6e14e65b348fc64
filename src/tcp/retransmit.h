// Repairs: the segments that are lost, and the tail loss probe, as plans for poll_transmit().
#pragma once

#include "base/clock.h"
#include "tcp/connection.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

// The first lost segment whose retransmission is not out, when cwnd and the window admit it.
bool plan_retransmission(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan);

// RFC 8985 7.3, when new data could not be the probe: the last segment again.
bool plan_last_again(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan);

// A probe has been sent (`repeats`: a retransmission): remembered, and the timeout begins anew.
void note_probe(ControlBlock& cb, bool repeats, Time now);

}  // namespace twinstack::tcp
