// TCP Fast Open (RFC 7413), as Linux has it: data in the SYN, on both sides. A client shows the cookie that the server
// gave it; the server makes it from the addresses, so that it need not keep any.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "stack/socket_host.h"
#include "stack/stack.h"
#include "tcp/fast_open.h"
#include "tcp/rtt.h"

namespace twinstack::stack {

namespace {

constexpr int kTcpFastOpen = 23;  // as in options.cc
constexpr int kTcpFastOpenConnect = 30;
constexpr std::size_t kKeyBytes = 16;
constexpr std::size_t kMostKeys = 2;
constexpr std::size_t kMostServers = 4096;
constexpr std::uint32_t kOptionRoomBytes = 40;  // all that options may take: middleboxes may add some to the SYN

void append(std::vector<std::byte>& out, const IpAddress& ip) {
  if (ip.is_v4()) {
    for (const std::uint8_t byte : ip.v4()) out.push_back(std::byte{byte});
  } else {
    for (const std::uint8_t byte : ip.bytes) out.push_back(std::byte{byte});
  }
}

std::uint64_t little_endian(ByteView bytes) noexcept {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof value; ++i) value |= std::to_integer<std::uint64_t>(bytes[i]) << 8 * i;
  return value;
}

bool same_cookie(const wire::FastOpen& a, const wire::FastOpen& b) noexcept {
  return a.cookie_bytes == b.cookie_bytes && a.cookie == b.cookie;
}

}  // namespace

// ---- Client

bool SoftStack::may_send_data_early(const Socket& socket, const IpAddress& peer) const {
  if ((config_.tcp_fastopen & kFastOpenClientNoCookie) != 0 || socket.options.fast_open_no_cookie) return true;
  const auto known = fast_open_memory_.find(peer);
  return known != fast_open_memory_.end() && known->second.cookie.cookie_bytes > 0;
}

// The SYN to come shows the cookie and carries data, or asks for a cookie. Linux tcp_send_syn_data().
void SoftStack::ask_for_fast_open(Socket& socket, ByteView data) {
  Opening& opening = *socket.opening;
  const auto known = fast_open_memory_.find(socket.flow.remote);
  const bool without = (config_.tcp_fastopen & kFastOpenClientNoCookie) != 0 || socket.options.fast_open_no_cookie;
  if (!without) {
    if (known != fast_open_memory_.end()) opening.config.fast_open = known->second.cookie;
    opening.config.fast_open.present = true;
    if (opening.config.fast_open.cookie_bytes == 0) {
      opening.config.fast_open.experimental = known != fast_open_memory_.end() && known->second.trial == 1;
      return;
    }
  }
  std::uint32_t mss = opening.config.path_mss;
  if (known != fast_open_memory_.end() && known->second.mss != 0) mss = std::min<std::uint32_t>(mss, known->second.mss);
  if (opening.config.user_mss != 0) mss = std::min<std::uint32_t>(mss, opening.config.user_mss);
  const std::size_t room = mss - std::min(mss, kOptionRoomBytes);
  const ByteView first = data.first(std::min(room, data.size()));
  opening.syn_data.assign(first.begin(), first.end());
  tcp::send_syn_data(opening.handshake, static_cast<std::uint32_t>(first.size()));
}

std::int64_t SoftStack::connect_with_data(SocketId id, const Address& peer, ByteView bytes, int flags, Time now) {
  Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  if ((config_.tcp_fastopen & kFastOpenClient) == 0) return -EOPNOTSUPP;
  if (socket->opening && socket->opening->deferred) return begin_with_data(*socket, bytes, flags, now);
  if (socket->opening) return -EALREADY;
  if (socket->attempt != Socket::Attempt::kNone) {
    const int connected = connect(id, peer, now);
    return connected == 0 ? send(id, bytes, flags, now) : connected;
  }
  if (socket->listener || state_of(*socket) != State::kClosed) return -EISCONN;
  reset_for_reuse(*socket);
  const int begun = start_connecting(*socket, peer, &bytes, now);
  const std::size_t sent = socket->opening ? socket->opening->syn_data.size() : 0;
  if (socket->opening) socket->opening->more_to_write = sent < bytes.size() && (flags & MSG_DONTWAIT) == 0;
  deliver_wakes();
  return begun == -EINPROGRESS && sent > 0 ? static_cast<std::int64_t>(sent) : begun;
}

bool SoftStack::is_deferred(SocketId id) const {
  const Socket* const socket = socket_of(id);
  return socket != nullptr && socket->opening && socket->opening->deferred;
}

