// CUBIC (RFC 9438), with fast convergence, the Reno-friendly region and HyStart++ in the initial slow start. Windows in
// segments. cwnd grows by counting, as Linux's: one segment for each `cwnd / (target - cwnd)` acknowledged, and never
// more than one for two, which is the bound of target = 1.5 cwnd (RFC 9438 4.2) also for an ACK that comes alone.
//
// As Linux, and beyond the RFC: until a loss has told where the top is the window grows by a twentieth each round trip
// at least; the epoch does not count the time in which nothing was in flight.
#pragma once

#include "tcp/congestion/congestion.h"

namespace twinstack::tcp {

extern const CongestionOps kCubicOps;

}  // namespace twinstack::tcp
