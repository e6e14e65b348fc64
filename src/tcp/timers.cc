#include "tcp/timers.h"

#include <algorithm>

#include "tcp/burst.h"
#include "tcp/connection.h"
#include "tcp/flight.h"
#include "tcp/loss_probe.h"
#include "tcp/pacing.h"
#include "tcp/path_mtu.h"
#include "tcp/recovery.h"
#include "tcp/rtt.h"
#include "tcp/transmit.h"

namespace twinstack::tcp {

namespace {

bool due(Tick deadline, Time now) noexcept { return static_cast<std::int32_t>(to_tick(now) - deadline) >= 0; }

Duration user_timeout(const ControlBlock& cb) noexcept { return std::chrono::milliseconds(cb.user_timeout_ms); }

// The timer has fired before, and nothing has come of it. Only from then on does the user timeout count: however short
// it is, something is sent once more (as Linux).
bool has_tried(const ControlBlock& cb, SenderTimer which) noexcept {
  return which == SenderTimer::kPersist ? cb.backoff > 0 : cb.retries > 0;
}

// How long that is ago (Linux icsk_probes_tstamp, retrans_stamp; which a fast retransmission before it sets as well).
// REQUIRES: has_tried().
Duration tried_for(const ControlBlock& cb, SenderTimer which, Time now) noexcept {
  return which == SenderTimer::kPersist || !cb.flight ? stalled_for(cb, now) : now - cb.flight->timed_out_at;
}

// The interval, cut so that the user timeout is met on time (as Linux tcp_clamp_rto_to_user_timeout).
Duration within_user_timeout(const ControlBlock& cb, SenderTimer which, Duration interval, Time now) noexcept {
  const Duration left = user_timeout(cb) - tried_for(cb, which, now);
  return std::clamp(interval, Duration(std::chrono::milliseconds(1)),
                    std::max(left, Duration(std::chrono::milliseconds(1))));
}

bool outlasted_by_user(const ControlBlock& cb, SenderTimer which, Time now) noexcept {
  return cb.user_timeout_ms != 0 && has_tried(cb, which) && tried_for(cb, which, now) >= user_timeout(cb);
}

// A window that was closed with data out: our retransmissions are its probes, and a peer that answers them is alive,
// however many there are (Linux tcp_rtx_probe0_timed_out()).
bool is_silent(const ControlBlock& cb, Time now) noexcept {
  constexpr Duration kLongest = 2 * Duration(std::chrono::seconds(120));
  const Time since = cb.flight->timed_out_at;
  return since != Time{} && now - since > kLongest && age(cb.last_receive, now) > kLongest;
}

bool exhausted(const ControlBlock& cb, SenderTimer which, Time now) noexcept {
  if (outlasted_by_user(cb, which, now)) return true;
  if (which == SenderTimer::kPersist) return cb.probes_out >= kMaxRetries;
  if (cb.user_timeout_ms != 0) return false;
  return cb.snd_wnd == 0 ? is_silent(cb, now) : cb.retries >= kMaxRetries;
}

void start_sender_timer(ControlBlock& cb, SenderTimer which, Time now) noexcept {
  arm_sender_timer(cb, which, backed_off_rto(cb), now);
}

void back_off(ControlBlock& cb) noexcept {
  if (cb.backoff < 16) ++cb.backoff;
}

void count_probe(ControlBlock& cb) noexcept {
  if (cb.probes_out < UINT8_MAX) ++cb.probes_out;
}

TimerVerdict fire_retransmit(ControlBlock& cb, Host& host, Time now) {
  if (packets_out(cb) == 0) return TimerVerdict::kNothing;
  if (exhausted(cb, SenderTimer::kRetransmit, now)) {
    start_sender_timer(cb, SenderTimer::kRetransmit, now);  // the upload takes its time
    return TimerVerdict::kToSoftware;
  }
  if (cb.flight->timed_out_at == Time{}) cb.flight->timed_out_at = now;
  suspect_black_hole(cb, now);
  recovery_on_timeout(cb, now);
  const bool is_probe = cb.snd_wnd == 0 && cb.user_timeout_ms == 0;
  if (!is_probe && cb.retries < 255) ++cb.retries;
  back_off(cb);
  Counters& counters = host.counters();
  if (counters.timeouts < UINT16_MAX) ++counters.timeouts;
  start_sender_timer(cb, SenderTimer::kRetransmit, now);
  return TimerVerdict::kFired;
}

// RFC 8985 7.3: at most one probe at a time. poll_transmit() sends it.
TimerVerdict fire_loss_probe(ControlBlock& cb, Time now) {
  if (cb.flight && !cb.flight->probe_out) cb.set(kProbeLossNow);
  rearm_retransmit(cb, now);
  return TimerVerdict::kFired;
}

TimerVerdict fire_reorder(ControlBlock& cb, Host& host, Time now) {
  if (packets_out(cb) > 0) recovery_on_reorder_timer(cb, host.counters(), now);
  rearm_retransmit(cb, now);
  return TimerVerdict::kFired;
}

// RFC 9293 3.8.6.1: what the window admits, be it small, else a probe that asks for an ACK.
TimerVerdict fire_persist(ControlBlock& cb, Time now) {
  if (exhausted(cb, SenderTimer::kPersist, now)) {
    start_sender_timer(cb, SenderTimer::kPersist, now);
    return TimerVerdict::kToSoftware;
  }
  if (!has_tried(cb, SenderTimer::kPersist)) cb.stall_since = to_coarse_tick(now);
  const bool open = cb.snd_una + cb.snd_wnd > cb.snd_nxt;
  cb.set(open ? kForceSend : kProbeNow);
  if (open) push_next(cb, full_segment_bytes(cb));
  if (!open) count_probe(cb);
  back_off(cb);
  start_sender_timer(cb, SenderTimer::kPersist, now);
  return TimerVerdict::kFired;
}

// The sender's timer is due. It is off when the function of its kind does not arm it anew.
TimerVerdict fire_sender(ControlBlock& cb, Host& host, Time now) {
  const SenderTimer which = cb.sender_timer;
  if (which != SenderTimer::kReorder && which != SenderTimer::kLossProbe) cb.sender_timer = SenderTimer::kNone;
  switch (which) {
    case SenderTimer::kRetransmit:
      return fire_retransmit(cb, host, now);
    case SenderTimer::kLossProbe:
      return fire_loss_probe(cb, now);
    case SenderTimer::kReorder:
      return fire_reorder(cb, host, now);
    case SenderTimer::kPersist:
      return fire_persist(cb, now);
    case SenderTimer::kNone:
      break;
  }
  return TimerVerdict::kNothing;
}

Duration keepalive_idle(const ControlBlock& cb) noexcept { return std::chrono::seconds(cb.keepalive_idle_s); }

void set_keepalive_deadline(ControlBlock& cb, Time at) noexcept {
  cb.keepalive_deadline = to_tick_ceil(at);
  cb.set(kKeepaliveArmed);
}

// RFC 9293 3.8.4. Arrivals do not move the timer; it looks back when it fires.
TimerVerdict fire_keepalive(ControlBlock& cb, Time now) {
  const bool busy = cb.snd_una != cb.write_seq;  // the other timers watch the peer
  const Duration quiet = cb.probes_out == 0 ? age(cb.last_receive, now) : stalled_for(cb, now);
  if (busy || quiet < keepalive_idle(cb)) {
    if (!busy) cb.probes_out = 0;
    set_keepalive_deadline(cb, busy ? now + keepalive_idle(cb) : now + (keepalive_idle(cb) - quiet));
    return TimerVerdict::kNothing;
  }
  if (cb.probes_out == 0) cb.stall_since = to_coarse_tick(now - quiet);
  const bool timed_out = cb.user_timeout_ms != 0 && cb.probes_out > 0 && stalled_for(cb, now) >= user_timeout(cb);
  set_keepalive_deadline(cb, now + std::chrono::seconds(cb.keepalive_interval_s));
  if (timed_out || (cb.user_timeout_ms == 0 && cb.probes_out >= cb.keepalive_probes)) return TimerVerdict::kToSoftware;
  count_probe(cb);
  cb.set(kProbeNow);
  return TimerVerdict::kFired;
}

TimerVerdict fire_delayed_ack(ControlBlock& cb) noexcept {
  cb.clear(kAckArmed);
  if (cb.has(kPingPong)) {  // no answer came in time (as Linux tcp_delack_timer_handler())
    cb.clear(kPingPong);
    cb.ack_timeout_ms = kShortestAckTimeoutMs;
  } else {
    const std::uint32_t longest = std::min<std::uint32_t>(cb.rto_us / 1000, UINT16_MAX);
    cb.ack_timeout_ms = static_cast<std::uint16_t>(std::min<std::uint32_t>(cb.ack_timeout_ms * 2U, longest));
  }
  cb.set(kAckOwed | kAckNow);
  return TimerVerdict::kFired;
}

// poll_transmit() has something, or says anew when.
TimerVerdict end_pacing_hold(ControlBlock& cb) noexcept {
  cb.clear(kPacingHolds);
  return TimerVerdict::kFired;
}

}  // namespace

void arm_sender_timer(ControlBlock& cb, SenderTimer which, Duration after, Time now) noexcept {
  const bool watches_peer = which == SenderTimer::kRetransmit || which == SenderTimer::kPersist;
  const bool bounded = watches_peer && cb.user_timeout_ms != 0 && has_tried(cb, which);
  cb.sender_deadline = to_tick_ceil(now + (bounded ? within_user_timeout(cb, which, after, now) : after));
  cb.sender_timer = which;
}

Duration time_to_rto(const ControlBlock& cb, Time now) noexcept {
  return cb.flight->sent.front().sent + backed_off_rto(cb) - now;
}

void rearm_retransmit(ControlBlock& cb, Time now) noexcept {
  if (packets_out(cb) == 0) {
    disarm_retransmit(cb);
    return;
  }
  const bool stood_in = cb.sender_timer == SenderTimer::kReorder || cb.sender_timer == SenderTimer::kLossProbe;
  const Duration after =
      stood_in ? std::max(time_to_rto(cb, now), Duration(std::chrono::milliseconds(1))) : backed_off_rto(cb);
  arm_sender_timer(cb, SenderTimer::kRetransmit, after, now);
}

void disarm_retransmit(ControlBlock& cb) noexcept {
  if (cb.sender_timer != SenderTimer::kPersist) cb.sender_timer = SenderTimer::kNone;
}

void restart_sender_timer(ControlBlock& cb, Time now) {
  if (!schedule_loss_probe(cb, true, now)) rearm_retransmit(cb, now);
}

void arm_persist(ControlBlock& cb, Time now) noexcept {
  if (cb.sender_timer == SenderTimer::kPersist) return;
  cb.stall_since = to_coarse_tick(now);
  start_sender_timer(cb, SenderTimer::kPersist, now);
}

void put_off_probe(ControlBlock& cb, Time now) noexcept {
  if (cb.sender_timer != SenderTimer::kPersist || window_admits_next(cb)) return;
  start_sender_timer(cb, SenderTimer::kPersist, now);
}

void end_persist(ControlBlock& cb, Time now) noexcept {
  if (cb.sender_timer == SenderTimer::kPersist) {
    cb.backoff = 0;
    cb.stall_since = to_coarse_tick(now);
    cb.sender_timer = SenderTimer::kNone;
  }
  cb.clear(kProbeNow | kForceSend);
}

// Linux tcp_send_delayed_ack(): the peer's pace, but never much longer than a round trip.
void arm_delayed_ack(ControlBlock& cb, Time now) noexcept {
  std::uint32_t wait_ms = std::max(cb.ack_timeout_ms, kShortestAckTimeoutMs);
  if (wait_ms > kShortestAckTimeoutMs) {
    std::uint32_t longest = cb.has(kPingPong) ? kLongestAckTimeoutMs : 500;
    if (cb.srtt_us8 != 0) {
      longest = std::min(longest, std::max<std::uint32_t>(smoothed_rtt_us(cb) / 1000, kShortestAckTimeoutMs));
    }
    wait_ms = std::min({wait_ms, longest, std::uint32_t{kLongestAckTimeoutMs}});
  }
  const Tick deadline = to_tick_ceil(now + std::chrono::milliseconds(wait_ms));
  if (cb.has(kAckArmed) && static_cast<std::int32_t>(deadline - cb.ack_deadline) >= 0) return;
  cb.ack_deadline = deadline;
  cb.set(kAckArmed);
}

void arm_keepalive(ControlBlock& cb, Time now) noexcept {
  cb.clear(kKeepaliveArmed);
  if ((cb.flags & kFlagKeepalive) != 0 && cb.keepalive_idle_s > 0) set_keepalive_deadline(cb, now + keepalive_idle(cb));
}

bool window_admits_next(const ControlBlock& cb) noexcept {
  const std::uint32_t next = std::min(bytes_between(cb.snd_nxt, cb.write_seq), full_segment_bytes(cb));
  return cb.snd_una + cb.snd_wnd >= cb.snd_nxt + next;
}

TimerVerdict on_timer(ControlBlock& cb, Host& host, Time now) {
  TimerVerdict verdict = TimerVerdict::kNothing;
  const auto note = [&](TimerVerdict more) { verdict = std::max(verdict, more); };
  if (cb.has(kAckArmed) && due(cb.ack_deadline, now)) note(fire_delayed_ack(cb));
  if (cb.sender_timer != SenderTimer::kNone && due(cb.sender_deadline, now)) note(fire_sender(cb, host, now));
  if (cb.has(kKeepaliveArmed) && due(cb.keepalive_deadline, now)) note(fire_keepalive(cb, now));
  if (cb.has(kPacingHolds) && pacing_release(cb) <= now) note(end_pacing_hold(cb));
  if (verdict == TimerVerdict::kToSoftware) cb.set(kGaveUp);
  return verdict;
}

Time next_deadline(const ControlBlock& cb, Time now) {
  Time next = kNever;
  if (cb.sender_timer != SenderTimer::kNone) next = tick_start(cb.sender_deadline, now);
  if (cb.has(kAckArmed)) next = std::min(next, tick_start(cb.ack_deadline, now));
  if (cb.has(kKeepaliveArmed)) next = std::min(next, tick_start(cb.keepalive_deadline, now));
  if (cb.has(kPacingHolds)) next = std::min(next, pacing_release(cb));
  return next;
}

}  // namespace twinstack::tcp
