#include "tcp/tcp_info.h"

#include <algorithm>

#include "tcp/congestion/congestion.h"
#include "tcp/flight.h"
#include "tcp/rate.h"
#include "tcp/rtt.h"
#include "tcp/window.h"

namespace twinstack::tcp {

namespace {

std::uint32_t ms_since(Tick then, Time now) noexcept {
  const auto passed = std::chrono::duration_cast<std::chrono::milliseconds>(age(then, now));
  return static_cast<std::uint32_t>(passed.count());
}

std::uint8_t option_bits(const ControlBlock& cb) noexcept {
  unsigned bits = 0;
  if ((cb.options & kOptTimestamps) != 0) bits |= kInfoTimestamps;
  if ((cb.options & kOptSack) != 0) bits |= kInfoSack;
  if ((cb.options & kOptWindowScale) != 0) bits |= kInfoWindowScale;
  if ((cb.options & kOptEcn) != 0) bits |= kInfoEcn;
  if (cb.has(kEcnSeen)) bits |= kInfoEcnSeen;
  if ((cb.options & kOptTsMicroseconds) != 0) bits |= kInfoMicroseconds;
  return static_cast<std::uint8_t>(bits);
}

void fill_sender(const ControlBlock& cb, TcpInfo& info) noexcept {
  info.ca_state = static_cast<std::uint8_t>(cb.recovery);
  info.retransmits = cb.retries;
  info.probes = cb.probes_out;
  info.backoff = cb.backoff;
  info.options = option_bits(cb);
  info.window_scales = static_cast<std::uint8_t>(cb.snd_wscale | cb.rcv_wscale << 4);
  info.snd_mss = cb.mss;
  if (cb.flight) {
    info.unacked = cb.flight->sent.size();
    info.sacked = cb.flight->sacked;
    info.lost = cb.flight->lost;
    info.retrans = cb.flight->retransmitted;
  }
  info.snd_ssthresh = cb.ssthresh;
  info.snd_cwnd = cb.cwnd;
  info.reordering = cb.reordering;
  info.snd_wnd = cb.snd_wnd;
  info.notsent_bytes = bytes_between(cb.snd_nxt, cb.write_seq);
}

void fill_times(const ControlBlock& cb, Time now, TcpInfo& info) noexcept {
  // Window probes back off by themselves.
  const Duration rto =
      cb.sender_timer == SenderTimer::kPersist ? std::chrono::microseconds(cb.rto_us) : backed_off_rto(cb);
  info.rto_us = static_cast<std::uint32_t>(std::chrono::duration_cast<std::chrono::microseconds>(rto).count());
  info.ato_us = cb.ack_timeout_ms * 1000U;
  info.rtt_us = smoothed_rtt_us(cb);
  info.rttvar_us = cb.mdev_us4 >> 2;
  info.min_rtt_us = cb.min_rtt_us == 0 ? UINT32_MAX : cb.min_rtt_us;
  info.last_data_sent_ms = ms_since(cb.last_send, now);
  info.last_data_recv_ms = ms_since(cb.last_receive_data, now);
  info.last_ack_recv_ms = ms_since(cb.last_receive, now);
}

// Linux tcp_update_pacing_rate(), tcp_compute_delivery_rate().
void fill_rates(const ControlBlock& cb, const DeliveryRate& measured, TcpInfo& info) noexcept {
  const std::uint64_t srtt_us = smoothed_rtt_us(cb);
  const std::uint64_t percent = cb.cwnd < cb.ssthresh / 2 ? 200 : 120;
  const std::uint64_t segments = std::max(cb.cwnd, packets_out(cb));
  info.pacing_rate = srtt_us == 0 ? UINT64_MAX : segments * cb.mss * percent * 10'000 / srtt_us;
  if (const auto rate = congestion_ops(cb).pacing_rate; rate != nullptr) info.pacing_rate = rate(cb);
  info.max_pacing_rate = UINT64_MAX;
  info.delivery_rate = bytes_per_second(measured, cb.mss);
  info.app_limited = is_app_limited(measured) ? 1 : 0;
  info.delivered = cb.delivered;
  info.delivered_ce = cb.delivered_ce;
  info.reord_seen = cb.reord_seen;
}

void fill_counters(const Counters& counters, TcpInfo& info) noexcept {
  info.bytes_acked = counters.bytes_acked;
  info.bytes_received = counters.bytes_received;
  info.bytes_sent = counters.bytes_sent;
  info.bytes_retrans = counters.bytes_retransmitted;
  info.segs_in = counters.segs_in;
  info.segs_out = counters.segs_out;
  info.data_segs_in = counters.data_segs_in;
  info.data_segs_out = counters.data_segs_out;
  info.total_retrans = counters.segs_retransmitted;
  info.dsack_dups = counters.dsack_dups;
  info.rcv_ooopack = counters.out_of_order;
  info.total_rto = counters.timeouts;
}

}  // namespace

void fill_tcp_info(const ControlBlock& cb, const Counters& counters, const DeliveryRate& rate, Time now,
                   TcpInfo& out) noexcept {
  fill_sender(cb, out);
  fill_times(cb, now, out);
  fill_rates(cb, rate, out);
  fill_counters(counters, out);
  out.rcv_mss = cb.rcv_mss;
  out.rcv_wnd = offered_window(cb);
}

}  // namespace twinstack::tcp
