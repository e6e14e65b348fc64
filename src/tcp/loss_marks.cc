#include "tcp/loss_marks.h"

#include <algorithm>

#include "tcp/rack.h"
#include "tcp/sack.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint32_t kMaxReordering = 300;

// Counted arrivals cannot be more than what is out but for the lost ones. True when there were more: the path reorders
// (Linux tcp_limit_reno_sacked()).
bool limit_counted(Flight& f) noexcept {
  const std::uint32_t holes = std::min(std::max(f.lost, 1U), f.sent.size());
  if (f.sacked + holes <= f.sent.size()) return false;
  f.sacked = f.sent.size() - holes;
  return true;
}

void check_reno_reordering(ControlBlock& cb, std::uint32_t more) noexcept {
  Flight& f = *cb.flight;
  if (!limit_counted(f)) return;
  cb.reordering = static_cast<std::uint16_t>(std::min(f.sent.size() + more, kMaxReordering));
  cb.set(kReorderingSeen);
  ++cb.reord_seen;
}

void void_reports(Flight& f) noexcept {
  for (auto p = f.sent.first(); p != f.sent.end(); ++p) f.sent.at(p).clear(kSacked);
  f.sacked = 0;
  f.seen_count = 0;
  f.reneged = true;
}

}  // namespace

void mark_lost(ControlBlock& cb, SentQueue::Position position) noexcept {
  Flight& f = *cb.flight;
  SentSegment& s = f.sent.at(position);
  if (s.has(kSacked)) return;
  if (!f.sent.holds(f.next_retransmit) || position - f.sent.first() < f.next_retransmit - f.sent.first()) {
    f.next_retransmit = position;
  }
  if (!s.has(kLost)) {
    s.set(kLost);
    ++f.lost;
    ++cb.lost;
  } else if (s.has(kRetransmitted)) {
    ++cb.lost;
  }
  if (!s.has(kRetransmitted)) return;
  s.clear(kRetransmitted);
  --f.retransmitted;
}

void mark_lost_by_timeout(ControlBlock& cb, Time now) noexcept {
  Flight& f = *cb.flight;
  const bool reneged = uses_sack(cb) && f.sent.front().has(kSacked);
  if (reneged) void_reports(f);
  if (!uses_sack(cb)) f.sacked = 0;
  for (auto p = f.sent.first(); p != f.sent.end(); ++p) {
    const bool first = p == f.sent.first();
    if (!reneged && !first && rack_patience(cb, f.sent.at(p), now) > Duration::zero()) continue;
    mark_lost(cb, p);
  }
  f.next_retransmit = f.sent.first();
}

void unmark_all(Flight& flight) noexcept {
  for (auto p = flight.sent.first(); p != flight.sent.end(); ++p) {
    flight.sent.at(p).clear(kLost);
  }
  flight.lost = 0;
  flight.next_retransmit = flight.sent.first();
  flight.rack_first = flight.sent.first();  // what was lost is to be judged again
  flight.repeats_first = 0;
}

void reno_add_duplicates(ControlBlock& cb, std::uint32_t duplicates) noexcept {
  if (duplicates == 0) return;
  Flight& f = *cb.flight;
  const std::uint32_t before = f.sacked;
  f.sacked += duplicates;
  check_reno_reordering(cb, 0);
  if (f.sacked > before) cb.delivered += f.sacked - before;
}

void reno_on_progress(ControlBlock& cb, std::uint32_t acked_segments) noexcept {
  if (acked_segments == 0) return;
  Flight& f = *cb.flight;
  // One of them filled the hole; the others had been counted by their duplicate ACKs.
  cb.delivered += acked_segments > f.sacked ? std::max(acked_segments - f.sacked, 1U) : 1U;
  f.sacked -= std::min(f.sacked, acked_segments - 1);
  check_reno_reordering(cb, acked_segments);
}

void reno_mark_first(ControlBlock& cb, bool una_advanced) noexcept {
  Flight& f = *cb.flight;
  if (f.sent.empty() || f.sent.front().has(kLost)) return;
  const bool enough = cb.recovery < RecoveryState::kRecovery && f.sacked >= cb.reordering;
  const bool partial = cb.recovery == RecoveryState::kRecovery && una_advanced;  // RFC 6582 3.2 (3)
  if (!enough && !partial) return;
  mark_lost(cb, f.sent.first());
  (void)limit_counted(f);  // all others may be marked, or counted, by now
}

}  // namespace twinstack::tcp
