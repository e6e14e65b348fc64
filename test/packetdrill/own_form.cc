#include "own_form.h"

#include <arpa/inet.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "own_config.h"

namespace twinstack::packetdrill {

namespace {

constexpr std::size_t kMostFragments = 17;  // MAX_SKB_FRAGS

std::vector<std::byte> bytes_of(std::span<const iovec> parts) {
  std::vector<std::byte> bytes;
  for (const iovec& part : parts) {
    const auto* const begin = static_cast<const std::byte*>(part.iov_base);
    bytes.insert(bytes.end(), begin, begin + part.iov_len);
  }
  return bytes;
}

bool read_address(const sockaddr* address, socklen_t length, stack::Address& out) noexcept {
  if (address == nullptr) return false;
  if (address->sa_family == AF_INET && length >= sizeof(sockaddr_in)) {
    sockaddr_in v4{};
    std::memcpy(&v4, address, sizeof v4);
    std::array<std::uint8_t, 4> bytes{};
    std::memcpy(bytes.data(), &v4.sin_addr, bytes.size());
    out = {.ip = IpAddress::from_v4(bytes), .port = ntohs(v4.sin_port)};
    return true;
  }
  if (address->sa_family != AF_INET6 || length < sizeof(sockaddr_in6)) return false;
  sockaddr_in6 v6{};
  std::memcpy(&v6, address, sizeof v6);
  std::memcpy(out.ip.bytes.data(), &v6.sin6_addr, out.ip.bytes.size());
  out.port = ntohs(v6.sin6_port);
  return true;
}

void write_address(const stack::Address& from, stack::Family family, sockaddr* address, socklen_t* length) noexcept {
  if (address == nullptr || length == nullptr) return;
  sockaddr_storage made{};
  std::size_t bytes = sizeof(sockaddr_in);
  if (family == stack::Family::kV4) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(from.port);
    const auto ip = from.ip.v4();
    std::memcpy(&v4.sin_addr, ip.data(), ip.size());
    std::memcpy(&made, &v4, sizeof v4);
  } else {
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(from.port);
    std::memcpy(&v6.sin6_addr, from.ip.bytes.data(), from.ip.bytes.size());
    std::memcpy(&made, &v6, sizeof v6);
    bytes = sizeof v6;
  }
  std::memcpy(address, &made, std::min<std::size_t>(*length, bytes));
  *length = static_cast<socklen_t>(bytes);
}

}  // namespace

OwnForm::OwnForm(const Flags& flags, const VirtualClock& clock, Observer& observer)
    : clock_(clock), observer_(observer), config_(first_config(flags)), stack_(config_, *this, this) {
  if (auto tun = Tun::open(flags)) tun_ = std::make_unique<Tun>(std::move(*tun));
  read_host_settings(config_);
}

void OwnForm::packet_in(ByteView ip_packet) {
  read_host_settings(config_);
  stack_.on_ip_packet(ip_packet, clock_.now());
  note_progress();
}

void OwnForm::on_time() {
  stack_.on_timer(clock_.now());
  note_progress();
}

void OwnForm::wake(stack::SocketId id, std::uint32_t events) {
  if (const auto found = fds_.find(id); found != fds_.end()) observer_.wake(found->second, events);
}

stack::SocketId OwnForm::id_of(int fd) const {
  const auto found = sockets_.find(fd);
  return found == sockets_.end() ? stack::kNoSocket : found->second.id;
}

// A descriptor for the socket, or the negative errno that `id` is.
int OwnForm::adopt(stack::SocketId id, stack::Family family, const SendNotices& notices) {
  if (id < 0) return id;
  const int fd = ::eventfd(0, EFD_CLOEXEC);
  if (fd < 0) return -errno;
  sockets_[fd] = {.id = id, .family = family, .notices = notices};
  fds_[id] = fd;
  return fd;
}

int OwnForm::socket(int domain, int type, int /*protocol*/) {
  if (domain != AF_INET && domain != AF_INET6) return -EAFNOSUPPORT;
  if (type != SOCK_STREAM) return -ESOCKTNOSUPPORT;
  read_host_settings(config_);
  const stack::Family family = domain == AF_INET ? stack::Family::kV4 : stack::Family::kV6;
  return adopt(stack_.socket(family), family, {});
}

int OwnForm::bind(int fd, const sockaddr* address, socklen_t length) {
  stack::Address local;
  return read_address(address, length, local) ? stack_.bind(id_of(fd), local) : -EINVAL;
}

int OwnForm::listen(int fd, int backlog) {
  read_host_settings(config_);
  return stack_.listen(id_of(fd), static_cast<std::uint32_t>(backlog), clock_.now());
}

