// send(), recv(), poll() and the queues behind them: as Linux's tcp_sendmsg(), tcp_recvmsg(), tcp_poll().
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "stack/socket_host.h"
#include "stack/stack.h"
#include "tcp/burst.h"
#include "tcp/flight.h"

namespace twinstack::stack {

// ---- Room

// What a socket's buffer is before the program or the congestion window has a say.
std::uint32_t SoftStack::send_buffer(const Socket& socket) const {
  return socket.options.send_buffer_bytes != 0 ? socket.options.send_buffer_bytes : config_.tcp_wmem.default_bytes;
}

std::uint32_t SoftStack::first_receive_buffer(const Socket& socket) const {
  return socket.options.receive_buffer_bytes != 0 ? socket.options.receive_buffer_bytes
                                                  : config_.tcp_rmem.default_bytes;
}

std::uint32_t SoftStack::current_receive_buffer(const Socket& socket) const {
  return socket.conn ? socket.conn->receive.buffer_bytes() : first_receive_buffer(socket);
}

// Linux tcp_sndbuf_expand(): room for two congestion windows.
void SoftStack::expand_send_buffer(Socket& socket) {
  if (socket.options.send_buffer_locked) return;
  constexpr std::uint32_t kHead = 320 + 320;  // headers and the shared part of a kernel's buffer
  constexpr std::uint32_t kDescriptor = 256;
  const tcp::ControlBlock& cb = socket.conn->cb;
  const std::uint32_t mss = std::max<std::uint32_t>(socket.conn->mss_clamp, cb.mss);
  const std::uint32_t segment_bytes = std::bit_ceil(mss + kHead) + kDescriptor;
  const std::uint64_t segments = std::max<std::uint32_t>({10U, cb.cwnd, cb.reordering + 1U});
  const std::uint64_t wanted = std::min<std::uint64_t>(2 * segments * segment_bytes, config_.tcp_wmem.max_bytes);
  socket.options.send_buffer_bytes = std::max(send_buffer(socket), static_cast<std::uint32_t>(wanted));
}

std::uint32_t SoftStack::not_sent_low_water(const Socket& socket) const noexcept {
  return socket.options.not_sent_low_water != 0 ? socket.options.not_sent_low_water : config_.tcp_notsent_lowat;
}

// Linux sk_stream_memory_free().
bool SoftStack::takes_a_chunk(const Socket& socket) const {
  return socket.conn->send.weight() < send_buffer(socket) && unsent_of(*socket.conn) < not_sent_low_water(socket);
}

// Linux tcp_xmit_size_goal(): whole segments, as many as one packet of GSO holds, half a window of the peer at most.
std::uint32_t SoftStack::chunk_bytes(const Connection& conn) noexcept {
  constexpr std::uint32_t kLargest = 65536 - 321;  // what the kernel keeps for headers
  constexpr std::uint32_t kDefaultMss = 536;
  const tcp::ControlBlock& cb = conn.cb;
  const std::uint32_t half = cb.max_window > kDefaultMss ? cb.max_window / 2 : cb.max_window;
  return std::max(std::min(kLargest, half) / cb.mss, 1U) * cb.mss;
}

std::uint32_t SoftStack::unsent_of(const Connection& conn) noexcept {
  return conn.cb.snd_nxt < conn.send.end() ? bytes_between(conn.cb.snd_nxt, conn.send.end()) : 0;
}

// Linux __sk_stream_is_writeable(): a third is free, and what is unsent has fallen to half of the low-water mark.
bool SoftStack::is_writable(const Socket& socket) const {
  if (!socket.conn || socket.over) return true;
  const std::uint32_t buffer = send_buffer(socket);
  const std::uint32_t queued = socket.conn->send.weight();
  if (queued >= buffer || buffer - queued < queued / 2) return false;
  return std::uint64_t{unsent_of(*socket.conn)} * 2 < not_sent_low_water(socket);
}

bool SoftStack::is_readable(const Socket& socket) const {
  if (!socket.conn) return false;
  const Connection& conn = *socket.conn;
  const std::uint32_t unread = conn.receive.bytes.size();
  if (unread == 0) return false;
  if (unread >= socket.options.receive_low_water) return true;
  return conn.receive.window_space(config_, conn.cb) <= conn.cb.rcv_mss;  // it will not become more
}

// ---- poll()

std::uint32_t SoftStack::poll_bits(const Socket& socket) const {
  if (socket.listener) return socket.listener->accepted.empty() ? 0 : POLLIN | POLLRDNORM;
  const State state = state_of(socket);
  std::uint32_t bits = 0;
  if (state == State::kClosed || (socket.receive_shut && socket.send_shut)) bits |= POLLHUP;
  if (socket.receive_shut) bits |= POLLIN | POLLRDNORM | POLLRDHUP;
  if (socket.opening && socket.opening->deferred) bits |= POLLOUT | POLLWRNORM;
  if (!socket.opening) {
    if (is_readable(socket)) bits |= POLLIN | POLLRDNORM;
    if (socket.send_shut || is_writable(socket)) bits |= POLLOUT | POLLWRNORM;
  }
  if (socket.error != 0) bits |= POLLERR;
  return bits;
}

std::uint32_t SoftStack::poll(SocketId id) {
  Socket* const socket = socket_of(id);
  if (socket == nullptr) return POLLNVAL;
  const std::uint32_t bits = poll_bits(*socket);
  if ((bits & POLLOUT) == 0 && !socket->listener) socket->no_space = true;
  return bits;
}

void SoftStack::run_out_of_memory(SocketId id, Time now) {
  Socket* const socket = socket_of(id);
  if (socket == nullptr || !socket->conn || socket->over || socket->unconfirmed) return;
  tcp::ControlBlock& cb = socket->conn->cb;
  cb.rcv_wnd = 0;
  cb.rcv_wup = cb.rcv_nxt;
  tcp::acknowledge_now(cb);
  socket->conn->receive.is_out_of_memory = true;
  transmit(*socket, now);
  socket->conn->receive.is_out_of_memory = false;
}

// ---- send()

std::int64_t SoftStack::send(SocketId id, ByteView bytes, int flags, Time now) {
  Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  if ((flags & MSG_OOB) != 0) return -EOPNOTSUPP;
  const bool deferred = socket->opening && socket->opening->deferred;
  const std::int64_t result =
      deferred ? begin_with_data(*socket, bytes, flags, now) : queue_bytes(*socket, bytes, flags, now);
  deliver_wakes();
  return result;
}

// 0 when the socket takes bytes, else the negative errno.
int SoftStack::refuse_to_send(Socket& socket) {
  if (socket.repair) return -EINVAL;  // kernel-facts.md, A3
  if (socket.error != 0) return -take_error(socket);
  if (socket.opening) {
    socket.no_space = true;
    return -EAGAIN;
  }
  const State state = state_of(socket);
  const bool open = state == State::kEstablished || state == State::kCloseWait || state == State::kSynReceived;
  return open && !socket.send_shut ? 0 : -EPIPE;
}

// Linux tcp_sendmsg_locked(): chunk by chunk; each that is full may go before the next is filled.
std::int64_t SoftStack::queue_bytes(Socket& socket, ByteView bytes, int flags, Time now) {
  if (const int error = refuse_to_send(socket); error != 0) return error;
  Connection& conn = *socket.conn;
  std::size_t taken = 0;
  while (taken < bytes.size()) {
    std::uint32_t room = conn.send.room_in_chunk(conn.cb.snd_nxt, chunk_bytes(conn));
    const bool longer = room > 0 && taken > 0;
    if (room == 0) {
      if (!takes_a_chunk(socket)) break;
      conn.send.begin_chunk();
      room = chunk_bytes(conn);
    }
    const auto count = static_cast<std::uint32_t>(std::min<std::size_t>(room, bytes.size() - taken));
    conn.send.append(bytes.subspan(taken, count));
    taken += count;
    if (longer) tcp::move_push(conn.cb, count);
    const bool last = taken == bytes.size();
    tcp::on_queued(conn.cb, count, !last || (flags & MSG_MORE) != 0);
    if (count == room && !last) push_chunk(socket, now);
  }
  if (taken < bytes.size()) {
    socket.no_space = true;
    if (taken == 0) return -EAGAIN;
    tcp::on_queued(conn.cb, 0, false);  // nothing follows for now
  } else if ((flags & MSG_EOR) != 0) {
    conn.send.close_chunk();
    tcp::end_record(conn.cb);
  }
  settle(socket, now);
  return static_cast<std::int64_t>(taken);
}

// A chunk is full, and more follows: all goes where very much has been queued, else of the chunk itself one burst
// (Linux forced_push(), tcp_push_one()).
void SoftStack::push_chunk(Socket& socket, Time now) {
  const Connection& conn = *socket.conn;
  if (conn.cb.push_seq == conn.cb.write_seq) return transmit(socket, now, false);
  if (conn.send.in_last_chunk(conn.cb.snd_nxt)) transmit(socket, now, true);
}

// ---- recv()

std::int64_t SoftStack::recv(SocketId id, std::span<std::byte> room, int flags, Time now) {
  Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  if (socket->listener) return -ENOTCONN;
  if (socket->repair) return -EPERM;  // kernel-facts.md, A3
  if ((flags & MSG_OOB) != 0) return -EINVAL;
  if (socket->conn && !socket->conn->receive.bytes.empty()) {
    const std::int64_t result = take_bytes(*socket, room, flags, now);
    deliver_wakes();
    return result;
  }
  if (room.empty()) return 0;
  if (socket->fin_received) return 0;
  if (socket->error != 0) return -take_error(*socket);
  if (socket->receive_shut) return 0;
  if (state_of(*socket) == State::kClosed) return -ENOTCONN;
  return -EAGAIN;
}

std::int64_t SoftStack::take_bytes(Socket& socket, std::span<std::byte> room, int flags, Time now) {
  Connection& conn = *socket.conn;
  ByteQueue& queue = conn.receive.bytes;
  const auto count = static_cast<std::uint32_t>(std::min<std::size_t>(room.size(), queue.size()));
  if ((flags & MSG_TRUNC) == 0) queue.copy(0, room.first(count));
  if ((flags & MSG_PEEK) != 0 || count == 0) return count;
  queue.pop_front(count);
  if (socket.over) return count;
  const Seq copied = conn.cb.rcv_nxt - (conn.cb.has(tcp::kFinReceived) ? 1U : 0U) - queue.size();
  conn.receive.on_read(config_, conn.cb, copied, may_grow_receive_buffer(socket), now);
  SocketHost host(*this, socket);
  tcp::on_read(conn.cb, host, now);
  if (conn.cb.has(tcp::kFinReceived) && !socket.fin_received) take_fin(socket);
  settle(socket, now);
  return count;
}

bool SoftStack::may_grow_receive_buffer(const Socket& socket) const noexcept {
  return config_.tcp_moderate_rcvbuf && !socket.options.receive_buffer_locked;
}

// ---- Queues

std::int64_t SoftStack::unread_bytes(SocketId id) const {
  const Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  if (socket->listener) return -EINVAL;
  return socket->conn ? socket->conn->receive.bytes.size() : 0;
}

// The TCP_INQ of a recvmsg() that has just been made: at the end of the stream 1, so that the program comes again.
std::int64_t SoftStack::inq_hint(SocketId id) const {
  const Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  return unread_bytes(id) + (socket->fin_received ? 1 : 0);
}

// SIOCOUTQ counts an unacknowledged FIN (kernel-facts.md, S1).
std::int64_t SoftStack::unacknowledged_bytes(SocketId id) const {
  const Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  if (socket->listener) return -EINVAL;
  if (!socket->conn || socket->over) return 0;
  return bytes_between(socket->conn->cb.snd_una, socket->conn->cb.write_seq);
}

std::int64_t SoftStack::unsent_bytes(SocketId id) const {
  const Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  if (socket->listener) return -EINVAL;
  if (!socket->conn || socket->over) return 0;
  return bytes_between(socket->conn->cb.snd_nxt, socket->conn->cb.write_seq);
}

}  // namespace twinstack::stack
