// The socket calls that open and end: as Linux's inet_stream_*(), tcp_close(), tcp_disconnect().
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "stack/stack.h"

namespace twinstack::stack {

namespace {

constexpr std::uint32_t kHangUp = POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLHUP | POLLRDHUP;

}  // namespace

int SoftStack::take_error(Socket& socket) noexcept { return std::exchange(socket.error, 0); }

SocketId SoftStack::socket(Family family) {
  Socket* const socket = make_socket(family);
  if (socket == nullptr) return -ENFILE;
  socket->flow.local = family == Family::kV4 ? any_v4() : any_v6();
  socket->flow.remote = socket->flow.local;
  return socket->id;
}

int SoftStack::bind(SocketId id, const Address& address) {
  Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  if (socket->bucket != nullptr || state_of(*socket) != State::kClosed || socket->conn) return -EINVAL;
  const bool any = is_any(address.ip);
  if (!any && socket->family == Family::kV4 && !address.ip.is_v4()) return -EAFNOSUPPORT;
  if (!any && !is_local(address.ip)) return -EADDRNOTAVAIL;
  return take_port(*socket, any ? socket->flow.local : address.ip, address.port);
}

int SoftStack::take_port(Socket& socket, const IpAddress& ip, std::uint16_t port) {
  if (port == 0) {
    port = choose_port(socket, ip);
    if (port == 0) return -EADDRINUSE;
  } else if (conflicts(socket, ip, port)) {
    return -EADDRINUSE;
  }
  socket.flow.local = ip;
  socket.flow.local_port = port;
  socket.bound_by_program = true;
  join_port(socket, port);
  return 0;
}

int SoftStack::listen(SocketId id, std::uint32_t backlog, Time /*now*/) {
  Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  if (!socket->listener) {
    if (state_of(*socket) != State::kClosed || socket->attempt != Socket::Attempt::kNone) return -EINVAL;
    if (socket->bucket == nullptr) {
      if (const int error = take_port(*socket, socket->flow.local, 0); error != 0) return error;
    } else if (conflicts(*socket, socket->flow.local, socket->flow.local_port)) {
      return -EADDRINUSE;
    }
    socket->conn.reset();
    socket->over = socket->receive_shut = socket->send_shut = socket->fin_received = false;
    socket->listener = std::make_unique<Listener>();
  }
  socket->listener->backlog = std::min(backlog, config_.somaxconn);
  tune_fast_open(*socket);
  return 0;
}

int SoftStack::connect(SocketId id, const Address& peer, Time now) {
  Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  const bool v4_peer = peer.ip.is_v4();
  if (socket->family == Family::kV4 && !v4_peer && !is_any(peer.ip)) return -EAFNOSUPPORT;
  if (socket->family == Family::kV6 && v4_peer && socket->options.v6_only) return -ENETUNREACH;
  if (is_group(peer.ip)) return -ENETUNREACH;
  int result = 0;
  switch (socket->attempt) {
    case Socket::Attempt::kConnected:
      return -EISCONN;
    case Socket::Attempt::kConnecting:
      if (socket->opening) return socket->opening->deferred ? -EISCONN : -EALREADY;
      result = finish_connecting(*socket);
      break;
    case Socket::Attempt::kNone:
      if (socket->listener || state_of(*socket) != State::kClosed) return -EISCONN;
      reset_for_reuse(*socket);
      result = start_connecting(*socket, peer, nullptr, now);
      break;
  }
  deliver_wakes();
  return result;
}

// The second call after an attempt tells how it ended.
int SoftStack::finish_connecting(Socket& socket) {
  if (!socket.over) {
    socket.attempt = Socket::Attempt::kConnected;
    return 0;
  }
  const int error = take_error(socket);
  reset_for_reuse(socket);
  return error != 0 ? -error : -ECONNABORTED;
}

// TCP_CLOSE, and free for another attempt (Linux tcp_disconnect()). A port that bind() gave stays.
void SoftStack::reset_for_reuse(Socket& socket) {
  if (!socket.bound_by_program) {
    leave_port(socket);
    socket.flow.local_port = 0;
    socket.flow.local = socket.family == Family::kV4 ? any_v4() : any_v6();
  }
  socket.flow.remote = socket.family == Family::kV4 ? any_v4() : any_v6();
  socket.flow.remote_port = 0;
  socket.opening.reset();
  socket.conn.reset();
  socket.soft_error = 0;
  socket.attempt = Socket::Attempt::kNone;
  socket.over = socket.receive_shut = socket.send_shut = socket.fin_received = socket.no_space = false;
}

int SoftStack::disconnect(SocketId id, Time now) {
  Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  disconnect(*socket, now);
  deliver_wakes();
  return 0;
}

void SoftStack::disconnect(Socket& socket, Time now) {
  const State state = state_of(socket);
  socket.error = 0;
  if (state == State::kListen) {
    close_listener(socket, now);
  } else if (socket.opening) {
    if (const auto reset = tcp::abort_handshake(socket.opening->handshake)) {
      send_segment(socket.flow, &socket.options, *reset, nullptr, 0);
    } else {
      socket.error = ECONNRESET;
    }
    finish(socket);
  } else if (state != State::kClosed) {
    abort(socket, now);
  }
  wake(socket, kHangUp);
  reset_for_reuse(socket);
}

int SoftStack::shutdown(SocketId id, int how, Time now) {
  Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) return -EINVAL;
  const int result = shut(*socket, how != SHUT_WR, how != SHUT_RD, now);
  deliver_wakes();
  return result;
}

