// BBR, version 1 (draft-cardwell-iccrg-bbr-congestion-control-00, and as Linux's tcp_bbr where that does more: ACK
// aggregation, policers, the slack for bursts). Sends at the rate that the path was seen to deliver and keeps about a
// bandwidth-delay product in flight; losses are no signal but for a round of packet conservation. Paced.
//
// Randomness (where the gain cycle begins) comes from the connection's own numbers: the core stays pure.
#pragma once

#include <cstdint>

#include "tcp/congestion/congestion.h"

namespace twinstack::tcp {

extern const CongestionOps kBbrOps;

// tcp_bbr_info, units included.
struct BbrInfo {
  std::uint64_t bandwidth = 0;            // bytes a second
  std::uint32_t min_rtt_us = UINT32_MAX;  // UINT32_MAX = none
  std::uint32_t pacing_gain = 0;          // of 256
  std::uint32_t cwnd_gain = 0;            // of 256
};
// REQUIRES: kind kBbr.
[[nodiscard]] BbrInfo bbr_info(const ControlBlock& cb) noexcept;

// The connection goes on with what another stack's BBR had measured (TCP_CC_INFO), instead of filling the pipe anew;
// the gains tell what it was about. cwnd stays. A bandwidth of 0 changes nothing. The shortest round trip counts as
// fresh, as its age is not known. After install(); REQUIRES: kind kBbr.
void bbr_seed(ControlBlock& cb, const BbrInfo& measured);
// ... that had filled the pipe already.
void bbr_seed(ControlBlock& cb, std::uint64_t bandwidth, std::uint32_t min_rtt_us);

}  // namespace twinstack::tcp
