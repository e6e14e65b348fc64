// Park: the kernel socket becomes an empty shell that holds the connection's place. Off the critical path.
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>

#include "base/assert.h"
#include "kernel/address.h"
#include "kernel/linux_kernel_conn.h"
#include "kernel/peek.h"
#include "kernel/repair.h"
#include "kernel/sockopt.h"
#include "wire/seq.h"

namespace twinstack::kernel {
namespace {

// TCP option kinds, as TCP_REPAIR_OPTIONS takes them.
constexpr std::uint32_t kMss = 2;
constexpr std::uint32_t kWindowScale = 3;
constexpr std::uint32_t kSackPermitted = 4;
constexpr std::uint32_t kTimestamp = 8;

constexpr std::uint16_t kMinMaxseg = 88;     // what TCP_MAXSEG takes: TCP_MIN_MSS ...
constexpr std::uint16_t kMaxMaxseg = 32767;  // ... to MAX_TCP_WINDOW

// R21: as if the peer took no more than a search has found.
std::uint16_t clamp_of(const tcp::MinTcp& min) { return min.mss_found != 0 ? min.mss_found : min.mss_clamp; }

}  // namespace

Result<LateBytes> LinuxKernelConn::park(std::span<std::byte> room) {
  ASSERT(phase_ == Phase::kFrozen);
  const int raw = socket_.get();
  ASSIGN_OR_RETURN(const LateBytes late, take_late_bytes(room));
  const std::uint32_t rcv_nxt = frozen_.rcv_nxt + static_cast<std::uint32_t>(late.bytes.size());
  receive_room_.take_back(raw, true);  // all that lies in it has left
  // F4: the shell must not probe. Before the disconnect, which may fail for nothing then.
  if (options_.keepalive != 0) TRY(set_option(raw, SOL_SOCKET, SO_KEEPALIVE, 0, "SO_KEEPALIVE"));
  phase_ = Phase::kGap;
  end_stay(late);
  window_closed_ = false;  // the disconnect forgets all windows
  TRY(silent_disconnect());
  ASSIGN_OR_RETURN(const std::uint32_t purged_up_to, repair::receive_seq(raw));
  if (purged_up_to != rcv_nxt + late.fin)
    return error(ErrorCode::kBroken, "the kernel acknowledged bytes after they were last read: " +
                                         std::to_string(purged_up_to - rcv_nxt - late.fin));  // F2
  const auto shell = make_shell(rcv_nxt);  // the FIN is to come once more, by the engine's word
  // The phase is kGap, from which the connection can be restored: but by the engine's word, which lacks these.
  if (!shell && (!late.bytes.empty() || late.fin || late.snd_nxt != frozen_.snd_nxt))
    return error(ErrorCode::kBroken, "no shell, and what the kernel did last is lost: " + shell.error().message());
  TRY(shell);
  phase_ = Phase::kParked;
  return late;
}

Result<LateBytes> LinuxKernelConn::take_late_bytes(std::span<std::byte> room) {
  const int raw = socket_.get();
  ASSIGN_OR_RETURN(const std::uint32_t unsent, queue_bytes(raw, SIOCOUTQNSD, "SIOCOUTQNSD"));
  TRY(repair::select_queue(raw, repair::Queue::kSend));
  ASSIGN_OR_RETURN(const std::uint32_t write_seq, repair::queue_seq(raw));
  ASSIGN_OR_RETURN(const std::uint32_t unacked, queue_bytes(raw, SIOCOUTQ, "SIOCOUTQ"));
  if (write_seq != frozen_.write_seq) {
    return error(ErrorCode::kBroken, "somebody wrote to the kernel socket after the snapshot");
  }
  LateBytes late{
      .first_seq = frozen_.rcv_nxt, .bytes = {}, .snd_una = write_seq - unacked, .snd_nxt = write_seq - unsent};
  late.snd_una = max(Seq(late.snd_una), Seq(frozen_.snd_una)).raw();  // RepeatedAck::leave_out()
  // A3: no more than what the freeze had the kernel mark as sent, which it was not.
  if (late.snd_nxt - frozen_.snd_nxt <= marked_as_sent_) late.snd_nxt = frozen_.snd_nxt;
  TRY(repair::select_queue(raw, repair::Queue::kReceive));
  ASSIGN_OR_RETURN(const std::uint32_t rcv_nxt, repair::queue_seq(raw));
  if (rcv_nxt != frozen_.rcv_nxt) {
    ASSIGN_OR_RETURN(const std::size_t all, peek_all(raw, room, "late bytes"));
    const std::size_t known = frozen_.rcv_nxt - frozen_.copied_seq;
    std::size_t end = known + (rcv_nxt - frozen_.rcv_nxt);
    if (all + 1 == end && has_fin(raw)) {
      late.fin = true;
      --end;
    }
    if (all < end) return error(ErrorCode::kBroken, "late bytes cannot be read back: " + std::to_string(end - all));
    late.bytes = room.subspan(known, end - known);
  }
  TRY(repair::select_queue(raw, repair::Queue::kNone));
  return late;
}

// Empty queues (F4), the sequence numbers of the snapshot, no queue selected: a stray send or recv fails (A3).
Result<> LinuxKernelConn::make_shell(std::uint32_t rcv_nxt) {
  TRY(establish_in_place(frozen_, frozen_.write_seq, rcv_nxt));
  TRY(repair::select_queue(socket_.get(), repair::Queue::kNone));
  shell_rcv_nxt_ = rcv_nxt;
  shell_write_seq_ = frozen_.write_seq;
  return {};
}

// In repair mode: no FIN, no RST, queues purged, repair mode stays on.
Result<> LinuxKernelConn::silent_disconnect() {
  const int raw = socket_.get();
  sockaddr nowhere{};
  nowhere.sa_family = AF_UNSPEC;
  if (::connect(raw, &nowhere, sizeof nowhere) != 0) return system_error("connect(AF_UNSPEC)");
  ASSIGN_OR_RETURN([[maybe_unused]] const int aborted, get_option(raw, SOL_SOCKET, SO_ERROR, "SO_ERROR"));  // A2
  return {};
}

// R1: also where getsockname() shows a port still. Once bound by us the port outlives the disconnects to come.
Result<> LinuxKernelConn::bind_local() {
  if (bound_) return {};
  const int raw = socket_.get();
  const FlowKey& flow = template_.flow;
  const SocketAddress local = to_socket_address(flow.local, flow.local_port, template_.scope_id, is_v6_socket_);
  // The port is the listener's as well: only repair mode, when it goes on, lets it be shared. For as long as it takes.
  TRY(repair::set_mode(raw, repair::Mode::kOn));
  // EINVAL: the program had bound it, and the disconnect has kept that.
  if (::bind(raw, local.get(), local.length) != 0 && errno != EINVAL) return system_error("bind");
  TRY(set_option(raw, SOL_SOCKET, SO_REUSEADDR, options_.reuse_address, "SO_REUSEADDR"));
  TRY(check_local_port());
  bound_ = true;
  return {};
}

// P2: any holder of the descriptor may bind a socket that is in repair mode and not bound.
Result<> LinuxKernelConn::check_local_port() const {
  ASSIGN_OR_RETURN(const Endpoint local, local_endpoint(socket_.get()));
  if (local.port != template_.flow.local_port)
    return error(ErrorCode::kBroken, "somebody bound the kernel socket to another port");
  return {};
}

Result<> LinuxKernelConn::establish_in_place(const tcp::MinTcp& min, std::uint32_t send_seq,
                                             std::uint32_t receive_seq) {
  const int raw = socket_.get();
  TRY(bind_local());
  TRY(repair::select_queue(raw, repair::Queue::kSend));
  TRY(repair::set_queue_seq(raw, send_seq));
  TRY(repair::select_queue(raw, repair::Queue::kReceive));
  TRY(repair::set_queue_seq(raw, receive_seq));
  // R2. Each time: the disconnect forgets it, and with it what the program may have set.
  const std::uint16_t clamp = std::min(clamp_of(min), kMaxMaxseg);
  if (clamp >= kMinMaxseg) {
    TRY(set_option(raw, IPPROTO_TCP, TCP_MAXSEG, static_cast<int>(clamp), "TCP_MAXSEG"));
  }
  const FlowKey& flow = template_.flow;
  const SocketAddress remote = to_socket_address(flow.remote, flow.remote_port, template_.scope_id, is_v6_socket_);
  if (::connect(raw, remote.get(), remote.length) != 0) return system_error("connect in repair mode");
  return put_negotiated_options(min);
}

// R3: before anything is in the queues.
Result<> LinuxKernelConn::put_negotiated_options(const tcp::MinTcp& min) {
  std::array<tcp_repair_opt, 4> options{};
  std::size_t count = 0;
  options[count++] = {.opt_code = kMss, .opt_val = clamp_of(min)};
  if ((min.options & tcp::kOptWindowScale) != 0) {
    options[count++] = {
        .opt_code = kWindowScale,
        .opt_val = static_cast<std::uint32_t>(min.snd_wscale) | static_cast<std::uint32_t>(min.rcv_wscale) << 16};
  }
  if ((min.options & tcp::kOptSack) != 0) options[count++] = {.opt_code = kSackPermitted, .opt_val = 0};
  if ((min.options & tcp::kOptTimestamps) != 0) options[count++] = {.opt_code = kTimestamp, .opt_val = 0};
  const auto length = static_cast<socklen_t>(count * sizeof options[0]);
  if (::setsockopt(socket_.get(), IPPROTO_TCP, TCP_REPAIR_OPTIONS, options.data(), length) != 0) {
    return system_error("setsockopt(TCP_REPAIR_OPTIONS)");
  }
  return {};
}

}  // namespace twinstack::kernel
