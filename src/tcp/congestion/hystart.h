// HyStart++ (RFC 9406): leaves the initial slow start before the bottleneck's buffer overflows. When the shortest round
// trip of a round is longer than that of the round before, the window grows at a quarter of the speed for some rounds
// (conservative slow start); if the delay falls again it was jitter, and slow start goes on, else congestion avoidance
// begins. Only the initial slow start: the others end at an ssthresh that a loss has told (RFC 9406 4.3). An ACK counts
// for all that it takes, as on Linux, where segments are merged before TCP sees them: L of RFC 9406 4.2 is infinite.
//
// Acts on ControlBlock::congestion.window of CUBIC and NewReno, who call it.
#pragma once

#include <cstdint>

#include "tcp/control_block.h"

namespace twinstack::tcp {

[[nodiscard]] inline bool hystart_running(const ControlBlock& cb) noexcept {
  return cb.congestion.window.phase != HyStartPhase::kOff;
}

// Makes the state: slow start is the initial one when no ssthresh is known yet.
void hystart_init(ControlBlock& cb) noexcept;
// Slow start is over, for whatever reason. The state of congestion avoidance is made anew.
void hystart_stop(ControlBlock& cb) noexcept;
// CongestionOps::undo_cwnd of those who use it: if the initial slow start was left for nothing, it goes on.
[[nodiscard]] std::uint32_t hystart_undo_cwnd(ControlBlock& cb);

// An ACK has taken segments; `rtt_us` of the most recent one, 0 when not known. May end slow start. REQUIRES: running.
void hystart_on_ack(ControlBlock& cb, std::uint32_t rtt_us) noexcept;
// Grows cwnd for `acked` segments. REQUIRES: running.
void hystart_grow(ControlBlock& cb, std::uint32_t acked) noexcept;

}  // namespace twinstack::tcp