// The first write after a connect() that waited for it.
std::int64_t SoftStack::begin_with_data(Socket& socket, ByteView data, int flags, Time now) {
  Opening& opening = *socket.opening;
  opening.deferred = false;
  const tcp::InitialNumbers numbers{opening.handshake.iss, opening.handshake.ts_offset};
  tcp::open_active(opening.handshake, opening.config, socket.flow, numbers, now);
  ask_for_fast_open(socket, data);
  const std::size_t sent = opening.syn_data.size();
  opening.more_to_write = sent < data.size() && (flags & MSG_DONTWAIT) == 0;
  pump_opening(socket, now);
  return sent > 0 ? static_cast<std::int64_t>(sent) : -EINPROGRESS;
}

// Linux tcp_rcv_fastopen_synack(), tcp_fastopen_cache_set().
void SoftStack::learn_from_syn_ack(const Socket& socket, const wire::TcpPacket& packet) {
  const Opening& opening = *socket.opening;
  const bool asked = opening.config.fast_open.present;
  const bool sent_data = opening.handshake.syn_bytes > 0;
  if (!asked && !sent_data) return;
  if (fast_open_memory_.size() >= kMostServers && !fast_open_memory_.contains(socket.flow.remote)) return;
  FastOpenMemory& memory = fast_open_memory_[socket.flow.remote];
  const wire::TcpOptions& options = packet.segment.options;
  memory.mss = options.has_mss && options.mss != 0 ? options.mss : opening.handshake.peer_mss;  // TCP_MAXSEG apart
  const wire::FastOpen& granted = packet.segment.options.fast_open;
  if (asked && granted.present && granted.cookie_bytes > 0) {
    memory.cookie = granted;
    return;
  }
  const bool refused = asked && !sent_data && opening.handshake.retransmissions == 0;
  if (!refused || memory.cookie.cookie_bytes > 0) return;
  const std::uint8_t trial = opening.config.fast_open.experimental ? 2 : 1;
  memory.trial = std::max(memory.trial, trial);
}

void SoftStack::settle_syn_data(Connection& conn, const Opening& opening, Time now) {
  const ByteView data = opening.syn_data;
  const ByteView rest = data.subspan(opening.handshake.acked_bytes);
  conn.syn_data = !data.empty() && rest.empty();
  if (!rest.empty()) {
    conn.send.begin_chunk();
    conn.send.append(rest);
    tcp::repeat_syn_data(conn.cb, static_cast<std::uint32_t>(rest.size()), now);
  } else if (opening.more_to_write) {
    tcp::hold_ack_for_data(conn.cb, now);
  }
}

// ---- Server

// The first 64 bits are all that there is.
wire::FastOpen SoftStack::cookie_for(const tcp::SequenceSecret& key, const FlowKey& flow) const {
  std::vector<std::byte> addresses;
  append(addresses, flow.remote);
  append(addresses, flow.local);
  const std::uint64_t value = tcp::siphash(key, addresses);
  wire::FastOpen out{.cookie = {}, .cookie_bytes = sizeof value, .present = true, .experimental = false};
  for (std::size_t i = 0; i < sizeof value; ++i) out.cookie[i] = static_cast<std::byte>(value >> 8 * i);
  return out;
}

std::span<const tcp::SequenceSecret> SoftStack::fast_open_keys(const Socket& socket) const {
  if (!socket.options.fast_open_keys.empty()) return socket.options.fast_open_keys;
  if (!config_.tcp_fastopen_keys.empty()) return config_.tcp_fastopen_keys;
  return {&fast_open_key_, 1};
}

// Linux tcp_try_fastopen().
bool SoftStack::accept_fast_open(const Socket& listener, const wire::TcpPacket& syn, wire::FastOpen& answer) const {
  const wire::FastOpen& shown = syn.segment.options.fast_open;
  const bool enabled = (config_.tcp_fastopen & kFastOpenServer) != 0;
  if (!enabled || (syn.payload.empty() && !shown.present)) return false;
  if (listener.fast_opens >= listener.options.fast_open_queue) return false;
  if ((config_.tcp_fastopen & kFastOpenServerNoCookie) != 0 || listener.options.fast_open_no_cookie) return true;
  if (!shown.present) return false;
  const auto keys = fast_open_keys(listener);
  answer = cookie_for(keys.front(), syn.flow);
  answer.experimental = shown.experimental;
  for (const tcp::SequenceSecret& key : keys) {
    if (!same_cookie(cookie_for(key, syn.flow), shown)) continue;
    if (&key == &keys.front()) answer = {};  // it is good for the next time, too
    return true;
  }
  return false;
}

