#include "tcp/recovery.h"

#include <algorithm>

#include "tcp/cold_state.h"
#include "tcp/congestion/congestion.h"
#include "tcp/flight.h"
#include "tcp/loss_marks.h"
#include "tcp/path_mtu.h"
#include "tcp/rack.h"
#include "tcp/reduction.h"
#include "tcp/sack.h"
#include "tcp/timers.h"
#include "tcp/undo.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint16_t kDefaultReordering = 3;  // Linux tcp_reordering

void enter_recovery(ControlBlock& cb, bool ecn_echoed, Counters& counters) {
  Flight& f = flight_of(cb);
  f.prior_ssthresh = 0;
  begin_undo(cb);
  if (!reducing_window(cb)) {
    if (!ecn_echoed) f.prior_ssthresh = current_ssthresh(cb);
    begin_reduction(cb);
  }
  set_recovery(cb, RecoveryState::kRecovery);
  if (counters.fast_recoveries < UINT16_MAX) ++counters.fast_recoveries;
}

// Marks what can be known to be lost now.
void identify_loss(ControlBlock& cb, AckNews& news, Time now) {
  Flight& f = *cb.flight;
  if (f.sent.empty()) return;
  if (!uses_sack(cb)) {
    reno_mark_first(cb, news.has(kUnaAdvanced));
    return;
  }
  const std::uint32_t before = f.retransmitted;
  if (rack_mark_lost(cb, now)) news.flags &= ~kRestartTimer;
  if (before > f.retransmitted) news.flags |= kRepeatLost;
}

void try_to_open(ControlBlock& cb, const AckNews& news) {
  if (!any_repeat_out(cb)) cb.flight->repeat_stamped = false;
  if (news.has(kEcnEchoed)) enter_reduced(cb);
  if (cb.recovery != RecoveryState::kReduced) try_keep_open(cb);
}

// high_seq is reached in CWR or Recovery. True when nothing more is to be done.
bool leave_at_high_seq(ControlBlock& cb, const AckNews& news, Time now) {
  if (cb.recovery == RecoveryState::kReduced) {
    // CWR must have reached the peer before another echo counts.
    if (cb.snd_una == cb.high_seq) return false;
    end_reduction(cb, false, now);
    set_recovery(cb, RecoveryState::kOpen);
    return false;
  }
  if (cb.recovery != RecoveryState::kRecovery) return false;
  if (!uses_sack(cb)) cb.flight->sacked = 0;
  if (try_undo_recovery(cb, news, now)) return true;
  end_reduction(cb, !cb.flight->undo_possible, now);
  return false;
}

// The peer has reported what it now wants acknowledged anew. It may only not have come to it yet: a while, then the
// timeout repairs it (as Linux).
void await_reneging(ControlBlock& cb, AckNews& news, Time now) {
  const Duration wait =
      std::max<Duration>(std::chrono::microseconds(smoothed_rtt_us(cb) / 2), std::chrono::milliseconds(10));
  arm_sender_timer(cb, SenderTimer::kRetransmit, wait, now);
  news.flags &= ~kRestartTimer;
}

// F-RTO (RFC 5682 3.1, with SACK where it is in use). True when the ACK has been dealt with.
bool judge_timeout(ControlBlock& cb, AckNews& news, bool recovered, Time now) {
  Flight& f = *cb.flight;
  // Step 3.b: what was never retransmitted has arrived, so the timeout was spurious.
  if (news.has(kOriginalArrived) && try_undo_loss(cb, news, true, now)) return true;
  if (cb.snd_nxt > cb.high_seq) {
    if (news.has(kNewlySacked) || news.duplicates > 0) f.frto = Frto::kNone;  // step 3.a: the loss was real
    return false;
  }
  if (!news.has(kUnaAdvanced) || recovered) return false;
  cb.high_seq = cb.snd_nxt;
  // Step 2.b: new data tells more than a retransmission.
  if (cb.write_seq != cb.snd_nxt && cb.snd_una + cb.snd_wnd > cb.snd_nxt) {
    f.frto = Frto::kNewData;
    news.repair = Repair::kNewData;
    return true;
  }
  f.frto = Frto::kNone;
  return false;
}

// After a timeout (Linux tcp_process_loss()).
void process_loss(ControlBlock& cb, AckNews& news, Time now) {
  Flight& f = *cb.flight;
  const bool recovered = cb.snd_una >= cb.high_seq;
  if (news.has(kUnaAdvanced) && try_undo_loss(cb, news, false, now)) return;
  if (f.frto != Frto::kNone && judge_timeout(cb, news, recovered, now)) return;
  if (recovered) {
    try_undo_recovery(cb, news, now);
    return;
  }
  if (!uses_sack(cb)) {
    if (cb.snd_nxt > cb.high_seq && news.duplicates > 0) {
      reno_add_duplicates(cb, news.duplicates);
    } else if (news.has(kUnaAdvanced)) {
      f.sacked = 0;
    }
  }
  news.repair = Repair::kLost;
}

// Open, Disorder or CWR, or what a Loss that was undone has become.
void look_for_loss(ControlBlock& cb, AckNews& news, Counters& counters, Time now) {
  Flight& f = *cb.flight;
  if (!uses_sack(cb)) {
    if (news.has(kUnaAdvanced)) f.sacked = 0;
    reno_add_duplicates(cb, news.duplicates);
  }
  if (cb.recovery <= RecoveryState::kDisorder) try_undo_by_dsack(cb, now);
  identify_loss(cb, news, now);
  if (f.lost == 0) {
    try_to_open(cb, news);
    return;
  }
  if (!size_probe_lost(cb)) enter_recovery(cb, news.has(kEcnEchoed), counters);
  news.repair = Repair::kLost;
}

