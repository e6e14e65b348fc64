// Round-trip estimates and the retransmission timeout (RFC 6298), in microseconds, with Linux's two departures: the
// variance term is the largest deviation of a round trip, at least 200 ms, and it falls slowly; a deviation downwards
// counts an eighth.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/clock.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

inline constexpr std::uint32_t kInitialRtoUs = 1'000'000;  // RFC 6298 2.1
inline constexpr std::uint32_t kMinVarianceUs = 200'000;   // Linux TCP_RTO_MIN
inline constexpr std::uint32_t kMaxRtoUs = 120'000'000;    // Linux TCP_RTO_MAX

// A round trip that began at `then`: at least 1, so that it is none that is not known.
[[nodiscard]] inline std::uint32_t us_since(Time then, Time now) noexcept {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(now - then).count();
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(us, 1, kMaxRtoUs));
}

// What a connection knew before (MinTcp); 0 = nothing.
void set_rtt_estimates(ControlBlock& cb, std::uint32_t srtt_us, std::uint32_t rttvar_us) noexcept;

// A new measurement (RFC 6298 2.2, 2.3). Ends the back-off (Karn: a valid sample has come).
void add_rtt_sample(ControlBlock& cb, std::uint32_t sample_us) noexcept;

// The smallest round trip of the last five minutes (Linux tcp_min_rtt_wlen).
void note_min_rtt(ControlBlock& cb, std::uint32_t sample_us, Time now) noexcept;

// rto_us from the estimates; kInitialRtoUs without a sample.
[[nodiscard]] std::uint32_t rto_from_estimates_us(const ControlBlock& cb) noexcept;

// The timeout with back-off (RFC 6298 5.5).
[[nodiscard]] Duration backed_off_rto(const ControlBlock& cb) noexcept;

}  // namespace twinstack::tcp
