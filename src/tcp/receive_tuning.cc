#include "tcp/receive_tuning.h"

#include <algorithm>

#include "tcp/cold_state.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint64_t kMostWindow = std::uint64_t{65535} << 14;  // RFC 7323 2.3

// From rcv_nxt to the end of what is held.
std::uint32_t out_of_order_reach(const ControlBlock& cb) noexcept {
  if (!cb.cold || cb.cold->out_of_order.empty()) return 0;
  return bytes_between(cb.rcv_nxt, cb.cold->out_of_order.back().end());
}

std::uint32_t window_for(const ReceiveTuning& tuning, const ControlBlock& cb, std::uint32_t copied,
                         std::uint16_t advmss) noexcept {
  std::uint64_t window = 2ULL * copied + 16ULL * advmss;
  window += 2 * (window * (copied - tuning.space_bytes) / std::max(tuning.space_bytes, 1U));
  window += out_of_order_reach(cb);
  return static_cast<std::uint32_t>(std::min(window, kMostWindow));
}

}  // namespace

void begin_receive_tuning(ReceiveTuning& tuning, const ControlBlock& cb, std::uint32_t window_bytes,
                          std::uint16_t advmss, Time now) noexcept {
  tuning.space_bytes = std::min({window_bytes, cb.rcv_wnd, kInitialReceiveSegments * advmss});
  tuning.space_seq = cb.rcv_nxt;
  tuning.since = to_tick(now);
}

std::uint32_t tune_receive_window(ReceiveTuning& tuning, const ControlBlock& cb, Seq copied_seq, std::uint32_t rtt_us,
                                  std::uint16_t advmss, Time now) noexcept {
  const Duration passed = age(tuning.since, now);
  if (rtt_us == 0 || passed < std::chrono::microseconds(rtt_us)) return 0;
  const std::uint32_t copied = copied_seq > tuning.space_seq ? bytes_between(tuning.space_seq, copied_seq) : 0;
  std::uint32_t window = 0;
  if (copied > tuning.space_bytes) {
    window = window_for(tuning, cb, copied, advmss);
    tuning.space_bytes = copied;
  }
  tuning.space_seq = copied_seq;
  tuning.since = to_tick(now);
  return window;
}

std::uint32_t window_with_out_of_order(const ReceiveTuning& tuning, const ControlBlock& cb) noexcept {
  const std::uint32_t reach = out_of_order_reach(cb);
  if (reach == 0) return 0;
  return static_cast<std::uint32_t>(std::min(2 * std::uint64_t{tuning.space_bytes} + reach, kMostWindow));
}

}  // namespace twinstack::tcp
