#include "stack/stack.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/rng.h"
#include "stack/socket_host.h"
#include "tcp/flight.h"
#include "tcp/invariants.h"
#include "tcp/rtt.h"
#include "tcp/timers.h"
#include "wire/build.h"

namespace twinstack::stack {

namespace {

constexpr std::size_t kPortTable = 256;  // RFC 6056 3.3.4: TABLE_LENGTH
constexpr std::size_t kLargestPacket = 65536;

tcp::SequenceSecret secret_from(Rng& rng) noexcept { return {rng.next(), rng.next()}; }

// Linux takes tcp_retries2 and tcp_orphan_retries for the time that so many timeouts take, from 200 ms on and at most
// 120 s each, and counts from the first retransmission (tcp_model_timeout()). Probes are counted.
Duration time_of_retries(std::uint8_t retries) noexcept {
  constexpr Duration kLeast = std::chrono::milliseconds(200);
  constexpr Duration kMost = std::chrono::seconds(120);
  constexpr int kDoublings = 9;  // that stay below kMost
  const int doubled = std::min<int>(retries, kDoublings);
  return kLeast * ((2 << doubled) - 1) + kMost * (retries - doubled);
}

bool retransmitted_too_long(const tcp::ControlBlock& cb, std::uint8_t retries, Time now) noexcept {
  const Duration stalled = tcp::stalled_for(cb, now) + tcp::kCoarseTick;  // it may have been so long
  return stalled - std::chrono::microseconds(cb.rto_us) >= time_of_retries(retries);
}

}  // namespace

SoftStack::SoftStack(const Config& config, Outlet& outlet, Watcher* watcher)
    : config_(config), outlet_(outlet), watcher_(watcher), packet_(kLargestPacket) {
  Rng rng(config.seed);
  secret_ = secret_from(rng);
  port_secret_ = secret_from(rng);
  port_steps_.resize(kPortTable);
  for (std::uint16_t& step : port_steps_) step = static_cast<std::uint16_t>(rng.below(65536));
  const std::uint64_t flow_secret = rng.next();
  flows_ = decltype(flows_)(16, FlowHash{flow_secret}, FlowEqual{});
  half_open_by_peer_ = decltype(half_open_by_peer_)(16, AddressHash{flow_secret});
  out_of_order_by_peer_ = decltype(out_of_order_by_peer_)(16, AddressHash{flow_secret});
  path_mtus_ = decltype(path_mtus_)(16, AddressHash{flow_secret});
  fast_open_memory_ = decltype(fast_open_memory_)(16, AddressHash{flow_secret});
  fast_open_key_ = secret_from(rng);
}

SoftStack::~SoftStack() = default;

// ---- Network side

void SoftStack::on_ip_packet(ByteView packet, Time now) {
  wire::TcpPacket parsed;
  const auto verdict = wire::parse_ip_packet({&packet, 1}, static_cast<std::uint32_t>(packet.size()),
                                             wire::ChecksumMode::kVerify, parsed);
  if (verdict == wire::ParseVerdict::kOk) return on_packet(parsed, now);
  if (const auto error = wire::parse_icmp_error(packet)) return on_icmp_error(*error, now);
  ++stats_.in_errs;
}

void SoftStack::on_packet(const wire::TcpPacket& packet, Time now) {
  if (catch_late(packet)) return;
  dispatch(packet, now);
  deliver_wakes();
}

void SoftStack::on_packet_past_filter(ByteView packet, Time now) {
  wire::TcpPacket parsed;
  const auto verdict = wire::parse_ip_packet({&packet, 1}, static_cast<std::uint32_t>(packet.size()),
                                             wire::ChecksumMode::kVerify, parsed);
  if (verdict != wire::ParseVerdict::kOk) return;
  dispatch(parsed, now);
  deliver_wakes();
}

// A filter on a socket sees what the lookup finds for it, before TCP does.
bool SoftStack::catch_late(const wire::TcpPacket& packet) {
  const Endpoint* const endpoint = find(packet.flow);
  if (endpoint == nullptr || endpoint->kind != Endpoint::Kind::kSocket) return false;
  const auto& socket = static_cast<const Socket&>(*endpoint);
  if (!socket.late_filter) return false;
  const FlowKey back{packet.flow.remote, packet.flow.local, packet.flow.remote_port, packet.flow.local_port};
  LatePacket late{.cookie = socket.cookie, .bytes = {}};
  late.bytes.resize(wire::ip_packet_header_bytes(back, packet.segment) + packet.payload.size());
  const wire::PathHeader path{.ttl = packet.ttl, .traffic_class = packet.traffic_class};
  const std::uint32_t head = wire::write_ip_headers(late.bytes, path, back, packet.segment, packet.payload.size());
  packet.payload.copy_to(std::span(late.bytes).subspan(head));
  wire::fill_ip_checksum(late.bytes);
  late_packets_.push_back(std::move(late));
  return true;
}

std::vector<LatePacket> SoftStack::take_late_packets() { return std::exchange(late_packets_, {}); }

void SoftStack::set_late_filter(SocketId id, bool on) {
  if (Socket* const socket = socket_of(id); socket != nullptr) socket->late_filter = on;
}

void SoftStack::dispatch(const wire::TcpPacket& packet, Time now) {
  ++stats_.in_segs;
  // RFC 1122 4.2.3.10, 3.2.1.3: neither end may be a group, and we must be the destination.
  if (!is_local(packet.flow.local) || is_group(packet.flow.remote) || is_any(packet.flow.remote)) {
    ++stats_.not_for_us;
    return;
  }
  Endpoint* const endpoint = find(packet.flow);
  if (endpoint == nullptr) {
    Socket* const listener = find_listener(packet.flow);
    if (listener != nullptr) {
      arrive_at_listener(*listener, packet, nullptr, now);
    } else {
      ++stats_.no_ports;
      send_reset_for(packet);
    }
  } else if (endpoint->kind == Endpoint::Kind::kHalfOpen) {
    arrive_at_half_open(static_cast<HalfOpen&>(*endpoint), packet, now);
  } else if (endpoint->kind == Endpoint::Kind::kTimeWait) {
    arrive_at_time_wait(static_cast<TimeWait&>(*endpoint), packet, now);
  } else if (auto& socket = static_cast<Socket&>(*endpoint); socket.opening) {
    arrive_at_opening(socket, packet, now);
  } else if (socket.unconfirmed) {
    arrive_at_unconfirmed(socket, packet, now);
  } else {
    arrive_at_connection(socket, packet, now);
  }
}

void SoftStack::on_timer(Time now) {
  for (Timer* timer = timers_.earliest(); timer != nullptr && timer->deadline <= now; timer = timers_.earliest()) {
    timers_.cancel(*timer);
    fire(static_cast<Endpoint&>(*timer), now);
  }
  deliver_wakes();
}

Time SoftStack::next_deadline() const noexcept {
  const Timer* const timer = timers_.earliest();
  return timer == nullptr ? kNever : timer->deadline;
}

void SoftStack::fire(Endpoint& endpoint, Time now) {
  switch (endpoint.kind) {
    case Endpoint::Kind::kHalfOpen: {
      auto& half = static_cast<HalfOpen&>(endpoint);
      if (tcp::on_timer(half.handshake, half.config, now) == tcp::HandshakeTimer::kGaveUp) return drop_half_open(half);
      return pump_half_open(half, now);
    }
    case Endpoint::Kind::kTimeWait:
      return drop_time_wait(static_cast<TimeWait&>(endpoint));
    case Endpoint::Kind::kSocket:
      return fire_socket(static_cast<Socket&>(endpoint), now);
  }
}

void SoftStack::fire_socket(Socket& socket, Time now) {
  if (socket.opening) {
    auto& opening = *socket.opening;
    if (tcp::on_timer(opening.handshake, opening.config, now) == tcp::HandshakeTimer::kGaveUp) {
      return fail_opening(socket, ETIMEDOUT);
    }
    return pump_opening(socket, now);
  }
  if (!socket.conn || socket.over) return;
  if (socket.unconfirmed) {
    auto& unconfirmed = *socket.unconfirmed;
    if (tcp::on_timer(unconfirmed.handshake, unconfirmed.config, now) == tcp::HandshakeTimer::kGaveUp) {
      return give_up(socket, now);
    }
    return pump_unconfirmed(socket, now);
  }
  if (now >= socket.conn->fin_wait_2_deadline) {
    return enter_time_wait(socket, true, std::chrono::seconds(config_.tcp_timewait_s), now);
  }
  SocketHost host(*this, socket);
  if (out_of_retries(socket, now) || tcp::on_timer(socket.conn->cb, host, now) == tcp::TimerVerdict::kToSoftware) {
    return give_up(socket, now);
  }
  settle(socket, now);
}

// tcp_retries2, tcp_orphan_retries: less than the core allows. The peer of an orphan may not keep it by a closed window
// and answers to the probes: the back-off comes to its end (Linux tcp_probe_timer(), tcp_retransmit_timer()).
bool SoftStack::out_of_retries(const Socket& socket, Time now) const {
  const tcp::ControlBlock& cb = socket.conn->cb;
  const bool retransmits = cb.sender_timer == tcp::SenderTimer::kRetransmit;
  const bool probes = cb.sender_timer == tcp::SenderTimer::kPersist;
  if ((!retransmits && !probes) || static_cast<std::int32_t>(tcp::to_tick(now) - cb.sender_deadline) < 0) return false;
  // The core's: what stands in for these.
  if (retransmits && cb.user_timeout_ms != 0) return false;
  if (retransmits && cb.snd_wnd == 0 && !socket.orphan) return false;
  std::uint8_t most = config_.tcp_retries2;
  if (socket.orphan) most = config_.tcp_orphan_retries == 0 ? 8 : config_.tcp_orphan_retries;
  if (retransmits)
    return (cb.retries > 0 || (socket.orphan && cb.backoff > 0)) && retransmitted_too_long(cb, most, now);
  const bool slowest = tcp::backed_off_rto(cb) >= std::chrono::microseconds(tcp::kMaxRtoUs);
  return cb.probes_out >= most || (socket.orphan && slowest && cb.backoff >= config_.tcp_orphan_retries);
}

// ---- After every event

void SoftStack::settle(Socket& socket, Time now) {
  socket.conn->send.acknowledge(socket.conn->cb.snd_una);
  transmit(socket, now);
  note_room(socket);
  note_activity(socket, now);
  if (!socket.over) leave_states(socket, now);
}

void SoftStack::transmit(Socket& socket, Time now, bool one_burst) {
  SocketHost host(*this, socket);
  Connection& conn = *socket.conn;
  tcp::SegmentPlan plan;
  while (tcp::poll_transmit(conn.cb, host, now, plan)) {
    send_segment(socket.flow, &socket.options, plan.segment, &conn, plan.payload_bytes);
    if (one_burst && conn.cb.flight && conn.cb.flight->burst_left == 0) break;
  }
  arm(socket, now);
}

// Room for a program that waits for it (Linux sk_stream_write_space()).
void SoftStack::note_room(Socket& socket) {
  if (!socket.no_space || socket.send_shut) return;
  if (tcp::packets_in_flight(socket.conn->cb) < socket.conn->cb.cwnd) expand_send_buffer(socket);
  if (!is_writable(socket)) return;
  socket.no_space = false;
  wake(socket, POLLOUT | POLLWRNORM);
}

// What the sender waits for (TCP_INFO).
void SoftStack::note_activity(Socket& socket, Time now) {
  Connection& conn = *socket.conn;
  conn.chronograph.turn_to(Chronograph::activity_of(conn.cb, socket.no_space), now);
}

void SoftStack::arm(Socket& socket, Time now) {
  // As Linux: as long as the SYN-ACK may be lost it alone is sent again.
  if (socket.unconfirmed) return timers_.set(socket, tcp::next_deadline(socket.unconfirmed->handshake));
  timers_.set(socket, std::min(tcp::next_deadline(socket.conn->cb, now), socket.conn->fin_wait_2_deadline));
}

void SoftStack::wake(const Socket& socket, std::uint32_t events) {
  if (watcher_ != nullptr && !socket.orphan && socket.accepted) wakes_.push_back({socket.id, events});
}

// A Watcher may call us, which brings more.
void SoftStack::deliver_wakes() {
  if (delivering_ || wakes_.empty()) return;
  delivering_ = true;
  for (std::size_t i = 0; i < wakes_.size(); ++i) {
    const Wake wake = wakes_[i];
    watcher_->wake(wake.id, wake.events);
  }
  wakes_.clear();
  delivering_ = false;
}

// ---- Packets out

void SoftStack::send_segment(const FlowKey& flow, const Options* options, const wire::Segment& segment,
                             const Connection* payload_of, std::uint32_t payload_bytes, ByteView syn_data) {
  wire::PathHeader path;
  path.ttl = options != nullptr && options->ttl != 0 ? options->ttl : config_.ttl;
  path.traffic_class = options != nullptr ? options->traffic_class : 0;
  const std::uint32_t head = wire::ip_packet_header_bytes(flow, segment);
  const std::span<std::byte> packet(packet_.data(), head + payload_bytes);
  wire::write_ip_headers(packet, path, flow, segment, payload_bytes);
  if (!syn_data.empty()) {
    std::ranges::copy(syn_data, packet.begin() + head);
  } else if (payload_bytes > 0) {
    payload_of->send.copy(segment.seq, packet.subspan(head));
  }
  wire::fill_ip_checksum(packet);
  ++stats_.out_segs;
  if (segment.has(wire::kRst)) ++stats_.out_rsts;
  outlet_.transmit(packet);
}

// RFC 9293 3.10.7.1; as Linux, not limited in rate.
void SoftStack::send_reset_for(const wire::TcpPacket& packet) {
  const auto reset = tcp::reset_for(packet.segment, packet.payload.size());
  if (reset) send_segment(packet.flow, nullptr, *reset, nullptr, 0);
}

// ---- For checkers

State SoftStack::state_of(const Socket& socket) noexcept {
  if (socket.listener) return State::kListen;
  if (socket.opening) {
    const bool sent = socket.opening->handshake.state == tcp::HandshakeState::kSynSent;
    return sent ? State::kSynSent : State::kSynReceived;
  }
  if (!socket.conn || socket.over) return State::kClosed;
  const State state = static_cast<State>(tcp::tcp_state(socket.conn->cb));
  return socket.unconfirmed && state == State::kEstablished ? State::kSynReceived : state;
}

State SoftStack::state(SocketId id) const {
  const Socket* const socket = socket_of(id);
  return socket == nullptr ? State::kClosed : state_of(*socket);
}

State SoftStack::state(const FlowKey& flow) const {
  const Endpoint* const endpoint = find(flow);
  if (endpoint == nullptr) return State::kClosed;
  switch (endpoint->kind) {
    case Endpoint::Kind::kSocket:
      return state_of(static_cast<const Socket&>(*endpoint));
    case Endpoint::Kind::kHalfOpen:
      return State::kSynReceived;
    case Endpoint::Kind::kTimeWait:
      break;
  }
  return static_cast<const TimeWait*>(endpoint)->fin_wait_2 ? State::kFinWait2 : State::kTimeWait;
}

const Connection* SoftStack::connection(SocketId id) const {
  const Socket* const socket = socket_of(id);
  return socket == nullptr ? nullptr : socket->conn.get();
}

std::uint64_t SoftStack::out_of_order_bytes(const IpAddress& peer) const {
  const auto at = out_of_order_by_peer_.find(peer.network());
  return at == out_of_order_by_peer_.end() ? 0 : at->second;
}

const char* SoftStack::broken_invariant() const {
  std::size_t live = 0;
  for (const Slot& slot : slots_) {
    if (!slot.socket) continue;
    ++live;
    const Socket& socket = *slot.socket;
    if (socket.in_table && find(socket.flow) != &socket) return "a socket is not found by its flow";
    if (!socket.conn || socket.over) continue;
    if (!socket.in_table) return "a live connection is not in the table";
    if (const char* wrong = tcp::broken_invariant(socket.conn->cb)) return wrong;
    const Connection& conn = *socket.conn;
    const Seq end = conn.send.end() + (conn.cb.has(tcp::kFinQueued) ? 1U : 0U);
    if (end != conn.cb.write_seq) return "the send queue does not end at write_seq";
    if (min(conn.cb.snd_una, conn.send.end()) != conn.send.una()) return "the send queue does not begin at snd_una";
  }
  if (live != live_sockets_) return "count of sockets";
  return nullptr;
}

}  // namespace twinstack::stack
