// ControlBlock: the hot state of one established connection, plain data named as in RFC 9293 3.3.1 and Linux's
// tcp_sock. Functions of connection.h act on it; nothing here acts by itself. What exists only while segments are lost
// or out of order lies in ColdState (cold_state.h), allocated on demand and freed when it is no longer needed.
//
// One thread at a time (the holder of the lane's lock). Not copyable: it owns its ColdState. Readers (CLI, hand-off,
// checkers) may read every field; only src/tcp writes them.
#pragma once

#include <cstdint>
#include <memory>

#include "tcp/tick.h"
#include "wire/seq.h"

namespace twinstack::tcp {

struct ColdState;

// Deletes where ColdState is complete.
struct ColdStateDeleter {
  void operator()(ColdState* cold) const noexcept;
};
using ColdStatePtr = std::unique_ptr<ColdState, ColdStateDeleter>;

// Where loss recovery stands (Linux's tcp_ca_state; Disorder is kOpen with a ColdState).
enum class RecoveryState : std::uint8_t {
  kOpen,      // nothing is known to be lost
  kReduced,   // the window was reduced for an ECN echo; until high_seq is acknowledged (CWR)
  kRecovery,  // fast retransmit and recovery (RFC 6675, RFC 6582), until high_seq is acknowledged
  kLoss,      // after a retransmission timeout, until high_seq is acknowledged
};

enum class CongestionKind : std::uint8_t { kCubic, kNewReno };

// Bits of ControlBlock::state.
enum StateBit : std::uint16_t {
  kAckOwed = 1 << 0,          // something arrived that no segment of ours has acknowledged yet
  kAckNow = 1 << 1,           // ... and the ACK must not wait
  kDraining = 1 << 2,         // no new data is sent
  kProbeNow = 1 << 3,         // a zero-window or keepalive probe is to be sent
  kForceSend = 1 << 4,        // persist timer or cork limit: the next segment goes whatever its size, within the window
  kForceRetransmit = 1 << 5,  // the first unacknowledged segment goes again, whatever cwnd is
  kRttTiming = 1 << 6,        // rtt_seq is being timed
  kTsRecentValid = 1 << 7,    // ts_recent is known
  kCwndLimited = 1 << 8,      // cwnd held back data in the window that cwnd_usage_seq ends
  kEcnEcho = 1 << 9,          // set ECE until the peer says CWR (RFC 3168 6.1.3)
  kEcnSendCwr = 1 << 10,      // set CWR on the next new data (RFC 3168 6.1.2)
  kRetransmitArmed = 1 << 11,
  kPersistArmed = 1 << 12,  // shares retransmit_deadline; never both
  kAckArmed = 1 << 13,
  kKeepaliveArmed = 1 << 14,
  kOtherStackSends = 1 << 15,  // what the stack that had the connection before sent at last is not known yet
};

// Bit of ControlBlock::flags: the last write was with MSG_MORE; a segment under the full size waits for the next, as
// under TCP_CORK.
inline constexpr std::uint8_t kMoreFollows = 1 << 7;

// State of the congestion control beyond cwnd and ssthresh. Windows in segments, as the RFC's formulas are.
struct CubicState {   // RFC 9438 4.1.2
  float w_max;        // cwnd just before the last reduction
  float k_seconds;    // time to grow back to w_max
  float w_est;        // Reno-friendly estimate
  float cwnd_prior;   // cwnd when the last reduction happened
  float carry_bytes;  // growth not yet applied, under one byte of cwnd
  Tick epoch_start;   // 0 = no epoch runs
};
struct NewRenoState {
  std::uint32_t acked_bytes;  // in congestion avoidance, since cwnd last grew
};
union CongestionState {
  CubicState cubic;
  NewRenoState new_reno;
};

struct ControlBlock {
  // Send side (RFC 9293 3.3.1). INVARIANT: snd_una <= snd_nxt <= write_seq, each step under 2^31.
  Seq snd_una;
  Seq snd_nxt;                   // highest sent; a retransmission does not move it
  Seq write_seq;                 // end of what the program queued
  Seq snd_wl1;                   // seq of the segment that last updated snd_wnd
  std::uint32_t snd_wnd = 0;     // bytes, scaled
  std::uint32_t max_window = 0;  // largest snd_wnd ever, bytes
  Seq snd_sml;                   // end of the last segment sent that was under the MSS (Minshall's variant of Nagle)
  Seq high_seq;                  // snd_nxt when `recovery` was entered
  Seq cwnd_usage_seq;            // end of the window over which max_flight_bytes was taken
  std::uint32_t max_flight_bytes = 0;

