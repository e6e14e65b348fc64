#include "linux_endpoint.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <sstream>

#include "socket_options.h"

namespace twinstack::conformance {
namespace {

using testing::NetnsPair;
using testing::Side;

constexpr Side kHost = Side::kA;
constexpr Side kWire = Side::kB;
constexpr std::uint32_t kMtuBytes = 1500;
constexpr std::size_t kPacketBytes = 65536;
constexpr unsigned kPortsPerScript = 16;

CallResult or_errno(std::int64_t result) noexcept { return result < 0 ? -errno : result; }

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;

  [[nodiscard]] sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&storage); }
};

Address to_address(const IpAddress& ip, std::uint16_t port) noexcept {
  Address out;
  if (ip.is_v4()) {
    auto* const in = reinterpret_cast<sockaddr_in*>(&out.storage);
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    std::memcpy(&in->sin_addr, ip.v4().data(), 4);
    out.length = sizeof *in;
  } else {
    auto* const in6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    std::memcpy(&in6->sin6_addr, ip.bytes.data(), 16);
    out.length = sizeof *in6;
  }
  return out;
}

IpAddress ip_of(const Address& address) noexcept {
  if (address.storage.ss_family == AF_INET) {
    std::array<std::uint8_t, 4> v4{};
    std::memcpy(v4.data(), &reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_addr, 4);
    return IpAddress::from_v4(v4);
  }
  IpAddress out;
  std::memcpy(out.bytes.data(), &reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_addr, 16);
  return out;
}

std::uint16_t port_of(const Address& address) noexcept {
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_port);
}

// What a device would do for the stack is switched off: segments are to be seen as they would leave a real one.
bool set_offload(int fd, const std::string& interface, std::uint32_t command, std::uint32_t on) {
  ethtool_value value{.cmd = command, .data = on};
  ifreq request{};
  interface.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_data = reinterpret_cast<char*>(&value);
  return ::ioctl(fd, SIOCETHTOOL, &request) == 0;
}

Result<> switch_offloads_off(int fd, const std::string& interface) {
  for (const std::uint32_t command : {std::uint32_t{ETHTOOL_STSO}, std::uint32_t{ETHTOOL_SGSO},
                                      std::uint32_t{ETHTOOL_SGRO}, std::uint32_t{ETHTOOL_STXCSUM}}) {
    if (!set_offload(fd, interface, command, 0)) return system_error(fmt::format("SIOCETHTOOL {}", command));
  }
  return {};
}

Result<MacAddress> mac_of(const NetnsPair& bench, Side side) {
  ifreq request{};
  NetnsPair::interface(side).copy(request.ifr_name, IFNAMSIZ - 1);
  ASSIGN_OR_RETURN(const UniqueFd any, bench.socket(side, AF_INET, SOCK_DGRAM));
  if (::ioctl(any.get(), SIOCGIFHWADDR, &request) != 0) return system_error("SIOCGIFHWADDR");
  MacAddress out{};
  std::memcpy(out.data(), request.ifr_hwaddr.sa_data, out.size());
  return out;
}

bool goes_to(const IpAddress& peer, ByteView packet) noexcept {
  const bool v4 = peer.is_v4();
  const std::size_t at = v4 ? 16 : 24;
  const std::size_t length = v4 ? 4 : 16;
  if (packet.size() < at + length || std::to_integer<unsigned>(packet[0]) >> 4 != (v4 ? 4U : 6U)) return false;
  return std::memcmp(&packet[at], &peer.bytes[16 - length], length) == 0;
}

std::string mac_text(const MacAddress& mac) { return fmt::format("{:02x}", fmt::join(mac, ":")); }

// /proc/sys shows the namespace of the thread that opens it.
std::string sysctl_path(const std::string& name) {
  std::string path = "/proc/sys/net/ipv4/" + name;
  return path;
}

Result<std::string> read_sysctl(const std::string& name) {
  std::ifstream file(sysctl_path(name));
  std::string value;
  if (!std::getline(file, value)) return error(ErrorCode::kUnsupported, "this kernel has no setting " + name);
  return value;
}

Result<> write_sysctl(const std::string& name, const std::string& value) {
  std::ofstream file(sysctl_path(name));
  file << value << std::flush;
  if (!file) return error(ErrorCode::kUnsupported, "this kernel does not take " + value + " for " + name);
  return {};
}

