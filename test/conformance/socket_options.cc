#include "socket_options.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <iterator>
#include <span>

namespace twinstack::conformance {
namespace {

constexpr SocketOption kOptions[] = {
    {"SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE},
    {"SO_RCVBUF", SOL_SOCKET, SO_RCVBUF},
    {"SO_SNDBUF", SOL_SOCKET, SO_SNDBUF},
    {"SO_ERROR", SOL_SOCKET, SO_ERROR},
    {"SO_RCVLOWAT", SOL_SOCKET, SO_RCVLOWAT},
    {"SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE},
    {"SO_LINGER", SOL_SOCKET, SO_LINGER},
    {"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY},
    {"TCP_CORK", IPPROTO_TCP, TCP_CORK},
    {"TCP_MAXSEG", IPPROTO_TCP, TCP_MAXSEG},
    {"TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE},
    {"TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL},
    {"TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT},
    {"TCP_SYNCNT", IPPROTO_TCP, TCP_SYNCNT},
    {"TCP_LINGER2", IPPROTO_TCP, TCP_LINGER2},
    {"TCP_DEFER_ACCEPT", IPPROTO_TCP, TCP_DEFER_ACCEPT},
    {"TCP_WINDOW_CLAMP", IPPROTO_TCP, TCP_WINDOW_CLAMP},
    {"TCP_QUICKACK", IPPROTO_TCP, TCP_QUICKACK},
    {"TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT},
    {"TCP_NOTSENT_LOWAT", IPPROTO_TCP, TCP_NOTSENT_LOWAT},
    {"TCP_CONGESTION", IPPROTO_TCP, TCP_CONGESTION},
    {"IP_TTL", IPPROTO_IP, IP_TTL},
    {"IP_TOS", IPPROTO_IP, IP_TOS},
};

struct InfoField {
  std::string_view name;
  std::int64_t (*read)(const tcp_info&);
};

template <auto Member>
std::int64_t field(const tcp_info& info) {
  return static_cast<std::int64_t>(info.*Member);
}

constexpr InfoField kInfoFields[] = {
    {"state", field<&tcp_info::tcpi_state>},
    {"ca_state", field<&tcp_info::tcpi_ca_state>},
    {"retransmits", field<&tcp_info::tcpi_retransmits>},
    {"probes", field<&tcp_info::tcpi_probes>},
    {"backoff", field<&tcp_info::tcpi_backoff>},
    {"options", field<&tcp_info::tcpi_options>},
    {"snd_wscale", [](const tcp_info& info) -> std::int64_t { return info.tcpi_snd_wscale; }},
    {"rcv_wscale", [](const tcp_info& info) -> std::int64_t { return info.tcpi_rcv_wscale; }},
    {"rto", field<&tcp_info::tcpi_rto>},
    {"ato", field<&tcp_info::tcpi_ato>},
    {"snd_mss", field<&tcp_info::tcpi_snd_mss>},
    {"rcv_mss", field<&tcp_info::tcpi_rcv_mss>},
    {"unacked", field<&tcp_info::tcpi_unacked>},
    {"sacked", field<&tcp_info::tcpi_sacked>},
    {"lost", field<&tcp_info::tcpi_lost>},
    {"retrans", field<&tcp_info::tcpi_retrans>},
    {"pmtu", field<&tcp_info::tcpi_pmtu>},
    {"rtt", field<&tcp_info::tcpi_rtt>},
    {"rttvar", field<&tcp_info::tcpi_rttvar>},
    {"snd_ssthresh", field<&tcp_info::tcpi_snd_ssthresh>},
    {"snd_cwnd", field<&tcp_info::tcpi_snd_cwnd>},
    {"advmss", field<&tcp_info::tcpi_advmss>},
    {"reordering", field<&tcp_info::tcpi_reordering>},
    {"total_retrans", field<&tcp_info::tcpi_total_retrans>},
    {"bytes_acked", field<&tcp_info::tcpi_bytes_acked>},
    {"bytes_received", field<&tcp_info::tcpi_bytes_received>},
    {"segs_out", field<&tcp_info::tcpi_segs_out>},
    {"segs_in", field<&tcp_info::tcpi_segs_in>},
    {"notsent_bytes", field<&tcp_info::tcpi_notsent_bytes>},
    {"min_rtt", field<&tcp_info::tcpi_min_rtt>},
    {"data_segs_in", field<&tcp_info::tcpi_data_segs_in>},
    {"data_segs_out", field<&tcp_info::tcpi_data_segs_out>},
    {"delivered", field<&tcp_info::tcpi_delivered>},
    {"delivered_ce", field<&tcp_info::tcpi_delivered_ce>},
    {"bytes_sent", field<&tcp_info::tcpi_bytes_sent>},
    {"bytes_retrans", field<&tcp_info::tcpi_bytes_retrans>},
    {"dsack_dups", field<&tcp_info::tcpi_dsack_dups>},
    {"reord_seen", field<&tcp_info::tcpi_reord_seen>},
    {"rcv_ooopack", field<&tcp_info::tcpi_rcv_ooopack>},
    {"snd_wnd", field<&tcp_info::tcpi_snd_wnd>},
};

}  // namespace

const SocketOption* find_option(std::string_view name) noexcept {
  const SocketOption* const found = std::ranges::find(kOptions, name, &SocketOption::name);
  return found == std::end(kOptions) ? nullptr : found;
}

std::vector<std::byte> option_value(const SocketOption& option, std::int64_t value, const std::string& text) {
  const auto bytes_of = [](const auto& object) {
    const auto view = std::as_bytes(std::span(&object, 1));
    return std::vector<std::byte>(view.begin(), view.end());
  };
  if (!text.empty()) {
    const auto view = std::as_bytes(std::span(text));
    return {view.begin(), view.end()};
  }
  const int number = static_cast<int>(value);
  if (option.name == "SO_LINGER") return bytes_of(linger{.l_onoff = 1, .l_linger = number});
  return bytes_of(number);
}

Info info_of(const tcp_info& read) {
  Info out;
  for (const InfoField& known : kInfoFields) out.emplace(known.name, known.read(read));
  return out;
}

}  // namespace twinstack::conformance
