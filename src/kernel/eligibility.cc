// May the connection move? And what must be known before the freeze, read here so that the freeze need not.
#include <linux/filter.h>
#include <linux/in6.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "base/assert.h"
#include "kernel/address.h"
#include "kernel/linux_kernel_conn.h"
#include "kernel/sockopt.h"
#include "kernel/tcp_info.h"

namespace twinstack::kernel {
namespace {

constexpr int kTcpAoInfo = 40;        // TCP_AO_INFO, Linux 6.7
constexpr int kIpv6Transparent = 75;  // IPV6_TRANSPARENT
constexpr std::uint64_t kNoPacing = ~std::uint64_t{0};

// Length of an option that is empty when nothing was set.
socklen_t option_length(int fd, int level, int name) {
  std::array<std::byte, 256> value{};
  socklen_t length = value.size();
  return ::getsockopt(fd, level, name, value.data(), &length) == 0 ? length : 0;
}

bool has_ip_options(int fd, bool is_v4) {
  if (is_v4) return option_length(fd, IPPROTO_IP, IP_OPTIONS) > 0;
  return option_length(fd, IPPROTO_IPV6, IPV6_HOPOPTS) > 0 || option_length(fd, IPPROTO_IPV6, IPV6_RTHDR) > 0 ||
         option_length(fd, IPPROTO_IPV6, IPV6_DSTOPTS) > 0;
}

// A filter of the program's own: classic ones tell their length, eBPF ones refuse to be read (EACCES).
bool has_socket_filter(int fd) {
  socklen_t length = 0;
  if (::getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, nullptr, &length) != 0) return errno == EACCES;
  return length > 0;
}

// An option that this kernel may not know counts as off.
int option_or(int fd, int level, int name, int fallback) {
  int value = 0;
  socklen_t length = sizeof value;
  return ::getsockopt(fd, level, name, &value, &length) == 0 ? value : fallback;
}

}  // namespace

std::unexpected<Error> LinuxKernelConn::refuse(Reason reason) {
  reason_ = reason;
  return error(ErrorCode::kNotEligible, std::string(reason_text(reason)));
}

Result<> LinuxKernelConn::check_eligible(const Limits& limits) {
  checked_ = false;
  reason_ = Reason::kNone;
  limited_ = {.receive_queue_bytes = limits.receive_queue_bytes,
              .send_queue_bytes = limits.send_queue_bytes,
              .allow_loss_recovery = limits.allow_loss_recovery};
  if (phase_ != Phase::kRunning) return refuse(Reason::kRepairOn);  // a freeze that could not be undone
  receive_room_.take_back(socket_.get(), false);
  // The options are not the program's while it expires.
  if (!relent(false)) return refuse(Reason::kLossRecovery);
  TRY(check_state());
  TRY(check_options());
  TRY(check_extensions(limits));
  TRY(check_queues(limits));
  TRY(read_program_options());
  TRY(read_settings_for_engine());
  checked_ = true;
  return {};
}

Result<> LinuxKernelConn::check_state() {
  const int raw = socket_.get();
  const int protocol = option_or(raw, SOL_SOCKET, SO_PROTOCOL, 0);
  if (protocol == IPPROTO_MPTCP) return refuse(Reason::kMptcp);
  if (protocol != IPPROTO_TCP) return refuse(Reason::kNotTcp);
  if (option_or(raw, IPPROTO_TCP, TCP_REPAIR, 0) != 0) return refuse(Reason::kRepairOn);
  if (template_.flow.local == template_.flow.remote || is_loopback(template_.flow.local)) {
    return refuse(Reason::kLoopback);
  }
  ASSIGN_OR_RETURN(const tcp_info info, read_tcp_info(raw));
  TRY(check_live_state(info));
  if (info.tcpi_max_pacing_rate != kNoPacing) return refuse(Reason::kPacing);
  if (info.tcpi_rcv_ooopack != out_of_order_.packets) {
    out_of_order_ = {.packets = info.tcpi_rcv_ooopack, .at_received_bytes = info.tcpi_bytes_received, .gone = false};
  }
  received_bytes_ = info.tcpi_bytes_received;
  return {};
}

// What the peer can change at any time; the freeze checks it again.
Result<> LinuxKernelConn::check_live_state(const tcp_info& info) {
  if (info.tcpi_state != kTcpEstablished) return refuse(Reason::kNotEstablished);
  pollfd events{.fd = socket_.get(), .events = POLLPRI | POLLRDHUP, .revents = 0};
  if (::poll(&events, 1, 0) < 0) return system_error("poll");
  if ((events.revents & (POLLHUP | POLLRDHUP)) != 0) return refuse(Reason::kNotEstablished);
  if ((events.revents & POLLERR) != 0) return refuse(Reason::kErrorQueue);
  if ((events.revents & POLLPRI) != 0) return refuse(Reason::kUrgentData);
  if (info.tcpi_ca_state >= TCP_CA_Recovery && !limited_.allow_loss_recovery) return refuse(Reason::kLossRecovery);
  return {};
}

