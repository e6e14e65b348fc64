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
  std::uint16_t rtt_ticks = 0;    // shortest round trip of the peer's data that was seen; 0: none
  std::uint16_t advmss = 0;       // what we announced, less the options of each segment
};

// `window_bytes`: what is offered now.
void begin_receive_tuning(ReceiveTuning& tuning, const ControlBlock& cb, std::uint32_t window_bytes,
                          std::uint16_t advmss, Time now) noexcept;

// Who only receives has no round trips of its own. But what lies beyond the window that was there when this round began
// was sent after the peer had heard of us since (as Linux tcp_rcv_rtt_measure(), which takes the window's last byte).
// `capacity_bytes`: no more was offered than that and what was unread.
void measure_receive_rtt(ReceiveTuning& tuning, const ControlBlock& cb, Seq copied_seq, std::uint32_t capacity_bytes,
                         Time now) noexcept;
// As far as that has been measured; 0: it has not.
[[nodiscard]] inline std::uint32_t receive_rtt_us(const ReceiveTuning& tuning) noexcept {
  return static_cast<std::uint32_t>(tuning.rtt_ticks * kTickNs / 1000);
}

// The round trip to tune by: the shorter of that of the peer's data (0: not measured) and that of our own.
[[nodiscard]] std::uint32_t shorter_rtt_us(const ControlBlock& cb, std::uint32_t of_peers_data_us) noexcept;

// The program has read all before `copied_seq`. The window that it deserves by that, bytes; 0 when that is no news.
// `rtt_us`: 0 when not known, and then nothing changes.
[[nodiscard]] std::uint32_t tune_receive_window(ReceiveTuning& tuning, const ControlBlock& cb, Seq copied_seq,
                                                std::uint32_t rtt_us, Time now) noexcept;

// Data has come out of order: a window that all of it fits in beside what is read in a round trip (Linux 6.18
// tcp_data_queue_ofo()). 0 when none is held.
[[nodiscard]] std::uint32_t window_with_out_of_order(const ReceiveTuning& tuning, const ControlBlock& cb) noexcept;

}  // namespace twinstack::tcp
