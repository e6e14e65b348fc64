#include "sockets/tcp_info.h"

#include <netinet/in.h>

#include <cstring>

namespace twinstack::sockets {
namespace {

constexpr std::uint8_t kEstablished = 1;  // TCP_ESTABLISHED
constexpr std::uint32_t kTimestampBytes = 12;

std::uint32_t add(std::uint32_t a, std::uint64_t b) noexcept { return a + static_cast<std::uint32_t>(b); }

}  // namespace

void add_engine_state(const ipc::HwConnState& state, tcp_info& info) noexcept {
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
  info.tcpi_bytes_acked += state.bytes_acked;
  info.tcpi_bytes_received += state.bytes_received;
  info.tcpi_bytes_sent += state.bytes_sent;
  info.tcpi_bytes_retrans += state.bytes_retransmitted;
  info.tcpi_segs_out = add(info.tcpi_segs_out, state.segments_out);
  info.tcpi_segs_in = add(info.tcpi_segs_in, state.segments_in);
  info.tcpi_total_retrans = add(info.tcpi_total_retrans, state.retransmitted_segments);
}

}  // namespace twinstack::sockets