void in_recovery(ControlBlock& cb, AckNews& news, Counters& counters, Time now) {
  if (!news.has(kUnaAdvanced)) {
    if (!uses_sack(cb)) reno_add_duplicates(cb, news.duplicates);
  } else if (try_undo_partial(cb, news, now)) {
    return;
  }
  if (try_undo_by_dsack(cb, now)) try_to_open(cb, news);
  identify_loss(cb, news, now);
  if (cb.recovery != RecoveryState::kRecovery) {
    if (cb.flight->lost == 0) return;
    enter_recovery(cb, news.has(kEcnEchoed), counters);  // undone, but a loss is evident
  }
  news.repair = Repair::kLost;
}

void in_loss(ControlBlock& cb, AckNews& news, Counters& counters, Time now) {
  process_loss(cb, news, now);
  identify_loss(cb, news, now);
  // On when the window was given back, or retransmissions were lost.
  if (cb.recovery == RecoveryState::kOpen || news.has(kRepeatLost)) look_for_loss(cb, news, counters, now);
}

// It may have been lost for its size: what arrives behind it does not show that the timeout was spurious.
bool size_probe_out(const ControlBlock& cb) noexcept { return cb.cold && cb.cold->path_mtu.probe != 0; }

// RFC 5681 3.1: not again for the retransmission of the same data (Linux tcp_enter_loss()).
bool first_timeout_of_window(const ControlBlock& cb) noexcept {
  return cb.recovery <= RecoveryState::kDisorder || cb.high_seq <= cb.snd_una ||
         (cb.recovery == RecoveryState::kLoss && cb.retries == 0);
}

}  // namespace

void set_recovery(ControlBlock& cb, RecoveryState next) {
  const CongestionOps& ops = congestion_ops(cb);
  if (ops.on_recovery != nullptr) ops.on_recovery(cb, next);
  cb.recovery = next;
}

void try_keep_open(ControlBlock& cb) {
  const Flight& f = *cb.flight;
  const bool open = f.sacked + f.lost == 0 && !any_repeat_out(cb);
  const RecoveryState next = open ? RecoveryState::kOpen : RecoveryState::kDisorder;
  if (cb.recovery == next) return;
  set_recovery(cb, next);
  cb.high_seq = cb.snd_nxt;
}

void recovery_on_ack(ControlBlock& cb, AckNews& news, Counters& counters, Time now) {
  Flight& f = *cb.flight;
  if (news.has(kEcnEchoed)) f.prior_ssthresh = 0;  // the reduction had a reason
  if (news.has(kReneging) && news.has(kUnaAdvanced)) {
    await_reneging(cb, news, now);
    return;
  }
  if (cb.recovery == RecoveryState::kOpen) {
    f.repeat_stamped = false;
  } else if (cb.snd_una >= cb.high_seq && leave_at_high_seq(cb, news, now)) {
    return;
  }
  switch (cb.recovery) {
    case RecoveryState::kRecovery:
      in_recovery(cb, news, counters, now);
      break;
    case RecoveryState::kLoss:
      in_loss(cb, news, counters, now);
      break;
    default:
      look_for_loss(cb, news, counters, now);
  }
}

void recovery_on_reorder_timer(ControlBlock& cb, Counters& counters, Time now) {
  const std::uint32_t lost_before = cb.lost;
  if (!rack_on_timer(cb, now)) return;
  if (cb.recovery != RecoveryState::kRecovery && !size_probe_lost(cb)) {
    enter_recovery(cb, false, counters);
    if (congestion_ops(cb).control == nullptr) reduce_window(cb, 1, cb.lost - lost_before, false);
  }
  cb.set(kMayRetransmit);
}

void repair_uncongested(ControlBlock& cb) {
  Flight& f = *cb.flight;
  cb.set(kMayRetransmit);
  if (cb.recovery == RecoveryState::kLoss) return;
  cb.high_seq = cb.snd_nxt;
  cb.ssthresh = current_ssthresh(cb);
  f.prior_ssthresh = 0;
  f.undo_possible = false;
  f.frto = Frto::kNone;
  set_recovery(cb, RecoveryState::kLoss);
}

void recovery_on_timeout(ControlBlock& cb, Time now) {
  Flight& f = *cb.flight;
  const bool fresh = cb.recovery < RecoveryState::kRecovery;
  const bool substantial = f.sacked >= kDefaultReordering;
  mark_lost_by_timeout(cb, now);
  if (first_timeout_of_window(cb)) {
    f.prior_ssthresh = current_ssthresh(cb);
    f.prior_cwnd = cb.cwnd;
    cb.ssthresh = congestion_ops(cb).ssthresh(cb);
    raise_event(cb, CongestionEvent::kTimeout, now);
    begin_undo(cb);
  }
  set_cwnd(cb, packets_in_flight(cb) + 1);  // the loss window
  cb.cwnd_count = 0;
  cb.cwnd_stamp = to_tick(now);
  // So many duplicates without a recovery: the degree of reordering was thought too large.
  if (cb.recovery <= RecoveryState::kDisorder && substantial)
    cb.reordering = std::min(cb.reordering, kDefaultReordering);
  set_recovery(cb, RecoveryState::kLoss);
  cb.high_seq = cb.snd_nxt;
  f.probe_out = false;
  if ((cb.options & kOptEcn) != 0) cb.set(kEcnSendCwr);
  // RFC 5682 3.1 step 1, and not within an older recovery, nor while a size is probed for (as Linux).
  f.frto = (fresh || cb.retries > 0) && !size_probe_out(cb) ? Frto::kWaiting : Frto::kNone;
  cb.set(kMayRetransmit);
}

}  // namespace twinstack::tcp
