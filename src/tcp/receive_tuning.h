// Receive-window auto-tuning (dynamic right-sizing, as Linux tcp_rcv_space_adjust()): a program that reads more in a
// round trip than ever before gets a window of twice that, and room for the next doubling of a sender in slow start.
// Who holds the received bytes (engine, portable stack) keeps the state and makes the room.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tcp/control_block.h"
#include "tcp/tick.h"

namespace twinstack::tcp {

inline constexpr std::uint32_t kInitialReceiveSegments = 10;  // Linux TCP_INIT_CWND

struct ReceiveTuning {
  std::uint32_t space_bytes = 0;  // most that was read in a round trip (Linux rcvq_space)
  Seq space_seq;                  // of the first byte that is counted in this one
  Tick since = 0;                 // when it began
};

// `window_bytes`: what is offered now.
void begin_receive_tuning(ReceiveTuning& tuning, const ControlBlock& cb, std::uint32_t window_bytes,
                          std::uint16_t advmss, Time now) noexcept;

// The program has read all before `copied_seq`. The window that it deserves by that, bytes; 0 when that is no news.
// `rtt_us`: 0 when not known, and then nothing changes. `advmss`: what we announced, less the options of each segment.
[[nodiscard]] std::uint32_t tune_receive_window(ReceiveTuning& tuning, const ControlBlock& cb, Seq copied_seq,
                                                std::uint32_t rtt_us, std::uint16_t advmss, Time now) noexcept;

// Data has come out of order: a window that all of it fits in beside what is read in a round trip (Linux 6.18
// tcp_data_queue_ofo()). 0 when none is held.
[[nodiscard]] std::uint32_t window_with_out_of_order(const ReceiveTuning& tuning, const ControlBlock& cb) noexcept;

}  // namespace twinstack::tcp
