#include "tcp/transmit.h"

#include <algorithm>

#include "tcp/cold_state.h"
#include "tcp/congestion/congestion.h"
#include "tcp/connection.h"
#include "tcp/reassembly.h"
#include "tcp/recovery.h"
#include "tcp/rtt.h"
#include "tcp/timers.h"
#include "tcp/timestamps.h"
#include "tcp/window.h"
#include "wire/tcp_options.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint32_t kSmallestHalfWindow = 68 - 40;  // as Linux tcp_bound_to_half_wnd
constexpr std::uint32_t kDefaultMss = 536;
constexpr std::uint32_t kInitialWindowSegments = 10;  // RFC 6928

Seq send_edge(const ControlBlock& cb) noexcept { return cb.snd_una + cb.snd_wnd; }

// The options every segment carries, and SACK blocks when there are any.
void fill_options(const ControlBlock& cb, Time now, wire::TcpOptions& options) {
  if ((cb.options & kOptTimestamps) != 0) {
    options.has_timestamps = true;
    options.ts_val = ts_clock(cb, now);
    options.ts_ecr = cb.has(kTsRecentValid) ? cb.ts_recent : 0;
  }
  fill_sack_blocks(cb, options);
}

// Payload that fits beside the SACK blocks in a full segment.
std::uint32_t payload_limit(const ControlBlock& cb, const wire::TcpOptions& options) noexcept {
  const std::uint32_t full = full_segment_bytes(cb);
  if (options.sack_count == 0) return full;
  const std::uint32_t sack_bytes = 4 + 8U * options.sack_count;
  return full > sack_bytes + kSmallestHalfWindow ? full - sack_bytes : full;
}

// Everything that is the same for every segment; it carries the ACK that may be owed.
void complete(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  wire::Segment& segment = plan.segment;
  segment.ack = cb.rcv_nxt;
  segment.window = offer_window(cb, host);
  segment.flags = static_cast<std::uint8_t>(segment.flags | wire::kAck | (cb.has(kEcnEcho) ? wire::kEce : 0));
  if (segment.options.sack_count > 0) sack_blocks_sent(cb);
  if (cb.has(kAckOwed)) {
    // An answer that carries the ACK: the connection is interactive, ACKs may wait for answers again (as Linux).
    if (plan.payload_bytes > 0) cb.quick_acks = 0;
    if (cb.quick_acks > 0) --cb.quick_acks;
  }
  cb.clear(kAckOwed | kAckNow | kAckArmed);

  Counters& counters = host.counters();
  ++counters.segs_out;
  if (plan.payload_bytes == 0) return;
  ++counters.data_segs_out;
  counters.bytes_sent += plan.payload_bytes;
  cb.last_send = to_tick(now);
  if (!plan.retransmission) return;
  ++counters.segs_retransmitted;
  counters.bytes_retransmitted += plan.payload_bytes;
}

// Linux tcp_cwnd_validate: whether cwnd was what held data back is judged over one window; what was not used may not
// grow (RFC 7661's aim).
void note_cwnd_usage(ControlBlock& cb, bool limited) {
  const std::uint32_t flight = in_flight_bytes(cb);
  const bool new_window = cb.snd_una >= cb.cwnd_usage_seq;
  if (!new_window && !limited && (cb.has(kCwndLimited) || flight <= cb.max_flight_bytes)) return;
  cb.clear(kCwndLimited);
  if (limited) cb.set(kCwndLimited);
  cb.max_flight_bytes = flight;
  cb.cwnd_usage_seq = cb.snd_nxt;
}

// RFC 5681 4.1: after an idle RTO the window decays, halved for each (as Linux tcp_cwnd_restart).
void restart_after_idle(ControlBlock& cb, Time now) {
  const Duration idle = ticks_between(cb.last_send, to_tick(now));
  congestion_ops(cb.congestion_kind).on_restart(cb, std::max(idle, Duration::zero()));
  const Duration rto = std::chrono::microseconds(cb.rto_us);
  if (idle <= rto) return;
  const std::uint32_t restart = std::min(kInitialWindowSegments * cb.mss, cb.cwnd);
  cb.ssthresh = std::max(cb.ssthresh, cb.cwnd - cb.cwnd / 4);
  std::uint32_t cwnd = cb.cwnd;
  for (Duration left = idle - rto; left > Duration::zero() && cwnd > restart; left -= rto) cwnd /= 2;
  cb.cwnd = std::max(cwnd, restart);
}

bool plan_retransmission(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  const wire::SackBlock hole = next_retransmission(cb);
  if (hole.left == hole.right) {
    cb.clear(kForceRetransmit);
    return false;
  }
  fill_options(cb, now, plan.segment.options);
  const std::uint32_t length = std::min(bytes_between(hole.left, hole.right), payload_limit(cb, plan.segment.options));
  if (!cb.has(kForceRetransmit) && in_flight_bytes(cb) + length > cb.cwnd) {
    note_cwnd_usage(cb, true);
    return false;
  }
  // A peer that took its window back still gets the first segment, again and again (as Linux).
  if (hole.left != cb.snd_una && hole.left + length > send_edge(cb)) return false;
  plan.segment.seq = hole.left;
  plan.payload_bytes = length;
  plan.retransmission = true;
  const Seq end = hole.left + length;
  if (end == cb.write_seq) plan.segment.flags |= wire::kPsh;
  retransmitted(cb, end);
  if (!cb.has(kRetransmitArmed) || hole.left == cb.snd_una) arm_retransmit(cb, now);
  complete(cb, host, now, plan);
  return true;
}