int OwnForm::accept(int fd, sockaddr* address, socklen_t* length) {
  stack::Address peer;
  const stack::SocketId id = stack_.accept(id_of(fd), &peer, clock_.now());
  if (id < 0) return id;
  const Socket& listener = sockets_[fd];
  write_address(peer, listener.family, address, length);
  return adopt(id, listener.family, listener.notices);  // options are inherited
}

int OwnForm::connect(int fd, const sockaddr* address, socklen_t length) {
  read_host_settings(config_);
  if (address != nullptr && address->sa_family == AF_UNSPEC) return stack_.disconnect(id_of(fd), clock_.now());
  stack::Address peer;
  return read_address(address, length, peer) ? stack_.connect(id_of(fd), peer, clock_.now()) : -EINVAL;
}

ssize_t OwnForm::send_parts(Socket& socket, std::span<const iovec> parts, int flags) {
  const std::vector<std::byte> bytes = bytes_of(parts);
  return stack_.send(socket.id, bytes, flags, clock_.now());
}

ssize_t OwnForm::send(int fd, const msghdr& message, int flags) {
  if (has_bad_address(message)) return -EFAULT;
  Socket& socket = sockets_[fd];
  if ((flags & MSG_FASTOPEN) != 0) return connect_with_data(socket, message, flags);
  std::span<const iovec> parts = parts_of(message);
  ssize_t sent = 0;
  // A packet of Linux holds so many pinned pages, and each part of the message takes one at least.
  while ((flags & MSG_ZEROCOPY) != 0 && parts.size() > kMostFragments) {
    const ssize_t here = send_parts(socket, parts.first(kMostFragments), flags | MSG_EOR);
    if (here < 0) return sent > 0 ? sent : here;
    sent += here;
    parts = parts.subspan(kMostFragments);
  }
  const ssize_t rest = send_parts(socket, parts, flags);
  if (rest < 0 && sent == 0) return rest;
  sent += std::max<ssize_t>(rest, 0);
  socket.notices.on_written(static_cast<std::size_t>(sent), flags);
  note_progress();
  return sent;
}

// An address is needed, and may not be AF_UNSPEC (Linux tcp_sendmsg_fastopen()).
ssize_t OwnForm::connect_with_data(Socket& socket, const msghdr& message, int flags) {
  read_host_settings(config_);
  const auto* const address = static_cast<const sockaddr*>(message.msg_name);
  if (address != nullptr && address->sa_family == AF_UNSPEC) return -EOPNOTSUPP;
  stack::Address peer;
  if (!read_address(address, message.msg_namelen, peer)) return -EINVAL;
  const ssize_t sent = stack_.connect_with_data(socket.id, peer, bytes_of(parts_of(message)), flags, clock_.now());
  if (sent > 0) socket.notices.on_written(static_cast<std::size_t>(sent), flags);
  return sent;
}

bool OwnForm::begins_with_send(int fd, int flags) const {
  return (flags & MSG_FASTOPEN) != 0 || stack_.is_deferred(id_of(fd));
}

void OwnForm::note_progress() {
  for (auto& [fd, socket] : sockets_) {
    const auto bytes = [](std::int64_t count) { return static_cast<std::uint64_t>(std::max<std::int64_t>(count, 0)); };
    const std::uint64_t unacknowledged = bytes(stack_.unacknowledged_bytes(socket.id));
    const std::uint64_t unsent = bytes(stack_.unsent_bytes(socket.id));
    if (socket.notices.on_progress(unacknowledged, unsent, clock_.now())) observer_.wake(fd, POLLERR);
  }
}

ssize_t OwnForm::receive(int fd, msghdr& message, int flags) {
  if ((flags & MSG_ERRQUEUE) != 0) {
    Socket& socket = sockets_[fd];
    return socket.notices.pop(message, socket.family == stack::Family::kV6);
  }
  if (has_bad_address(message)) return -EFAULT;
  std::size_t wanted = 0;
  for (const iovec& part : parts_of(message)) wanted += part.iov_len;
  std::vector<std::byte> room(wanted);
  const std::int64_t got = stack_.recv(id_of(fd), room, flags, clock_.now());
  if (got < 0) return got;
  message.msg_flags = 0;
  put_inq(fd, message);
  std::size_t done = 0;
  for (const iovec& part : parts_of(message)) {
    const std::size_t here = std::min<std::size_t>(part.iov_len, static_cast<std::size_t>(got) - done);
    if (here > 0) std::memcpy(part.iov_base, room.data() + done, here);
    done += here;
  }
  return got;
}

