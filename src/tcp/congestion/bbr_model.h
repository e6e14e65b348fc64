// BBR's model of the path, from what the ACKs say: bandwidth, rounds, aggregation of ACKs, a policer
// (draft-cardwell-iccrg-bbr-congestion-control-00 4.1, and what Linux's tcp_bbr adds to it). Decides nothing about the
// sending; that is bbr.cc. The shortest round trip is there too, since its age is what ends a mode.
#pragma once

#include <cstdint>

#include "tcp/congestion/bbr_state.h"
#include "tcp/control_block.h"
#include "tcp/rate.h"

namespace twinstack::tcp {

// The highest rates and round trips that are believed: products of two and a gain stay under 2^64.
inline constexpr std::uint64_t kBbrHighestRate = std::uint64_t{1} << 37;  // 1.1 Tbit/s
inline constexpr std::uint32_t kBbrLongestRttUs = 1U << 26;               // 67 s

// Bandwidth that the path is taken to have: the filter's, or the policer's.
[[nodiscard]] std::uint64_t bbr_bandwidth(const BbrState& bbr) noexcept;
// `gain` times the bandwidth-delay product, segments, rounded up. Without a round trip: the initial window.
[[nodiscard]] std::uint32_t bbr_bdp(const ControlBlock& cb, std::uint64_t bandwidth, std::uint32_t gain) noexcept;
// Segments that `bandwidth` delivers in `time`; 0 for a negative one.
[[nodiscard]] std::uint32_t bbr_delivered_in(const ControlBlock& cb, std::uint64_t bandwidth, Duration time) noexcept;
// What cwnd must hold beyond the product so that aggregated ACKs do not leave the pipe empty.
[[nodiscard]] std::uint32_t bbr_aggregation_allowance(const ControlBlock& cb) noexcept;

// Counts rounds and takes the rate sample. True when a policer's rate has just been given up after its time: the gain
// cycle is to begin anew. REQUIRES: a flight.
[[nodiscard]] bool bbr_update_bandwidth(ControlBlock& cb, const RateSample& sample) noexcept;
void bbr_update_aggregation(ControlBlock& cb, const RateSample& sample) noexcept;
void bbr_update_full_pipe(BbrState& bbr, bool app_limited) noexcept;

// A timeout ends a round and an interval of the policer's (as Linux). REQUIRES: a flight.
void bbr_model_on_timeout(ControlBlock& cb) noexcept;
// REQUIRES: a flight.
void bbr_forget_policer(ControlBlock& cb) noexcept;

}  // namespace twinstack::tcp
