#include "tcp/transmit.h"

#include <algorithm>

#include "tcp/burst.h"
#include "tcp/cold_state.h"
#include "tcp/congestion/congestion.h"
#include "tcp/connection.h"
#include "tcp/cwnd_use.h"
#include "tcp/flight.h"
#include "tcp/lone_segment.h"
#include "tcp/loss_probe.h"
#include "tcp/pacing.h"
#include "tcp/path_mtu.h"
#include "tcp/plan.h"
#include "tcp/retransmit.h"
#include "tcp/rtt.h"
#include "tcp/split_ack.h"
#include "tcp/timers.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint32_t kSmallestHalfWindow = 68 - 40;  // as Linux tcp_bound_to_half_wnd
constexpr std::uint32_t kDefaultMss = 536;
// Segments that are out: their records are memory, and an ACK may have to look at each. Of small ones there are fewer.
constexpr std::uint32_t kMostOut = 1U << 15;
constexpr std::uint32_t kMostSmallOut = 1U << 12;
constexpr std::uint32_t kSmallBytes = 512;  // on average

// The next new segment: its length in sequence space, 0 when none fits the window.
std::uint32_t next_length(const ControlBlock& cb, std::uint32_t limit) noexcept {
  const std::uint32_t data = bytes_between(cb.snd_nxt, max(text_end(cb), cb.snd_nxt));
  const std::uint32_t payload = std::min(data, limit);
  const bool with_fin = cb.has(kFinQueued) && cb.snd_nxt + payload == data_end(cb) && cb.snd_nxt != cb.write_seq;
  std::uint32_t length = payload + (with_fin ? 1 : 0);
  const std::int32_t window = send_edge(cb) - cb.snd_nxt;
  if (window <= 0) return 0;
  if (length > static_cast<std::uint32_t>(window)) {
    // The FIN waits for room. RFC 9293 3.8.6.2.1: no small piece of a large segment, but for the persist timer's.
    if (with_fin && payload > 0 && payload <= static_cast<std::uint32_t>(window)) return payload;
    length = cb.has(kForceSend) ? static_cast<std::uint32_t>(window) : 0;
  }
  return length;
}

bool too_many_out(const ControlBlock& cb) noexcept {
  const std::uint32_t out = packets_out(cb);
  if (out < kMostSmallOut) return false;
  return out >= kMostOut || bytes_between(cb.snd_una, cb.snd_nxt) < out * kSmallBytes;
}

// How much new data may go now; 0 when none may.
std::uint32_t sendable(ControlBlock& cb, std::uint32_t limit, Time now) {
  const std::uint32_t length = next_length(cb, limit);
  if (length == 0) return 0;
  const bool more_waits = cb.snd_nxt + length != cb.write_seq && text_end(cb) != data_end(cb);
  if (length < limit && !more_waits && !partial_may_go(cb)) return 0;
  if (packets_in_flight(cb) >= cb.cwnd) {
    note_cwnd_use(cb, true, now);
    return 0;
  }
  if (too_many_out(cb)) return 0;
  return pacing_holds(cb, now) ? 0 : length;
}

void plan_new(ControlBlock& cb, std::uint32_t length, std::uint32_t limit, Host& host, Time now, SegmentPlan& plan) {
  flight_of(cb, host.flights());
  fill_text(cb, plan, cb.snd_nxt, length);
  mark_ecn(cb, plan);
  begin_burst_if_due(cb, limit);
  account_new_data(cb, length, limit, now);
  if (plan.payload_bytes > 0 && pushes_new(cb, plan.payload_bytes, limit)) {
    plan.segment.flags |= wire::kPsh;  // RFC 9293 3.9.1.2
  }
  leave_records(*cb.flight, cb.snd_nxt);
  pace_after(cb, plan.payload_bytes, now);
  complete(cb, host, now, plan);
}

bool may_send_new(const ControlBlock& cb) noexcept { return cb.snd_nxt != cb.write_seq && !cb.has(kDraining); }

bool plan_new_data(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  if (!may_send_new(cb)) return false;
  if (packets_out(cb) == 0) restart_after_idle(cb, now);
  fill_options(cb, now, plan.segment.options);
  const std::uint32_t limit = payload_limit(cb, plan.segment.options);
  const std::uint32_t length = sendable(cb, limit, now);
  if (length == 0) return false;
  plan_new(cb, length, limit, host, now, plan);
  return true;
}

// RFC 8985 7.3: new data where there is some, whatever cwnd and Nagle say; else the last segment again.
bool plan_loss_probe(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  if (!cb.has(kProbeLossNow)) return false;
  cb.clear(kProbeLossNow);
  if (packets_out(cb) == 0) return false;
  bool repeats = false;
  fill_options(cb, now, plan.segment.options);
  const std::uint32_t limit = payload_limit(cb, plan.segment.options);
  const std::uint32_t length = may_send_new(cb) ? next_length(cb, limit) : 0;
  if (length > 0) {
    plan_new(cb, length, limit, host, now, plan);
  } else {
    plan.segment = wire::Segment{};
    if (!plan_last_again(cb, host, now, plan)) return false;
    repeats = true;
  }
  note_probe(cb, repeats, now);
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
  plan.segment.seq = acceptable_seq(cb);
  complete(cb, host, now, plan);
  return true;
}

