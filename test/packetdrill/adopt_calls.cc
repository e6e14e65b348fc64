// The program's calls in AdoptForm: to Linux, or through the rings to the engine, by who has the connection. What an
// option means for a connection of the engine is as in the socket layer (src/sockets/options.cc).
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <vector>

#include "adopt_form.h"
#include "sysctls.h"
#include "tcp/rate.h"
#include "tcp/tcp_info.h"

namespace twinstack::packetdrill {

namespace {

constexpr int kTcpCcInfo = 26;  // TCP_CC_INFO
constexpr std::uint32_t kGrownSendBuffer = 1U << 20;

struct Name {
  int level;
  int name;

  friend bool operator==(const Name&, const Name&) = default;
};

// The kernel's socket keeps it through a move, and the engine has nothing to do with it.
constexpr std::array kSetInPlace = {Name{SOL_SOCKET, SO_LINGER},   Name{SOL_SOCKET, SO_RCVTIMEO},
                                    Name{SOL_SOCKET, SO_SNDTIMEO}, Name{SOL_SOCKET, SO_SNDBUF},
                                    Name{SOL_SOCKET, SO_RCVBUF},   Name{IPPROTO_TCP, TCP_LINGER2}};
// The engine does not do it: the connection stays in the kernel.
constexpr std::array kSetForGood = {Name{SOL_SOCKET, SO_TIMESTAMP},    Name{SOL_SOCKET, SO_TIMESTAMPNS},
                                    Name{SOL_SOCKET, SO_TIMESTAMPING}, Name{SOL_SOCKET, SO_ZEROCOPY},
                                    Name{SOL_SOCKET, SO_RCVLOWAT},     Name{IPPROTO_TCP, kTcpInq}};

ssize_t as_negative(ssize_t result) noexcept { return result < 0 ? -errno : result; }

// As getsockopt(): at most *length bytes.
int answer_option(const void* answer, std::size_t bytes, void* value, socklen_t* length) noexcept {
  if (value == nullptr || length == nullptr) return -EFAULT;
  *length = static_cast<socklen_t>(std::min<std::size_t>(*length, bytes));
  std::memcpy(value, answer, *length);
  return 0;
}

std::uint32_t kernel_bits(int fd) noexcept {
  pollfd entry{.fd = fd,
               .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP | POLLRDNORM | POLLWRNORM | POLLRDBAND | POLLWRBAND,
               .revents = 0};
  (void)::poll(&entry, 1, 0);
  return static_cast<unsigned short>(entry.revents);
}

}  // namespace

int AdoptForm::socket(int domain, int type, int protocol) {
  const int fd = ::socket(domain, type | SOCK_NONBLOCK, protocol);
  if (fd < 0) return -errno;
  sockets_[fd].fd = fd;
  return fd;
}

int AdoptForm::bind(int fd, const sockaddr* address, socklen_t length) {
  return static_cast<int>(as_negative(::bind(fd, address, length)));
}

int AdoptForm::listen(int fd, int backlog) {
  if (Socket* const socket = find(fd); socket != nullptr) socket->listening = true;
  return static_cast<int>(as_negative(::listen(fd, backlog)));
}

int AdoptForm::accept(int fd, sockaddr* address, socklen_t* length) {
  from_linux();
  const int made = ::accept4(fd, address, length, SOCK_NONBLOCK);
  if (made < 0) return -errno;
  Socket& socket = sockets_[made];
  socket.fd = made;
  adopt(socket);
  return made;
}

int AdoptForm::connect(int fd, const sockaddr* address, socklen_t length) {
  Socket* const socket = find(fd);
  if (socket != nullptr && in_engine(*socket)) bring_back(*socket, "connect", true);
  linux_is_busy_ = true;
  const ssize_t result = as_negative(::connect(fd, address, length));
  if (socket != nullptr) socket->connecting = result == -EINPROGRESS;
  from_linux();
  return static_cast<int>(result);
}

ssize_t AdoptForm::send(int fd, const msghdr& message, int flags) {
  Socket* const socket = find(fd);
  if (socket != nullptr && in_engine(*socket)) {
    if ((flags & ~moving::kEngineSendFlags) == 0) return send_to_engine(*socket, message, flags);
    bring_back(*socket, "send flags", true);
  }
  linux_is_busy_ = true;
  const msghdr lasting = (flags & MSG_ZEROCOPY) != 0 ? keep_parts(message) : message;
  const ssize_t sent = as_negative(::sendmsg(fd, &lasting, flags | MSG_DONTWAIT | MSG_NOSIGNAL));
  if (sent == -EINPROGRESS && socket != nullptr) socket->connecting = true;
  from_linux();
  return sent;
}

// The same bytes, in memory that stays: the kernel sends from it, and packetdrill frees its own at once.
msghdr AdoptForm::keep_parts(const msghdr& message) {
  msghdr lasting = message;
  auto& parts = kept_parts_.emplace_back();
  for (const iovec& part : std::span(message.msg_iov, message.msg_iovlen)) {
    const auto* const begin = static_cast<const std::byte*>(part.iov_base);
    auto& bytes = kept_bytes_.emplace_back(begin, begin + part.iov_len);
    parts.push_back({.iov_base = bytes.data(), .iov_len = bytes.size()});
  }
  lasting.msg_iov = parts.data();
  return lasting;
}

bool AdoptForm::begins_with_send(int fd, int flags) const {
  const auto found = sockets_.find(fd);
  if (found == sockets_.end() || in_engine(found->second)) return false;
  if ((flags & MSG_FASTOPEN) != 0) return true;
  int deferred = 0;
  socklen_t length = sizeof deferred;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &deferred, &length) != 0 || deferred == 0) return false;
  tcp_info info{};
  length = sizeof info;
  return ::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_state == TCP_SYN_SENT;
}

