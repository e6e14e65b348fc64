// Congestion control behind a table of functions, chosen by ControlBlock::congestion_kind. An algorithm owns cwnd's
// growth and the threshold after a loss; when a loss has happened and what may be sent is recovery's and transmit's.
//
// To add one: an enumerator of CongestionKind, its state in CongestionState, a table in its own file, a line in
// congestion_ops().
#pragma once

#include <cstdint>
#include <string_view>

#include "base/clock.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

struct CongestionOps {
  std::string_view name;  // as TCP_CONGESTION
  // Makes the private state. cwnd and ssthresh are set already.
  void (*init)(ControlBlock& cb);
  // `acked_bytes` newly acknowledged, outside of recovery, while cwnd was what limited sending. Grows cwnd.
  void (*on_ack)(ControlBlock& cb, std::uint32_t acked_bytes, Time now);
  // A loss or an ECN echo: returns the new ssthresh in bytes, at least two segments. Sets neither cwnd nor ssthresh.
  std::uint32_t (*on_congestion)(ControlBlock& cb);
  // A retransmission timeout, after on_congestion().
  void (*on_timeout)(ControlBlock& cb);
  // Sending begins again after `idle` with nothing in flight.
  void (*on_restart)(ControlBlock& cb, Duration idle);
};

[[nodiscard]] const CongestionOps& congestion_ops(CongestionKind kind) noexcept;

// The kind for a name of TCP_CONGESTION: "reno" is NewReno; CUBIC stands in for all that we do not have.
[[nodiscard]] CongestionKind congestion_kind(std::string_view name) noexcept;

[[nodiscard]] inline bool in_slow_start(const ControlBlock& cb) noexcept { return cb.cwnd < cb.ssthresh; }

// Slow start (RFC 5681 3.1, one byte for each byte acknowledged). Returns what is left for congestion avoidance.
std::uint32_t slow_start(ControlBlock& cb, std::uint32_t acked_bytes) noexcept;

// RFC 5681 3.1 (4): never under two segments.
[[nodiscard]] std::uint32_t at_least_two_segments(const ControlBlock& cb, std::uint32_t bytes) noexcept;

void grow_cwnd(ControlBlock& cb, std::uint32_t bytes) noexcept;

}  // namespace twinstack::tcp
