#include "sockets/tcp_info.h"

#include <algorithm>
#include <cstring>

namespace twinstack::sockets {
namespace {

void put_counters(const tcp::InfoCounters& counters, tcp::TcpInfo& info) noexcept {
  tcp::for_each_counter(counters, info, [](const auto& a, auto& b) { b = a; });
}

// What belongs to buffers, route and time, of which the engine does not know: as the socket has it.
void keep_the_sockets(const tcp::TcpInfo& socket, tcp::TcpInfo& info) noexcept {
  info.pmtu = socket.pmtu;
  info.rcv_ssthresh = socket.rcv_ssthresh;
  info.rcv_rtt_us = socket.rcv_rtt_us;
  info.rcv_space = socket.rcv_space;
  info.max_pacing_rate = socket.max_pacing_rate;
  info.busy_time_us = socket.busy_time_us;
  info.rwnd_limited_us = socket.rwnd_limited_us;
  info.sndbuf_limited_us = socket.sndbuf_limited_us;
  info.rehash = socket.rehash;
  info.total_rto_recoveries = socket.total_rto_recoveries;
  info.total_rto_time_ms = socket.total_rto_time_ms;
  std::copy(std::begin(socket.accurate_ecn), std::end(socket.accurate_ecn), std::begin(info.accurate_ecn));
}

}  // namespace

void put_engine_state(const ipc::HwConnState& state, const tcp::InfoCounters& base, tcp::TcpInfo& info) noexcept {
  tcp::TcpInfo told = state.info;
  keep_the_sockets(info, told);
  info = told;
  // The counters are not the socket's: until it is parked it shows again what the base has already.
  tcp::InfoCounters sum = base;
  sum += ipc::counters_of(state);
  put_counters(sum, info);
}

void add_base(const tcp::InfoCounters& base, void* info, socklen_t length) noexcept {
  tcp::TcpInfo whole{};
  const std::size_t known = std::min<std::size_t>(length, sizeof(whole));
  std::memcpy(&whole, info, known);
  tcp::InfoCounters sum = base;
  tcp::for_each_counter(sum, whole, [](auto& a, const auto& b) { a += b; });
  put_counters(sum, whole);
  std::memcpy(info, &whole, known);
}

}  // namespace twinstack::sockets