// F6. Linux does not tell whether out-of-order data is held, only how many such packets there have been. None is held
// since none came; or since the receive side holds no memory at all; or since more than a window has arrived in order
// after the last of them, for it lay within the window then.
Result<bool> LinuxKernelConn::out_of_order_may_be_held() {
  if (out_of_order_.gone) return false;
  using MemInfo = std::array<std::uint32_t, SK_MEMINFO_VARS>;
  ASSIGN_OR_RETURN(const MemInfo memory, get_option<MemInfo>(socket_.get(), SOL_SOCKET, SO_MEMINFO, "SO_MEMINFO"));
  const auto window = std::max(memory[SK_MEMINFO_RCVBUF], static_cast<std::uint32_t>(receive_room_.largest()));
  out_of_order_.gone = memory[SK_MEMINFO_RMEM_ALLOC] == 0 || received_bytes_ - out_of_order_.at_received_bytes > window;
  return !out_of_order_.gone;
}

Result<> LinuxKernelConn::check_options() {
  const int raw = socket_.get();
  if (option_or(raw, SOL_SOCKET, SO_ZEROCOPY, 0) != 0) return refuse(Reason::kZerocopy);
  // A listener hands these on; the engine has no control data.
  for (const int name : {SO_TIMESTAMPING, SO_TIMESTAMP, SO_TIMESTAMPNS})
    if (option_or(raw, SOL_SOCKET, name, 0) != 0) return refuse(Reason::kTimestamping);
  if (option_or(raw, IPPROTO_TCP, TCP_INQ, 0) != 0) return refuse(Reason::kControlData);
  if (!filter_on_ && has_socket_filter(raw)) return refuse(Reason::kSocketFilter);
  if (has_ip_options(raw, template_.flow.is_v4())) return refuse(Reason::kIpOptions);
  if (option_or(raw, IPPROTO_IP, IP_MINTTL, 0) != 0 ||
      (is_v6_socket_ && option_or(raw, IPPROTO_IPV6, IPV6_MINHOPCOUNT, 0) != 0))
    return refuse(Reason::kMinHops);
  const bool transparent = option_or(raw, IPPROTO_IP, IP_TRANSPARENT, 0) != 0 ||
                           (is_v6_socket_ && option_or(raw, IPPROTO_IPV6, kIpv6Transparent, 0) != 0);
  if (transparent) return refuse(Reason::kTransparent);
  return {};
}

Result<> LinuxKernelConn::check_extensions(const Limits& limits) {
  const int raw = socket_.get();
  if (option_length(raw, IPPROTO_TCP, TCP_ULP) > 0) return refuse(Reason::kUlp);
  if (option_length(raw, IPPROTO_TCP, kTcpAoInfo) > 0) return refuse(Reason::kAo);
  std::array<char, 16> name{};
  socklen_t length = name.size();
  if (::getsockopt(raw, IPPROTO_TCP, TCP_CONGESTION, name.data(), &length) != 0) {
    return system_error("getsockopt(TCP_CONGESTION)");
  }
  name.back() = '\0';
  const auto& known = limits.congestion_controls;
  if (std::find(known.begin(), known.end(), name.data()) == known.end()) return refuse(Reason::kCongestionControl);
  template_.congestion = name;
  return {};
}

Result<> LinuxKernelConn::check_queues(const Limits& limits) {
  const int raw = socket_.get();
  ASSIGN_OR_RETURN(const std::uint32_t unread, queue_bytes(raw, SIOCINQ, "SIOCINQ"));
  if (unread > limits.receive_queue_bytes) return refuse(Reason::kReceiveQueueLimit);
  ASSIGN_OR_RETURN(const std::uint32_t unacked, queue_bytes(raw, SIOCOUTQ, "SIOCOUTQ"));
  if (unacked > limits.send_queue_bytes) return refuse(Reason::kSendQueueLimit);
  checked_queues_ = {.unread_bytes = unread, .send_bytes = unacked};
  ASSIGN_OR_RETURN(const bool held, out_of_order_may_be_held());
  if (held) return refuse(Reason::kOutOfOrder);
  if (shared_.diag == nullptr) return {};
  ASSIGN_OR_RETURN(const SockDiagAnswer answer,
                   shared_.diag->ask(template_.flow, is_v6_socket_, template_.scope_id, cookie_));
  if (answer.md5) return refuse(Reason::kMd5);
  // SIOCINQ stops at an urgent mark whose byte was read out of band already (S3). Bytes may also have arrived since:
  // then it has grown by now.
  if (answer.unread_bytes > unread) {
    ASSIGN_OR_RETURN(const std::uint32_t now, queue_bytes(raw, SIOCINQ, "SIOCINQ"));
    if (now < answer.unread_bytes) return refuse(Reason::kUrgentData);
  }
  return {};
}

