#include "tcp/reduction.h"

#include <algorithm>

#include "tcp/congestion/congestion.h"
#include "tcp/flight.h"
#include "tcp/recovery.h"

namespace twinstack::tcp {

void begin_reduction(ControlBlock& cb) {
  Flight& f = flight_of(cb);
  cb.high_seq = cb.snd_nxt;
  f.probe_out = false;
  cb.cwnd_count = 0;
  f.prior_cwnd = cb.cwnd;
  f.prr_delivered = 0;
  f.prr_out = 0;
  cb.ssthresh = congestion_ops(cb).ssthresh(cb);
  if ((cb.options & kOptEcn) != 0) cb.set(kEcnSendCwr);
}

void reduce_window(ControlBlock& cb, std::uint32_t delivered, std::uint32_t newly_lost, bool una_advanced) noexcept {
  Flight& f = *cb.flight;
  if (delivered == 0 || f.prior_cwnd == 0) return;
  const std::int64_t in_flight = packets_in_flight(cb);
  const std::int64_t room = std::int64_t{cb.ssthresh} - in_flight;
  f.prr_delivered += delivered;
  std::int64_t allowed = 0;
  if (room < 0) {
    // No more than one for each that has arrived: a window that was 1 has a threshold of 2, and a loss may set another.
    const std::uint64_t due = std::uint64_t{std::min(cb.ssthresh, f.prior_cwnd)} * f.prr_delivered + f.prior_cwnd - 1;
    allowed = static_cast<std::int64_t>(due / f.prior_cwnd) - f.prr_out;
  } else {
    allowed = std::max<std::int64_t>(std::int64_t{f.prr_delivered} - f.prr_out, delivered);
    if (una_advanced && newly_lost == 0) ++allowed;  // slow-start reduction bound
    allowed = std::min(allowed, room);
  }
  allowed = std::max<std::int64_t>(allowed, f.prr_out == 0 ? 1 : 0);  // the fast retransmission itself
  set_cwnd(cb, static_cast<std::uint32_t>(in_flight + allowed));
}

void end_reduction(ControlBlock& cb, bool undone, Time now) {
  if (congestion_ops(cb).control != nullptr) return;
  if (cb.ssthresh < kInfiniteSsthresh && !undone) {
    set_cwnd(cb, cb.ssthresh);
    cb.cwnd_stamp = to_tick(now);
  }
  raise_event(cb, CongestionEvent::kReductionDone, now);
}

void enter_reduced(ControlBlock& cb) {
  Flight& f = flight_of(cb);
  f.prior_ssthresh = 0;
  if (cb.recovery >= RecoveryState::kReduced) return;
  f.undo_possible = false;
  begin_reduction(cb);
  set_recovery(cb, RecoveryState::kReduced);
}

void begin_undo(ControlBlock& cb) noexcept {
  Flight& f = flight_of(cb);
  f.undo_possible = true;
  f.undo_marker = cb.snd_una;
  // Retransmissions that are under way already may draw DSACKs too; not 0, which would say that all have come.
  std::uint32_t repeats = f.retransmitted;
  if (f.probe_out && f.probe_repeats) ++repeats;
  f.undo_repeats = repeats > 0 ? static_cast<std::int32_t>(repeats) : -1;
}

std::uint32_t current_ssthresh(const ControlBlock& cb) noexcept {
  if (reducing_window(cb)) return cb.ssthresh;
  return std::max(cb.ssthresh, cb.cwnd / 2 + cb.cwnd / 4);
}

}  // namespace twinstack::tcp