// Nagle in Minshall's variant, and cork (RFC 9293 3.7.4): may a segment under the full size go?
bool partial_may_go(const ControlBlock& cb) noexcept {
  if (cb.has(kForceSend)) return true;
  if ((cb.flags & (kFlagCork | kMoreFollows)) != 0) return false;
  if ((cb.flags & kFlagNoDelay) != 0) return true;
  const bool small_one_out = cb.snd_sml > cb.snd_una && cb.snd_sml <= cb.snd_nxt;
  return !small_one_out;
}

// How much new data may go now; 0 when none may.
std::uint32_t sendable(ControlBlock& cb, std::uint32_t limit) {
  const std::uint32_t unsent = bytes_between(cb.snd_nxt, cb.write_seq);
  std::uint32_t length = std::min(unsent, limit);
  const std::int32_t window = send_edge(cb) - cb.snd_nxt;
  if (window <= 0) return 0;
  if (length > static_cast<std::uint32_t>(window)) {
    if (!cb.has(kForceSend)) return 0;  // RFC 9293 3.8.6.2.1: no small piece of a large one
    length = static_cast<std::uint32_t>(window);
  }
  if (length < limit && !partial_may_go(cb)) return 0;
  if (in_flight_bytes(cb) + length > std::max(cb.cwnd, limit)) {
    note_cwnd_usage(cb, true);
    return 0;
  }
  return length;
}

void mark_ecn(ControlBlock& cb, SegmentPlan& plan) noexcept {
  if ((cb.options & kOptEcn) == 0) return;
  plan.segment.ecn = wire::Ecn::kEct0;  // RFC 3168 6.1.1: new data only, never retransmissions or bare ACKs
  if (!cb.has(kEcnSendCwr)) return;
  plan.segment.flags |= wire::kCwr;
  cb.clear(kEcnSendCwr);
}

void account_new_data(ControlBlock& cb, std::uint32_t length, std::uint32_t limit, Time now) {
  if (cb.snd_una == cb.snd_nxt) {
    restart_after_idle(cb, now);
    end_persist(cb, now);
    cb.stall_since = to_tick(now);
  }
  cb.snd_nxt += length;
  if (length < limit) cb.snd_sml = cb.snd_nxt;
  start_rtt_timing(cb, cb.snd_nxt, now);
  if (!cb.has(kRetransmitArmed)) arm_retransmit(cb, now);
  note_cwnd_usage(cb, false);
}

bool plan_new_data(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  if (cb.snd_nxt == cb.write_seq || cb.has(kDraining)) return false;
  fill_options(cb, now, plan.segment.options);
  const std::uint32_t limit = payload_limit(cb, plan.segment.options);
  const std::uint32_t length = sendable(cb, limit);
  if (length == 0) return false;
  plan.segment.seq = cb.snd_nxt;
  plan.payload_bytes = length;
  mark_ecn(cb, plan);
  account_new_data(cb, length, limit, now);
  if (cb.snd_nxt == cb.write_seq) plan.segment.flags |= wire::kPsh;  // RFC 9293 3.9.1.2
  complete(cb, host, now, plan);
  return true;
}

// Zero-window and keepalive probes: a sequence number that the peer has passed, so that it must answer (RFC
// 9293 3.8.4).
bool plan_probe(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  if (!cb.has(kProbeNow)) return false;
  cb.clear(kProbeNow);
  fill_options(cb, now, plan.segment.options);
  plan.segment.seq = cb.snd_una - 1;
  complete(cb, host, now, plan);
  return true;
}

bool plan_ack(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  if (!cb.has(kAckNow)) return false;
  fill_options(cb, now, plan.segment.options);
  plan.segment.seq = cb.snd_nxt;
  complete(cb, host, now, plan);
  return true;
}

// Duplicate ACKs for a peer that counts them go bare, before any data, one for each segment that was out of order.
bool plan_duplicate_ack(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  if (cb.cold->duplicate_acks_due == 0) return false;
  --cb.cold->duplicate_acks_due;
  acknowledge_now(cb);
  return plan_ack(cb, host, now, plan);
}

// Data waits and nothing in flight will bring an ACK: the window is closed, too small, or the program holds the cork
// (its limit is the persist interval, as on Linux).
void watch_stalled_data(ControlBlock& cb, Time now) noexcept {
  const bool waiting = cb.snd_una == cb.snd_nxt && cb.snd_nxt != cb.write_seq && !cb.has(kDraining);
  if (waiting) arm_persist(cb, now);
}

}  // namespace

std::uint32_t full_segment_bytes(const ControlBlock& cb) noexcept {
  const std::uint32_t half = cb.max_window > kDefaultMss ? cb.max_window / 2 : cb.max_window;
  if (half >= cb.mss) return cb.mss;
  return std::max(half, kSmallestHalfWindow);
}

bool poll_transmit(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  plan = SegmentPlan{};
  if (cb.cold && (plan_duplicate_ack(cb, host, now, plan) || plan_retransmission(cb, host, now, plan))) return true;
  if (plan_new_data(cb, host, now, plan)) return true;
  plan.segment = wire::Segment{};
  if (plan_probe(cb, host, now, plan) || plan_ack(cb, host, now, plan)) return true;
  watch_stalled_data(cb, now);
  release_cold_state(cb);
  return false;
}

}  // namespace twinstack::tcp
