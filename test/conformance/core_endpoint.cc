#include "core_endpoint.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core_settings.h"
#include "socket_options.h"

namespace twinstack::conformance {
namespace {

constexpr std::uint16_t kHostPort = 8080;
constexpr std::uint16_t kClosedPort = 8081;
constexpr std::uint16_t kFirstPeerPort = 40000;
// Some time after the clock's zero, so that what lies before a script is a time too.
constexpr Time kStart{std::chrono::hours(1)};
constexpr std::int64_t kClosed = 7;

}  // namespace

Result<> CoreEndpoint::start(std::span<const std::pair<std::string, std::string>> settings) {
  config_ = {};
  config_.addresses = {addresses().host};
  config_.tcp_wmem.default_bytes = 262144;  // as on the kernel's side
  for (const auto& [name, value] : settings) TRY(apply_setting(name, value, config_));
  now_ = kStart;
  stack::Outlet& outlet = *this;
  stack_ = std::make_unique<stack::SoftStack>(config_, outlet);
  return {};
}

void CoreEndpoint::finish() {
  stack_.reset();
  known_.clear();
  sent_.clear();
}

Addresses CoreEndpoint::addresses() const {
  Addresses out{.host = IpAddress::from_v4({10, 77, 0, 1}),
                .peer = IpAddress::from_v4({10, 77, 0, 2}),
                .host_port = kHostPort,
                .closed_port = kClosedPort,
                .first_peer_port = kFirstPeerPort};
  if (!v6_) return out;
  out.host.bytes = {0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  out.peer.bytes = {0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};
  return out;
}

// Times are rounded to the core's ticks (65 us) and, for handshakes, to nothing.
Tolerance CoreEndpoint::tolerance() const {
  return {.early = std::chrono::milliseconds(1), .late = std::chrono::milliseconds(2), .late_percent = 1};
}

// --- time and the wire ---

void CoreEndpoint::advance(Time until) {
  while (sent_.empty() && now_ < until) {
    const Time next = std::max(stack_->next_deadline(), now_);
    if (next > until) {
      now_ = until;
      return;
    }
    now_ = next;
    stack_->on_timer(now_);
  }
}

std::optional<SentPacket> CoreEndpoint::take_sent() {
  if (sent_.empty()) return std::nullopt;
  SentPacket out = std::move(sent_.front());
  sent_.pop_front();
  return out;
}

void CoreEndpoint::inject(ByteView packet) { stack_->on_ip_packet(packet, now_); }

// --- socket calls ---

CallResult CoreEndpoint::socket() { return stack_->socket(v6_ ? stack::Family::kV6 : stack::Family::kV4); }

CallResult CoreEndpoint::listen(SocketId socket, int backlog) {
  const int bound = stack_->bind(socket, {addresses().host, kHostPort});
  return bound < 0 ? bound : stack_->listen(socket, static_cast<std::uint32_t>(backlog), now_);
}

CallResult CoreEndpoint::accept(SocketId socket) {
  const SocketId made = stack_->accept(socket, nullptr, now_);
  if (made >= 0) learn_flow(made);
  return made;
}

CallResult CoreEndpoint::connect(SocketId socket, std::uint16_t peer_port) {
  const int result = stack_->connect(socket, {addresses().peer, peer_port}, now_);
  learn_flow(socket);
  known_[socket].flow.remote = addresses().peer;
  known_[socket].flow.remote_port = peer_port;
  return result;
}

void CoreEndpoint::learn_flow(SocketId socket) {
  stack::Address local;
  stack::Address remote;
  if (stack_->local_address(socket, local) < 0) return;
  FlowKey& flow = known_[socket].flow;
  flow.local = local.ip;
  flow.local_port = local.port;
  if (stack_->peer_address(socket, remote) < 0) return;
  flow.remote = remote.ip;
  flow.remote_port = remote.port;
}

CallResult CoreEndpoint::send(SocketId socket, ByteView bytes, int flags) {
  return stack_->send(socket, bytes, flags, now_);
}

CallResult CoreEndpoint::receive(SocketId socket, std::span<std::byte> room, int flags) {
  return stack_->recv(socket, room, flags, now_);
}

CallResult CoreEndpoint::shutdown(SocketId socket, int how) { return stack_->shutdown(socket, how, now_); }

CallResult CoreEndpoint::close(SocketId socket) {
  known_[socket].closed = true;
  return stack_->close(socket, now_);
}

CallResult CoreEndpoint::set_option(SocketId socket, std::string_view name, std::int64_t value,
                                    const std::string& text) {
  const SocketOption* const option = find_option(name);
  if (option == nullptr) return -ENOSYS;
  return stack_->set_option(socket, option->level, option->number, option_value(*option, value, text), now_);
}

CallResult CoreEndpoint::get_option(SocketId socket, std::string_view name) {
  const SocketOption* const option = find_option(name);
  if (option == nullptr) return -ENOSYS;
  int value = 0;
  const int result = stack_->get_option(socket, option->level, option->number, &value, now_);
  return result < 0 ? result : value;
}

int CoreEndpoint::poll(SocketId socket) {
  constexpr std::uint32_t kAsked = POLLIN | POLLOUT | POLLPRI | POLLRDHUP | POLLERR | POLLHUP;
  return static_cast<int>(stack_->poll(socket) & kAsked);
}

int CoreEndpoint::read_info(SocketId socket, tcp::TcpInfo& out) { return stack_->info(socket, out, now_); }

Result<Info> CoreEndpoint::info(SocketId socket) {
  const Known& known = known_[socket];
  Info out;
  if (known.closed) {
    out["state"] = static_cast<std::int64_t>(stack_->state(known.flow));
    return out;
  }
  tcp::TcpInfo ours;
  if (const int result = read_info(socket, ours); result < 0) return system_error("get_option(TCP_INFO)", -result);
  tcp_info read{};
  std::memcpy(&read, &ours, std::min(sizeof read, sizeof ours));
  out = info_of(read);
  if (out["state"] == kClosed && known.flow.remote_port != 0) {
    out["state"] = static_cast<std::int64_t>(stack_->state(known.flow));
  }
  return out;
}

}  // namespace twinstack::conformance