// "0100007F:1F90" of /proc/net/tcp: words of the address in host order.
std::string table_text(const IpAddress& ip, std::uint16_t port) {
  std::string out;
  const std::size_t first = ip.is_v4() ? 12 : 0;
  for (std::size_t at = first; at < 16; at += 4) {
    std::uint32_t word = 0;
    std::memcpy(&word, &ip.bytes[at], 4);
    out += fmt::format("{:08X}", word);
  }
  return out + fmt::format(":{:04X}", port);
}

}  // namespace

std::string LinuxEndpoint::why_unavailable() { return NetnsPair::why_unavailable(); }

Result<std::unique_ptr<LinuxEndpoint>> LinuxEndpoint::create(bool v6) {
  std::unique_ptr<LinuxEndpoint> made(new LinuxEndpoint(v6));
  ASSIGN_OR_RETURN(made->bench_, NetnsPair::create());
  TRY(made->set_up());
  TRY(made->open_wire());
  return made;
}

Result<> LinuxEndpoint::set_up() {
  const std::string wire = NetnsPair::interface(kWire);
  const std::string host = NetnsPair::interface(kHost);
  TRY(bench_->run_ok(kWire, fmt::format("ip addr flush dev {0}; ip link set {0} mtu 9000", wire)));
  ASSIGN_OR_RETURN(const MacAddress mac, mac_of(*bench_, kWire));
  ASSIGN_OR_RETURN(host_mac_, mac_of(*bench_, kHost));
  TRY(bench_->run_ok(kHost,
                     fmt::format("ip neigh replace {0} lladdr {2} dev {1} nud permanent && "
                                 "ip neigh replace {3} lladdr {2} dev {1} nud permanent && "
                                 "ip route add 10.78.0.0/16 via {0} && ip -6 route add fd78::/32 via {3}",
                                 NetnsPair::address_v4(kWire), host, mac_text(mac), NetnsPair::address_v6(kWire))));
  // Super-packets of one segment: the stack then defers no segment in the hope of a larger one.
  TRY(bench_->run_ok(kHost, fmt::format("ip link set {} gso_max_segs 1", host)));
  Result<> done;
  TRY(bench_->in(kHost, [&] {
    const UniqueFd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    done = switch_offloads_off(any.get(), host);
    // What one script has measured of a path must not be taken into the next.
    if (done.has_value()) done = write_sysctl("tcp_no_metrics_save", "1");
    if (done.has_value()) done = write_sysctl("tcp_congestion_control", "cubic");
    // Packets of one segment take more memory for their bytes than super-packets do.
    if (done.has_value()) done = write_sysctl("tcp_wmem", "4096 262144 4194304");
  }));
  return done;
}