// The connection is there with the SYN alone. False: no room, so it opens as any other.
bool SoftStack::open_early(Socket& listener, const wire::TcpPacket& syn, tcp::HandshakeConfig& config,
                           const tcp::InitialNumbers& numbers, Time now) {
  Socket* const child = make_socket(listener.family);
  if (child == nullptr) return false;
  auto unconfirmed = std::make_unique<Unconfirmed>();
  unconfirmed->listener = listener.id;
  unconfirmed->config = config;
  tcp::open_passive(unconfirmed->handshake, config, syn.flow, numbers, syn.segment, now);
  tcp::take_syn_data(unconfirmed->handshake, static_cast<std::uint32_t>(syn.payload.size()));
  adopt_child(listener, *child, syn.flow);
  child->unconfirmed = std::move(unconfirmed);
  start_connection(*child, tcp::completed_early(child->unconfirmed->handshake), config, now);
  Connection& conn = *child->conn;
  conn.syn_data = !syn.payload.empty();
  if (!syn.payload.empty()) conn.receive.bytes.append(syn.payload);
  conn.counters.bytes_received = syn.payload.size();
  ++listener.fast_opens;
  ++stats_.passive_opens;
  pump_unconfirmed(*child, now);
  wake(listener, POLLIN | POLLRDNORM);
  return true;
}

void SoftStack::pump_unconfirmed(Socket& socket, Time now) {
  Unconfirmed& unconfirmed = *socket.unconfirmed;
  wire::Segment segment;
  while (tcp::poll_transmit(unconfirmed.handshake, unconfirmed.config, now, segment)) {
    send_segment(socket.flow, &socket.options, segment, nullptr, 0);
  }
  arm(socket, now);
}

void SoftStack::arrive_at_unconfirmed(Socket& socket, const wire::TcpPacket& packet, Time now) {
  Unconfirmed& unconfirmed = *socket.unconfirmed;
  // Data of ours may be out behind the SYN-ACK, and acknowledged with it. Of a reset the acknowledgement does not count
  // here (Linux tcp_check_req()).
  wire::Segment segment = packet.segment;
  const Seq first = unconfirmed.handshake.iss + 1;
  if (segment.has(wire::kRst) || (segment.ack > first && segment.ack <= socket.conn->cb.snd_nxt)) segment.ack = first;
  const auto verdict = tcp::on_segment(unconfirmed.handshake, unconfirmed.config, segment, packet.payload.size(), now);
  if (tcp::is_completed(verdict)) {
    confirm(socket);
    return arrive_at_connection(socket, packet, now);
  }
  if (tcp::wants_reset(verdict)) send_reset_for(packet);
  if (!tcp::is_over(verdict)) return pump_unconfirmed(socket, now);
  ++stats_.attempt_fails;
  take_reset(socket);
}

// The peer has proved that it is there: what follows is a connection like any other.
void SoftStack::confirm(Socket& socket) {
  const tcp::Handshake& handshake = socket.unconfirmed->handshake;
  tcp::ControlBlock& cb = socket.conn->cb;
  if (handshake.rtt_us != 0) {
    tcp::set_rtt_estimates(cb, handshake.rtt_us, handshake.rtt_us / 2);
    cb.rto_us = tcp::rto_from_estimates_us(cb);
    cb.min_rtt_us = handshake.rtt_us;
  }
  forget_unconfirmed(socket);
}

void SoftStack::forget_unconfirmed(Socket& socket) {
  if (!socket.unconfirmed) return;
  if (Socket* const listener = socket_of(socket.unconfirmed->listener); listener != nullptr) --listener->fast_opens;
  socket.unconfirmed.reset();
}

// TFO_SERVER_WO_SOCKOPT1.
void SoftStack::tune_fast_open(Socket& listener) const {
  constexpr std::uint32_t kWanted = kFastOpenServer | kFastOpenAllListeners;
  if ((config_.tcp_fastopen & kWanted) != kWanted || listener.options.fast_open_queue != 0) return;
  listener.options.fast_open_queue = listener.listener->backlog;
}

// ---- Options

int SoftStack::set_fast_open_option(Socket& socket, int name, int value) {
  const State state = state_of(socket);
  if (name == kTcpFastOpen) {
    if (value < 0 || (state != State::kClosed && state != State::kListen)) return -EINVAL;
    socket.options.fast_open_queue = std::min(static_cast<std::uint32_t>(value), config_.somaxconn);
    return 0;
  }
  if (value != 0 && value != 1) return -EINVAL;
  if (name == kTcpFastOpenConnect) {
    if ((config_.tcp_fastopen & kFastOpenClient) == 0) return -EOPNOTSUPP;
    if (state != State::kClosed) return -EINVAL;
    socket.options.fast_open_connect = value != 0;
    return 0;
  }
  if (state != State::kClosed && state != State::kListen) return -EINVAL;
  socket.options.fast_open_no_cookie = value != 0;
  return 0;
}

int SoftStack::set_fast_open_keys(Socket& socket, ByteView value) const {
  if (value.size() != kKeyBytes && value.size() != kMostKeys * kKeyBytes) return -EINVAL;
  socket.options.fast_open_keys.clear();
  for (std::size_t at = 0; at < value.size(); at += kKeyBytes) {
    const ByteView key = value.subspan(at, kKeyBytes);
    socket.options.fast_open_keys.push_back({little_endian(key), little_endian(key.subspan(8))});
  }
  return 0;
}

}  // namespace twinstack::stack
