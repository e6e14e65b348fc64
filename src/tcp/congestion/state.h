// The private state of the congestion controls, as it lies in the control block: plain data, a union by
// ControlBlock::congestion_kind. What each field means is said by the algorithm's own file. BBR's does not fit: see
// bbr_state.h.
#pragma once

#include <cstdint>

#include "tcp/tick.h"
#include "wire/seq.h"

namespace twinstack::tcp {

enum class CongestionKind : std::uint8_t { kCubic, kNewReno, kDctcp, kBbr };

// Where the initial slow start stands (RFC 9406 4.2).
enum class HyStartPhase : std::uint8_t {
  kOff,           // it is over
  kStandard,      // slow start, watched for a delay that grows
  kConservative,  // CSS: the delay has grown
};

// RFC 9406 4.2. Round trips in microseconds, 0 = none measured ("infinity").
struct HyStartRounds {
  Seq round_end;                         // windowEnd
  std::uint32_t last_round_min_us = 0;   // lastRoundMinRTT
  std::uint32_t round_min_us = 0;        // currentRoundMinRTT
  std::uint32_t baseline_us = 0;         // cssBaselineMinRtt
  std::uint8_t samples = 0;              // rttSampleCount, not counted beyond what is asked for
  std::uint8_t conservative_rounds = 0;  // begun in CSS
};

// RFC 9438 4.1.2; windows in segments, time in seconds.
struct CubicState {
  float w_max = 0;              // origin of the curve
  float k_seconds = 0;          // from the epoch's start to w_max
  std::uint32_t w_est = 0;      // the window that Reno would have
  std::uint32_t est_acked = 0;  // acknowledged since w_est last grew
  Tick epoch_start = 0;         // moved on by the time that does not count; 0 = no epoch. Held: its length so far
};

// CUBIC and NewReno: what slow start needs and what congestion avoidance needs is never needed at the same time.
struct WindowState {
  HyStartPhase phase = HyStartPhase::kOff;  // says which of the two below lives: kOff = cubic
  std::uint32_t cwnd_prior : 22 = 0;        // CUBIC: cwnd before the last reduction; set_cwnd() keeps it under 2^21
  std::uint32_t w_max_of_loss : 1 = 0;      // CUBIC: a loss has told w_max
  std::uint32_t epoch_held : 1 = 0;         // CUBIC: time does not count for now
  union {
    CubicState cubic{};
    HyStartRounds hystart;
  };
};

// RFC 8257 3.3, 3.2.
struct DctcpState {
  Seq window_end;                        // alpha is next updated when this is acknowledged
  std::uint32_t prior_delivered = 0;     // ControlBlock::delivered when the window began
  std::uint32_t prior_delivered_ce = 0;  // ... delivered_ce
  std::uint32_t loss_cwnd = 0;           // cwnd before the last reduction
  std::uint16_t alpha = 0;               // share of marked segments, of kDctcpAlphaOne
  bool ce = false;                       // DCTCP.CE: the last segment that came was marked
};

union CongestionState {
  WindowState window{};
  DctcpState dctcp;
};
static_assert(sizeof(CongestionState) <= 24, "what the control block has left");

}  // namespace twinstack::tcp
