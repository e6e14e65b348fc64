// Recovery: notices loss, keeps the state of Linux's tcp_ca_state, decides what counts as in flight and what is to be
// retransmitted (RFC 6675 with SACK, RFC 6582 without, RFC 6298 5 after a timeout). cwnd is set here at these events;
// its growth is the congestion control's.
#pragma once

#include <cstdint>

#include "tcp/connection.h"
#include "tcp/control_block.h"
#include "wire/segment.h"

namespace twinstack::tcp {

// What one ACK told.
struct AckNews {
  std::uint32_t acked_bytes = 0;   // snd_una advanced by
  std::uint32_t sacked_bytes = 0;  // newly reported by SACK
  bool duplicate = false;          // RFC 5681 2, with news from SACK where SACK is in use
};

// Takes the SACK option of an acceptable ACK; snd_una is updated already. Returns the bytes newly reported.
std::uint32_t take_sack_option(ControlBlock& cb, const wire::Segment& segment);

// After snd_una and the scoreboard were updated: moves the state machine.
void recovery_on_ack(ControlBlock& cb, const AckNews& news, Counters& counters);

// The peer echoes congestion (RFC 3168 6.1.2): once a window.
void recovery_on_ecn_echo(ControlBlock& cb);

// The retransmission timer has run out (RFC 6298 5.4-5.6, RFC 5681 3.1).
void recovery_on_timeout(ControlBlock& cb);

// cwnd may grow by what this ACK acknowledged.
[[nodiscard]] inline bool may_grow_cwnd(const ControlBlock& cb) noexcept {
  return cb.recovery == RecoveryState::kOpen || cb.recovery == RecoveryState::kLoss;
}

// The next bytes to retransmit, empty when there are none; whether cwnd permits is the caller's question.
[[nodiscard]] wire::SackBlock next_retransmission(const ControlBlock& cb) noexcept;
void retransmitted(ControlBlock& cb, Seq end) noexcept;

}  // namespace twinstack::tcp
