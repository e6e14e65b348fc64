// Active opens: SYN-SENT, and SYN-RECEIVED after SYNs that met.
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "stack/stack.h"
#include "tcp/congestion/congestion.h"

namespace twinstack::stack {

namespace {

// What a SYN-ACK carries beside the SYN (RFC 7413 4.2.1), as a segment of the connection. Its window was not scaled.
wire::TcpPacket without_syn(const wire::TcpPacket& packet, std::uint8_t snd_wscale) {
  wire::TcpPacket rest = packet;
  rest.segment.flags = static_cast<std::uint8_t>(rest.segment.flags & ~wire::kSyn);
  rest.segment.seq = packet.segment.seq + 1;
  rest.segment.window = static_cast<std::uint16_t>(packet.segment.window >> snd_wscale);
  return rest;
}

}  // namespace

// What the program's options say, for MinTcp.
void SoftStack::fill_settings(const Socket& socket, tcp::MinTcp& out) const {
  const Options& options = socket.options;
  const std::string& name = options.congestion.empty() ? config_.tcp_congestion_control : options.congestion;
  std::memcpy(out.congestion.data(), name.data(), std::min(name.size(), out.congestion.size() - 1));
  out.flags =
      static_cast<std::uint16_t>((options.no_delay ? tcp::kFlagNoDelay : 0) | (options.cork ? tcp::kFlagCork : 0) |
                                 (options.keepalive ? tcp::kFlagKeepalive : 0));
  out.snd_buf_bytes = options.send_buffer_bytes;
  out.rcv_buf_bytes = options.receive_buffer_bytes;
  out.user_timeout_ms = options.user_timeout_ms;
  const auto or_sysctl = [](std::uint32_t own, std::uint32_t sysctl) { return own != 0 ? own : sysctl; };
  out.keepalive_idle_s = or_sysctl(options.keepalive_idle_s, config_.tcp_keepalive_time_s);
  out.keepalive_interval_s = or_sysctl(options.keepalive_interval_s, config_.tcp_keepalive_intvl_s);
  out.keepalive_probes = or_sysctl(options.keepalive_probes, config_.tcp_keepalive_probes);
  out.ttl = options.ttl != 0 ? options.ttl : config_.ttl;
  out.traffic_class = options.traffic_class;
}

void SoftStack::fill_windows(const Socket& socket, tcp::HandshakeConfig& out) const {
  const Options& options = socket.options;
  std::uint32_t space = window_from_space(config_, first_receive_buffer(socket));
  std::uint32_t limit = std::max({space, config_.tcp_rmem.max_bytes, config_.rmem_max});
  if (options.receive_buffer_locked) limit = space;
  if (options.window_clamp != 0) {
    space = std::min(space, options.window_clamp);
    limit = std::min(limit, options.window_clamp);
  }
  out.receive_space_bytes = space;
  out.receive_space_limit_bytes = limit;
}

tcp::HandshakeConfig SoftStack::handshake_config(const Socket& socket, const FlowKey& flow, Time now) const {
  tcp::HandshakeConfig out;
  fill_settings(socket, out.settings);
  fill_windows(socket, out);
  out.announced_mss = mss_for(config_.mtu, flow.is_v4());
  out.path_mss = std::max(mss_for(path_mtu(flow.remote, now), flow.is_v4()), config_.tcp_min_snd_mss);
  out.user_mss = socket.options.max_segment;
  out.initial_cwnd_segments = config_.initial_cwnd_segments;
  out.options = static_cast<std::uint16_t>((config_.tcp_timestamps ? tcp::kOptTimestamps : 0) |
                                           (config_.tcp_sack ? tcp::kOptSack : 0) |
                                           (config_.tcp_window_scaling ? tcp::kOptWindowScale : 0));
  out.ecn = static_cast<tcp::EcnMode>(std::min<std::uint8_t>(config_.tcp_ecn, 2));
  const char* const name = out.settings.congestion.data();
  out.ecn_required = tcp::congestion_ops(tcp::congestion_kind(name)).wants_ecn;
  out.syn_retries = socket.options.syn_retries != 0 ? socket.options.syn_retries : config_.tcp_syn_retries;
  out.syn_linear_timeouts = config_.tcp_syn_linear_timeouts;
  out.synack_retries = std::max(config_.tcp_synack_retries, socket.options.defer_accept);
  return out;
}

int SoftStack::choose_flow(Socket& socket, const Address& peer, tcp::InitialNumbers& numbers, Time now) {
  FlowKey flow = socket.flow;
  flow.remote = is_any(peer.ip) ? flow.remote : peer.ip;
  flow.remote_port = peer.port;
  if (is_any(flow.local) && !source_for(flow.remote, flow.local)) return -ENETUNREACH;
  if (flow.local.is_v4() != flow.remote.is_v4()) return -EINVAL;
  if (is_any(peer.ip)) flow.remote = flow.local;  // this host, as Linux
  if (socket.bucket != nullptr) {
    if (!flow_free(flow, now)) return -EADDRNOTAVAIL;
  } else if (const int error = choose_connect_port(flow, now); error != 0) {
    return error;
  }
  numbers = tcp::initial_numbers(secret_, flow, now);
  if (Endpoint* const old = find(flow); old != nullptr) take_over(static_cast<TimeWait&>(*old), numbers);
  socket.flow = flow;
  if (socket.bucket == nullptr) join_port(socket, flow.local_port);
  enter(socket);
  return 0;
}

// `data`: MSG_FASTOPEN, to go with the SYN if it may; else nullptr. Returns 0 when the SYN waits for data.
int SoftStack::start_connecting(Socket& socket, const Address& peer, const ByteView* data, Time now) {
  tcp::InitialNumbers numbers;
  if (const int error = choose_flow(socket, peer, numbers, now); error != 0) return error;
  socket.opening = std::make_unique<Opening>();
  Opening& opening = *socket.opening;
  opening.config = handshake_config(socket, socket.flow, now);
  socket.attempt = Socket::Attempt::kConnecting;
  ++stats_.active_opens;
  tcp::open_active(opening.handshake, opening.config, socket.flow, numbers, now);
  const bool by_option = socket.options.fast_open_connect && data == nullptr;
  if (by_option && may_send_data_early(socket, socket.flow.remote)) {
    opening.deferred = true;
    wake(socket, POLLOUT | POLLWRNORM);
    return 0;
  }
  if (by_option || data != nullptr) ask_for_fast_open(socket, data != nullptr ? *data : ByteView{});
  pump_opening(socket, now);
  return -EINPROGRESS;
}

void SoftStack::pump_opening(Socket& socket, Time now) {
  Opening& opening = *socket.opening;
  if (opening.deferred) return;
  wire::Segment segment;
  bool carries_data = !opening.handshake.has(tcp::kHsSent);
  while (tcp::poll_transmit(opening.handshake, opening.config, now, segment)) {
    const ByteView data = std::exchange(carries_data, false) ? ByteView(opening.syn_data) : ByteView{};
    send_segment(socket.flow, &socket.options, segment, nullptr, static_cast<std::uint32_t>(data.size()), data);
  }
  timers_.set(socket, tcp::next_deadline(opening.handshake));
}

void SoftStack::arrive_at_opening(Socket& socket, const wire::TcpPacket& packet, Time now) {
  Opening& opening = *socket.opening;
  if (opening.deferred) return;
  const auto verdict = tcp::on_segment(opening.handshake, opening.config, packet.segment, packet.payload.size(), now);
  if (tcp::wants_reset(verdict)) send_reset_for(packet);
  if (tcp::is_over(verdict)) {
    return fail_opening(socket, verdict == tcp::HandshakeVerdict::kRefused ? ECONNREFUSED : ECONNRESET);
  }
  if (!tcp::is_completed(verdict)) return pump_opening(socket, now);
  start_connection(socket, opening.handshake, opening.config, now);
  if (packet.segment.has(wire::kSyn)) learn_from_syn_ack(socket, packet);
  settle_syn_data(*socket.conn, opening, now);
  const bool fast_open = opening.handshake.syn_bytes > 0 || opening.config.fast_open.present;
  socket.opening.reset();
  wake(socket, POLLIN | POLLOUT | POLLWRNORM);
  if (verdict == tcp::HandshakeVerdict::kCompletedByAck) return arrive_at_connection(socket, packet, now);
  const bool more = !packet.payload.empty() || packet.segment.has(wire::kFin);
  if (fast_open && more) return arrive_at_connection(socket, without_syn(packet, socket.conn->cb.snd_wscale), now);
  settle(socket, now);
}

// Linux tcp_reset() and tcp_write_err() in SYN-SENT.
void SoftStack::fail_opening(Socket& socket, int error) {
  ++stats_.attempt_fails;
  socket.opening.reset();
  socket.error = error;
  finish(socket);
}

}  // namespace twinstack::stack
