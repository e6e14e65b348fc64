// setsockopt() and getsockopt(): names, ranges and errors as on Linux.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "stack/stack.h"
#include "tcp/congestion/congestion.h"

namespace twinstack::stack {

namespace {

constexpr std::uint32_t kSmallestReceiveBuffer = 2304;  // Linux SOCK_MIN_RCVBUF
constexpr std::uint32_t kSmallestSendBuffer = 4608;     // Linux SOCK_MIN_SNDBUF
constexpr int kSmallestMaxSegment = 88;                 // TCP_MIN_MSS
constexpr int kLargestMaxSegment = 32767;
constexpr int kLongestKeepalive_s = 32767;
constexpr int kLongestFinTimeout_s = 120;
constexpr int kTcpInq = 36;          // TCP_INQ
constexpr int kTcpUserTimeout = 18;  // as the others: not in every header
constexpr int kTcpNotSentLowat = 25;
constexpr int kTcpCcInfo = 26;
constexpr int kIpFreebind = 15;
constexpr int kTcpFastOpen = 23;
constexpr int kTcpFastOpenConnect = 30;
constexpr int kTcpFastOpenKey = 33;
constexpr int kTcpFastOpenNoCookie = 34;

bool within(int value, int least, int most) noexcept { return value >= least && value <= most; }

// Seconds to SYN-ACK retransmissions and back, from one second doubling up to two minutes (Linux secs_to_retrans()).
std::uint8_t retransmissions_in(int seconds) noexcept {
  if (seconds <= 0) return 0;
  std::uint8_t count = 1;
  int timeout = 1;
  for (int period = 1; seconds > period && count < 255; ++count) {
    timeout = std::min(timeout * 2, 120);
    period += timeout;
  }
  return count;
}

int seconds_of(std::uint8_t retransmissions) noexcept {
  if (retransmissions == 0) return 0;
  int timeout = 1;
  int period = 1;
  for (int left = retransmissions - 1; left > 0; --left) {
    timeout = std::min(timeout * 2, 120);
    period += timeout;
  }
  return period;
}

std::uint32_t doubled(int value, std::uint32_t limit, std::uint32_t least) noexcept {
  const auto wanted = static_cast<std::uint32_t>(std::max(value, 0));
  return std::max(std::min(value < 0 ? limit : wanted, limit) * 2, least);
}

// The value of an option of a byte or of an int (IP level).
int small_value(ByteView value) noexcept {
  if (value.size() < sizeof(int)) return static_cast<std::uint8_t>(value[0]);
  int out = 0;
  std::memcpy(&out, value.data(), sizeof out);
  return out;
}

int put(std::span<std::byte> room, const void* from, std::size_t size) noexcept {
  const std::size_t count = std::min(room.size(), size);
  if (count > 0) std::memcpy(room.data(), from, count);
  return static_cast<int>(count);
}

int put(std::span<std::byte> room, int value) noexcept { return put(room, &value, sizeof value); }

}  // namespace

// ---- What a change means to a connection that lives

// NODELAY, CORK, KEEPALIVE and its times, USER_TIMEOUT.
void SoftStack::apply_settings(Socket& socket, Time now) {
  if (!socket.conn || socket.over) return;
  tcp::MinTcp settings;
  fill_settings(socket, settings);
  tcp::ControlBlock& cb = socket.conn->cb;
  tcp::set_flags(cb, settings.flags, now);
  tcp::set_keepalive(cb, settings.keepalive_idle_s, settings.keepalive_interval_s, settings.keepalive_probes, now);
  tcp::set_user_timeout(cb, settings.user_timeout_ms);
  settle(socket, now);
}

void SoftStack::set_receive_buffer(Socket& socket, int value, bool forced) {
  const std::uint32_t limit = forced ? INT32_MAX / 2 : config_.rmem_max;
  socket.options.receive_buffer_bytes = doubled(value, limit, kSmallestReceiveBuffer);
  socket.options.receive_buffer_locked = true;
  if (socket.conn) socket.conn->receive.set_buffer(socket.options.receive_buffer_bytes);
}

void SoftStack::set_send_buffer(Socket& socket, int value, bool forced) {
  const std::uint32_t limit = forced ? INT32_MAX / 2 : config_.wmem_max;
  socket.options.send_buffer_bytes = doubled(value, limit, kSmallestSendBuffer);
  socket.options.send_buffer_locked = true;
  if (socket.conn && !socket.over) note_room(socket);
}

// Linux tcp_set_rcvlowat(): the buffer must be able to hold so much.
void SoftStack::set_receive_low_water(Socket& socket, int value) {
  const bool locked = socket.options.receive_buffer_locked;
  const std::uint32_t most = (locked ? socket.options.receive_buffer_bytes : config_.tcp_rmem.max_bytes) / 2;
  const std::uint32_t wanted = value < 0 ? most : std::min(static_cast<std::uint32_t>(value), most);
  socket.options.receive_low_water = std::max(wanted, 1U);
  if (socket.conn && is_readable(socket)) wake(socket, POLLIN | POLLRDNORM);
  if (locked || !socket.conn) return;
  const std::uint32_t space = space_from_window(config_, wanted);
  if (space <= socket.conn->receive.buffer_bytes()) return;
  socket.conn->receive.set_buffer(space);
  socket.conn->receive.set_clamp(wanted, socket.conn->cb);
}

int SoftStack::set_window_clamp(Socket& socket, int value) {
  if (value <= 0) {
    if (state_of(socket) != State::kClosed) return -EINVAL;
    socket.options.window_clamp = 0;
    return 0;
  }
  socket.options.window_clamp = std::max(static_cast<std::uint32_t>(value), kSmallestReceiveBuffer / 2);
  if (socket.conn) socket.conn->receive.set_clamp(socket.options.window_clamp, socket.conn->cb);
  return 0;
}

int SoftStack::set_congestion(Socket& socket, ByteView value, Time now) {
  const auto* const text = reinterpret_cast<const char*>(value.data());
  const std::string_view name(text, ::strnlen(text, std::min<std::size_t>(value.size(), 15)));
  const tcp::CongestionKind kind = tcp::congestion_kind(name);
  if (tcp::congestion_ops(kind).name != name) return -ENOENT;  // congestion_kind() has CUBIC stand in for what it lacks
  socket.options.congestion = name;
  if (socket.conn && !socket.over) tcp::set_congestion(socket.conn->cb, kind, now);
  return 0;
}

// ---- setsockopt()

int SoftStack::set_linger(Socket& socket, ByteView value) {
  struct linger wanted{};
  if (value.size() < sizeof wanted) return -EINVAL;
  std::memcpy(&wanted, value.data(), sizeof wanted);
  socket.options.linger = wanted.l_onoff != 0;
  socket.options.linger_s = wanted.l_onoff != 0 ? wanted.l_linger : 0;
  return 0;
}

int SoftStack::set_socket_option(Socket& socket, int name, int value, Time now) {
  switch (name) {
    case SO_REUSEADDR:
      socket.reuse_address = value != 0;
      return 0;
    case SO_KEEPALIVE:
      socket.options.keepalive = value != 0;
      apply_settings(socket, now);
      return 0;
    case SO_SNDBUF:
    case SO_SNDBUFFORCE:
      set_send_buffer(socket, value, name == SO_SNDBUFFORCE);
      return 0;
    case SO_RCVBUF:
    case SO_RCVBUFFORCE:
      set_receive_buffer(socket, value, name == SO_RCVBUFFORCE);
      return 0;
    case SO_RCVLOWAT:
      set_receive_low_water(socket, value);
      return 0;
    case SO_MARK:
    case SO_PRIORITY:
    case SO_OOBINLINE:
      return 0;  // taken, without effect here
    default:
      return -ENOPROTOOPT;
  }
}

int SoftStack::set_keepalive_option(Socket& socket, int name, int value, Time now) {
  const int most = name == TCP_KEEPCNT ? 127 : kLongestKeepalive_s;
  if (!within(value, 1, most)) return -EINVAL;
  Options& options = socket.options;
  if (name == TCP_KEEPIDLE) options.keepalive_idle_s = static_cast<std::uint32_t>(value);
  if (name == TCP_KEEPINTVL) options.keepalive_interval_s = static_cast<std::uint32_t>(value);
  if (name == TCP_KEEPCNT) options.keepalive_probes = static_cast<std::uint8_t>(value);
  apply_settings(socket, now);
  return 0;
}

// Options that change how a running connection sends and acknowledges.
int SoftStack::set_sending_option(Socket& socket, int name, int value, Time now) {
  Options& options = socket.options;
  switch (name) {
    case TCP_NODELAY:
      options.no_delay = value != 0;
      if (value != 0 && socket.conn && !socket.over) tcp::push_pending(socket.conn->cb);
      break;
    case TCP_CORK:
      options.cork = value != 0;
      break;
    case kTcpUserTimeout:
      if (value < 0) return -EINVAL;
      options.user_timeout_ms = static_cast<std::uint32_t>(value);
      break;
    case TCP_QUICKACK:
      if (!socket.conn || socket.over) return 0;
      tcp::set_quick_ack(socket.conn->cb, value != 0);
      settle(socket, now);
      if (value != 0 && (value & 1) == 0 && socket.conn) tcp::set_quick_ack(socket.conn->cb, false);
      return 0;
    case kTcpNotSentLowat:
      options.not_sent_low_water = static_cast<std::uint32_t>(value);
      if (socket.conn && !socket.over) note_room(socket);
      return 0;
    default:
      return -ENOPROTOOPT;
  }
  apply_settings(socket, now);
  return 0;
}

int SoftStack::set_tcp_option(Socket& socket, int name, int value, Time now) {
  Options& options = socket.options;
  switch (name) {
    case TCP_MAXSEG:
      if (value != 0 && !within(value, kSmallestMaxSegment, kLargestMaxSegment)) return -EINVAL;
      options.max_segment = static_cast<std::uint16_t>(value);
      return 0;
    case TCP_KEEPIDLE:
    case TCP_KEEPINTVL:
    case TCP_KEEPCNT:
      return set_keepalive_option(socket, name, value, now);
    case TCP_SYNCNT:
      if (!within(value, 1, 127)) return -EINVAL;
      options.syn_retries = static_cast<std::uint8_t>(value);
      if (socket.opening) socket.opening->config.syn_retries = options.syn_retries;
      return 0;
    case TCP_LINGER2:
      options.linger2_s = value < 0 ? -1 : std::min(value, kLongestFinTimeout_s);
      return 0;
    case TCP_DEFER_ACCEPT:
      options.defer_accept = retransmissions_in(value);
      return 0;
    case TCP_WINDOW_CLAMP:
      return set_window_clamp(socket, value);
    case kTcpInq:
      if (!within(value, 0, 1)) return -EINVAL;
      options.receive_inq = value != 0;
      return 0;
    case kTcpFastOpen:
    case kTcpFastOpenConnect:
    case kTcpFastOpenNoCookie:
      return set_fast_open_option(socket, name, value);
    default:
      return set_sending_option(socket, name, value, now);
  }
}

int SoftStack::set_ip_option(Socket& socket, int level, int name, int value) {
  Options& options = socket.options;
  if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY) {
    if (socket.family != Family::kV6) return -ENOPROTOOPT;
    if (socket.bucket != nullptr) return -EINVAL;
    options.v6_only = value != 0;
    return 0;
  }
  const bool hop_limit = level == IPPROTO_IP ? name == IP_TTL : name == IPV6_UNICAST_HOPS;
  const bool traffic_class = level == IPPROTO_IP ? name == IP_TOS : name == IPV6_TCLASS;
  if (hop_limit) {
    if (value != -1 && !within(value, 1, 255)) return -EINVAL;
    options.ttl = value == -1 ? std::uint8_t{0} : static_cast<std::uint8_t>(value);
    return 0;
  }
  if (traffic_class) {  // the ECN bits are the stack's
    options.traffic_class = static_cast<std::uint8_t>(value & 0xfc);
    return 0;
  }
  const bool ignored = level == IPPROTO_IP ? name == IP_MTU_DISCOVER || name == IP_RECVERR || name == kIpFreebind
                                           : name == IPV6_MTU_DISCOVER || name == IPV6_RECVERR;
  return ignored ? 0 : -ENOPROTOOPT;
}

