#include "sockets/tcp_info.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>

namespace twinstack::sockets {
namespace {

constexpr std::uint8_t kEstablished = 1;  // TCP_ESTABLISHED
constexpr std::uint32_t kTimestampBytes = 12;

}  // namespace

void put_engine_state(const ipc::HwConnState& state, const tcp::InfoCounters& base, tcp_info& info) noexcept {
  const tcp::MinTcp& min = state.min;
  const std::uint32_t mss =
      std::uint32_t{min.mss} -
      ((min.options & tcp::kOptTimestamps) != 0 && min.mss > kTimestampBytes ? kTimestampBytes : 0);
  const std::uint32_t in_flight = min.snd_nxt - min.snd_una;
  info.tcpi_state = kEstablished;
  info.tcpi_ca_state = static_cast<std::uint8_t>(state.ca_state);
  info.tcpi_snd_mss = mss;
  info.tcpi_unacked = mss > 0 ? (in_flight + mss - 1) / mss : 0;
  info.tcpi_rto = min.rto_us;
  info.tcpi_rtt = min.srtt_us;
  info.tcpi_rttvar = min.rttvar_us;
  if (min.min_rtt_us != 0) info.tcpi_min_rtt = min.min_rtt_us;
  info.tcpi_snd_ssthresh = min.ssthresh_segments;
  info.tcpi_snd_cwnd = min.cwnd_segments;
  info.tcpi_snd_wnd = min.snd_wnd;
  info.tcpi_notsent_bytes = state.unsent_bytes;
  // Not the socket's: until it is parked it shows again what the base has already.
  tcp::InfoCounters sum = base;
  sum += ipc::counters_of(state);
  tcp::put_counters(sum, info);
}

void add_base(const tcp::InfoCounters& base, void* info, socklen_t length) noexcept {
  tcp_info whole{};
  const std::size_t known = std::min<std::size_t>(length, sizeof(whole));
  std::memcpy(&whole, info, known);
  tcp::InfoCounters sum = base;
  sum += tcp::take_counters(whole);
  tcp::put_counters(sum, whole);
  std::memcpy(info, &whole, known);
}

}  // namespace twinstack::sockets