// Duplicate ACKs for a peer that counts them go bare, before any data, one for each segment that was out of order.
// REQUIRES: a ColdState.
bool plan_duplicate_ack(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  if (cb.cold->duplicate_acks_due == 0) return false;
  --cb.cold->duplicate_acks_due;
  acknowledge_now(cb);
  return plan_ack(cb, host, now, plan);
}

// F-RTO wanted new data, and none could go: the conventional way (RFC 5682 3.1 step 2.b).
bool give_up_frto(ControlBlock& cb) noexcept {
  if (!cb.flight || cb.flight->frto != Frto::kNewData || cb.snd_nxt > cb.high_seq || cb.has(kPacingHolds)) return false;
  cb.flight->frto = Frto::kNone;
  cb.set(kMayRetransmit);
  return true;
}

// Data waits and nothing in flight will bring an ACK: the window is closed, too small, or the program holds the cork
// (its limit is the persist interval, as on Linux).
void watch_stalled_data(ControlBlock& cb, Time now) noexcept {
  if (packets_out(cb) == 0 && may_send_new(cb) && !cb.has(kPacingHolds)) arm_persist(cb, now);
}

// What most calls find. Each step of plan_text(), plan_probe() and plan_ack() asks for one of these.
bool nothing_to_send(const ControlBlock& cb) noexcept {
  if (cb.snd_nxt != cb.write_seq || cb.cold) return false;
  if (cb.has(kAckNow | kProbeNow | kProbeLossNow | kMayRetransmit)) return false;
  return !cb.flight || cb.flight->frto == Frto::kNone;
}

bool plan_text(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  if (cb.cold && (plan_split_ack(cb, host, now, plan) || plan_duplicate_ack(cb, host, now, plan))) return true;
  if (plan_retransmission(cb, host, now, plan) || plan_loss_probe(cb, host, now, plan)) return true;
  if (cb.cold && plan_size_probe(cb, host, now, plan)) return true;
  if (plan_new_data(cb, host, now, plan)) return true;
  plan.segment = wire::Segment{};
  return give_up_frto(cb) && plan_retransmission(cb, host, now, plan);
}

bool plan_any(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  if (cb.flight) cb.flight->lone = false;
  plan = SegmentPlan{};
  cb.clear(kPacingHolds);
  if (plan_text(cb, host, now, plan)) return true;
  plan.segment = wire::Segment{};
  // A probe carries the ACK as well, but in a segment that the peer drops.
  if (plan_ack(cb, host, now, plan) || plan_probe(cb, host, now, plan)) return true;
  if (!cb.has(kPacingHolds)) cb.clear(kForceSend);
  watch_stalled_data(cb, now);
  release_cold_state(cb);
  release_flight(cb);
  return false;
}

}  // namespace

std::uint32_t full_segment_bytes(const ControlBlock& cb) noexcept {
  const std::uint32_t half = cb.max_window > kDefaultMss ? cb.max_window / 2 : cb.max_window;
  if (half >= cb.mss) return cb.mss;
  return std::max(half, kSmallestHalfWindow);
}

void account_new_data(ControlBlock& cb, std::uint32_t length, std::uint32_t limit, Time now) {
  const bool first = packets_out(cb) == 0;
  if (first) {
    end_persist(cb, now);
    cb.stall_since = to_coarse_tick(now);
  }
  if (packets_in_flight(cb) == 0) raise_event(cb, CongestionEvent::kSendStart, now);
  add_sent(cb, cb.snd_nxt, length, now);
  cb.snd_nxt += length;
  if (length < limit) cb.snd_sml = cb.snd_nxt;
  const bool probed = schedule_loss_probe(cb, false, now);
  if (!probed && (first || cb.sender_timer == SenderTimer::kNone)) rearm_retransmit(cb, now);
  note_cwnd_use(cb, packets_in_flight(cb) >= cb.cwnd, now);
}

bool rest(ControlBlock& cb) {
  if (!nothing_to_send(cb)) return false;
  cb.clear(kPacingHolds | kForceSend);
  release_flight(cb);
  return true;
}

bool poll_transmit(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  if (rest(cb)) return false;
  return plan_lone_segment(cb, host, now, plan) || plan_any(cb, host, now, plan);
}

bool poll_transmit_in_steps(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  return !rest(cb) && plan_any(cb, host, now, plan);
}

wire::Segment reset_of(ControlBlock& cb, Host& host, Time now) {
  SegmentPlan plan;
  fill_options(cb, now, plan.segment.options);
  plan.segment.options.sack_count = 0;
  plan.segment.seq = acceptable_seq(cb);
  plan.segment.flags = wire::kRst;
  complete(cb, host, now, plan);
  return plan.segment;
}

}  // namespace twinstack::tcp