Result<> LinuxKernelConn::read_program_options() {
  const int raw = socket_.get();
  ASSIGN_OR_RETURN(options_.reuse_address, get_option(raw, SOL_SOCKET, SO_REUSEADDR, "SO_REUSEADDR"));
  ASSIGN_OR_RETURN(options_.keepalive, get_option(raw, SOL_SOCKET, SO_KEEPALIVE, "SO_KEEPALIVE"));
  ASSIGN_OR_RETURN(options_.send_buffer_bytes, get_option(raw, SOL_SOCKET, SO_SNDBUF, "SO_SNDBUF"));
  ASSIGN_OR_RETURN(options_.receive_buffer_bytes, get_option(raw, SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF"));
  options_.receive_buffer_bytes = receive_room_.own(options_.receive_buffer_bytes);
  ASSIGN_OR_RETURN(options_.buffer_lock, get_option(raw, SOL_SOCKET, SO_BUF_LOCK, "SO_BUF_LOCK"));
  ASSIGN_OR_RETURN(options_.receive_low_water, get_option(raw, SOL_SOCKET, SO_RCVLOWAT, "SO_RCVLOWAT"));
  if (options_.receive_low_water > 1) return refuse(Reason::kLowWater);
  ASSIGN_OR_RETURN(options_.window_clamp_bytes, get_option(raw, IPPROTO_TCP, TCP_WINDOW_CLAMP, "TCP_WINDOW_CLAMP"));
  options_.window_clamp_bytes = receive_room_.own_clamp(options_.window_clamp_bytes);
  ASSIGN_OR_RETURN(options_.quick_ack, get_option(raw, IPPROTO_TCP, TCP_QUICKACK, "TCP_QUICKACK"));
  options_.peek_offset = option_or(raw, SOL_SOCKET, SO_PEEK_OFF, -1);  // TCP knows it since Linux 6.9
  return {};
}

Result<> LinuxKernelConn::read_settings_for_engine() {
  const int raw = socket_.get();
  tcp::MinTcp& min = template_;
  const auto number = [raw](int level, int name) { return static_cast<std::uint32_t>(option_or(raw, level, name, 0)); };
  min.size_bytes = sizeof(tcp::MinTcp);
  min.flags = 0;
  if (number(IPPROTO_TCP, TCP_NODELAY) != 0) min.flags |= tcp::kFlagNoDelay;
  if (number(IPPROTO_TCP, TCP_CORK) != 0) min.flags |= tcp::kFlagCork;
  if (options_.keepalive != 0) min.flags |= tcp::kFlagKeepalive;
  // A clamp of the system's own is half of the buffer at first, and less when segments are small for the memory that
  // they lie in (Linux tcp_measure_rcv_mss()): 700 bytes in 2304 make it 30 %.
  const bool clamped = options_.window_clamp_bytes < options_.receive_buffer_bytes / 4;
  const bool fixed = (options_.buffer_lock & SOCK_RCVBUF_LOCK) != 0 || clamped;
  if (fixed) min.flags |= tcp::kFlagFixedReceiveBuffer;
  min.snd_buf_bytes = static_cast<std::uint32_t>(options_.send_buffer_bytes);
  min.rcv_buf_bytes = static_cast<std::uint32_t>(options_.receive_buffer_bytes);
  min.window_clamp_bytes = clamped ? static_cast<std::uint32_t>(options_.window_clamp_bytes) : 0;
  min.user_timeout_ms = number(IPPROTO_TCP, TCP_USER_TIMEOUT);
  min.keepalive_idle_s = number(IPPROTO_TCP, TCP_KEEPIDLE);
  min.keepalive_interval_s = number(IPPROTO_TCP, TCP_KEEPINTVL);
  min.keepalive_probes = number(IPPROTO_TCP, TCP_KEEPCNT);
  const bool v4 = min.flow.is_v4();
  min.ttl = static_cast<std::uint8_t>(v4 ? number(IPPROTO_IP, IP_TTL) : number(IPPROTO_IPV6, IPV6_UNICAST_HOPS));
  min.traffic_class = static_cast<std::uint8_t>(v4 ? number(IPPROTO_IP, IP_TOS) : number(IPPROTO_IPV6, IPV6_TCLASS));
  mark_ = number(SOL_SOCKET, SO_MARK);
  bound_interface_ = number(SOL_SOCKET, SO_BINDTOIFINDEX);
  return {};
}

}  // namespace twinstack::kernel
