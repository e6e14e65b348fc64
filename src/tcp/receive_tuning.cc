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

std::uint32_t window_for(const ReceiveTuning& tuning, const ControlBlock& cb, std::uint32_t copied) noexcept {
  std::uint64_t window = 2ULL * copied + 16ULL * tuning.advmss;
  window += 2 * (window * (copied - tuning.space_bytes) / std::max(tuning.space_bytes, 1U));
  window += out_of_order_reach(cb);
  return static_cast<std::uint32_t>(std::min(window, kMostWindow));
}

void begin_round(ReceiveTuning& tuning, Seq copied_seq, Time now) noexcept {
  tuning.space_seq = copied_seq;
  tuning.since = to_tick(now);
}

}  // namespace

void begin_receive_tuning(ReceiveTuning& tuning, const ControlBlock& cb, std::uint32_t window_bytes,
                          std::uint16_t advmss, Time now) noexcept {
  tuning.space_bytes = std::min({window_bytes, cb.rcv_wnd, kInitialReceiveSegments * advmss});
  tuning.advmss = advmss;
  begin_round(tuning, cb.rcv_nxt, now);
}

void measure_receive_rtt(ReceiveTuning& tuning, const ControlBlock& cb, Seq copied_seq, std::uint32_t capacity_bytes,
                         Time now) noexcept {
  const Seq edge = tuning.space_seq + capacity_bytes + (1U << cb.rcv_wscale);  // windows are rounded up
  if (cb.rcv_nxt <= edge) return;
  const auto sample =
      static_cast<std::uint16_t>(std::clamp<std::int64_t>(age(tuning.since, now).count() / kTickNs, 1, UINT16_MAX));
  const bool first = tuning.rtt_ticks == 0;
  tuning.rtt_ticks = first ? sample : std::min(tuning.rtt_ticks, sample);
  if (first) begin_round(tuning, copied_seq, now);  // this one may have been much longer than a round trip
}

std::uint32_t shorter_rtt_us(const ControlBlock& cb, std::uint32_t of_peers_data_us) noexcept {
  const std::uint32_t ours = smoothed_rtt_us(cb);
  if (ours == 0 || of_peers_data_us == 0) return std::max(ours, of_peers_data_us);
  return std::min(ours, of_peers_data_us);
}

std::uint32_t tune_receive_window(ReceiveTuning& tuning, const ControlBlock& cb, Seq copied_seq, std::uint32_t rtt_us,
                                  Time now) noexcept {
  const Duration passed = age(tuning.since, now);
  if (rtt_us == 0 || passed < std::chrono::microseconds(rtt_us)) return 0;
  const std::uint32_t copied = copied_seq > tuning.space_seq ? bytes_between(tuning.space_seq, copied_seq) : 0;
  std::uint32_t window = 0;
  if (copied > tuning.space_bytes) {
    window = window_for(tuning, cb, copied);
    tuning.space_bytes = copied;
  }
  begin_round(tuning, copied_seq, now);
  return window;
}

std::uint32_t window_with_out_of_order(const ReceiveTuning& tuning, const ControlBlock& cb) noexcept {
  const std::uint32_t reach = out_of_order_reach(cb);
  if (reach == 0) return 0;
  return static_cast<std::uint32_t>(std::min(2 * std::uint64_t{tuning.space_bytes} + reach, kMostWindow));
}

}  // namespace twinstack::tcp