int SoftStack::set_option(SocketId id, int level, int name, ByteView value, Time now) {
  Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  int result = -ENOPROTOOPT;
  if (level == IPPROTO_IP || level == IPPROTO_IPV6) {
    if (value.empty()) return -EINVAL;
    result = set_ip_option(*socket, level, name, small_value(value));
  } else if (level == IPPROTO_TCP && name == kTcpFastOpenKey) {
    result = set_fast_open_keys(*socket, value);
  } else if (level == IPPROTO_TCP && name == TCP_CONGESTION) {
    result = value.empty() ? -EINVAL : set_congestion(*socket, value, now);
  } else if (level == SOL_SOCKET && name == SO_LINGER) {
    result = set_linger(*socket, value);
  } else if (level == SOL_SOCKET || level == IPPROTO_TCP) {
    if (value.size() < sizeof(int)) return -EINVAL;
    const int number = small_value(value);
    result = level == SOL_SOCKET ? set_socket_option(*socket, name, number, now)
                                 : set_tcp_option(*socket, name, number, now);
  }
  deliver_wakes();
  return result;
}

int SoftStack::set_option(SocketId id, int level, int name, int value, Time now) {
  return set_option(id, level, name, std::as_bytes(std::span(&value, 1)), now);
}

// ---- getsockopt()

