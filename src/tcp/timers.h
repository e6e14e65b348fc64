// Timers: the one of the sender (retransmission, loss probe, reordering, persist: SenderTimer), delayed ACK, keepalive.
// Deadlines lie in the control block; next_deadline() and on_timer() of connection.h are implemented here.
#pragma once

#include "base/clock.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

inline constexpr std::uint16_t kShortestAckTimeoutMs = 40;  // Linux TCP_ATO_MIN, TCP_DELACK_MIN; RFC 9293 3.8.6.3
inline constexpr std::uint16_t kLongestAckTimeoutMs = 200;  // Linux TCP_DELACK_MAX
inline constexpr std::uint8_t kMaxRetries = 15;             // Linux tcp_retries2

// The sender's timer is `which` now, and runs out `after` from now; a user timeout may cut that.
void arm_sender_timer(ControlBlock& cb, SenderTimer which, Duration after, Time now) noexcept;
// The retransmission timer, from now; in place of a loss probe or of reordering: from the transmission of the first
// segment that is out. Off when nothing is out.
void rearm_retransmit(ControlBlock& cb, Time now) noexcept;
void disarm_retransmit(ControlBlock& cb) noexcept;
// Progress: a loss probe where RFC 8985 7.2 allows it, else the retransmission timer, from now.
void restart_sender_timer(ControlBlock& cb, Time now);
// Until the timeout of the first segment that is out; not positive: it is overdue. REQUIRES: something is out.
[[nodiscard]] Duration time_to_rto(const ControlBlock& cb, Time now) noexcept;
// For queued data that nothing in flight will release. Keeps a running interval.
void arm_persist(ControlBlock& cb, Time now) noexcept;
// The peer has answered, and its window is still closed: the interval begins anew (Linux tcp_ack_probe()).
void put_off_probe(ControlBlock& cb, Time now) noexcept;
// Data can move again: the stall and its probes are over.
void end_persist(ControlBlock& cb, Time now) noexcept;
void arm_delayed_ack(ControlBlock& cb, Time now) noexcept;
// Anew from `now` when the program asked for keepalive, else off.
void arm_keepalive(ControlBlock& cb, Time now) noexcept;

// The window admits the next unsent segment whole.
[[nodiscard]] bool window_admits_next(const ControlBlock& cb) noexcept;

}  // namespace twinstack::tcp
