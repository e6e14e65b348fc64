#include "tcp/undo.h"

#include <algorithm>

#include "tcp/congestion/congestion.h"
#include "tcp/flight.h"
#include "tcp/loss_marks.h"
#include "tcp/recovery.h"
#include "tcp/sack.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint8_t kMostPersist = 16;

// What was thought lost was late.
bool packet_delayed(const ControlBlock& cb, const AckNews& news) noexcept {
  const Flight& f = *cb.flight;
  // Nothing has been retransmitted; without SACK the stamp is cleared while the state is only kept (must_keep_state()).
  if (!f.repeat_stamped) return uses_sack(cb) || cb.snd_una < cb.high_seq;
  return news.has_echo && static_cast<std::int32_t>(news.echo - f.repeat_ts) < 0;
}

bool may_undo(const ControlBlock& cb, const AckNews& news) noexcept {
  return cb.flight->undo_possible && (cb.flight->undo_repeats == 0 || packet_delayed(cb, news));
}

void undo_reduction(ControlBlock& cb, bool unmark, Time now) {
  Flight& f = *cb.flight;
  if (unmark) unmark_all(f);
  if (f.prior_ssthresh != 0) {
    set_cwnd(cb, congestion_ops(cb).undo_cwnd(cb));
    if (f.prior_ssthresh > cb.ssthresh) {
      cb.ssthresh = f.prior_ssthresh;
      cb.clear(kEcnSendCwr);
    }
  }
  cb.cwnd_stamp = to_tick(now);
  f.undo_possible = false;
  f.rack_advanced = true;  // losses are looked for anew
}

// Without SACK the state is kept until something above high_seq is acknowledged, so that duplicate ACKs of our own
// retransmissions start no second recovery (RFC 6582 4.1).
bool must_keep_state(ControlBlock& cb) noexcept {
  if (cb.snd_una != cb.high_seq || uses_sack(cb)) return false;
  if (!any_repeat_out(cb)) cb.flight->repeat_stamped = false;
  return true;
}

}  // namespace

bool any_repeat_out(const ControlBlock& cb) noexcept {
  const Flight* f = cb.flight.get();
  if (f == nullptr) return false;
  return f->retransmitted > 0 || (!f->sent.empty() && f->sent.front().has(kEverRetransmitted));
}

bool try_undo_recovery(ControlBlock& cb, const AckNews& news, Time now) {
  if (may_undo(cb, news)) {
    undo_reduction(cb, false, now);
  } else if (cb.reo_wnd_persist > 0) {
    --cb.reo_wnd_persist;
  }
  if (must_keep_state(cb)) return true;
  set_recovery(cb, RecoveryState::kOpen);
  cb.flight->reneged = false;
  return false;
}

bool try_undo_partial(ControlBlock& cb, const AckNews& news, Time now) {
  Flight& f = *cb.flight;
  if (!f.undo_possible || !packet_delayed(cb, news)) return false;
  // The hole was filled by a late packet, not by a retransmission.
  note_reordering(cb, news.prior_una);
  // The degree of reordering is larger than it was thought to be: new data is clocked out, nothing more is marked.
  if (f.retransmitted > 0) return true;
  if (!any_repeat_out(cb)) f.repeat_stamped = false;
  undo_reduction(cb, true, now);
  try_keep_open(cb);
  return false;
}

bool try_undo_by_dsack(ControlBlock& cb, Time now) {
  Flight& f = *cb.flight;
  if (!f.undo_possible || f.undo_repeats != 0) return false;
  cb.reo_wnd_persist = static_cast<std::uint8_t>(std::min<int>(kMostPersist, cb.reo_wnd_persist + 1));
  undo_reduction(cb, false, now);
  return true;
}

bool try_undo_loss(ControlBlock& cb, const AckNews& news, bool by_frto, Time now) {
  if (!by_frto && !may_undo(cb, news)) return false;
  undo_reduction(cb, true, now);
  cb.retries = 0;
  cb.flight->timed_out_at = {};
  if (must_keep_state(cb)) return true;
  if (by_frto || uses_sack(cb)) {
    set_recovery(cb, RecoveryState::kOpen);
    cb.flight->reneged = false;
  }
  return true;
}

}  // namespace twinstack::tcp