int SoftStack::shut(Socket& socket, bool receiving, bool sending, Time now) {
  const State state = state_of(socket);
  if (state == State::kClosed) {
    socket.receive_shut |= receiving;
    socket.send_shut |= sending;
    wake(socket, kHangUp);
    return -ENOTCONN;
  }
  if (socket.opening || (socket.listener && receiving)) {
    disconnect(socket, now);
    return 0;
  }
  if (socket.listener) return 0;
  const bool ends = sending && !socket.send_shut;
  socket.receive_shut |= receiving;
  socket.send_shut |= sending;
  wake(socket, (socket.receive_shut ? POLLIN | POLLRDNORM | POLLRDHUP : 0U) | POLLOUT | POLLWRNORM);
  if (ends && !socket.conn->cb.has(tcp::kFinQueued)) {
    tcp::on_close(socket.conn->cb);
    settle(socket, now);
  }
  return 0;
}

int SoftStack::retain(SocketId id) {
  Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  ++socket->references;
  return 0;
}

std::uint64_t SoftStack::cookie(SocketId id) const {
  const Socket* const socket = socket_of(id);
  return socket == nullptr ? 0 : socket->cookie;
}

int SoftStack::close(SocketId id, Time now) {
  Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  if (--socket->references > 0) return 0;
  end_program_side(*socket, now);
  deliver_wakes();
  return 0;
}

// Linux __tcp_close(). `socket` may be gone afterwards.
void SoftStack::end_program_side(Socket& socket, Time now) {
  if (socket.listener) close_listener(socket, now);
  socket.orphan = true;
  ++orphans_;
  if (socket.opening) {
    if (const auto reset = tcp::abort_handshake(socket.opening->handshake)) {
      send_segment(socket.flow, &socket.options, *reset, nullptr, 0);
    }
    return destroy(socket);
  }
  if (!socket.conn || socket.over) return destroy(socket);
  if (socket.repair) return finish(socket);  // kernel-facts.md, P5: the peer is not told
  socket.receive_shut = socket.send_shut = true;
  if (!socket.conn->receive.bytes.empty()) {
    ++stats_.abort_on_close;
    send_active_reset(socket, now);
    return finish(socket);
  }
  if (socket.options.linger && socket.options.linger_s == 0) return abort(socket, now);
  if (orphans_ > config_.tcp_max_orphans) {
    ++stats_.orphans_refused;
    return abort(socket, now);
  }
  if (!socket.conn->cb.has(tcp::kFinQueued)) tcp::on_close(socket.conn->cb);
  settle(socket, now);
}

int SoftStack::local_address(SocketId id, Address& out) const {
  const Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  out = {socket->flow.local, socket->flow.local_port};
  return 0;
}

int SoftStack::peer_address(SocketId id, Address& out) const {
  const Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  const State state = state_of(*socket);
  if (state == State::kClosed || state == State::kListen || state == State::kSynSent) return -ENOTCONN;
  out = {socket->flow.remote, socket->flow.remote_port};
  return 0;
}

}  // namespace twinstack::stack
