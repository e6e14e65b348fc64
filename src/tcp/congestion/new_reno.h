// Reno's congestion avoidance (RFC 5681 3.1) with appropriate byte counting.
#pragma once

#include "tcp/congestion/congestion.h"

namespace twinstack::tcp {

[[nodiscard]] const CongestionOps& new_reno_ops() noexcept;

}  // namespace twinstack::tcp
