#include "tcp/ack.h"

#include <algorithm>

#include "tcp/congestion/congestion.h"
#include "tcp/recovery.h"
#include "tcp/rtt.h"
#include "tcp/timers.h"
#include "tcp/timestamps.h"

namespace twinstack::tcp {

namespace {

// RFC 9293 3.10.7.4: a newer segment's window replaces ours. An ACK that repeats the last one counts when it opens the
// window (instead of SND.WL2, as Linux does). True when snd_wnd changed.
bool update_send_window(ControlBlock& cb, const wire::Segment& segment) noexcept {
  const std::uint32_t window = std::uint32_t{segment.window} << cb.snd_wscale;
  const bool opens_or_closes = window > cb.snd_wnd || window == 0;  // the latter: a peer without memory (Linux 6.6)
  const bool newer =
      segment.ack > cb.snd_una || segment.seq > cb.snd_wl1 || (segment.seq == cb.snd_wl1 && opens_or_closes);
  if (!newer) return false;
  cb.snd_wl1 = segment.seq;
  if (window == cb.snd_wnd) return false;
  cb.snd_wnd = window;
  cb.max_window = std::max(cb.max_window, window);
  return true;
}

// One round trip from this ACK: the timed segment, or the echo when nothing was timed (after a retransmission).
void measure_rtt(ControlBlock& cb, const wire::Segment& segment, Time now) noexcept {
  if (take_timed_sample(cb, now) || cb.has(kRttTiming)) return;
  const std::uint32_t echo_us = rtt_from_echo_us(cb, segment, now);
  if (echo_us > 0) add_rtt_sample(cb, echo_us);
}

void advance(ControlBlock& cb, const wire::Segment& segment, Host& host, Time now) {
  host.counters().bytes_acked += bytes_between(cb.snd_una, segment.ack);
  cb.snd_una = segment.ack;
  cb.retries = 0;
  measure_rtt(cb, segment, now);
}

// RFC 6298 5.2, 5.3; the persist timer ends when the window opens or the probe's answer shows data.
void update_timers(ControlBlock& cb, bool progress, Time now) noexcept {
  if (progress) {
    cb.stall_since = to_tick(now);
    if (cb.snd_una == cb.snd_nxt) {
      disarm_retransmit(cb);
    } else {
      arm_retransmit(cb, now);
    }
  }
  if (cb.has(kPersistArmed) && window_admits_next(cb)) end_persist(cb, now);
}

// Linux tcp_is_cwnd_limited: in slow start an application that used half the window is let grow it.
bool was_cwnd_limited(const ControlBlock& cb) noexcept {
  if (cb.has(kCwndLimited)) return true;
  return in_slow_start(cb) && cb.cwnd < 2 * cb.max_flight_bytes;
}

}  // namespace

bool ack_acceptable(const ControlBlock& cb, Seq ack) noexcept {
  const Seq highest = cb.has(kOtherStackSends) ? cb.write_seq : cb.snd_nxt;
  return ack <= highest && ack - cb.snd_una >= -static_cast<std::int64_t>(cb.max_window);
}

void process_ack(ControlBlock& cb, const wire::Segment& segment, std::uint32_t payload_bytes, Host& host, Time now) {
  cb.probes_out = 0;
  if (segment.ack < cb.snd_una) return;       // old, reordered: nothing in it is newer than what we know
  cb.snd_nxt = max(cb.snd_nxt, segment.ack);  // sent by the other stack
  const bool outstanding = cb.snd_una != cb.snd_nxt;
  const bool window_changed = update_send_window(cb, segment);
  AckNews news;
  news.acked_bytes = bytes_between(cb.snd_una, segment.ack);
  if (news.acked_bytes > 0) advance(cb, segment, host, now);
  news.sacked_bytes = take_sack_option(cb, segment);
  const bool repeats = outstanding && news.acked_bytes == 0;
  const bool bare = repeats && payload_bytes == 0 && !window_changed;  // RFC 5681 2
  news.duplicate = (cb.options & kOptSack) != 0 ? repeats && news.sacked_bytes > 0 : bare;

  if ((cb.options & kOptEcn) != 0 && segment.has(wire::kEce)) recovery_on_ecn_echo(cb);
  const bool could_grow = may_grow_cwnd(cb);  // not on the ACK that ends a recovery: it acknowledges a whole window
  recovery_on_ack(cb, news, host.counters());
  if (news.acked_bytes > 0 && could_grow && may_grow_cwnd(cb) && was_cwnd_limited(cb)) {
    congestion_ops(cb.congestion_kind).on_ack(cb, news.acked_bytes, now);
  }
  update_timers(cb, news.acked_bytes > 0, now);
}

}  // namespace twinstack::tcp
