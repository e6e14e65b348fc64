// Identity and filter of LinuxKernelConn.
#include "kernel/linux_kernel_conn.h"

#include <linux/filter.h>
#include <linux/membarrier.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/assert.h"
#include "base/monotonic.h"
#include "kernel/address.h"
#include "kernel/repair.h"
#include "kernel/sockopt.h"
#include "kernel/tcp_info.h"

namespace twinstack::kernel {

static_assert(kKeepIdleOption == TCP_KEEPIDLE && kKeepIntervalOption == TCP_KEEPINTVL &&
              kUserTimeoutOption == TCP_USER_TIMEOUT);

namespace {

// For Expiry.
auto getter(int fd) {
  return [fd](int level, int name) { return get_option(fd, level, name, "option of a silent peer"); };
}
auto setter(int fd) {
  return [fd](int level, int name, int value) { return set_option(fd, level, name, value, "option of a silent peer"); };
}

}  // namespace

Result<std::unique_ptr<LinuxKernelConn>> LinuxKernelConn::create(UniqueFd socket, const LinuxShared& shared) {
  ASSERT(shared.late_filter != nullptr);
  std::unique_ptr<LinuxKernelConn> made(new LinuxKernelConn(std::move(socket), shared));
  TRY(made->read_identity());
  return made;
}

Result<> LinuxKernelConn::read_identity() {
  const int raw = socket_.get();
  ASSIGN_OR_RETURN(const Endpoint local, local_endpoint(raw));
  ASSIGN_OR_RETURN(const Endpoint remote, remote_endpoint(raw));
  template_.flow = {
      .local = local.address, .remote = remote.address, .local_port = local.port, .remote_port = remote.port};
  template_.scope_id = local.scope_id != 0 ? local.scope_id : remote.scope_id;
  ASSIGN_OR_RETURN(const int protocol, get_option(raw, SOL_SOCKET, SO_PROTOCOL, "SO_PROTOCOL"));
  if (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP) return error(ErrorCode::kInvalid, "not a TCP socket");
  is_v6_socket_ = local.is_v6_socket;
  ASSIGN_OR_RETURN(cookie_, get_option<std::uint64_t>(raw, SOL_SOCKET, SO_COOKIE, "SO_COOKIE"));
  ASSIGN_OR_RETURN(netns_cookie_, get_option<std::uint64_t>(raw, SOL_SOCKET, SO_NETNS_COOKIE, "SO_NETNS_COOKIE"));
  return {};
}

Result<> LinuxKernelConn::attach_late_filter() {
  if (filter_on_) return {};
  TRY(set_option(socket_.get(), SOL_SOCKET, SO_ATTACH_BPF, shared_.late_filter->fd(), "SO_ATTACH_BPF"));
  filter_on_ = true;
  return {};
}

Result<> LinuxKernelConn::detach_late_filter() {
  if (!filter_on_) return {};
  TRY(set_option(socket_.get(), SOL_SOCKET, SO_DETACH_BPF, 0, "SO_DETACH_BPF"));
  filter_on_ = false;
  return {};
}

// P1: a holder of the descriptor can have connected a socket in repair mode to anybody. Such a one is disconnected
// while repair mode keeps it silent.
void LinuxKernelConn::reset() noexcept {
  const int raw = socket_.get();
  end_stay();
  sockaddr nowhere{};
  nowhere.sa_family = AF_UNSPEC;
  if (!has_known_peer()) static_cast<void>(::connect(raw, &nowhere, sizeof nowhere));
  // Errors: there is nothing left to do, and closing the descriptor is what remains.
  static_cast<void>(repair::set_mode(raw, repair::Mode::kOffSilent));
  static_cast<void>(::connect(raw, &nowhere, sizeof nowhere));
  static_cast<void>(detach_late_filter());
  leave_nothing(true);  // the program can connect it anew
  phase_ = Phase::kRunning;
}

// Linux answers a close with unread data by a reset (RFC 2525 2.17). A close that lingers would hold up whoever closes;
// the kernel goes on by itself.
void LinuxKernelConn::prepare_close(bool unread) noexcept {
  linger how{};
  socklen_t length = sizeof(how);
  const int raw = socket_.get();
  const bool lingers = ::getsockopt(raw, SOL_SOCKET, SO_LINGER, &how, &length) == 0 && how.l_onoff != 0;
  const linger now{.l_onoff = unread ? 1 : 0, .l_linger = 0};
  if (unread || (lingers && how.l_linger != 0)) (void)::setsockopt(raw, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

bool LinuxKernelConn::has_known_peer() const noexcept {
  const auto remote = remote_endpoint(socket_.get());
  return remote && remote->address == template_.flow.remote && remote->port == template_.flow.remote_port;
}

LinuxKernelConn::~LinuxKernelConn() { leave_nothing(true); }

UniqueFd LinuxKernelConn::take_socket(bool program_goes_on) noexcept {
  leave_nothing(program_goes_on);
  return std::move(socket_);
}

// What a return has put on the socket for a while, and the program may go on with. One that it has closed expires.
void LinuxKernelConn::leave_nothing(bool program_goes_on) noexcept {
  if (!socket_) return;
  receive_room_.take_back(socket_.get(), true);
  if (program_goes_on) relent(true);
}

Result<> LinuxKernelConn::expire() {
  ASSERT(phase_ == Phase::kRunning);
  const int fd = socket_.get();
  auto begun = expiry_.begin(getter(fd), setter(fd), monotonic_now());
  if (!begun) expiry_.end(getter(fd), setter(fd));
  return begun;
}

Result<> LinuxKernelConn::make_room(std::uint32_t packets) { return receive_room_.make(socket_.get(), packets); }

bool LinuxKernelConn::settle(bool in_any_case) {
  // Not before the program has read, however long that takes: packets would be dropped then (R24).
  const bool room = receive_room_.take_back(socket_.get(), false);
  return relent(in_any_case) && room;
}

// A peer that is heard of after all has its connection go on as it was.
bool LinuxKernelConn::relent(bool in_any_case) {
  if (!expiry_.is_on()) return true;
  const int fd = socket_.get();
  if (!in_any_case) {
    const auto info = read_tcp_info(fd);
    if (!info.has_value() || info->tcpi_state == kTcpClosed) return true;
    if (!expiry_.is_news(monotonic_now() - std::chrono::milliseconds(info->tcpi_last_ack_recv))) return false;
  }
  expiry_.end(getter(fd), setter(fd));
  return true;
}

Result<std::uint32_t> LinuxKernelConn::timestamp_clock() {
  return get_option<std::uint32_t>(socket_.get(), IPPROTO_TCP, TCP_TIMESTAMP, "TCP_TIMESTAMP");
}

Result<std::uint32_t> LinuxKernelConn::rcv_queue_seq() {
  ASSERT(phase_ != Phase::kRunning);
  return repair::receive_seq(socket_.get());
}

Result<bool> LinuxKernelConn::stray_write_detected() {
  ASSERT(phase_ == Phase::kParked);
  ASSIGN_OR_RETURN(const std::uint32_t receive, repair::receive_seq(socket_.get()));
  ASSIGN_OR_RETURN(const std::uint32_t send, repair::send_seq(socket_.get()));
  return receive != shell_rcv_nxt_ || send != shell_write_seq_;
}

namespace {

Result<> membarrier_global() {
  if (::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) != 0) return system_error("membarrier(GLOBAL)");
  return {};
}

bool is_realtime_kernel() {
  std::FILE* file = std::fopen("/sys/kernel/realtime", "re");
  if (file == nullptr) return false;
  const int first = std::fgetc(file);
  std::fclose(file);
  return first == '1';
}

// Runs the calling thread on every CPU once.
bool visit_every_cpu(const cpu_set_t& home) {
  const long cpus = ::sysconf(_SC_NPROCESSORS_CONF);
  bool complete = cpus > 0 && cpus <= CPU_SETSIZE;
  for (int cpu = 0; complete && cpu < static_cast<int>(cpus); ++cpu) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    // EINVAL: offline, where no packet is processed; or not allowed by our cpuset, where one may be.
    complete = ::sched_setaffinity(0, sizeof one, &one) == 0;
  }
  static_cast<void>(::sched_setaffinity(0, sizeof home, &home));
  return complete;
}

}  // namespace

// Not there with nohz_full (EINVAL); the visit serves as well, but for a realtime kernel.
Result<> wait_grace_period() {
  const auto waited = membarrier_global();
  if (waited) return {};
  cpu_set_t home;
  if (!is_realtime_kernel() && ::sched_getaffinity(0, sizeof home, &home) == 0 && visit_every_cpu(home)) return {};
  return waited;
}

Result<> wait_packets_in_flight() {
  static const bool realtime = is_realtime_kernel();
  cpu_set_t home;
  if (realtime || ::sched_getaffinity(0, sizeof home, &home) != 0) return membarrier_global();
  return visit_every_cpu(home) ? Result<>{} : membarrier_global();
}

}  // namespace twinstack::kernel
