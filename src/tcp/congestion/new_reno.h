// NewReno: Reno's congestion avoidance (RFC 5681 3.1) with appropriate byte counting (RFC 3465; L is not bounded, as
// Linux's "reno"), and HyStart++ in the initial slow start. The recovery that RFC 6582 adds is recovery.cc's.
#pragma once

#include "tcp/congestion/congestion.h"

namespace twinstack::tcp {

extern const CongestionOps kNewRenoOps;

// Slow start, then a segment more for each window acknowledged: for others that grow like it.
void grow_as_reno(ControlBlock& cb, std::uint32_t acked) noexcept;

}  // namespace twinstack::tcp
