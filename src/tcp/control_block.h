// ControlBlock: the hot state of one synchronized connection, plain data named as in RFC 9293 3.3.1 and Linux's
// tcp_sock. Functions of connection.h act on it; nothing here acts by itself. What exists only while data is out lies
// in its Flight (flight.h), what exists only while received data is out of order in its ColdState (cold_state.h); both
// are allocated on demand and freed when nothing in them matters any more. BBR's state, where BBR is in charge, lies
// beside.
//
// One thread at a time (the holder of the lane's lock). Not copyable: it owns all of them. Readers (CLI,
// hand-off, checkers) may read every field; only src/tcp writes them.
#pragma once

#include <cstdint>
#include <memory>

#include "tcp/congestion/state.h"
#include "tcp/tick.h"
#include "wire/seq.h"

namespace twinstack::tcp {

struct BbrState;
struct ColdState;
struct Flight;

// Delete where the types are complete.
struct BbrStateDeleter {
  void operator()(BbrState* bbr) const noexcept;
};
struct ColdStateDeleter {
  void operator()(ColdState* cold) const noexcept;
};
struct FlightDeleter {
  void operator()(Flight* flight) const noexcept;
};
using BbrStatePtr = std::unique_ptr<BbrState, BbrStateDeleter>;
using ColdStatePtr = std::unique_ptr<ColdState, ColdStateDeleter>;
using FlightPtr = std::unique_ptr<Flight, FlightDeleter>;

// Where loss recovery stands; values and meaning of Linux's tcp_ca_state.
enum class RecoveryState : std::uint8_t {
  kOpen,      // nothing is known to be lost or out of order
  kDisorder,  // duplicate ACKs or SACKs came, or a reduction could still be undone
  kReduced,   // the window is being reduced for an ECN echo or a repaired tail loss, until high_seq (CWR)
  kRecovery,  // fast recovery (RFC 6675, RFC 6937, RFC 8985), until high_seq is acknowledged
  kLoss,      // after a retransmission timeout, until high_seq is acknowledged
};

// What the timer that the send side has one of stands for (Linux's icsk_pending).
enum class SenderTimer : std::uint8_t {
  kNone,
  kRetransmit,  // RFC 6298
  kLossProbe,   // RFC 8985 7
  kReorder,     // RFC 8985 6.3: what may only be late is lost by then
  kPersist,     // RFC 9293 3.8.6.1, and the limit of a cork
};

// Bits of ControlBlock::state.
enum StateBit : std::uint32_t {
  kAckOwed = 1U << 0,        // something arrived that no segment of ours has acknowledged yet
  kAckNow = 1U << 1,         // ... and the ACK must not wait
  kDraining = 1U << 2,       // no new data is sent
  kProbeNow = 1U << 3,       // a zero-window or keepalive probe is to be sent
  kForceSend = 1U << 4,      // persist timer or cork limit: the next segment goes whatever its size, within the window
  kMayRetransmit = 1U << 5,  // the last event asked for repairs: what is lost may go, as far as cwnd lets it
  kProbeLossNow = 1U << 6,   // a tail loss probe is to be sent (RFC 8985 7.3)
  kTsRecentValid = 1U << 7,  // ts_recent is known
  kCwndLimited = 1U << 8,    // cwnd held back data in the window that cwnd_usage_seq ends
  kEcnEcho = 1U << 9,        // set ECE until the peer says CWR (RFC 3168 6.1.3)
  kEcnSendCwr = 1U << 10,    // set CWR on the next new data (RFC 3168 6.1.2)
  kEcnSeen = 1U << 11,       // the peer sends ECT
  kAckArmed = 1U << 12,
  kKeepaliveArmed = 1U << 13,
  kOtherStackSends = 1U << 14,  // what the stack that had the connection before sent at last is not known yet
  kPingPong = 1U << 15,         // the program answers what it receives: ACKs may wait for answers (Linux pingpong)
  kReorderingSeen = 1U << 16,   // RFC 8985 6.2: the path has reordered
  kDsackSeen = 1U << 17,        // ... and a DSACK came since reo_wnd was last adjusted
  kChallengesFree = 1U << 18,   // challenge ACKs are not limited in rate (Linux tcp_invalid_ratelimit = 0)
  kFinQueued = 1U << 19,        // the program has ended its stream: the last sequence number before write_seq is a FIN
  kFinReceived = 1U << 20,      // the peer has: rcv_nxt is beyond its FIN
  kPassiveClose = 1U << 21,     // the peer's FIN came before the program's end
  kWholeMachine = 1U << 22,     // FIN, RST and urgent data are dealt with here, not handed to software
  kPacingHolds = 1U << 23,      // something may go, but not before Flight::next_send
  kKeepWindowIdle = 1U << 24,   // an idle program keeps its congestion window (Linux tcp_slow_start_after_idle = 0)
  kNoSizeSearch = 1U << 25,     // black holes are not looked for (Linux tcp_mtu_probing = 0)
  kWindowClamped = 1U << 26,    // the host offers no more than MinTcp::window_clamp_bytes
  kGaveUp = 1U << 27,           // the peer has been silent for as long as it may (on_timer() said so); no ACK since
  kAckOnRead = 1U << 28,        // with kAckOwed: the ACK goes when the program has read all, unless it answers
  kAckOnAnyRead = 1U << 29,     // ... even if it answers
  kSmallerSegment = 1U << 30,   // the last one was smaller than rcv_mss, in the middle of a write
};

// Bit of ControlBlock::flags: the last write was with MSG_MORE; a segment under the full size waits for the next, as
// under TCP_CORK.
inline constexpr std::uint8_t kMoreFollows = 1 << 7;  // MinTcp's kFlagMoreFollows

struct ControlBlock {
  // Send side (RFC 9293 3.3.1). INVARIANT: snd_una <= snd_nxt <= write_seq, each step under 2^31.
  Seq snd_una;
  Seq snd_nxt;                   // highest sent; a retransmission does not move it
  Seq write_seq;                 // end of what the program queued, its FIN included
  Seq snd_wl1;                   // seq of the segment that last updated snd_wnd
  std::uint32_t snd_wnd = 0;     // bytes, scaled
  std::uint32_t max_window = 0;  // largest snd_wnd ever, bytes
  Seq snd_sml;                   // end of the last segment sent that was under the MSS (Minshall's variant of Nagle)
  Seq push_seq;                  // end of the last write that nothing was to follow at once (PSH)
  Seq high_seq;                  // snd_nxt when `recovery` was entered