// TCP_INQ: how much is left, as control data.
void OwnForm::put_inq(int fd, msghdr& message) {
  const std::size_t room = std::exchange(message.msg_controllen, 0);
  int wanted = 0;
  (void)stack_.get_option(id_of(fd), IPPROTO_TCP, kTcpInq, &wanted, clock_.now());
  if (wanted == 0 || message.msg_control == nullptr || room < CMSG_SPACE(sizeof(int))) return;
  const auto left = static_cast<int>(stack_.inq_hint(id_of(fd)));
  cmsghdr head{};
  head.cmsg_len = CMSG_LEN(sizeof left);
  head.cmsg_level = IPPROTO_TCP;
  head.cmsg_type = kTcpInq;
  auto* const out = static_cast<std::byte*>(message.msg_control);
  std::memcpy(out, &head, sizeof head);
  std::memcpy(out + CMSG_LEN(0), &left, sizeof left);
  message.msg_controllen = CMSG_SPACE(sizeof left);
}

ssize_t OwnForm::splice(int fd, int pipe_fd, std::size_t bytes) {
  std::vector<std::byte> room(bytes);
  const std::int64_t got = stack_.recv(id_of(fd), room, 0, clock_.now());
  if (got <= 0) return got;
  const ssize_t written = ::write(pipe_fd, room.data(), static_cast<std::size_t>(got));
  return written < 0 ? -errno : written;
}

int OwnForm::shutdown(int fd, int how) { return stack_.shutdown(id_of(fd), how, clock_.now()); }

int OwnForm::close(int fd) {
  const stack::SocketId id = id_of(fd);
  sockets_.erase(fd);
  fds_.erase(id);
  const int result = stack_.close(id, clock_.now());
  ::close(fd);
  return result;
}

int OwnForm::set_option(int fd, int level, int name, const void* value, socklen_t length) {
  read_host_settings(config_);
  if (value == nullptr) return -EFAULT;
  if (level == SOL_SOCKET && (name == SO_ZEROCOPY || name == SO_TIMESTAMPING)) {
    if (length < sizeof(int)) return -EINVAL;
    int number = 0;
    std::memcpy(&number, value, sizeof number);
    SendNotices& notices = sockets_[fd].notices;
    if (name == SO_ZEROCOPY) notices.set_zerocopy(number != 0);
    if (name == SO_TIMESTAMPING) notices.set_timestamping(static_cast<std::uint32_t>(number));
    return 0;
  }
  return stack_.set_option(id_of(fd), level, name, {static_cast<const std::byte*>(value), length}, clock_.now());
}

// SO_MEMINFO: of what Linux tells, the sizes of the buffers.
int OwnForm::put_memory_info(int fd, void* value, socklen_t* length) {
  std::array<std::uint32_t, SK_MEMINFO_VARS> info{};
  int size = 0;
  if (stack_.get_option(id_of(fd), SOL_SOCKET, SO_RCVBUF, &size, clock_.now()) > 0) {
    info[SK_MEMINFO_RCVBUF] = static_cast<std::uint32_t>(size);
  }
  if (stack_.get_option(id_of(fd), SOL_SOCKET, SO_SNDBUF, &size, clock_.now()) > 0) {
    info[SK_MEMINFO_SNDBUF] = static_cast<std::uint32_t>(size);
  }
  *length = static_cast<socklen_t>(std::min<std::size_t>(*length, sizeof info));
  std::memcpy(value, info.data(), *length);
  return 0;
}

int OwnForm::get_option(int fd, int level, int name, void* value, socklen_t* length) {
  if (value == nullptr || length == nullptr) return -EFAULT;
  if (level == SOL_SOCKET && name == SO_MEMINFO) return put_memory_info(fd, value, length);
  const int got = stack_.get_option(id_of(fd), level, name, {static_cast<std::byte*>(value), *length}, clock_.now());
  if (got < 0) return got;
  *length = static_cast<socklen_t>(got);
  return 0;
}

int OwnForm::ioctl(int fd, unsigned long request, int* value) {
  if (value == nullptr) return -EFAULT;
  const stack::SocketId id = id_of(fd);
  std::int64_t bytes = -EINVAL;
  if (request == SIOCINQ) bytes = stack_.unread_bytes(id);
  if (request == SIOCOUTQ) bytes = stack_.unacknowledged_bytes(id);
  if (request == SIOCOUTQNSD) bytes = stack_.unsent_bytes(id);
  if (bytes < 0) return static_cast<int>(bytes);
  *value = static_cast<int>(bytes);
  return 0;
}

std::uint32_t OwnForm::poll(int fd) {
  return stack_.poll(id_of(fd)) | (sockets_[fd].notices.empty() ? 0U : static_cast<std::uint32_t>(POLLERR));
}

std::string OwnForm::summary() const {
  const stack::Stats& stats = stack_.stats();
  return "own passive=" + std::to_string(stats.passive_opens) + " active=" + std::to_string(stats.active_opens);
}

}  // namespace twinstack::packetdrill
