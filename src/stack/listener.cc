// Passive opens: the queue of half-open connections and that of the accepted, with Linux's rules for when either is
// full. There are no SYN cookies: the half-open table is bounded, by listener and by peer, and what exceeds it waits
// for the SYN to come again.
#include <poll.h>

#include <cerrno>
#include <utility>

#include "stack/stack.h"

namespace twinstack::stack {

// As Linux sk_acceptq_is_full(): one more than the backlog.
bool SoftStack::accept_queue_full(const Socket& listener) noexcept {
  return listener.listener->accepted.size() > listener.listener->backlog;
}

// Linux tcp_conn_request(). A quarter of tcp_max_syn_backlog is kept for peers that have proved themselves; we know
// none.
bool SoftStack::may_open(Socket& listener, const FlowKey& flow) {
  const Listener& queue = *listener.listener;
  if (accept_queue_full(listener)) {
    ++stats_.listen_overflows;
    ++stats_.listen_drops;
    return false;
  }
  const std::size_t most = config_.tcp_max_syn_backlog - config_.tcp_max_syn_backlog / 4;
  if (queue.half_open.size() > queue.backlog || queue.half_open.size() > most) {
    ++stats_.listen_drops;
    return false;
  }
  const auto peer = half_open_by_peer_.find(flow.remote.network());
  if (peer != half_open_by_peer_.end() && peer->second >= config_.max_half_open_per_peer) {
    ++stats_.peer_limit_drops;
    return false;
  }
  return true;
}

void SoftStack::arrive_at_listener(Socket& listener, const wire::TcpPacket& packet, const tcp::InitialNumbers* numbers,
                                   Time now) {
  const auto verdict = tcp::answer_listen(packet.segment);
  if (tcp::wants_reset(verdict)) send_reset_for(packet);
  if (verdict != tcp::HandshakeVerdict::kSynAccepted || !may_open(listener, packet.flow)) return;
  tcp::HandshakeConfig config = handshake_config(listener, packet.flow, now);
  const tcp::InitialNumbers fresh = numbers != nullptr ? *numbers : tcp::initial_numbers(secret_, packet.flow, now);
  if (accept_fast_open(listener, packet, config.fast_open) && open_early(listener, packet, config, fresh, now)) return;
  auto& queue = listener.listener->half_open;
  HalfOpen& half = queue.emplace_front();
  half.self = queue.begin();
  half.flow = packet.flow;
  half.listener = &listener;
  half.config = std::move(config);
  ++half_open_by_peer_[packet.flow.remote.network()];
  ++half_open_count_;
  enter(half);
  tcp::open_passive(half.handshake, half.config, half.flow, fresh, packet.segment, now);
  pump_half_open(half, now);
}

// Linux syn_ack_recalc(): a peer that has acknowledged waits in silence for its own data to come, until one SYN-ACK
// before the last.
bool SoftStack::holds_syn_ack(const HalfOpen& half) noexcept {
  const std::uint8_t defer = half.listener->options.defer_accept;
  return defer > 0 && half.acknowledged && half.handshake.timeouts + 1 < defer;
}

void SoftStack::pump_half_open(HalfOpen& half, Time now) {
  wire::Segment segment;
  while (!holds_syn_ack(half) && tcp::poll_transmit(half.handshake, half.config, now, segment)) {
    send_segment(half.flow, &half.listener->options, segment, nullptr, 0);
  }
  timers_.set(half, tcp::next_deadline(half.handshake));
}

void SoftStack::arrive_at_half_open(HalfOpen& half, const wire::TcpPacket& packet, Time now) {
  tcp::Handshake handshake = half.handshake;  // a completion that finds no room has not happened
  const auto verdict = tcp::on_segment(handshake, half.config, packet.segment, packet.payload.size(), now);
  if (tcp::is_completed(verdict)) return complete_half_open(half, handshake, packet, now);
  half.handshake = handshake;
  if (tcp::wants_reset(verdict)) send_reset_for(packet);
  if (!tcp::is_over(verdict)) return pump_half_open(half, now);
  ++stats_.attempt_fails;
  drop_half_open(half);
}

// Linux tcp_check_req(): a bare ACK is held back by TCP_DEFER_ACCEPT, and dropped when the accept queue is full; the
// SYN-ACK goes again then, and the peer's ACK with it.
void SoftStack::complete_half_open(HalfOpen& half, const tcp::Handshake& handshake, const wire::TcpPacket& packet,
                                   Time now) {
  Socket& listener = *half.listener;
  const bool bare = packet.payload.empty() && !packet.segment.has(wire::kFin);
  if (bare && handshake.timeouts < listener.options.defer_accept) {
    half.acknowledged = true;
    ++stats_.defer_accept_drops;
    return;
  }
  Socket* const child = accept_queue_full(listener) ? nullptr : make_socket(listener.family);
  if (child == nullptr) {
    half.acknowledged = true;
    ++stats_.listen_overflows;
    ++stats_.listen_drops;
    if (!config_.tcp_abort_on_overflow) return;
    send_reset_for(packet);
    return drop_half_open(half);
  }
  leave(half);
  adopt_child(listener, *child, packet.flow);
  start_connection(*child, handshake, half.config, now);
  drop_half_open(half);
  ++stats_.passive_opens;
  wake(listener, POLLIN | POLLRDNORM);
  arrive_at_connection(*child, packet, now);
}

void SoftStack::adopt_child(Socket& listener, Socket& child, const FlowKey& flow) {
  child.options = listener.options;
  child.reuse_address = listener.reuse_address;
  child.parent = &listener;
  child.accepted = false;
  child.attempt = Socket::Attempt::kConnected;
  child.flow = flow;
  join_port(child, flow.local_port);
  enter(child);
  listener.listener->accepted.push_back(&child);
}

void SoftStack::drop_half_open(HalfOpen& half) {
  timers_.cancel(half);
  leave(half);
  const auto peer = half_open_by_peer_.find(half.flow.remote.network());
  if (--peer->second == 0) half_open_by_peer_.erase(peer);
  --half_open_count_;
  half.listener->listener->half_open.erase(half.self);
}

// Linux inet_csk_listen_stop(): half-open ones are forgotten, their ACK will draw a RST; the accepted get one now.
void SoftStack::close_listener(Socket& listener, Time now) {
  while (!listener.listener->half_open.empty()) drop_half_open(listener.listener->half_open.front());
  for (Socket* const child : listener.listener->accepted) {
    child->parent = nullptr;
    child->orphan = true;
    ++orphans_;
    if (child->over) {
      destroy(*child);
    } else {
      abort(*child, now);
    }
  }
  listener.listener.reset();
}

SocketId SoftStack::accept(SocketId id, Address* peer, Time /*now*/) {
  Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  if (!socket->listener) return -EINVAL;
  auto& queue = socket->listener->accepted;
  if (queue.empty()) return -EAGAIN;
  Socket& child = *queue.front();
  queue.pop_front();
  child.parent = nullptr;
  child.accepted = true;
  if (peer != nullptr) *peer = {child.flow.remote, child.flow.remote_port};
  return child.id;
}

}  // namespace twinstack::stack
