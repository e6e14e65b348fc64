#include "stack/receive_buffer.h"

#include <algorithm>
#include <bit>

#include "tcp/rtt.h"
#include "tcp/window.h"

namespace twinstack::stack {

namespace {

constexpr std::uint32_t kFirstWindow = 65535;      // Linux tcp_select_initial_window()
constexpr std::uint32_t kSmallestForGrowth = 128;  // bytes of a segment that opens the window
constexpr std::uint32_t kMostWindow = 65535U << 14;

// What a segment of this length weighs in a kernel's buffer: its head and the next size that the allocator has.
std::uint32_t weight(std::uint32_t segment_bytes) noexcept { return std::bit_ceil(segment_bytes + 448U) + 256U; }

}  // namespace

std::uint32_t window_from_space(const Config& config, std::uint32_t space_bytes) noexcept {
  const int scale = config.tcp_adv_win_scale;
  return scale <= 0 ? space_bytes >> -scale : space_bytes - (space_bytes >> scale);
}

std::uint32_t space_from_window(const Config& config, std::uint32_t window_bytes) noexcept {
  const int scale = config.tcp_adv_win_scale;
  std::uint64_t space = window_bytes;
  if (scale <= 0) {
    space <<= -scale;
  } else {
    space = (space << scale) / ((1U << scale) - 1);
  }
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(space, UINT32_MAX / 2));
}

void ReceiveBuffer::begin(const Config& config, std::uint32_t buffer_bytes, const tcp::ControlBlock& cb,
                          std::uint16_t advmss, Time now) noexcept {
  buffer_bytes_ = buffer_bytes;
  advmss_ = advmss;
  clamp_bytes_ = kMostWindow;
  ssthresh_bytes_ = cb.rcv_wnd;
  const std::uint32_t full = window_from_space(config, buffer_bytes_);
  if (clamp_bytes_ >= full) clamp_bytes_ = full;
  ssthresh_bytes_ = std::min(ssthresh_bytes_, clamp_bytes_);
  tcp::begin_receive_tuning(tuning_, cb, ssthresh_bytes_, advmss_, now);
}

void ReceiveBuffer::begin_restored(const Config& config, std::uint32_t buffer_bytes, const tcp::ControlBlock& cb,
                                   std::uint16_t advmss, Time now) noexcept {
  begin(config, buffer_bytes, cb, advmss, now);
  ssthresh_bytes_ = std::min(clamp_bytes_, kFirstWindow);
  tuning_.space_bytes = std::min(ssthresh_bytes_, tcp::kInitialReceiveSegments * advmss_);
}

// Linux tcp_set_window_clamp().
void ReceiveBuffer::set_clamp(std::uint32_t clamp_bytes, const tcp::ControlBlock& cb) noexcept {
  if (clamp_bytes < clamp_bytes_) {
    ssthresh_bytes_ = std::min(ssthresh_bytes_, clamp_bytes);
  } else {
    ssthresh_bytes_ = std::max(ssthresh_bytes_, std::min(cb.rcv_wnd, clamp_bytes));
  }
  clamp_bytes_ = clamp_bytes;
}

std::uint32_t ReceiveBuffer::full_window(const Config& config) const noexcept {
  return std::min(clamp_bytes_, window_from_space(config, buffer_bytes_));
}

std::uint32_t ReceiveBuffer::free_window(const Config& config) const noexcept {
  const std::uint32_t full = window_from_space(config, buffer_bytes_);
  return full - std::min(full, bytes.size());
}

// Linux __tcp_select_window(): nothing rather than little once the buffer is more than half full.
std::uint32_t ReceiveBuffer::window_space(const Config& config, const tcp::ControlBlock& cb) const noexcept {
  if (is_out_of_memory) return 0;
  const std::uint32_t full = full_window(config);
  const std::uint32_t allowed = window_from_space(config, buffer_bytes_);
  std::uint32_t free = free_window(config);
  if (free < full / 2) {
    free &= ~((1U << cb.rcv_wscale) - 1);
    if (free < allowed / 16 || free < std::min<std::uint32_t>(cb.rcv_mss, full)) return 0;
  }
  return std::min(free, ssthresh_bytes_);
}

std::uint32_t ReceiveBuffer::room(const tcp::ControlBlock& cb) const noexcept {
  const std::uint32_t most = tcp::most_unread(cb, buffer_bytes_);
  return most - std::min(most, bytes.size());
}

// Linux tcp_grow_window(): each segment that is worth its weight opens the window by two.
void ReceiveBuffer::on_segment(const Config& config, const tcp::ControlBlock& cb, std::uint32_t segment_bytes,
                               Time now) noexcept {
  measure_rtt(cb, now);
  if (segment_bytes < kSmallestForGrowth) return;
  const std::uint32_t most = std::min(clamp_bytes_, free_window(config));
  if (ssthresh_bytes_ >= most) return;
  std::uint32_t more = 2U * advmss_;
  std::uint32_t heavy = window_from_space(config, weight(segment_bytes));
  if (heavy > segment_bytes) {
    more = 0;
    std::uint32_t window = window_from_space(config, config.tcp_rmem.max_bytes) / 2;
    for (heavy /= 2; ssthresh_bytes_ <= window && more == 0; heavy /= 2, window /= 2) {
      if (heavy <= segment_bytes) more = 2U * cb.rcv_mss;
    }
  }
  more = more == 0 ? 0 : std::max(more, 2 * segment_bytes);
  ssthresh_bytes_ += std::min(more, most - ssthresh_bytes_);
}

// A window's worth of data takes at least a round trip (Linux tcp_rcv_rtt_measure()).
void ReceiveBuffer::measure_rtt(const tcp::ControlBlock& cb, Time now) noexcept {
  if (rtt_runs_ && cb.rcv_nxt < rtt_seq_) return;
  if (rtt_runs_) {
    const auto sample = std::chrono::duration_cast<std::chrono::microseconds>(now - rtt_since_);
    const auto us = static_cast<std::uint32_t>(std::clamp<std::int64_t>(sample.count(), 1, UINT32_MAX));
    rtt_us_ = rtt_us_ == 0 ? us : std::min(rtt_us_, us);
  }
  rtt_runs_ = true;
  rtt_seq_ = cb.rcv_nxt + cb.rcv_wnd;
  rtt_since_ = now;
}

// Linux tcp_rcv_space_adjust().
void ReceiveBuffer::on_read(const Config& config, const tcp::ControlBlock& cb, Seq copied_seq, bool may_grow,
                            Time now) noexcept {
  const std::uint32_t rtt = tcp::shorter_rtt_us(cb, rtt_us_);
  const std::uint32_t window = tcp::tune_receive_window(tuning_, cb, copied_seq, rtt, now);
  if (window != 0 && may_grow) grow_buffer(config, window);
}

void ReceiveBuffer::on_out_of_order(const Config& config, const tcp::ControlBlock& cb) noexcept {
  grow_buffer(config, tcp::window_with_out_of_order(tuning_, cb));
}

void ReceiveBuffer::grow_buffer(const Config& config, std::uint32_t window) noexcept {
  const std::uint32_t buffer = std::min(space_from_window(config, window), config.tcp_rmem.max_bytes);
  if (buffer <= buffer_bytes_) return;
  buffer_bytes_ = buffer;
  clamp_bytes_ = window_from_space(config, buffer);
}

}  // namespace twinstack::stack
