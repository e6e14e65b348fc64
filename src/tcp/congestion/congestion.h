// Congestion control behind a table of functions, chosen by ControlBlock::congestion_kind. An algorithm owns cwnd's
// growth and the threshold after a loss; when a loss has happened and what may be sent is recovery's and transmit's.
// Windows in segments.
//
// To add one: an enumerator of CongestionKind, its state in CongestionState, a table in its own file, a line each in
// congestion_ops() and congestion_kind().
#pragma once

#include <cstdint>
#include <string_view>

#include "base/clock.h"
#include "tcp/control_block.h"
#include "tcp/rate.h"

namespace twinstack::tcp {

inline constexpr std::uint32_t kInitialWindow = 10;  // segments (RFC 6928)

enum class CongestionEvent : std::uint8_t {
  kSendStart,  // the first segment after nothing was in flight
  kRestart,    // cwnd was lowered after idleness (RFC 2861)
  kReductionDone,
  kTimeout,     // a retransmission timeout, after ssthresh()
  kMarkSeen,    // the peer's data carried CE; raised before rcv_nxt passes it
  kNoMarkSeen,  // ... did not
};

struct MeasuredPath;

struct CongestionOps {
  std::string_view name;   // as TCP_CONGESTION
  bool wants_ecn = false;  // ECT on every segment, marks are the signal (RFC 8257)

  // Makes the private state. cwnd, ssthresh and options are set already. May choose another kind instead of itself.
  void (*init)(ControlBlock& cb, Time now) = nullptr;
  // A loss, an ECN echo or a timeout: the new ssthresh, at least 2. Sets neither cwnd nor ssthresh.
  std::uint32_t (*ssthresh)(ControlBlock& cb) = nullptr;
  // `acked` segments newly acknowledged, outside of a reduction, while cwnd was what limited sending. Grows cwnd.
  void (*grow)(ControlBlock& cb, std::uint32_t acked, Time now) = nullptr;
  // cwnd to go back to when the last reduction was wrong.
  std::uint32_t (*undo_cwnd)(ControlBlock& cb) = nullptr;

  // Optional.
  // Segments arrived; `rtt_us` of the most recent one, 0 when not known.
  void (*on_delivered)(ControlBlock& cb, std::uint32_t acked, std::uint32_t rtt_us, Time now) = nullptr;
  // Every acceptable ACK that advances or repeats, after delivered and delivered_ce were counted, before what it does
  // to the window.
  void (*on_ack)(ControlBlock& cb, bool ecn_echo) = nullptr;
  // `recovery` is about to become `next`.
  void (*on_recovery)(ControlBlock& cb, RecoveryState next) = nullptr;
  void (*on_event)(ControlBlock& cb, CongestionEvent event, Time now) = nullptr;
  // Takes the place of grow() and of proportional rate reduction: sets cwnd itself, at every ACK.
  void (*control)(ControlBlock& cb, const RateSample& sample, Time now) = nullptr;
  // What it has measured, for the stack that the connection moves to; and goes on with, after init().
  void (*tell)(const ControlBlock& cb, MeasuredPath& measured) = nullptr;
  void (*take)(ControlBlock& cb, const MeasuredPath& measured) = nullptr;
  // Bytes a second at which to send; nullptr = not paced.
  std::uint64_t (*pacing_rate)(const ControlBlock& cb) = nullptr;
};

[[nodiscard]] const CongestionOps& congestion_ops(CongestionKind kind) noexcept;
[[nodiscard]] inline const CongestionOps& congestion_ops(const ControlBlock& cb) noexcept {
  return congestion_ops(cb.congestion_kind);
}

// The kind for a name of TCP_CONGESTION: "cubic", "reno" (NewReno), "dctcp", "bbr" (version 1); CUBIC stands in for all
// that we do not have.
[[nodiscard]] CongestionKind congestion_kind(std::string_view name) noexcept;

void raise_event(ControlBlock& cb, CongestionEvent event, Time now);

// Slow start (RFC 5681 3.1, a segment for each acknowledged). Returns what is left for congestion avoidance.
std::uint32_t slow_start(ControlBlock& cb, std::uint32_t acked) noexcept;
// Congestion avoidance: a segment more for each `window` acknowledged.
void grow_additively(ControlBlock& cb, std::uint32_t window, std::uint32_t acked) noexcept;
// What most algorithms go back to: the window before the reduction.
[[nodiscard]] std::uint32_t prior_cwnd(ControlBlock& cb);
void set_cwnd(ControlBlock& cb, std::uint32_t segments) noexcept;

}  // namespace twinstack::tcp
