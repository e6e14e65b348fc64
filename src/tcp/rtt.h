// Round-trip estimates and the retransmission timeout (RFC 6298), in microseconds. Floor of the variance term as Linux:
// the RTO is at least srtt + 200 ms.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

inline constexpr std::uint32_t kInitialRtoUs = 1'000'000;  // RFC 6298 2.1
inline constexpr std::uint32_t kMinVarianceUs = 200'000;   // Linux TCP_RTO_MIN
inline constexpr std::uint32_t kMaxRtoUs = 120'000'000;    // Linux TCP_RTO_MAX

// A new measurement (RFC 6298 2.2, 2.3). Ends the back-off (Karn: a valid sample has come).
void add_rtt_sample(ControlBlock& cb, std::uint32_t sample_us) noexcept;

// rto_us from srtt_us and rttvar_us; kInitialRtoUs without a sample.
[[nodiscard]] std::uint32_t rto_from_estimates_us(const ControlBlock& cb) noexcept;

// The timeout with back-off (RFC 6298 5.5).
[[nodiscard]] Duration backed_off_rto(const ControlBlock& cb) noexcept;

// Timing of one segment at a time. A retransmission ends it (Karn's algorithm, RFC 6298 3).
void start_rtt_timing(ControlBlock& cb, Seq end, Time now) noexcept;
inline void stop_rtt_timing(ControlBlock& cb) noexcept { cb.clear(kRttTiming); }
// Nothing is timed until `end` is acknowledged: another stack has sent that, and what is echoed of it are stamps of
// that stack, which may lie ahead of ours (R19 of docs/kernel-facts.md).
void skip_rtt_timing(ControlBlock& cb, Seq end) noexcept;
// snd_una has advanced: takes the sample, if there is one, when the timed segment is acknowledged; true then.
bool take_timed_sample(ControlBlock& cb, Time now) noexcept;

}  // namespace twinstack::tcp