Result<> LinuxEndpoint::open_wire() {
  ASSIGN_OR_RETURN(wire_, bench_->socket(kWire, AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK, htons(ETH_P_ALL)));
  const int on = 1;
  const int room_bytes = 8 << 20;
  sockaddr_ll where{};
  where.sll_family = AF_PACKET;
  where.sll_protocol = htons(ETH_P_ALL);
  TRY(bench_->in(kWire,
                 [&] { wire_interface_ = static_cast<int>(if_nametoindex(NetnsPair::interface(kWire).c_str())); }));
  where.sll_ifindex = wire_interface_;
  if (::bind(wire_.get(), reinterpret_cast<sockaddr*>(&where), sizeof where) != 0)
    return system_error("bind(AF_PACKET)");
  ::setsockopt(wire_.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on);
  ::setsockopt(wire_.get(), SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
  ::setsockopt(wire_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room_bytes, sizeof room_bytes);
  return {};
}

// --- a script's begin and end ---

Result<> LinuxEndpoint::start(std::span<const std::pair<std::string, std::string>> settings) {
  ++script_;
  for (const auto& [name, value] : settings) {
    if (const auto done = apply(name, value); !done.has_value()) {
      finish();
      return std::unexpected(done.error());
    }
  }
  return {};
}

Result<> LinuxEndpoint::apply(const std::string& name, const std::string& value) {
  if (name == "mtu") return apply_mtu(value);
  Result<> done;
  TRY(bench_->in(kHost, [&] {
    auto before = read_sysctl(name);
    done = before.has_value() ? write_sysctl(name, value) : std::unexpected(before.error());
    if (done.has_value()) to_restore_.emplace_back(name, *before);
  }));
  return done;
}

Result<> LinuxEndpoint::apply_mtu(const std::string& value) {
  mtu_changed_ = true;
  TRY(bench_->run_ok(kHost, fmt::format("ip link set {} mtu {}", NetnsPair::interface(kHost), value)));
  return {};
}

void LinuxEndpoint::finish() {
  // An RST takes each connection with it, whatever state it is in; the wire forgets it with the script's address.
  const linger abort{.l_onoff = 1, .l_linger = 0};
  for (const Socket& socket : sockets_) {
    if (socket.fd) ::setsockopt(socket.fd.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
  }
  sockets_.clear();
  static_cast<void>(bench_->in(kHost, [&] {
    for (auto setting = to_restore_.rbegin(); setting != to_restore_.rend(); ++setting) {
      static_cast<void>(write_sysctl(setting->first, setting->second));
    }
  }));
  to_restore_.clear();
  if (mtu_changed_) static_cast<void>(apply_mtu(std::to_string(kMtuBytes)));
  mtu_changed_ = false;
}

Addresses LinuxEndpoint::addresses() const {
  const auto high = static_cast<std::uint8_t>(script_ >> 8);
  const auto low = static_cast<std::uint8_t>(script_);
  Addresses out;
  if (v6_) {
    out.host.bytes = {0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    out.peer.bytes = {0xfd, 0x78, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low, 1};
  } else {
    out.host = IpAddress::from_v4({10, 77, 0, 1});
    out.peer = IpAddress::from_v4({10, 78, high, low});
  }
  out.host_port = static_cast<std::uint16_t>(2000 + script_ * 2 % 20000);
  out.closed_port = static_cast<std::uint16_t>(out.host_port + 1);
  out.first_peer_port = static_cast<std::uint16_t>(40000 + script_ * kPortsPerScript % 16000);
  out.peer_ports = kPortsPerScript;
  return out;
}

// A jiffy is 4 ms on most machines, and timers that are far away are rounded up by an eighth (the timer wheel).
Tolerance LinuxEndpoint::tolerance() const {
  return {.early = std::chrono::milliseconds(5), .late = std::chrono::milliseconds(20), .late_percent = 13};
}

// --- time and the wire ---

// The clock of the packet socket's timestamps.
Time LinuxEndpoint::now() {
  timespec ts{};
  clock_gettime(CLOCK_REALTIME, &ts);
  return Time(std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec));
}

void LinuxEndpoint::advance(Time until) {
  const Duration left = until - now();
  if (left <= Duration(0)) return;
  pollfd waiting{.fd = wire_.get(), .events = POLLIN, .revents = 0};
  const timespec timeout{.tv_sec = left.count() / 1'000'000'000, .tv_nsec = left.count() % 1'000'000'000};
  ::ppoll(&waiting, 1, &timeout, nullptr);
}

std::optional<SentPacket> LinuxEndpoint::take_sent() {
  // What the host sends of its own accord (neighbour discovery), or still to the peer of an earlier script, is no news.
  const IpAddress peer = addresses().peer;
  while (auto packet = take_any()) {
    if (goes_to(peer, packet->bytes)) return packet;
  }
  return std::nullopt;
}

std::optional<SentPacket> LinuxEndpoint::take_any() {
  std::vector<std::byte> room(kPacketBytes);
  std::array<char, 256> control{};
  iovec piece{.iov_base = room.data(), .iov_len = room.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t length = ::recvmsg(wire_.get(), &message, MSG_DONTWAIT);
  if (length <= 0) return std::nullopt;
  room.resize(static_cast<std::size_t>(length));
  SentPacket out{.at = now(), .bytes = std::move(room)};
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr; head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_TIMESTAMPNS) continue;
    timespec ts{};
    std::memcpy(&ts, CMSG_DATA(head), sizeof ts);
    out.at = Time(std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec));
  }
  return out;
}

void LinuxEndpoint::inject(ByteView packet) {
  const bool v6 = std::to_integer<unsigned>(packet[0]) >> 4 == 6;
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_protocol = htons(v6 ? ETH_P_IPV6 : ETH_P_IP);
  to.sll_ifindex = wire_interface_;
  to.sll_halen = 6;
  std::memcpy(to.sll_addr, host_mac_.data(), 6);
  static_cast<void>(
      ::sendto(wire_.get(), packet.data(), packet.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to));
}

// --- socket calls ---

SocketId LinuxEndpoint::keep(UniqueFd fd) {
  sockets_.push_back({.fd = std::move(fd), .flow = {}});
  return static_cast<SocketId>(sockets_.size() - 1);
}

