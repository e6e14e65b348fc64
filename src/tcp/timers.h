// Timers: retransmission and persist (which share a deadline), delayed ACK, keepalive. Deadlines lie in the control
// block; next_deadline() and on_timer() of connection.h are implemented here.
#pragma once

#include "base/clock.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

inline constexpr Duration kDelayedAck = std::chrono::milliseconds(40);  // as Linux TCP_DELACK_MIN; RFC 9293 3.8.6.3
inline constexpr std::uint8_t kMaxRetries = 15;                         // Linux tcp_retries2

void arm_retransmit(ControlBlock& cb, Time now) noexcept;
void disarm_retransmit(ControlBlock& cb) noexcept;
// For queued data that nothing in flight will release. Keeps a running interval.
void arm_persist(ControlBlock& cb, Time now) noexcept;
// Data can move again: the stall and its probes are over.
void end_persist(ControlBlock& cb, Time now) noexcept;
void arm_delayed_ack(ControlBlock& cb, Time now) noexcept;
// Anew from `now` when the program asked for keepalive, else off.
void arm_keepalive(ControlBlock& cb, Time now) noexcept;

// The window admits the next unsent segment whole.
[[nodiscard]] bool window_admits_next(const ControlBlock& cb) noexcept;

}  // namespace twinstack::tcp
