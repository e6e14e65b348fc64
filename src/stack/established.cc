// A connection from ESTABLISHED to its end.
#include <poll.h>

#include <algorithm>
#include <cerrno>

#include "stack/socket_host.h"
#include "stack/stack.h"
#include "tcp/ack.h"
#include "tcp/cold_state.h"
#include "tcp/timestamps.h"
#include "tcp/window.h"

namespace twinstack::stack {

namespace {

constexpr std::uint32_t kEverything = POLLIN | POLLRDNORM | POLLRDHUP | POLLOUT | POLLWRNORM | POLLHUP;

bool is_fin_wait(State state) noexcept { return state == State::kFinWait1 || state == State::kFinWait2; }

}  // namespace

void SoftStack::start_connection(Socket& socket, const tcp::Handshake& handshake, const tcp::HandshakeConfig& config,
                                 Time now) {
  socket.conn = std::make_unique<Connection>();
  Connection& conn = *socket.conn;
  const bool made = tcp::establish(conn.cb, handshake, config, now).has_value();
  ASSERT(made);  // the settings are ours
  const tcp::MinTcp state = tcp::established_state(handshake, config, now);
  tcp::run_whole_machine(conn.cb);
  conn.send.begin(conn.cb.snd_una);
  conn.established = now;
  conn.advmss = state.advmss;
  conn.mss_clamp = state.mss_clamp;
  begin_path(conn, socket.flow, 0, now);
  conn.receive.begin(config_, first_receive_buffer(socket), conn.cb, state.advmss, now);
  if (socket.options.window_clamp != 0) {
    conn.receive.set_clamp(socket.options.window_clamp, conn.cb);
  }
  expand_send_buffer(socket);
  tcp::set_restart_after_idle(conn.cb, config_.tcp_slow_start_after_idle);
  tcp::set_smallest_burst(conn.cb, config_.tcp_min_tso_segs);
  tcp::set_challenges_free(conn.cb, config_.tcp_invalid_ratelimit_ms == 0);
}

// Linux tcp_rcv_state_process(): nobody is left who could read it (RFC 9293 3.6, RFC 2525 2.17).
bool SoftStack::data_after_close(const Socket& socket, const wire::TcpPacket& packet, Time now) const {
  if (!socket.receive_shut || packet.payload.empty() || !is_fin_wait(state_of(socket))) return false;
  const tcp::ControlBlock& cb = socket.conn->cb;
  const wire::Segment& segment = packet.segment;
  if (!segment.has(wire::kAck) || segment.has(wire::kRst | wire::kSyn)) return false;
  if (!tcp::paws_accepts(cb, segment, now) || segment.seq > tcp::window_right_edge(cb)) return false;
  if (!tcp::ack_acceptable(cb, socket.conn->counters.bytes_acked, segment.ack)) return false;  // RFC 5961 5.2
  return segment.seq + packet.payload.size() > cb.rcv_nxt;
}

void SoftStack::arrive_at_connection(Socket& socket, const wire::TcpPacket& packet, Time now) {
  if (data_after_close(socket, packet, now)) {
    ++stats_.abort_on_data;
    send_reset_for(packet);
    socket.error = ECONNRESET;
    return finish(socket);
  }
  if (holds_too_much(socket, packet)) return;
  Connection& conn = *socket.conn;
  SocketHost host(*this, socket);
  const std::uint64_t received = conn.counters.bytes_received;
  const std::uint32_t out_of_order = conn.counters.out_of_order;
  const bool overtaken = packet.segment.ack < conn.cb.snd_una;
  const auto verdict = tcp::on_segment(conn.cb, packet.segment, packet.payload, host, now);
  if (verdict == tcp::Arrival::kReset) return take_reset(socket);
  count_out_of_order(socket);
  const bool heard = verdict == tcp::Arrival::kAccepted || verdict == tcp::Arrival::kDroppedNoMemory;
  if (heard && !overtaken) socket.soft_error = 0;  // Linux tcp_ack(): the path works again
  if (verdict == tcp::Arrival::kAccepted && !packet.payload.empty()) {
    conn.receive.on_segment(config_, conn.cb, packet.payload.size(), now);
  }
  if (conn.counters.out_of_order != out_of_order && socket.accepted && may_grow_receive_buffer(socket)) {
    conn.receive.on_out_of_order(config_, conn.cb);
  }
  if (conn.counters.bytes_received != received) wake(socket, POLLIN | POLLRDNORM);
  if (conn.cb.has(tcp::kFinReceived) && !socket.fin_received) take_fin(socket);
  settle(socket, now);
}

// Out-of-order data is memory that a peer takes at no cost of its own: beyond the bound of its address more of it is
// dropped, as if the network had.
bool SoftStack::holds_too_much(const Socket& socket, const wire::TcpPacket& packet) {
  const tcp::ControlBlock& cb = socket.conn->cb;
  if (packet.payload.empty() || packet.segment.seq <= cb.rcv_nxt) return false;
  const auto held = out_of_order_by_peer_.find(socket.flow.remote.network());
  if (held == out_of_order_by_peer_.end()) return false;
  if (held->second + packet.payload.size() <= config_.max_out_of_order_bytes_per_peer) return false;
  ++stats_.peer_limit_drops;
  return true;
}

void SoftStack::count_out_of_order(Socket& socket) {
  Connection& conn = *socket.conn;
  std::uint32_t held = 0;
  if (conn.cb.cold) {
    for (const auto& block : conn.cb.cold->out_of_order) held += static_cast<std::uint32_t>(block.bytes.size());
  }
  if (held == conn.out_of_order_bytes) return;
  std::uint64_t& total = out_of_order_by_peer_[socket.flow.remote.network()];
  total = total + held - conn.out_of_order_bytes;
  conn.out_of_order_bytes = held;
  if (total == 0) out_of_order_by_peer_.erase(socket.flow.remote.network());
}

// Linux tcp_fin().
void SoftStack::take_fin(Socket& socket) {
  socket.fin_received = true;
  socket.receive_shut = true;
  const std::uint32_t hung_up = socket.send_shut ? POLLHUP : 0U;
  wake(socket, POLLIN | POLLRDNORM | POLLRDHUP | hung_up);
}

// Linux tcp_reset(). What was received before it may still be read.
void SoftStack::take_reset(Socket& socket) {
  const State state = state_of(socket);
  socket.error = state == State::kCloseWait ? EPIPE : ECONNRESET;
  ++stats_.estab_resets;
  finish(socket);
}

// Linux tcp_write_err(), tcp_keepalive_timer(): a peer that is silent may still be there, and only of keepalive do we
// know that nothing of ours is on its way.
void SoftStack::give_up(Socket& socket, Time now) {
  ++stats_.abort_on_timeout;
  if (tcp::is_drained(socket.conn->cb) && socket.conn->send.empty()) send_active_reset(socket, now);
  socket.error = socket.soft_error != 0 ? socket.soft_error : ETIMEDOUT;
  finish(socket);
}

// After an event, the state may be one that is not the core's to keep.
void SoftStack::leave_states(Socket& socket, Time now) {
  switch (state_of(socket)) {
    case State::kTimeWait:
      return enter_time_wait(socket, false, std::chrono::seconds(config_.tcp_timewait_s), now);
    case State::kClosed:
      return finish(socket);
    case State::kFinWait2:
      if (socket.orphan && socket.conn->fin_wait_2_deadline == kNever) orphan_in_fin_wait_2(socket, now);
      return;
    default:
      return;
  }
}

// Linux tcp_fin_time().
Duration SoftStack::fin_timeout(const Socket& socket) const {
  const std::int32_t own = socket.options.linger2_s;
  const Duration timeout = std::chrono::seconds(own > 0 ? own : static_cast<std::int32_t>(config_.tcp_fin_timeout_s));
  const Duration least = std::chrono::microseconds(socket.conn->cb.rto_us) * 7 / 2;
  return std::max(timeout, least);
}

// A connection that nobody reads any more waits for the peer's FIN, but not for ever.
void SoftStack::orphan_in_fin_wait_2(Socket& socket, Time now) {
  if (socket.options.linger2_s < 0) {
    ++stats_.abort_on_linger;
    return abort(socket, now);
  }
  const Duration timeout = fin_timeout(socket);
  const Duration small_for = std::chrono::seconds(config_.tcp_timewait_s);
  if (timeout <= small_for) return enter_time_wait(socket, true, timeout, now);
  socket.conn->fin_wait_2_deadline = now + (timeout - small_for);
  arm(socket, now);
}

void SoftStack::send_active_reset(Socket& socket, Time now) {
  SocketHost host(*this, socket);
  send_segment(socket.flow, &socket.options, tcp::reset_of(socket.conn->cb, host, now), nullptr, 0);
}

// Linux tcp_disconnect() of a connection that lives, tcp_need_reset(): the peer is told unless it has closed and heard
// all.
void SoftStack::abort(Socket& socket, Time now) {
  const State state = state_of(socket);
  const bool closing = state == State::kClosing || state == State::kLastAck;
  const tcp::ControlBlock& cb = socket.conn->cb;
  if (!closing || cb.snd_nxt != cb.write_seq) send_active_reset(socket, now);
  finish(socket);
}

// Linux tcp_done(): TCP_CLOSE. `socket` is gone afterwards if no program has it.
void SoftStack::finish(Socket& socket) {
  timers_.cancel(socket);
  forget_unconfirmed(socket);
  leave(socket);
  if (!socket.bound_by_program) leave_port(socket);
  socket.over = true;
  socket.receive_shut = socket.send_shut = true;
  if (socket.conn) {
    socket.conn->send.clear();
    socket.conn->cb.flight.reset();
    socket.conn->cb.cold.reset();
    count_out_of_order(socket);
  }
  if (socket.orphan) return destroy(socket);
  wake(socket, kEverything | (socket.error != 0 ? POLLERR : 0U));
}

}  // namespace twinstack::stack