CallResult LinuxEndpoint::socket() {
  auto made = bench_->socket(kHost, v6_ ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
  if (!made.has_value()) return -made.error().system_errno;
  return keep(std::move(*made));
}

CallResult LinuxEndpoint::listen(SocketId socket, int backlog) {
  Address address = to_address(addresses().host, addresses().host_port);
  if (::bind(at(socket).fd.get(), address.get(), address.length) != 0) return -errno;
  return or_errno(::listen(at(socket).fd.get(), backlog));
}

CallResult LinuxEndpoint::accept(SocketId socket) {
  UniqueFd made(::accept4(at(socket).fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!made) return -errno;
  const SocketId id = keep(std::move(made));
  learn_flow(at(id));
  return id;
}

CallResult LinuxEndpoint::connect(SocketId socket, std::uint16_t peer_port) {
  Address address = to_address(addresses().peer, peer_port);
  const CallResult result = or_errno(::connect(at(socket).fd.get(), address.get(), address.length));
  at(socket).flow.remote = addresses().peer;
  at(socket).flow.remote_port = peer_port;
  learn_flow(at(socket));
  return result;
}

void LinuxEndpoint::learn_flow(Socket& socket) const {
  Address local;
  local.length = sizeof local.storage;
  if (::getsockname(socket.fd.get(), local.get(), &local.length) == 0) {
    socket.flow.local = ip_of(local);
    socket.flow.local_port = port_of(local);
  }
  Address remote;
  remote.length = sizeof remote.storage;
  if (::getpeername(socket.fd.get(), remote.get(), &remote.length) != 0) return;
  socket.flow.remote = ip_of(remote);
  socket.flow.remote_port = port_of(remote);
}

CallResult LinuxEndpoint::send(SocketId socket, ByteView bytes, int flags) {
  return or_errno(::send(at(socket).fd.get(), bytes.data(), bytes.size(), flags | MSG_NOSIGNAL));
}

CallResult LinuxEndpoint::receive(SocketId socket, std::span<std::byte> room, int flags) {
  return or_errno(::recv(at(socket).fd.get(), room.data(), room.size(), flags));
}

CallResult LinuxEndpoint::shutdown(SocketId socket, int how) { return or_errno(::shutdown(at(socket).fd.get(), how)); }

CallResult LinuxEndpoint::close(SocketId socket) {
  if (!at(socket).fd) return -EBADF;
  at(socket).fd.reset();
  return 0;
}

CallResult LinuxEndpoint::set_option(SocketId socket, std::string_view name, std::int64_t value,
                                     const std::string& text) {
  const SocketOption* const option = find_option(name);
  if (option == nullptr) return -ENOSYS;
  const auto bytes = option_value(*option, value, text);
  return or_errno(::setsockopt(at(socket).fd.get(), option->level, option->number, bytes.data(),
                               static_cast<socklen_t>(bytes.size())));
}

CallResult LinuxEndpoint::get_option(SocketId socket, std::string_view name) {
  const SocketOption* const option = find_option(name);
  if (option == nullptr) return -ENOSYS;
  int number = 0;
  socklen_t length = sizeof number;
  if (::getsockopt(at(socket).fd.get(), option->level, option->number, &number, &length) != 0) return -errno;
  return number;
}

int LinuxEndpoint::poll(SocketId socket) {
  pollfd asked{.fd = at(socket).fd.get(), .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP, .revents = 0};
  ::poll(&asked, 1, 0);
  return asked.revents;
}

Result<Info> LinuxEndpoint::info(SocketId socket) {
  const Socket& asked = at(socket);
  if (!asked.fd) return Info{{"state", state_in_table(asked.flow)}};
  tcp_info read{};
  socklen_t length = sizeof read;
  if (::getsockopt(asked.fd.get(), IPPROTO_TCP, TCP_INFO, &read, &length) != 0)
    return system_error("getsockopt(TCP_INFO)");
  Info info = info_of(read);
  // TIME-WAIT and the FIN-WAIT-2 that ends in it are kept in an object of their own; the socket says closed.
  constexpr std::int64_t kClosed = 7;
  if (info["state"] == kClosed && asked.flow.remote_port != 0) info["state"] = state_in_table(asked.flow);
  return info;
}

std::int64_t LinuxEndpoint::state_in_table(const FlowKey& flow) const {
  constexpr std::int64_t kClosed = 7;
  std::int64_t state = kClosed;
  const std::string local = table_text(flow.local, flow.local_port);
  const std::string remote = table_text(flow.remote, flow.remote_port);
  static_cast<void>(bench_->in(kHost, [&] {
    std::ifstream table(v6_ ? "/proc/thread-self/net/tcp6" : "/proc/thread-self/net/tcp");
    std::string line;
    while (std::getline(table, line)) {
      std::istringstream words(line);
      std::string number, here, there, shown;
      words >> number >> here >> there >> shown;
      if (here == local && there == remote) state = std::stol(shown, nullptr, 16);
    }
  }));
  return state;
}

}  // namespace twinstack::conformance
