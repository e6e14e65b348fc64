#include "tcp/plan.h"

#include <algorithm>

#include "tcp/congestion/congestion.h"
#include "tcp/reassembly.h"
#include "tcp/timers.h"
#include "tcp/timestamps.h"
#include "tcp/transmit.h"
#include "tcp/window.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint32_t kSmallestPayload = 28;  // beside SACK blocks

// A segment that acknowledges: one less is to be acknowledged at once; at the end of that mode ACKs wait the shortest
// time (Linux tcp_dec_quickack_mode()).
void count_ack(ControlBlock& cb) noexcept {
  if (cb.has(kAckOwed) && cb.quick_acks > 0 && --cb.quick_acks == 0) cb.ack_timeout_ms = kShortestAckTimeoutMs;
  cb.clear(kAckOwed | kAckNow | kAckArmed | kAckOnRead | kAckOnAnyRead);
}

// Data that answers what came within the ACK's delay: the connection is interactive, ACKs may wait for answers (Linux
// tcp_event_data_sent()).
void note_answer(ControlBlock& cb, Time now) noexcept {
  const Duration since = age(cb.last_receive_data, now);
  if (cb.ack_timeout_ms != 0 && since < std::chrono::milliseconds(cb.ack_timeout_ms)) cb.set(kPingPong);
}

void count_data(ControlBlock& cb, Counters& counters, Time now, const SegmentPlan& plan) noexcept {
  ++counters.data_segs_out;
  counters.bytes_sent += plan.payload_bytes;
  note_answer(cb, now);
  cb.last_send = to_tick(now);
  if (!plan.retransmission) return;
  ++counters.segs_retransmitted;
  counters.bytes_retransmitted += plan.payload_bytes;
}

}  // namespace

bool partial_may_go(const ControlBlock& cb) noexcept {
  if (cb.has(kForceSend | kFinQueued)) return true;
  if ((cb.flags & (kFlagCork | kMoreFollows)) != 0) return false;
  if ((cb.flags & kFlagNoDelay) != 0) return true;
  const bool small_one_out = cb.snd_sml > cb.snd_una && cb.snd_sml <= cb.snd_nxt;
  return !small_one_out;
}

void fill_options(const ControlBlock& cb, Time now, wire::TcpOptions& options) {
  if ((cb.options & kOptTimestamps) != 0) {
    options.has_timestamps = true;
    options.ts_val = ts_clock(cb, now);
    options.ts_ecr = cb.has(kTsRecentValid) ? cb.ts_recent : 0;
  }
  fill_sack_blocks(cb, options);
}

std::uint32_t payload_limit(const ControlBlock& cb, const wire::TcpOptions& options) noexcept {
  const std::uint32_t full = full_segment_bytes(cb);
  if (options.sack_count == 0) return full;
  const std::uint32_t sack_bytes = 4 + 8U * options.sack_count;
  return full > sack_bytes + kSmallestPayload ? full - sack_bytes : full;
}

void fill_text(const ControlBlock& cb, SegmentPlan& plan, Seq seq, std::uint32_t length) noexcept {
  plan.segment.seq = seq;
  const Seq end = seq + length;
  const bool fin = end > data_end(cb);
  plan.payload_bytes = fin ? length - 1 : length;
  if (fin) plan.segment.flags |= wire::kFin;
}

void mark_ecn(ControlBlock& cb, SegmentPlan& plan) noexcept {
  if ((cb.options & kOptEcn) == 0 || plan.payload_bytes == 0) return;
  plan.segment.ecn = wire::Ecn::kEct0;  // RFC 3168 6.1.1: new data only, never retransmissions or bare ACKs
  if (!cb.has(kEcnSendCwr)) return;
  plan.segment.flags |= wire::kCwr;
  cb.clear(kEcnSendCwr);
}

void complete(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  wire::Segment& segment = plan.segment;
  segment.ack = cb.rcv_nxt;
  segment.window = offer_window(cb, host);
  segment.flags = static_cast<std::uint8_t>(segment.flags | wire::kAck | (cb.has(kEcnEcho) ? wire::kEce : 0));
  // RFC 8257 3.4: marks are wanted on every segment.
  if (congestion_ops(cb).wants_ecn && (cb.options & kOptEcn) != 0) segment.ecn = wire::Ecn::kEct0;
  if (segment.options.sack_count > 0) sack_blocks_sent(cb);
  count_ack(cb);
  Counters& counters = host.counters();
  ++counters.segs_out;
  if (plan.payload_bytes > 0) {
    count_data(cb, counters, now, plan);
  } else if (plan.retransmission) {
    ++counters.segs_retransmitted;
  }
}

}  // namespace twinstack::tcp
