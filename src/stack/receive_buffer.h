// ReceiveBuffer: received bytes that the program has not read, and how large a window the peer is offered for them: the
// rules of Linux (tcp_select_initial_window, tcp_grow_window, tcp_rcv_space_adjust). The window begins small, opens
// with every full segment up to the buffer's share, and the buffer itself grows with what the program reads in a round
// trip (dynamic right-sizing) up to tcp_rmem[2], unless the program has set SO_RCVBUF. Not thread-safe.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "stack/byte_queue.h"
#include "stack/config.h"
#include "tcp/control_block.h"
#include "tcp/receive_tuning.h"

namespace twinstack::stack {

// Which part of a receive buffer is window; the rest is for what the kernel's buffers weigh.
[[nodiscard]] std::uint32_t window_from_space(const Config& config, std::uint32_t space_bytes) noexcept;
[[nodiscard]] std::uint32_t space_from_window(const Config& config, std::uint32_t window_bytes) noexcept;

class ReceiveBuffer {
 public:
  // A connection begins (Linux tcp_init_buffer_space). `advmss`: what we announced, less the options of each segment.
  void begin(const Config& config, std::uint32_t buffer_bytes, const tcp::ControlBlock& cb, std::uint16_t advmss,
             Time now) noexcept;
  // The same of one that is established in repair mode: whatever window it is given then, even a closed one, it may
  // offer what a new connection may (Linux tcp_connect_init(); TCP_REPAIR_WINDOW leaves that alone).
  void begin_restored(const Config& config, std::uint32_t buffer_bytes, const tcp::ControlBlock& cb,
                      std::uint16_t advmss, Time now) noexcept;

  // SO_RCVBUF, as stored.
  void set_buffer(std::uint32_t buffer_bytes) noexcept { buffer_bytes_ = buffer_bytes; }
  [[nodiscard]] std::uint32_t buffer_bytes() const noexcept { return buffer_bytes_; }
  // TCP_WINDOW_CLAMP.
  void set_clamp(std::uint32_t clamp_bytes, const tcp::ControlBlock& cb) noexcept;
  [[nodiscard]] std::uint32_t clamp_bytes() const noexcept { return clamp_bytes_; }
  [[nodiscard]] std::uint32_t ssthresh_bytes() const noexcept { return ssthresh_bytes_; }
  [[nodiscard]] std::uint32_t measured_space_bytes() const noexcept { return tuning_.space_bytes; }
  [[nodiscard]] std::uint32_t rtt_us() const noexcept { return rtt_us_; }

  // The whole buffer's share, no more than the clamp.
  [[nodiscard]] std::uint32_t full_window(const Config& config) const noexcept;
  // What the window may offer from rcv_nxt on (tcp::Host::receive_space()).
  [[nodiscard]] std::uint32_t window_space(const Config& config, const tcp::ControlBlock& cb) const noexcept;

  // How many bytes may still be added, whatever the window.
  [[nodiscard]] std::uint32_t room(const tcp::ControlBlock& cb) const noexcept;

  // Data of a segment was added to `bytes`, or waits out of order.
  void on_segment(const Config& config, const tcp::ControlBlock& cb, std::uint32_t segment_bytes, Time now) noexcept;
  // The program has read; `copied_seq`: of the first byte that it has not. `may_grow`: no SO_RCVBUF.
  void on_read(const Config& config, const tcp::ControlBlock& cb, Seq copied_seq, bool may_grow, Time now) noexcept;

  // Data has come out of order.
  void on_out_of_order(const Config& config, const tcp::ControlBlock& cb) noexcept;

  ByteQueue bytes;
  bool is_out_of_memory = false;  // nothing is offered

 private:
  void measure_rtt(const tcp::ControlBlock& cb, Time now) noexcept;
  void grow_buffer(const Config& config, std::uint32_t window) noexcept;
  [[nodiscard]] std::uint32_t free_window(const Config& config) const noexcept;

  std::uint32_t buffer_bytes_ = 0;    // sk_rcvbuf
  std::uint32_t clamp_bytes_ = 0;     // window_clamp
  std::uint32_t ssthresh_bytes_ = 0;  // rcv_ssthresh: what is offered at most for now
  tcp::ReceiveTuning tuning_;
  std::uint32_t rtt_us_ = 0;  // rcv_rtt_est: of the peer's data
  Seq rtt_seq_;
  Time rtt_since_{};
  std::uint16_t advmss_ = 0;
  bool rtt_runs_ = false;
};

}  // namespace twinstack::stack
