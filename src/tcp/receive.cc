#include "tcp/receive.h"

#include <algorithm>
#include <array>

#include "tcp/ack.h"
#include "tcp/cold_state.h"
#include "tcp/congestion/congestion.h"
#include "tcp/connection.h"
#include "tcp/plain_ack.h"
#include "tcp/reassembly.h"
#include "tcp/timers.h"
#include "tcp/timestamps.h"
#include "tcp/window.h"

namespace twinstack::tcp {

namespace {

constexpr Duration kChallengeInterval = std::chrono::milliseconds(500);  // RFC 5961 7; Linux tcp_invalid_ratelimit
constexpr std::uint32_t kMaxQuickAcks = 16;                              // Linux TCP_MAX_QUICKACKS
constexpr std::uint32_t kQuickAcksOfMark = 2;                            // the sender's window may be very small now
constexpr std::uint8_t kMaxDuplicateAcks = 64;                           // between two calls of poll_transmit()
constexpr std::uint32_t kSmallestPeerMss = 88;                           // Linux TCP_MIN_MSS

// A segment as the steps see it: `end` counts payload, not SYN or FIN.
struct Arrived {
  const wire::Segment& segment;
  const Payload& payload;
  Seq end;

  [[nodiscard]] Seq end_with_fin() const noexcept { return segment.has(wire::kFin) ? end + 1 : end; }
};

void owe_ack_now(ControlBlock& cb) noexcept { cb.set(kAckOwed | kAckNow); }

void enter_quick_ack_mode(ControlBlock& cb, std::uint32_t most) noexcept {
  add_quick_acks(cb, most);
  cb.clear(kPingPong);
  cb.ack_timeout_ms = kShortestAckTimeoutMs;
}

// Of data that nothing is taken of. The peer sends it again since our ACK was lost, or probes: its window may be very
// small now, and what it sends next wants ACKs at once, too (as Linux).
void owe_ack_of_repeat(ControlBlock& cb) noexcept {
  enter_quick_ack_mode(cb, kMaxQuickAcks);
  owe_ack_now(cb);
}

// An ACK that an attacker, or two confused stacks, could make us send without end: at most one in the interval.
void owe_challenge_ack(ControlBlock& cb, Time now) noexcept {
  if (within(cb.last_challenge, kChallengeInterval, now) && !cb.has(kChallengesFree)) return;
  cb.last_challenge = to_tick(now);
  owe_ack_now(cb);
}

// RFC 9293 3.8.4, 3.8.6.1: SEG.SEQ = RCV.NXT-1 with no byte or one garbage byte. Keepalives, Linux's window probes and
// the probe that a kernel sends when it leaves repair mode look like this; they want an ACK. Here, of what the last ACK
// does not cover yet.
bool is_probe(const ControlBlock& cb, const Arrived& in) noexcept {
  return in.segment.seq == cb.rcv_nxt - 1 && in.payload.size() <= 1;
}

// A peer that aborts right behind its FIN may repeat the number of the FIN, and answer no challenge (Linux
// tcp_reset_check()).
bool resets_with_fin(const ControlBlock& cb, const Arrived& in) noexcept {
  return in.segment.has(wire::kRst) && cb.has(kFinReceived) && in.segment.seq == cb.rcv_nxt - 1;
}

// First: check sequence number (RFC 9293 3.10.7.4). As Linux: what ends at or after the last ACK sent and begins at or
// before the right edge; that lets ACKs through that a full window or reordering would otherwise cost.
bool in_window(const ControlBlock& cb, const Arrived& in) noexcept {
  return resets_with_fin(cb, in) || (in.end_with_fin() >= cb.rcv_wup && in.segment.seq <= window_right_edge(cb));
}

// An unacceptable segment is answered by an ACK, unless it is a reset. Data is answered always: the peer retransmits
// because our ACK was lost. What takes no space, a probe without a byte too, could be part of a loop of ACKs, and is
// limited in rate (Linux tcp_oow_rate_limited()).
void answer_unacceptable(ControlBlock& cb, const Arrived& in, Time now) {
  if (in.segment.has(wire::kRst)) return;
  if (in.end_with_fin() != in.segment.seq && !in.segment.has(wire::kSyn)) {
    if (in.segment.seq < cb.rcv_nxt) enter_quick_ack_mode(cb, kMaxQuickAcks);
    owe_ack_now(cb);
  } else {
    owe_challenge_ack(cb, now);
  }
  if (!in.payload.empty() && in.end <= cb.rcv_nxt) note_duplicate(cb, in.segment.seq, in.end);
}

// Before first: PAWS (RFC 7323 5.3 R1); resets are exempt (5.2).
bool check_paws(ControlBlock& cb, const Arrived& in, Time now) {
  if ((cb.options & kOptTimestamps) == 0 || in.segment.has(wire::kRst)) return true;
  if (paws_accepts(cb, in.segment, now)) return true;
  // A bare ACK that was overtaken by another says nothing (as Linux tcp_disordered_ack).
  const bool overtaken =
      in.payload.empty() && !in.segment.has(wire::kFin) && in.segment.seq == cb.rcv_nxt && in.segment.ack <= cb.snd_una;
  if (!overtaken) answer_unacceptable(cb, in, now);
  return false;
}

// A peer that aborts while one of its segments is lost sends the RST behind what it has sent: also the end of the
// highest block that we have reported counts (as Linux).
bool ends_reported_data(const ControlBlock& cb, Seq seq) noexcept {
  if ((cb.options & kOptSack) == 0 || !has_out_of_order_data(cb)) return false;
  return seq == cb.cold->out_of_order.back().end();
}

// Second: reset (RFC 5961 3.2). Only an exact sequence number counts.
Arrival check_reset(ControlBlock& cb, const Arrived& in, Time now) {
  if (in.segment.seq == cb.rcv_nxt || ends_reported_data(cb, in.segment.seq) || resets_with_fin(cb, in))
    return cb.has(kWholeMachine) ? Arrival::kReset : Arrival::kToSoftwareReset;
  owe_challenge_ack(cb, now);
  return Arrival::kDroppedReset;
}

// Fourth: SYN (RFC 5961 4.2). The peer, if it has restarted, answers the challenge by a valid reset.
Arrival check_syn(ControlBlock& cb, Time now) {
  owe_challenge_ack(cb, now);
  return Arrival::kDroppedSyn;
}

// Fifth: the ACK field (RFC 5961 5.2).
Arrival check_ack(ControlBlock& cb, const Arrived& in, const Counters& counters, Time now) {
  if (!in.segment.has(wire::kAck)) return Arrival::kDroppedNoAck;
  if (ack_acceptable(cb, counters.bytes_acked, in.segment.ack)) return Arrival::kAccepted;
  owe_challenge_ack(cb, now);
  return Arrival::kDroppedBadAck;
}

// Eighth, looked at early since nothing of such a segment may be processed here: a FIN that the window covers. One that
// lies under rcv_nxt or beyond the window is not seen.
bool has_valid_fin(const ControlBlock& cb, const Arrived& in) noexcept {
  return in.segment.has(wire::kFin) && in.end >= cb.rcv_nxt && in.end <= window_right_edge(cb);
}

// All checks that can turn a segment away.
Arrival check(ControlBlock& cb, const Arrived& in, const Counters& counters, Time now) {
  if (!check_paws(cb, in, now)) return Arrival::kDroppedPaws;
  if (!in_window(cb, in)) {
    answer_unacceptable(cb, in, now);
    return Arrival::kDroppedOutOfWindow;
  }
  if (in.segment.has(wire::kRst)) return check_reset(cb, in, now);
  // Third: security, not done, as everyone.
  if (in.segment.has(wire::kSyn)) return check_syn(cb, now);
  const Arrival verdict = check_ack(cb, in, counters, now);
  if (verdict != Arrival::kAccepted) return verdict;
  if (cb.has(kWholeMachine)) return Arrival::kAccepted;
  if (in.segment.has(wire::kUrg)) return Arrival::kToSoftwareUrgent;  // Sixth
  if (has_valid_fin(cb, in)) return Arrival::kToSoftwareFin;
  return Arrival::kAccepted;
}

// RFC 3168 6.1.3: echo a mark until the peer says that it has slowed down. An algorithm that wants marks as they come
// (RFC 8257 3.2) echoes by itself.
void take_mark(ControlBlock& cb, wire::Ecn ecn, Time now) {
  const bool own_echo = congestion_ops(cb).wants_ecn;
  switch (ecn) {
    case wire::Ecn::kNotEct:
      // Others of its segments were ECT: this one is a retransmission (as Linux).
      if (cb.has(kEcnSeen)) enter_quick_ack_mode(cb, kQuickAcksOfMark);
      break;
    case wire::Ecn::kCe:
      if (own_echo) {
        raise_event(cb, CongestionEvent::kMarkSeen, now);
      } else if (!cb.has(kEcnEcho)) {
        enter_quick_ack_mode(cb, kQuickAcksOfMark);
        cb.set(kEcnEcho);
      }
      cb.set(kEcnSeen);
      break;
    default:
      if (own_echo) raise_event(cb, CongestionEvent::kNoMarkSeen, now);
      cb.set(kEcnSeen);
  }
}

void take_ecn(ControlBlock& cb, const Arrived& in, Time now) {
  if ((cb.options & kOptEcn) == 0 || in.payload.empty()) return;
  if (in.segment.has(wire::kCwr)) {
    cb.clear(kEcnEcho);
    owe_ack_now(cb);  // its window may be as small as one segment
  }
  if (in.end > cb.rcv_nxt) take_mark(cb, in.segment.ecn, now);  // one on old data may be forged (RFC 3168 6.1.5)
}

// The peer's segment size, for the rule of two segments: grows with what is seen; super-packets count as full ones. Two
// smaller ones in a row that do not end a write (Linux: of the same size): the peer has gone over to them (its path's
// MTU has shrunk, say), and its window may be of two. What may be all that the peer has to say, since it is small or
// ends a write, wants its ACK when the program has read it (Linux tcp_measure_rcv_mss(), ICSK_ACK_PUSHED and
// ICSK_ACK_PUSHED2).
void observe_segment(ControlBlock& cb, std::uint32_t bytes, bool pushed, Host& host) {
  std::uint32_t size = bytes;  // of several that came as one
  if (bytes > cb.mss) size = std::min<std::uint32_t>(bytes, std::max(host.announced_mss(), cb.mss));
  const bool goes_over = cb.has(kSmallerSegment);
  cb.clear(kSmallerSegment);
  if (size >= cb.rcv_mss) {
    cb.rcv_mss = static_cast<std::uint16_t>(size);
    if (pushed && bytes == size) cb.set(kAckOnRead);
    return;
  }
  if (!pushed && size >= kSmallestPeerMss) {
    if (goes_over) {
      cb.rcv_mss = static_cast<std::uint16_t>(size);
      return;
    }
    cb.set(kSmallerSegment);
  }
  if (cb.has(kAckOnRead)) cb.set(kAckOnAnyRead);
  cb.set(kAckOnRead);
}

// How long ACKs may wait follows the pace of the peer's segments (Linux tcp_event_data_recv()).
void adapt_ack_timeout(ControlBlock& cb, Time now) noexcept {
  const auto gap = std::chrono::duration_cast<std::chrono::milliseconds>(age(cb.last_receive_data, now)).count();
  const std::int64_t rto_ms = cb.rto_us / 1000;
  cb.last_receive_data = to_tick(now);
  if (cb.ack_timeout_ms == 0) {  // the first data
    add_quick_acks(cb, kMaxQuickAcks);
    cb.ack_timeout_ms = kShortestAckTimeoutMs;
    return;
  }
  if (gap > rto_ms) {
    add_quick_acks(cb, kMaxQuickAcks);  // the peer may have begun anew with a small window
  } else if (gap <= kShortestAckTimeoutMs / 2) {
    cb.ack_timeout_ms = static_cast<std::uint16_t>(cb.ack_timeout_ms / 2 + kShortestAckTimeoutMs / 2);
  } else if (gap < cb.ack_timeout_ms) {
    cb.ack_timeout_ms = static_cast<std::uint16_t>(std::min<std::int64_t>(cb.ack_timeout_ms / 2 + gap, rto_ms));
  }
}

// RFC 9293 3.8.6.3, RFC 5681 4.2: at once for the second full segment and whenever there is or was a hole. Of what
// uses the window up an ACK could only say that it is closed now: that waits for the reader (as Linux).
void schedule_ack(ControlBlock& cb, bool out_of_order, bool uses_window_up, Time now) noexcept {
  cb.set(kAckOwed);
  if (uses_window_up && !out_of_order && !cb.has(kAckNow)) return arm_delayed_ack(cb, now);
  const bool enough = bytes_between(cb.rcv_wup, cb.rcv_nxt) > cb.rcv_mss;
  const bool quick = cb.quick_acks > 0 && !cb.has(kPingPong);
  if (enough || out_of_order || quick) {
    cb.set(kAckNow);
  } else if (!cb.has(kAckNow)) {
    arm_delayed_ack(cb, now);
  }
}

bool holds_out_of_order(const ControlBlock& cb) noexcept { return cb.cold && !cb.cold->out_of_order.empty(); }

Arrival take_in_order(ControlBlock& cb, const Payload& payload, Host& host, Time now) {
  const bool uses_window_up = payload.size() >= offered_window(cb);
  const bool had_hole = holds_out_of_order(cb);
  adapt_ack_timeout(cb, now);
  const std::uint32_t taken = host.deliver(payload);
  ASSERT(taken <= payload.size());
  cb.rcv_nxt += taken;
  host.counters().bytes_received += taken;
  if (had_hole) {
    note_overlap(cb, cb.rcv_nxt - taken);
    cb.cold->duplicate_acks_due = 0;  // they would repeat the new ACK, not the old one
    deliver_in_order(cb, host);
  }
  schedule_ack(cb, had_hole, uses_window_up, now);
  if (taken == payload.size()) return Arrival::kAccepted;
  owe_ack_now(cb);  // tells the window
  return taken > 0 ? Arrival::kAccepted : Arrival::kDroppedNoMemory;
}

Arrival take_out_of_order(ControlBlock& cb, Seq seq, const Payload& payload, Host& host) {
  owe_ack_now(cb);  // RFC 5681 4.2
  ++host.counters().out_of_order;
  // Several may arrive before the next poll_transmit(); a peer without SACK counts the ACKs of each.
  std::uint8_t& due = cold_state(cb).duplicate_acks_due;
  if ((cb.options & kOptSack) == 0 && due < kMaxDuplicateAcks) ++due;
  return keep_out_of_order(cb, seq, payload, host) ? Arrival::kAccepted : Arrival::kDroppedNoMemory;
}

// Seventh: segment text. Cuts it to the window, unless nothing is unread: the window is smaller than the memory by what
// buffers weigh, and a sender that has gone beyond it would only send the rest again (Linux tcp_sequence()).
Arrival take_text(ControlBlock& cb, const Arrived& in, Host& host, Time now) {
  if (in.payload.empty()) {
    if (is_probe(cb, in)) owe_ack_now(cb);
    return Arrival::kAccepted;
  }
  ++host.counters().data_segs_in;
  const Seq left = max(in.segment.seq, cb.rcv_nxt);
  const Seq edge = window_right_edge(cb);
  const bool whole = in.end > edge && left < edge && host.all_read();
  const Seq right = whole ? in.end : min(in.end, edge);
  if (in.segment.seq < left) note_duplicate(cb, in.segment.seq, min(in.end, cb.rcv_nxt));
  if (left >= right) {  // wholly old, or a probe into a closed window
    owe_ack_of_repeat(cb);
    return Arrival::kAccepted;
  }
  if (in.segment.seq < left || right < in.end) owe_ack_now(cb);
  const Payload fresh = in.payload.narrow(bytes_between(in.segment.seq, left), bytes_between(left, right));
  observe_segment(cb, in.payload.size(), in.segment.has(wire::kPsh), host);
  if (left == cb.rcv_nxt) return take_in_order(cb, fresh, host, now);
  return take_out_of_order(cb, left, fresh, host);
}

// What comes after the FIN repeats something: its ACK was lost.
Arrival answer_after_fin(ControlBlock& cb, const Arrived& in) noexcept {
  const bool takes_space = in.end_with_fin() != in.segment.seq;
  if (takes_space || is_probe(cb, in)) owe_ack_now(cb);
  if (takes_space && in.end_with_fin() <= cb.rcv_nxt) note_duplicate(cb, in.segment.seq, in.end_with_fin());
  return Arrival::kAccepted;
}

void accept_fin(ControlBlock& cb, Time now) {
  const bool window_closed = offered_window(cb) == 0;
  cb.rcv_nxt += 1;
  cb.set(kFinReceived | kAckOwed);
  if (cb.cold) {
    cb.cold->fin_known = false;
    cb.cold->dsack_due = false;  // as Linux tcp_fin(): nothing more is to be said of what came twice
    while (!cb.cold->out_of_order.empty()) drop_farthest(*cb.cold);  // behind the end of the stream there is none
  }
  // Nothing of ours will carry it; or nothing was ever received that an answer could be to; or the peer, whose window
  // is closed, would send it again and again (as Linux).
  if (cb.has(kFinQueued) || cb.ack_timeout_ms == 0 || window_closed) cb.set(kAckNow);
  if (!cb.has(kFinQueued)) {
    cb.set(kPassiveClose | kPingPong);  // the program's own end may carry it (as Linux)
    if (!cb.has(kAckNow)) arm_delayed_ack(cb, now);
  }
}

// Eighth: the FIN, once everything before it has been taken; one that came too early is remembered.
void take_fin(ControlBlock& cb, const Arrived& in, Time now) {
  if (cb.has(kFinReceived)) return;
  const bool has_fin = in.segment.has(wire::kFin);
  if (has_fin && has_valid_fin(cb, in) && in.end != cb.rcv_nxt) {
    ColdState& cold = cold_state(cb);
    cold.fin_known = true;
    cold.fin_seq = in.end;
    owe_ack_now(cb);
  }
  if (has_fin && in.end == cb.rcv_nxt)
    accept_fin(cb, now);
  else
    take_known_fin(cb, now);
}

// The next segment in sequence, of which every check says that it is good and no step has anything special to do
// (header prediction, RFC 7323 5.6): what is left are ACK and payload.
bool is_expected(const ControlBlock& cb, const wire::Segment& segment, std::uint32_t payload_bytes) noexcept {
  if (segment.seq != cb.rcv_nxt || (segment.flags & ~wire::kPsh) != wire::kAck) return false;
  if ((cb.options & (kOptTimestamps | kOptEcn)) != kOptTimestamps || cb.cold) return false;
  if ((cb.state & (kTsRecentValid | kFinReceived)) != kTsRecentValid) return false;
  const wire::TcpOptions& options = segment.options;
  if (!options.has_timestamps || options.sack_count > 0) return false;
  if (static_cast<std::int32_t>(options.ts_val - cb.ts_recent) < 0) return false;
  if (segment.ack < cb.snd_una || segment.ack > cb.snd_nxt) return false;
  return payload_bytes < offered_window(cb);
}

}  // namespace

void take_known_fin(ControlBlock& cb, Time now) {
  if (cb.cold && cb.cold->fin_known && cb.cold->fin_seq == cb.rcv_nxt) accept_fin(cb, now);
}

void add_quick_acks(ControlBlock& cb, std::uint32_t most) noexcept {
  const std::uint32_t half_window = cb.rcv_wnd / (2U * std::max<std::uint32_t>(cb.rcv_mss, 1));
  const std::uint32_t quick = std::min(half_window == 0 ? 2U : half_window, most);
  cb.quick_acks = static_cast<std::uint8_t>(std::max<std::uint32_t>(cb.quick_acks, quick));
}

std::string_view name(Arrival arrival) noexcept {
  static constexpr std::array<std::string_view, kArrivals> kNames = {
      "accepted",    "dropped-paws",      "dropped-out-of-window", "dropped-reset",
      "dropped-syn", "dropped-no-ack",    "dropped-bad-ack",       "dropped-no-memory",
      "reset",       "to-software-reset", "to-software-fin",       "to-software-urgent"};
  const auto index = static_cast<std::size_t>(arrival);
  return index < kNames.size() ? kNames[index] : "unknown";
}

Arrival on_segment_in_steps(ControlBlock& cb, const wire::Segment& segment, const Payload& payload, Host& host,
                            Time now) {
  const Arrived in{segment, payload, segment.seq + payload.size()};
  const Arrival verdict = check(cb, in, host.counters(), now);
  if (to_software(verdict)) return verdict;
  ++host.counters().segs_in;
  if (verdict != Arrival::kAccepted) return verdict;                  // kReset among them
  if (segment.ack >= cb.snd_una) update_ts_recent(cb, segment, now);  // as Linux: not of an overtaken ACK
  catch_up_with_echo(cb, segment, now);
  if (segment.ack >= cb.snd_una || !payload.empty()) cb.last_receive = to_tick(now);
  process_ack(cb, segment, payload.size(), host, now);
  cb.flags &= static_cast<std::uint8_t>(~kMoreFollows);  // as Linux: MSG_MORE holds until the next segment comes
  take_ecn(cb, in, now);
  if (!cb.has(kWholeMachine)) return take_text(cb, in, host, now);
  // After the peer's FIN there is no text (RFC 9293 3.10.7.4 seventh).
  const Arrival taken = cb.has(kFinReceived) ? answer_after_fin(cb, in) : take_text(cb, in, host, now);
  take_fin(cb, in, now);
  return taken;
}

Arrival on_segment(ControlBlock& cb, const wire::Segment& segment, const Payload& payload, Host& host, Time now) {
  if (!is_expected(cb, segment, payload.size())) return on_segment_in_steps(cb, segment, payload, host, now);
  ++host.counters().segs_in;
  update_ts_recent(cb, segment, now);
  catch_up_with_echo(cb, segment, now);
  cb.last_receive = to_tick(now);
  if (!take_plain_ack(cb, segment, host, now)) process_ack(cb, segment, payload.size(), host, now);
  cb.flags &= static_cast<std::uint8_t>(~kMoreFollows);
  if (payload.empty()) return Arrival::kAccepted;
  ++host.counters().data_segs_in;
  observe_segment(cb, payload.size(), segment.has(wire::kPsh), host);
  return take_in_order(cb, payload, host, now);
}

}  // namespace twinstack::tcp
