#include "tcp_info.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "tcp/flight.h"
#include "tcp/min_tcp.h"

namespace twinstack::packetdrill {

namespace {

static_assert(offsetof(LinuxTcpInfo, delivered) == 192);

std::uint32_t ms_since(tcp::Tick then, Time now) noexcept {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(tcp::ticks_between(then, tcp::to_tick(now)));
  return static_cast<std::uint32_t>(std::max<std::int64_t>(ms.count(), 0));
}

std::uint8_t negotiated(const tcp::ControlBlock& cb) noexcept {
  unsigned options = 0;
  if ((cb.options & tcp::kOptTimestamps) != 0) options |= kInfoTimestamps;
  if ((cb.options & tcp::kOptSack) != 0) options |= kInfoSack;
  if ((cb.options & tcp::kOptWindowScale) != 0) options |= kInfoWindowScale;
  if ((cb.options & tcp::kOptEcn) != 0) options |= kInfoEcn;
  if (cb.has(tcp::kEcnSeen)) options |= kInfoEcnSeen;
  return static_cast<std::uint8_t>(options);
}

void put_counters(const tcp::Counters& counters, LinuxTcpInfo& info) noexcept {
  info.total_retrans = counters.segs_retransmitted;
  info.bytes_acked = counters.bytes_acked;
  info.bytes_received = counters.bytes_received;
  info.segs_out = counters.segs_out;
  info.segs_in = counters.segs_in;
  info.data_segs_in = counters.data_segs_in;
  info.data_segs_out = counters.data_segs_out;
  info.bytes_sent = counters.bytes_sent;
  info.bytes_retrans = counters.bytes_retransmitted;
  info.dsack_dups = counters.dsack_dups;
  info.reord_seen = counters.reord_seen;
  info.rcv_ooopack = counters.out_of_order;
  info.total_rto = static_cast<std::uint16_t>(counters.timeouts);
}

void put_flight(const tcp::ControlBlock& cb, LinuxTcpInfo& info) noexcept {
  info.unacked = tcp::packets_out(cb);
  if (!cb.flight) return;
  info.sacked = cb.flight->sacked;
  info.lost = cb.flight->lost;
  info.retrans = cb.flight->retransmitted;
}

}  // namespace

LinuxTcpInfo tcp_info_of(const tcp::ControlBlock& cb, const tcp::Counters& counters, Time now) noexcept {
  LinuxTcpInfo info{};
  info.state = static_cast<std::uint8_t>(tcp::tcp_state(cb));
  info.ca_state = static_cast<std::uint8_t>(cb.recovery);
  info.retransmits = cb.retries;
  info.probes = cb.probes_out;
  info.backoff = cb.backoff;
  info.options = negotiated(cb);
  info.wscales = static_cast<std::uint8_t>(cb.snd_wscale | cb.rcv_wscale << 4);
  info.rto = cb.rto_us;
  info.ato = cb.ack_timeout_ms * 1000U;
  info.snd_mss = cb.mss;
  info.rcv_mss = cb.rcv_mss;
  info.last_data_sent = ms_since(cb.last_send, now);
  info.last_data_recv = ms_since(cb.last_receive_data, now);
  info.last_ack_recv = ms_since(cb.last_receive, now);
  info.rtt = tcp::smoothed_rtt_us(cb);
  info.rttvar = cb.mdev_us4 >> 2;
  info.snd_ssthresh = cb.ssthresh;
  info.snd_cwnd = cb.cwnd;
  info.reordering = cb.reordering;
  info.notsent_bytes = bytes_between(cb.snd_nxt, max(cb.write_seq, cb.snd_nxt));
  info.min_rtt = cb.min_rtt_us == 0 ? UINT32_MAX : cb.min_rtt_us;
  info.delivered = cb.delivered;
  info.delivered_ce = cb.delivered_ce;
  info.snd_wnd = cb.snd_wnd;
  info.rcv_wnd = cb.rcv_wnd;
  put_flight(cb, info);
  put_counters(counters, info);
  return info;
}

int answer_option(const void* answer, std::size_t bytes, void* value, socklen_t* length) noexcept {
  if (value == nullptr || length == nullptr) return -EFAULT;
  *length = static_cast<socklen_t>(std::min<std::size_t>(*length, bytes));
  std::memcpy(value, answer, *length);
  return 0;
}

}  // namespace twinstack::packetdrill