// The kernel's socket knows both; without SO_SNDBUF its buffer grows with the window (Linux tcp_sndbuf_expand()).
moving::SendLimits AdoptForm::send_limits(const Socket& socket) const {
  int buffer = 0;
  int low_water = 0;
  socklen_t length = sizeof buffer;
  (void)::getsockopt(socket.fd, SOL_SOCKET, SO_SNDBUF, &buffer, &length);
  length = sizeof low_water;
  (void)::getsockopt(socket.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &low_water, &length);
  moving::SendLimits limits{.buffer_bytes = static_cast<std::uint32_t>(buffer)};
  if (!socket.send_buffer_locked) limits.buffer_bytes = std::max(limits.buffer_bytes, kGrownSendBuffer);
  const auto sysctl = read_sysctl_number("ipv4/tcp_notsent_lowat").value_or(UINT32_MAX);
  limits.not_sent_low_water =
      low_water != 0 ? static_cast<std::uint32_t>(low_water) : static_cast<std::uint32_t>(sysctl);
  return limits;
}

ssize_t AdoptForm::send_to_engine(Socket& socket, const msghdr& message, int flags) {
  if (has_bad_address(message)) return -EFAULT;
  std::vector<std::byte> bytes;
  for (const iovec& part : parts_of(message)) {
    const auto* const begin = static_cast<const std::byte*>(part.iov_base);
    bytes.insert(bytes.end(), begin, begin + part.iov_len);
  }
  const std::size_t taken = engine_->send(*socket.conn, bytes, flags);
  from_linux();
  if (taken == 0 && !bytes.empty()) return -EAGAIN;
  return static_cast<ssize_t>(taken);
}

ssize_t AdoptForm::receive(int fd, msghdr& message, int flags) {
  Socket* const socket = find(fd);
  if (socket != nullptr && (flags & ~moving::kEngineReceiveFlags) != 0) bring_back(*socket, "recv flags", true);
  if (socket != nullptr && socket->conn != nullptr && (flags & MSG_ERRQUEUE) == 0) {
    const ssize_t queued = receive_queued(*socket, message, flags);
    if (queued != -EAGAIN || in_engine(*socket)) return queued;
  }
  const ssize_t got = as_negative(::recvmsg(fd, &message, flags | MSG_DONTWAIT));
  from_linux();
  if (got >= 0) put_stamps_right(message);
  return got;
}

// Linux stamps by the real clock (SCM_TIMESTAMPING: three stamps, of which some are 0).
void AdoptForm::put_stamps_right(msghdr& message) const {
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr; head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_TIMESTAMPING) continue;
    std::array<timespec, 3> stamps{};
    std::memcpy(stamps.data(), CMSG_DATA(head), sizeof stamps);
    for (timespec& stamp : stamps) {
      if (stamp.tv_sec == 0) continue;
      const Time real(std::chrono::seconds(stamp.tv_sec) + std::chrono::nanoseconds(stamp.tv_nsec));
      const Duration since_epoch = to_virtual(real).time_since_epoch();
      stamp.tv_sec = std::chrono::duration_cast<std::chrono::seconds>(since_epoch).count();
      stamp.tv_nsec = since_epoch.count() % 1'000'000'000;
    }
    std::memcpy(CMSG_DATA(head), stamps.data(), sizeof stamps);
  }
}

