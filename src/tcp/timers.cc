#include "tcp/timers.h"

#include <algorithm>

#include "tcp/connection.h"
#include "tcp/recovery.h"
#include "tcp/rtt.h"
#include "tcp/transmit.h"

namespace twinstack::tcp {

namespace {

bool due(Tick deadline, Time now) noexcept { return static_cast<std::int32_t>(to_tick(now) - deadline) >= 0; }

Duration user_timeout(const ControlBlock& cb) noexcept { return std::chrono::milliseconds(cb.user_timeout_ms); }

Duration stalled_for(const ControlBlock& cb, Time now) noexcept { return ticks_between(cb.stall_since, to_tick(now)); }

// The interval, cut so that the user timeout is met on time (as Linux tcp_clamp_rto_to_user_timeout).
Duration within_user_timeout(const ControlBlock& cb, Duration interval, Time now) noexcept {
  if (cb.user_timeout_ms == 0) return interval;
  const Duration left = user_timeout(cb) - stalled_for(cb, now);
  return std::clamp(interval, Duration(std::chrono::milliseconds(1)),
                    std::max(left, Duration(std::chrono::milliseconds(1))));
}

bool exhausted(const ControlBlock& cb, std::uint8_t tries, Time now) noexcept {
  if (cb.user_timeout_ms != 0) return stalled_for(cb, now) >= user_timeout(cb);
  return tries >= kMaxRetries;
}

void start_shared_timer(ControlBlock& cb, StateBit which, Time now) noexcept {
  cb.retransmit_deadline = to_tick_ceil(now + within_user_timeout(cb, backed_off_rto(cb), now));
  cb.clear(kRetransmitArmed | kPersistArmed);
  cb.set(which);
}

void back_off(ControlBlock& cb) noexcept {
  if (cb.backoff < 16) ++cb.backoff;
}

TimerVerdict fire_retransmit(ControlBlock& cb, Host& host, Time now) {
  if (exhausted(cb, cb.retries, now)) {
    start_shared_timer(cb, kRetransmitArmed, now);  // the upload takes its time: no spinning meanwhile
    return TimerVerdict::kToSoftware;
  }
  recovery_on_timeout(cb);
  ++cb.retries;
  back_off(cb);
  ++host.counters().timeouts;
  start_shared_timer(cb, kRetransmitArmed, now);
  return TimerVerdict::kFired;
}

// RFC 9293 3.8.6.1: what the window admits, be it small, else a probe that asks for an ACK.
TimerVerdict fire_persist(ControlBlock& cb, Time now) {
  if (exhausted(cb, cb.probes_out, now)) {
    start_shared_timer(cb, kPersistArmed, now);
    return TimerVerdict::kToSoftware;
  }
  const bool open = cb.snd_una + cb.snd_wnd > cb.snd_nxt;
  cb.set(open ? kForceSend : kProbeNow);
  if (!open) ++cb.probes_out;
  back_off(cb);
  start_shared_timer(cb, kPersistArmed, now);
  return TimerVerdict::kFired;
}

Duration keepalive_idle(const ControlBlock& cb) noexcept { return std::chrono::seconds(cb.keepalive_idle_s); }

void set_keepalive_deadline(ControlBlock& cb, Time at) noexcept {
  cb.keepalive_deadline = to_tick_ceil(at);
  cb.set(kKeepaliveArmed);
}

// RFC 9293 3.8.4. Arrivals do not move the timer; it looks back when it fires.
TimerVerdict fire_keepalive(ControlBlock& cb, Time now) {
  const bool busy = cb.snd_una != cb.write_seq;  // the other timers watch the peer
  const Duration quiet = ticks_between(cb.last_receive, to_tick(now));
  if (busy || quiet < keepalive_idle(cb)) {
    if (!busy) cb.probes_out = 0;
    set_keepalive_deadline(cb, busy ? now + keepalive_idle(cb) : now + (keepalive_idle(cb) - quiet));
    return TimerVerdict::kNothing;
  }
  const bool timed_out = cb.user_timeout_ms != 0 && cb.probes_out > 0 && quiet >= user_timeout(cb);
  set_keepalive_deadline(cb, now + std::chrono::seconds(cb.keepalive_interval_s));
  if (timed_out || (cb.user_timeout_ms == 0 && cb.probes_out >= cb.keepalive_probes)) return TimerVerdict::kToSoftware;
  ++cb.probes_out;
  cb.set(kProbeNow);
  return TimerVerdict::kFired;
}

TimerVerdict fire_delayed_ack(ControlBlock& cb) noexcept {
  cb.clear(kAckArmed);
  cb.set(kAckOwed | kAckNow);
  return TimerVerdict::kFired;
}

}  // namespace

void arm_retransmit(ControlBlock& cb, Time now) noexcept { start_shared_timer(cb, kRetransmitArmed, now); }

void disarm_retransmit(ControlBlock& cb) noexcept { cb.clear(kRetransmitArmed); }

void arm_persist(ControlBlock& cb, Time now) noexcept {
  if (cb.has(kPersistArmed)) return;
  cb.stall_since = to_tick(now);
  start_shared_timer(cb, kPersistArmed, now);
}

void end_persist(ControlBlock& cb, Time now) noexcept {
  if (cb.has(kPersistArmed)) {
    cb.backoff = 0;
    cb.stall_since = to_tick(now);
  }
  cb.clear(kPersistArmed | kProbeNow | kForceSend);
}

void arm_delayed_ack(ControlBlock& cb, Time now) noexcept {
  if (cb.has(kAckArmed)) return;
  cb.ack_deadline = to_tick_ceil(now + kDelayedAck);
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
  if (cb.has(kRetransmitArmed) && due(cb.retransmit_deadline, now)) {
    note(fire_retransmit(cb, host, now));
  } else if (cb.has(kPersistArmed) && due(cb.retransmit_deadline, now)) {
    note(fire_persist(cb, now));
  }
  if (cb.has(kKeepaliveArmed) && due(cb.keepalive_deadline, now)) note(fire_keepalive(cb, now));
  return verdict;
}

Time next_deadline(const ControlBlock& cb, Time now) {
  Time next = kNever;
  if (cb.has(kRetransmitArmed | kPersistArmed)) next = tick_start(cb.retransmit_deadline, now);
  if (cb.has(kAckArmed)) next = std::min(next, tick_start(cb.ack_deadline, now));
  if (cb.has(kKeepaliveArmed)) next = std::min(next, tick_start(cb.keepalive_deadline, now));
  return next;
}

}  // namespace twinstack::tcp