int SoftStack::get_socket_option(Socket& socket, int name, std::span<std::byte> room) {
  switch (name) {
    case SO_ERROR: {
      const int error = socket.error != 0 ? take_error(socket) : std::exchange(socket.soft_error, 0);
      return put(room, error);
    }
    case SO_REUSEADDR:
      return put(room, socket.reuse_address);
    case SO_KEEPALIVE:
      return put(room, socket.options.keepalive);
    case SO_SNDBUF:
      return put(room, static_cast<int>(send_buffer(socket)));
    case SO_RCVBUF:
      return put(room, static_cast<int>(current_receive_buffer(socket)));
    case SO_RCVLOWAT:
      return put(room, static_cast<int>(socket.options.receive_low_water));
    case SO_TYPE:
      return put(room, SOCK_STREAM);
    case SO_DOMAIN:
      return put(room, socket.family == Family::kV4 ? AF_INET : AF_INET6);
    case SO_PROTOCOL:
      return put(room, IPPROTO_TCP);
    case SO_ACCEPTCONN:
      return put(room, socket.listener != nullptr);
    case SO_COOKIE:
      return put(room, &socket.cookie, sizeof socket.cookie);
    case SO_LINGER: {
      const struct linger value = {socket.options.linger, socket.options.linger_s};
      return put(room, &value, sizeof value);
    }
    default:
      return -ENOPROTOOPT;
  }
}

