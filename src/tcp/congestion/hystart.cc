#include "tcp/congestion/hystart.h"

#include <algorithm>

#include "tcp/congestion/congestion.h"
#include "tcp/flight.h"

namespace twinstack::tcp {

namespace {

// RFC 9406 4.3.
constexpr std::uint32_t kMinRttThresholdUs = 4'000;
constexpr std::uint32_t kMaxRttThresholdUs = 16'000;
constexpr std::uint32_t kMinRttDivisor = 8;
constexpr std::uint8_t kRttSamples = 8;
constexpr std::uint32_t kGrowthDivisor = 4;
constexpr std::uint8_t kConservativeRounds = 5;

bool known(std::uint32_t rtt_us) noexcept { return rtt_us != 0; }

void start_round(ControlBlock& cb) noexcept {
  HyStartRounds& h = cb.congestion.window.hystart;
  h.round_end = cb.snd_nxt;
  h.last_round_min_us = h.round_min_us;
  h.round_min_us = 0;
  h.samples = 0;
}

void enter_conservative(ControlBlock& cb) noexcept {
  HyStartRounds& h = cb.congestion.window.hystart;
  cb.congestion.window.phase = HyStartPhase::kConservative;
  h.baseline_us = h.round_min_us;
  h.conservative_rounds = 1;  // what is left of this round counts as one
}

// It was jitter.
void resume_standard(ControlBlock& cb) noexcept {
  cb.congestion.window.phase = HyStartPhase::kStandard;
  cb.congestion.window.hystart.baseline_us = 0;
}

// What the samples of this round, at least kRttSamples, say.
void judge_delay(ControlBlock& cb) noexcept {
  const HyStartRounds& h = cb.congestion.window.hystart;
  if (cb.congestion.window.phase == HyStartPhase::kConservative) {
    if (h.round_min_us < h.baseline_us) resume_standard(cb);
    return;
  }
  if (!known(h.last_round_min_us)) return;
  const std::uint32_t threshold =
      std::clamp(h.last_round_min_us / kMinRttDivisor, kMinRttThresholdUs, kMaxRttThresholdUs);
  if (h.round_min_us >= h.last_round_min_us + threshold) enter_conservative(cb);
}

void take_sample(ControlBlock& cb, std::uint32_t rtt_us) noexcept {
  HyStartRounds& h = cb.congestion.window.hystart;
  h.round_min_us = known(h.round_min_us) ? std::min(h.round_min_us, rtt_us) : rtt_us;
  if (h.samples < kRttSamples) ++h.samples;
  if (h.samples == kRttSamples) judge_delay(cb);
}

void end_round(ControlBlock& cb) noexcept {
  HyStartRounds& h = cb.congestion.window.hystart;
  const bool conservative = cb.congestion.window.phase == HyStartPhase::kConservative;
  if (conservative && h.conservative_rounds == kConservativeRounds) {
    cb.ssthresh = cb.cwnd;
    hystart_stop(cb);
    return;
  }
  if (conservative) ++h.conservative_rounds;
  start_round(cb);
}

void start(ControlBlock& cb) noexcept {
  WindowState& state = cb.congestion.window;
  state = WindowState{};
  state.phase = HyStartPhase::kStandard;
  state.hystart = HyStartRounds{};
  start_round(cb);
}

}  // namespace

void hystart_init(ControlBlock& cb) noexcept {
  if (cb.ssthresh < kInfiniteSsthresh) {
    hystart_stop(cb);
  } else {
    start(cb);
  }
}

void hystart_stop(ControlBlock& cb) noexcept { cb.congestion.window = WindowState{}; }

std::uint32_t hystart_undo_cwnd(ControlBlock& cb) {
  if (cb.flight->prior_ssthresh >= kInfiniteSsthresh) start(cb);
  return prior_cwnd(cb);
}

void hystart_on_ack(ControlBlock& cb, std::uint32_t rtt_us) noexcept {
  // What was sent within the round is acknowledged: its sample is the first of the next one.
  if (cb.snd_una > cb.congestion.window.hystart.round_end) end_round(cb);
  if (hystart_running(cb) && known(rtt_us)) take_sample(cb, rtt_us);
}

void hystart_grow(ControlBlock& cb, std::uint32_t acked) noexcept {
  if (cb.congestion.window.phase == HyStartPhase::kConservative) {
    grow_additively(cb, kGrowthDivisor, acked);
  } else {
    set_cwnd(cb, cb.cwnd + acked);
  }
}

}  // namespace twinstack::tcp
