// DCTCP (RFC 8257), as Linux's tcp_dctcp: the window is lowered by the share of segments that met congestion, not by
// half, so that a switch which marks at a low threshold keeps short queues. Grows like Reno. A loss counts as it does
// for Reno (RFC 8257 3.5). Needs ECN to have been negotiated; without it NewReno is in charge (as Linux).
//
// The receiver's half: what an ACK echoes is the state of the last segment that came, and where the state changes an
// ACK is sent up to there (RFC 8257 3.2).
#pragma once

#include <cstdint>

#include "tcp/congestion/congestion.h"

namespace twinstack::tcp {

inline constexpr std::uint32_t kDctcpAlphaOne = 1024;  // DCTCP.Alpha = 1

extern const CongestionOps kDctcpOps;

// tcp_dctcp_info.
struct DctcpInfo {
  bool ce_state = false;
  std::uint32_t alpha = 0;        // of kDctcpAlphaOne
  std::uint64_t ecn_bytes = 0;    // dctcp_ab_ecn: acknowledged with a mark in this window
  std::uint64_t acked_bytes = 0;  // dctcp_ab_tot
};
// REQUIRES: kind kDctcp.
[[nodiscard]] DctcpInfo dctcp_info(const ControlBlock& cb) noexcept;
// The connection goes on with what another stack had found. After install(); REQUIRES: kind kDctcp.
void dctcp_seed(ControlBlock& cb, bool ce_state, std::uint32_t alpha) noexcept;

}  // namespace twinstack::tcp