// What the engine has received is older than anything in Linux's queue.
ssize_t AdoptForm::receive_queued(Socket& socket, msghdr& message, int flags) {
  if (engine_->unread_bytes(*socket.conn) == 0) return -EAGAIN;
  if (has_bad_address(message)) return -EFAULT;
  std::size_t got = 0;
  for (const iovec& part : parts_of(message)) {
    got +=
        engine_->receive(*socket.conn, {static_cast<std::byte*>(part.iov_base), part.iov_len}, (flags & MSG_PEEK) != 0);
    if ((flags & MSG_PEEK) != 0) break;
  }
  message.msg_flags = 0;
  message.msg_controllen = 0;
  work();
  return static_cast<ssize_t>(got);
}

ssize_t AdoptForm::splice(int fd, int pipe_fd, std::size_t bytes) {
  Socket* const socket = find(fd);
  if (socket == nullptr) return -EAGAIN;
  const std::uint64_t queued = socket->conn != nullptr ? engine_->unread_bytes(*socket->conn) : 0;
  if (in_engine(*socket) && queued == 0) return -EAGAIN;
  if (queued > 0) {
    std::vector<std::byte> data(std::min<std::uint64_t>(bytes, queued));
    const std::size_t got = engine_->receive(*socket->conn, data, false);
    work();
    return as_negative(::write(pipe_fd, data.data(), got));
  }
  const ssize_t moved = as_negative(::splice(fd, nullptr, pipe_fd, nullptr, bytes, SPLICE_F_NONBLOCK));
  from_linux();
  // On a socket that blocks, Linux gives 0 before an urgent byte (tcp_splice_read()); ours never does.
  return moved == -EAGAIN && (kernel_bits(fd) & POLLPRI) != 0 ? 0 : moved;
}

int AdoptForm::shutdown(int fd, int how) {
  if (Socket* const socket = find(fd); socket != nullptr) bring_back(*socket, "shutdown", true);
  linux_is_busy_ = true;
  const ssize_t result = as_negative(::shutdown(fd, how));
  from_linux();
  return static_cast<int>(result);
}

// As Mover::finish_close(): bytes that lie unread in the rings are for Linux as if they lay in its queue.
int AdoptForm::close(int fd) {
  Socket& socket = sockets_[fd];
  bring_back(socket, "close", true);
  if (socket.conn != nullptr) {
    constexpr linger kReset{.l_onoff = 1, .l_linger = 0};
    const bool unread = engine_->unread_bytes(*socket.conn) > 0;
    if (unread) (void)::setsockopt(fd, SOL_SOCKET, SO_LINGER, &kReset, sizeof kReset);
    engine_->close(*socket.conn);
  }
  sockets_.erase(fd);
  linux_is_busy_ = true;
  const ssize_t result = as_negative(::close(fd));
  work();
  return static_cast<int>(result);
}

namespace {

// As in the socket layer: the engine is told, and the connection stays.
constexpr std::array kTold = {Name{IPPROTO_IP, IP_TOS}, Name{IPPROTO_IP, IP_TTL}, Name{IPPROTO_IPV6, IPV6_TCLASS},
                              Name{IPPROTO_IPV6, IPV6_UNICAST_HOPS}};

std::uint8_t byte_option(int fd, int level, int name) noexcept {
  int value = 0;
  socklen_t size = sizeof value;
  (void)::getsockopt(fd, level, name, &value, &size);
  return static_cast<std::uint8_t>(value);
}

std::uint32_t header_fields_of(int fd, bool v4) noexcept {
  return v4 ? ipc::header_fields(byte_option(fd, IPPROTO_IP, IP_TOS), byte_option(fd, IPPROTO_IP, IP_TTL))
            : ipc::header_fields(byte_option(fd, IPPROTO_IPV6, IPV6_TCLASS),
                                 byte_option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS));
}

}  // namespace

