#include "tcp/cwnd_use.h"

#include <algorithm>

#include "tcp/congestion/congestion.h"
#include "tcp/flight.h"
#include "tcp/reduction.h"

namespace twinstack::tcp {

namespace {

Duration rto(const ControlBlock& cb) noexcept { return std::chrono::microseconds(cb.rto_us); }

// RFC 2861 3.2: half way down to what was used.
void lower_unused(ControlBlock& cb, Tick now) noexcept {
  const std::uint32_t used = std::max(cb.cwnd_used, kInitialWindow);
  if (cb.recovery == RecoveryState::kOpen && used < cb.cwnd) {
    cb.ssthresh = current_ssthresh(cb);
    set_cwnd(cb, (cb.cwnd + used) / 2);
  }
  cb.cwnd_used = 0;
  cb.cwnd_stamp = now;
}

}  // namespace

void note_cwnd_use(ControlBlock& cb, bool limited, Time now) {
  Flight& f = flight_of(cb);
  const std::uint32_t out = f.sent.size();
  const bool new_window = cb.snd_una >= f.cwnd_usage_seq;
  if (new_window || limited || (!cb.has(kCwndLimited) && out > f.max_packets_out)) {
    cb.clear(kCwndLimited);
    if (limited) cb.set(kCwndLimited);
    f.max_packets_out = out;
    f.cwnd_usage_seq = cb.snd_nxt;
  }
  const Tick tick = to_tick(now);
  if (cwnd_was_limit(cb)) {
    cb.cwnd_used = 0;
    cb.cwnd_stamp = tick;
    return;
  }
  cb.cwnd_used = std::max(cb.cwnd_used, out);
  const bool keeps = congestion_ops(cb).control != nullptr || cb.has(kKeepWindowIdle);
  if (!keeps && age(cb.cwnd_stamp, now) >= rto(cb)) lower_unused(cb, tick);
}

bool cwnd_was_limit(const ControlBlock& cb) noexcept {
  if (cb.has(kCwndLimited)) return true;
  return in_slow_start(cb) && cb.flight && cb.cwnd < 2 * cb.flight->max_packets_out;
}

void restart_after_idle(ControlBlock& cb, Time now) {
  if (packets_out(cb) > 0 || congestion_ops(cb).control != nullptr || cb.has(kKeepWindowIdle)) return;
  if (cb.sender_timer == SenderTimer::kPersist) return;  // when the window opens (Linux tcp_ack_update_window())
  Duration idle = age(cb.last_send, now) - rto(cb);
  if (idle <= Duration::zero()) return;
  raise_event(cb, CongestionEvent::kRestart, now);
  cb.ssthresh = current_ssthresh(cb);
  const std::uint32_t least = std::min(kInitialWindow, cb.cwnd);
  std::uint32_t cwnd = cb.cwnd;
  for (; idle > Duration::zero() && cwnd > least; idle -= rto(cb)) cwnd /= 2;
  set_cwnd(cb, std::max(cwnd, least));
  cb.cwnd_stamp = to_tick(now);
  cb.cwnd_used = 0;
}

}  // namespace twinstack::tcp
