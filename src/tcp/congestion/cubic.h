// CUBIC (RFC 9438), with fast convergence and the Reno-friendly region. Windows in segments, time in seconds.
#pragma once

#include "tcp/congestion/congestion.h"

namespace twinstack::tcp {

[[nodiscard]] const CongestionOps& cubic_ops() noexcept;

}  // namespace twinstack::tcp