int AdoptForm::set_option(int fd, int level, int name, const void* value, socklen_t length) {
  Socket* const socket = find(fd);
  const Name option{level, name};
  if (socket != nullptr && in_engine(*socket) && std::ranges::find(kTold, option) != kTold.end()) {
    const ssize_t told = as_negative(::setsockopt(fd, level, name, value, length));
    engine_->set_header(*socket->conn, header_fields_of(fd, engine_->query(*socket->conn).min.flow.is_v4()));
    work();
    return static_cast<int>(told);
  }
  const bool moves =
      socket != nullptr && in_engine(*socket) && std::ranges::find(kSetInPlace, option) == kSetInPlace.end();
  if (moves) {
    const bool stays = std::ranges::find(kSetForGood, option) != kSetForGood.end();
    bring_back(*socket, "setsockopt", stays);
  }
  const ssize_t result = as_negative(::setsockopt(fd, level, name, value, length));
  if (socket != nullptr && option == Name{SOL_SOCKET, SO_SNDBUF}) socket->send_buffer_locked = true;
  from_linux();
  if (moves) adopt(*socket);
  return static_cast<int>(result);
}

int AdoptForm::engine_info(const Socket& socket, void* value, socklen_t* length) {
  const moving::EngineConn& conn = *socket.conn;
  tcp::TcpInfo info;
  const tcp::MinTcp min = engine_->query(conn).min;
  tcp::fill_tcp_info(engine_->tcb(conn), engine_->counters(conn), tcp::delivery_rate_of(min, engine_->tcb(conn).mss),
                     clock_.now(), info);
  info.state = TCP_ESTABLISHED;
  stack::fill_chronograph(conn.chronograph, clock_.now(), info);
  info.rcv_mss = engine_->tcb(conn).rcv_mss;
  info.advmss = min.advmss;
  tcp_info kernels{};
  socklen_t size = sizeof kernels;
  if (::getsockopt(socket.fd, IPPROTO_TCP, TCP_INFO, &kernels, &size) == 0) info.pmtu = kernels.tcpi_pmtu;
  return answer_option(&info, sizeof info, value, length);
}

// SO_MEMINFO: with the buffer that a return would bring.
int AdoptForm::memory_info(const Socket& socket, void* value, socklen_t* length) {
  std::array<std::uint32_t, SK_MEMINFO_VARS> info{};
  socklen_t size = sizeof info;
  if (::getsockopt(socket.fd, SOL_SOCKET, SO_MEMINFO, info.data(), &size) != 0) return -errno;
  info[SK_MEMINFO_RCVBUF] = std::max(info[SK_MEMINFO_RCVBUF], engine_->query(*socket.conn).min.rcv_buf_bytes);
  return answer_option(info.data(), size, value, length);
}

int AdoptForm::get_option(int fd, int level, int name, void* value, socklen_t* length) {
  const Socket* const socket = find(fd);
  if (socket != nullptr && in_engine(*socket)) {
    const int none = 0;
    if (level == IPPROTO_TCP && name == TCP_INFO) return engine_info(*socket, value, length);
    if (level == SOL_SOCKET && name == SO_MEMINFO) return memory_info(*socket, value, length);
    if (level == IPPROTO_TCP && name == kTcpCcInfo) return answer_option(&none, 0, value, length);
    if (level == SOL_SOCKET && name == SO_ERROR) return answer_option(&none, sizeof none, value, length);
    if (level == IPPROTO_TCP && name == TCP_MAXSEG) {
      const int mss = engine_->tcb(*socket->conn).mss;
      return answer_option(&mss, sizeof mss, value, length);
    }
  }
  return static_cast<int>(as_negative(::getsockopt(fd, level, name, value, length)));
}

int AdoptForm::ioctl(int fd, unsigned long request, int* value) {
  const Socket* const socket = find(fd);
  if (socket == nullptr || socket->conn == nullptr) return static_cast<int>(as_negative(::ioctl(fd, request, value)));
  int in_kernel = 0;
  if (!in_engine(*socket) && ::ioctl(fd, request, &in_kernel) != 0) return -errno;
  switch (request) {
    case SIOCINQ:
      *value = in_kernel + static_cast<int>(engine_->unread_bytes(*socket->conn));
      return 0;
    case SIOCOUTQ:
      *value = in_engine(*socket) ? static_cast<int>(engine_->unacknowledged(*socket->conn)) : in_kernel;
      return 0;
    default:
      return -EINVAL;
  }
}

std::uint32_t AdoptForm::poll(int fd) {
  Socket* const socket = find(fd);
  const std::uint32_t bits = socket != nullptr && socket->conn != nullptr ? engine_->poll(*socket->conn) : 0;
  return socket != nullptr && in_engine(*socket) ? bits : bits | kernel_bits(fd);
}

}  // namespace twinstack::packetdrill