  // Receive side. The right edge we offered, rcv_wup + rcv_wnd, never moves left.
  Seq rcv_nxt;
  Seq rcv_wup;                // rcv_nxt when we last sent a segment (Last.ACK.sent of RFC 7323)
  std::uint32_t rcv_wnd = 0;  // bytes, scaled, as offered at rcv_wup

  // Congestion window and slow-start threshold, bytes. kInfiniteSsthresh = none yet.
  std::uint32_t cwnd = 0;
  std::uint32_t ssthresh = 0;

  // Round-trip estimates (RFC 6298), microseconds; srtt_us 0 = no sample yet.
  std::uint32_t srtt_us = 0;
  std::uint32_t rttvar_us = 0;
  std::uint32_t rto_us = 0;  // not backed off
  std::uint32_t min_rtt_us = 0;
  Seq rtt_seq;                     // timed: the segment that ends here
  std::uint32_t rtt_start_us = 0;  // when it was sent, low 32 bits of the clock's microseconds

  // Timestamps (RFC 7323).
  std::uint32_t ts_offset = 0;          // our TSval - the clock in its unit
  std::uint32_t ts_recent = 0;          // meaningful with kTsRecentValid
  std::uint32_t ts_recent_stamp_s = 0;  // when it was taken, seconds of the clock (2^30 ns)

  // Deadlines (meaningful with their bit of `state`) and stamps.
  Tick retransmit_deadline = 0;  // retransmission or persist
  Tick ack_deadline = 0;
  Tick keepalive_deadline = 0;
  Tick last_receive = 0;    // a segment in sequence
  Tick last_send = 0;       // data
  Tick stall_since = 0;     // since when the peer has acknowledged nothing although something waits for it
  Tick last_challenge = 0;  // the last rate-limited ACK

  std::uint32_t user_timeout_ms = 0;  // 0 = none
  std::uint16_t mss = 0;              // payload of a full segment that carries no SACK block, bytes
  std::uint16_t rcv_mss = 0;          // the peer's segment size as seen, bytes
  std::uint16_t keepalive_idle_s = 0;
  std::uint16_t keepalive_interval_s = 0;

  std::uint16_t state = 0;   // StateBit
  std::uint8_t options = 0;  // MinTcpOption
  std::uint8_t flags = 0;    // MinTcpFlag, kMoreFollows
  std::uint8_t snd_wscale = 0;
  std::uint8_t rcv_wscale = 0;
  CongestionKind congestion_kind = CongestionKind::kCubic;
  RecoveryState recovery = RecoveryState::kOpen;
  std::uint8_t dup_acks = 0;    // saturates
  std::uint8_t retries = 0;     // retransmission timeouts in a row without progress
  std::uint8_t backoff = 0;     // doublings of the RTO or persist interval
  std::uint8_t probes_out = 0;  // unanswered zero-window or keepalive probes
  std::uint8_t quick_acks = 0;  // segments that are still to be acknowledged at once
  std::uint8_t keepalive_probes = 0;
  std::uint8_t reordering = 3;  // duplicate-ACK threshold, segments

  CongestionState congestion{};
  ColdStatePtr cold;

  [[nodiscard]] bool has(std::uint16_t any_of) const noexcept { return (state & any_of) != 0; }
  void set(std::uint16_t bits) noexcept { state = static_cast<std::uint16_t>(state | bits); }
  void clear(std::uint16_t bits) noexcept { state = static_cast<std::uint16_t>(state & ~bits); }
};

inline constexpr std::uint32_t kInfiniteSsthresh = 0x7fffffff;

static_assert(sizeof(ControlBlock) <= 184, "the engine's HwConn, which holds this, must fit in 256 bytes");

}  // namespace twinstack::tcp
