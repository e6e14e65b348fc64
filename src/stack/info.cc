// TCP_INFO: the connection's state as Linux shows it.
#include <cerrno>

#include "stack/stack.h"

namespace twinstack::stack {

namespace {

void fill_receiver(const Connection& conn, TcpInfo& info) noexcept {
  info.advmss = conn.advmss;
  info.rcv_ssthresh = conn.receive.ssthresh_bytes();
  info.rcv_rtt_us = conn.receive.rtt_us();
  info.rcv_space = conn.receive.measured_space_bytes();
}

}  // namespace

void fill_chronograph(const Chronograph& chrono, Time now, TcpInfo& out) noexcept {
  using Activity = Chronograph::Activity;
  const auto spent = [&](Activity a) { return static_cast<std::uint64_t>(chrono.spent_us(a, now)); };
  out.rwnd_limited_us = spent(Activity::kReceiveLimited);
  out.sndbuf_limited_us = spent(Activity::kSendLimited);
  out.busy_time_us = spent(Activity::kBusy) + out.rwnd_limited_us + out.sndbuf_limited_us;
}

int SoftStack::info(SocketId id, TcpInfo& out, Time now) const {
  const Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  out = TcpInfo{};
  out.state = static_cast<std::uint8_t>(state_of(*socket));
  if (socket->listener) {
    out.unacked = static_cast<std::uint32_t>(socket->listener->accepted.size());
    out.sacked = socket->listener->backlog;
    return 0;
  }
  if (socket->opening) {
    out.retransmits = socket->opening->handshake.timeouts;
    out.unacked = 1;
  }
  if (!socket->conn) return 0;
  tcp::fill_tcp_info(socket->conn->cb, socket->conn->counters, socket->conn->delivery_rate, now, out);
  fill_chronograph(socket->conn->chronograph, now, out);
  fill_receiver(*socket->conn, out);
  out.pmtu = path_mtu_of(*socket->conn, socket->flow.remote, now);
  if (socket->conn->syn_data) out.options |= tcp::kInfoSynData;
  return 0;
}

}  // namespace twinstack::stack