  // Receive side. The right edge we offered, rcv_wup + rcv_wnd, never moves left.
  Seq rcv_nxt;
  Seq rcv_wup;                // rcv_nxt when we last sent a segment (Last.ACK.sent of RFC 7323)
  std::uint32_t rcv_wnd = 0;  // bytes, scaled, as offered at rcv_wup

  // Congestion window and slow-start threshold, segments. kInfiniteSsthresh = none yet.
  std::uint32_t cwnd = 0;
  std::uint32_t ssthresh = 0;
  std::uint32_t cwnd_count = 0;  // segments acknowledged since cwnd last grew, in congestion avoidance
  std::uint32_t cwnd_used = 0;   // most segments out since cwnd was last in full use (RFC 2861)
  Tick cwnd_stamp = 0;  // when cwnd was last in full use or changed, or an ACK took data (Linux tcp_cong_avoid())

  // Round-trip estimates (RFC 6298, with Linux's variance), microseconds; 0 = no sample yet.
  std::uint32_t srtt_us8 = 0;      // 8 * smoothed round trip
  std::uint32_t mdev_us4 = 0;      // 4 * medium deviation
  std::uint32_t mdev_max_us4 = 0;  // its largest value in this round trip
  std::uint32_t rttvar_us4 = 0;    // 4 * variance that the timeout uses, at least kMinVarianceUs
  std::uint32_t rto_us = 0;        // not backed off
  std::uint32_t min_rtt_us = 0;    // smallest sample of the last five minutes
  Tick min_rtt_stamp = 0;          // when it was taken
  Seq rtt_seq;                     // snd_nxt when this round of mdev_max_us4 began

  // Delivery accounting (draft-cheng-iccrg-delivery-rate-estimation), segments.
  std::uint32_t delivered = 0;     // of ours, acknowledged or SACKed
  std::uint32_t delivered_ce = 0;  // ... reported with ECE
  std::uint32_t lost = 0;          // ever marked lost
  std::uint32_t app_limited = 0;   // `delivered` at which the bubble of an idle program is gone; 0 = none

