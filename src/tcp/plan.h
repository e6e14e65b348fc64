// What every segment that leaves has in common: options, ACK, window, counters. Used by transmit.cc and retransmit.cc.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tcp/connection.h"
#include "tcp/control_block.h"
#include "tcp/flight.h"

namespace twinstack::tcp {

// First sequence number that the peer's window does not admit.
[[nodiscard]] inline Seq send_edge(const ControlBlock& cb) noexcept { return cb.snd_una + cb.snd_wnd; }

// What a segment without data carries: SND.NXT, or the edge of a window that the peer has taken back, beyond which it
// would believe neither an ACK nor a RST (Linux tcp_acceptable_seq()). What its scale cannot express is not taken back
// (Linux takes our own scale for it).
[[nodiscard]] inline Seq acceptable_seq(const ControlBlock& cb) noexcept {
  const std::int32_t beyond = cb.snd_nxt - send_edge(cb);
  return beyond < (std::int32_t{1} << cb.snd_wscale) ? cb.snd_nxt : send_edge(cb);
}

// End of the program's bytes: write_seq without the FIN.
[[nodiscard]] inline Seq data_end(const ControlBlock& cb) noexcept {
  return cb.has(kFinQueued) ? cb.write_seq - 1 : cb.write_seq;
}

// How far the next new segment may reach: the end of the program's bytes, or of the record that it is in.
[[nodiscard]] inline Seq text_end(const ControlBlock& cb) noexcept {
  return cb.flight && !cb.flight->record_ends.empty() ? cb.flight->record_ends.front() : data_end(cb);
}

// Nagle in Minshall's variant, and cork (RFC 9293 3.7.4): may a segment under the full size go?
[[nodiscard]] bool partial_may_go(const ControlBlock& cb) noexcept;

// The options every segment carries, and SACK blocks when there are any.
void fill_options(const ControlBlock& cb, Time now, wire::TcpOptions& options);

// Payload that fits beside the SACK blocks in a full segment.
[[nodiscard]] std::uint32_t payload_limit(const ControlBlock& cb, const wire::TcpOptions& options) noexcept;

// `plan` carries [seq, seq + length) of the sequence space: payload, and the FIN when that is its end.
void fill_text(const ControlBlock& cb, SegmentPlan& plan, Seq seq, std::uint32_t length) noexcept;

// ECT, and CWR when it is due, on new data of a connection with ECN.
void mark_ecn(ControlBlock& cb, SegmentPlan& plan) noexcept;

// Everything that is the same for every segment; it carries the ACK that may be owed.
void complete(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan);

}  // namespace twinstack::tcp
