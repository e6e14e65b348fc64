// The private state of the congestion controls, as it lies in the control block: plain data, a union by
// ControlBlock::congestion_kind. What each field means is said by the algorithm's own file.
#pragma once

#include <cstdint>

#include "tcp/tick.h"
#include "wire/seq.h"

namespace twinstack::tcp {

enum class CongestionKind : std::uint8_t { kCubic, kNewReno };

struct CubicState {  // RFC 9438 4.1.2; windows in segments
  float w_max;       // cwnd just before the last reduction
  float k_seconds;   // time to grow back to w_max
  float w_est;       // Reno-friendly estimate
  float cwnd_prior;  // cwnd when the last reduction happened
  float carry;       // growth not yet applied, under one segment
  Tick epoch_start;  // 0 = no epoch runs
};

union CongestionState {
  CubicState cubic;
};
static_assert(sizeof(CongestionState) <= 32);

}  // namespace twinstack::tcp