  // RACK (RFC 8985) as far as it outlives a flight.
  std::uint32_t reord_seen = 0;      // times that reordering was seen
  std::uint16_t reordering = 3;      // degree of reordering seen, segments
  std::uint8_t reo_wnd_steps = 1;    // reordering window in quarters of min_rtt
  std::uint8_t reo_wnd_persist = 0;  // recoveries for which it stays

  // Timestamps (RFC 7323).
  std::uint32_t ts_offset = 0;          // our TSval - the clock in its unit
  std::uint32_t ts_recent = 0;          // meaningful with kTsRecentValid
  std::uint32_t ts_recent_stamp_s = 0;  // when it was taken, seconds of the clock (2^30 ns)

  CongestionState congestion{};
  BbrStatePtr bbr;  // with CongestionKind::kBbr, else null
  FlightPtr flight;
  ColdStatePtr cold;

  Tick last_challenge = 0;            // the last rate-limited ACK
  std::uint32_t user_timeout_ms = 0;  // 0 = none

  // Deadlines (meaningful with `sender_timer` or their bit of `state`) and stamps. Deadlines, bits and timer lie in one
  // line of memory with the engine's flags: whoever looks for what is due fetches no other.
  Tick sender_deadline = 0;
  Tick ack_deadline = 0;
  Tick keepalive_deadline = 0;
  std::uint32_t state = 0;     // StateBit
  Tick last_receive = 0;       // a segment in sequence
  Tick last_receive_data = 0;  // ... with payload
  Tick last_send = 0;          // data
  CoarseTick stall_since{};    // since when the peer has acknowledged nothing although something waits for it

  std::uint16_t mss = 0;      // payload of a full segment that carries no SACK block, bytes
  std::uint16_t rcv_mss = 0;  // the peer's segment size as seen, bytes
  std::uint16_t keepalive_idle_s = 0;
  std::uint16_t keepalive_interval_s = 0;
  std::uint16_t ack_timeout_ms = 0;  // Linux's ato: how long an ACK may wait; 0 = nothing received yet

  std::uint8_t options = 0;  // MinTcpOption
  std::uint8_t flags = 0;    // MinTcpFlag, kMoreFollows
  std::uint8_t snd_wscale = 0;
  std::uint8_t rcv_wscale = 0;
  CongestionKind congestion_kind = CongestionKind::kCubic;
  RecoveryState recovery = RecoveryState::kOpen;
  SenderTimer sender_timer = SenderTimer::kNone;
  std::uint8_t retries = 0;     // retransmission timeouts in a row without progress
  std::uint8_t backoff = 0;     // doublings of the RTO or persist interval
  std::uint8_t probes_out = 0;  // unanswered zero-window or keepalive probes
  std::uint8_t quick_acks = 0;  // segments that are still to be acknowledged at once
  std::uint8_t keepalive_probes = 0;
  std::uint8_t smallest_burst = 2;     // segments that leave as one at least
  std::uint8_t acked_before_bits = 0;  // the peer had acknowledged less than two to this before install()

  [[nodiscard]] bool has(std::uint32_t any_of) const noexcept { return (state & any_of) != 0; }
  void set(std::uint32_t bits) noexcept { state |= bits; }
  void clear(std::uint32_t bits) noexcept { state &= ~bits; }
};

inline constexpr std::uint32_t kInfiniteSsthresh = 0x7fffffff;

static_assert(sizeof(ControlBlock) <= 248, "the engine's HwConn, which holds this, must fit in 320 bytes");

[[nodiscard]] inline std::uint32_t smoothed_rtt_us(const ControlBlock& cb) noexcept { return cb.srtt_us8 >> 3; }
[[nodiscard]] inline Duration stalled_for(const ControlBlock& cb, Time now) noexcept {
  return age(cb.stall_since, now);
}
[[nodiscard]] inline bool in_slow_start(const ControlBlock& cb) noexcept { return cb.cwnd < cb.ssthresh; }
// CWR and Recovery: cwnd follows proportional rate reduction, not the congestion control.
[[nodiscard]] inline bool reducing_window(const ControlBlock& cb) noexcept {
  return cb.recovery == RecoveryState::kReduced || cb.recovery == RecoveryState::kRecovery;
}

}  // namespace twinstack::tcp