// Linux: mss_cache, which before a connection is 536 or what the program wants.
int SoftStack::max_segment(const Socket& socket) const {
  constexpr int kDefault = 536;
  if (socket.conn && !socket.over) return socket.conn->cb.mss;
  return socket.options.max_segment != 0 ? socket.options.max_segment : kDefault;
}

int SoftStack::get_tcp_option(Socket& socket, int name, std::span<std::byte> room) {
  const Options& options = socket.options;
  tcp::MinTcp settings;
  fill_settings(socket, settings);
  switch (name) {
    case TCP_NODELAY:
      return put(room, options.no_delay);
    case TCP_CORK:
      return put(room, options.cork);
    case TCP_MAXSEG:
      return put(room, max_segment(socket));
    case TCP_KEEPIDLE:
      return put(room, static_cast<int>(settings.keepalive_idle_s));
    case TCP_KEEPINTVL:
      return put(room, static_cast<int>(settings.keepalive_interval_s));
    case TCP_KEEPCNT:
      return put(room, static_cast<int>(settings.keepalive_probes));
    case TCP_SYNCNT:
      return put(room, options.syn_retries != 0 ? options.syn_retries : config_.tcp_syn_retries);
    case TCP_LINGER2:
      return put(room, options.linger2_s != 0 ? options.linger2_s : static_cast<int>(config_.tcp_fin_timeout_s));
    case TCP_DEFER_ACCEPT:
      return put(room, seconds_of(options.defer_accept));
    case TCP_WINDOW_CLAMP:
      return put(room, static_cast<int>(socket.conn ? socket.conn->receive.clamp_bytes() : options.window_clamp));
    case TCP_QUICKACK:
      return put(room, !socket.conn || !socket.conn->cb.has(tcp::kPingPong));
    case kTcpUserTimeout:
      return put(room, static_cast<int>(options.user_timeout_ms));
    case kTcpNotSentLowat:
      return put(room, static_cast<int>(options.not_sent_low_water));
    case kTcpInq:
      return put(room, options.receive_inq);
    case kTcpFastOpen:
      return put(room, static_cast<int>(options.fast_open_queue));
    case kTcpFastOpenConnect:
      return put(room, options.fast_open_connect);
    case kTcpFastOpenNoCookie:
      return put(room, options.fast_open_no_cookie);
    case kTcpCcInfo:
      return 0;
    case TCP_CONGESTION:
      return put(room, settings.congestion.data(), settings.congestion.size());
    default:
      return -ENOPROTOOPT;
  }
}

int SoftStack::get_ip_option(Socket& socket, int level, int name, std::span<std::byte> room, Time now) {
  const bool v4 = level == IPPROTO_IP;
  const Options& options = socket.options;
  if (name == (v4 ? IP_TTL : IPV6_UNICAST_HOPS)) return put(room, options.ttl != 0 ? options.ttl : config_.ttl);
  if (name == (v4 ? IP_TOS : IPV6_TCLASS)) return put(room, options.traffic_class);
  if (!v4 && name == IPV6_V6ONLY) return put(room, options.v6_only);
  if (name == (v4 ? IP_MTU : IPV6_MTU)) {
    if (!socket.conn) return -ENOTCONN;
    return put(room, static_cast<int>(path_mtu_of(*socket.conn, socket.flow.remote, now)));
  }
  return -ENOPROTOOPT;
}

int SoftStack::get_option(SocketId id, int level, int name, std::span<std::byte> room, Time now) {
  Socket* const socket = socket_of(id);
  if (socket == nullptr) return -EBADF;
  if (level == SOL_SOCKET) return get_socket_option(*socket, name, room);
  if (level == IPPROTO_IP || level == IPPROTO_IPV6) return get_ip_option(*socket, level, name, room, now);
  if (level != IPPROTO_TCP) return -ENOPROTOOPT;
  if (name != TCP_INFO) return get_tcp_option(*socket, name, room);
  TcpInfo told;
  info(id, told, now);
  return put(room, &told, sizeof told);
}

int SoftStack::get_option(SocketId id, int level, int name, int* value, Time now) {
  *value = 0;
  return get_option(id, level, name, std::as_writable_bytes(std::span(value, 1)), now);
}

}  // namespace twinstack::stack
