// Restore and release: the state back into the kernel, in the order that the kernel asks for.
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "base/monotonic.h"
#include "kernel/linux_kernel_conn.h"
#include "kernel/repair.h"
#include "kernel/sockopt.h"
#include "wire/seq.h"

namespace twinstack::kernel {
namespace {

constexpr std::size_t kReceiveChunkBytes = 64U << 10;  // the kernel takes about 16 pages at a time
constexpr std::size_t kMinReceiveChunkBytes = 1024;
constexpr int kSendFlags = MSG_DONTWAIT | MSG_NOSIGNAL;

// Sends as much as the kernel takes; errno of the refusal, 0 when all was taken.
int send_some(int fd, std::span<const std::byte>& left, int more_flags = 0) {
  while (!left.empty()) {
    const ssize_t sent = ::send(fd, left.data(), left.size(), kSendFlags | more_flags);
    if (sent < 0 && errno != EINTR) return errno;
    if (sent > 0) left = left.subspan(static_cast<std::size_t>(sent));
  }
  return 0;
}

// The same where the program has limited how much may wait unsent.
int send_above_low_water(int fd, std::span<const std::byte>& left, int flags) {
  constexpr int kNoLimit = 0x7fffffff;
  const auto limit = get_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, "TCP_NOTSENT_LOWAT");
  if (!limit.has_value()) return EAGAIN;
  if (!set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, kNoLimit, "TCP_NOTSENT_LOWAT").has_value()) return EAGAIN;
  const int refused = send_some(fd, left, flags);
  // Cannot be refused: it was so before.
  static_cast<void>(set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, *limit, "TCP_NOTSENT_LOWAT"));
  return refused;
}

// SO_SNDBUFFORCE and its like take half of what the option then reads (man 7 socket).
int force_value(std::size_t bytes) { return static_cast<int>(std::min<std::size_t>(bytes, 1U << 30)); }

}  // namespace

Result<RestoreReport> LinuxKernelConn::restore(const tcp::MinTcp& min, const RestoreQueues& queues) {
  ASSERT(phase_ == Phase::kParked || phase_ == Phase::kGap);
  if (queues.unacked.size() != min.snd_nxt - min.snd_una || queues.unread.size() > min.rcv_nxt - min.copied_seq) {
    return error(ErrorCode::kInvalid, "the queues do not fit the sequence numbers");
  }
  phase_ = Phase::kGap;
  TRY(silent_disconnect());
  const auto unread = static_cast<std::uint32_t>(queues.unread.size());
  TRY(establish_in_place(min, min.snd_una, min.rcv_nxt - unread));
  ASSIGN_OR_RETURN(const RestoreReport report, put_state(min, queues));
  past_.bytes_received -= unread;  // counted a second time as they were put back
  past_stream_.received -= unread;
  repeated_ack_.expect(queues.acked_bytes, min.snd_una);
  restored_ = min;
  restored_.snd_una += queues.acked_bytes;
  stalled_since_ = queues.unacked.size() == queues.acked_bytes
                       ? kNever
                       : monotonic_now() - std::chrono::microseconds(min.stalled_us);
  phase_ = Phase::kRestored;
  return report;
}

Result<RestoreReport> LinuxKernelConn::put_state(const tcp::MinTcp& min, const RestoreQueues& queues) {
  if ((min.options & tcp::kOptTimestamps) != 0) {
    TRY(set_option(socket_.get(), IPPROTO_TCP, TCP_TIMESTAMP, timestamp_to_go_on_with(min), "TCP_TIMESTAMP"));
  }
  TRY(take_over_receive_buffer(min.rcv_buf_bytes));
  unread_restored_ = !queues.unread.empty();
  if (!queues.unread.empty()) TRY(put_receive_queue(queues.unread));
  if (!queues.unacked.empty()) TRY(put_send_queue(queues));
  TRY(put_window(min));  // R4
  const bool congestion = put_congestion(min);
  TRY(put_lost_options());
  return RestoreReport{.congestion_restored = congestion};
}

// S6. With a millisecond clock the low bit must be 0, and the clock must never go back, or the peer's PAWS drops all
// that follows. The kernel may have sent after the snapshot (a loss probe, an ACK, before it was parked), so whatever
// `min` says, the clock stands at least where it would if nothing had happened.
std::uint32_t LinuxKernelConn::timestamp_to_go_on_with(const tcp::MinTcp& min) const {
  const bool microseconds = (min.options & tcp::kOptTsMicroseconds) != 0;
  Seq value(min.ts_val);
  if (frozen_at_ != Time{}) {
    const Duration away = monotonic_now() - frozen_at_;
    const auto ticks = microseconds ? std::chrono::ceil<std::chrono::microseconds>(away).count()
                                    : std::chrono::ceil<std::chrono::milliseconds>(away).count();
    value = max(value, Seq(frozen_.ts_val) + static_cast<std::uint32_t>(ticks));
  }
  return microseconds ? value.raw() | 1U : (value.raw() + 1U) & ~1U;
}

// R8: partial amounts, and less when memory is short. The receive queue is selected already.
Result<> LinuxKernelConn::put_receive_queue(std::span<const std::byte> bytes) {
  const int raw = socket_.get();
  std::size_t chunk = kReceiveChunkBytes;
  while (!bytes.empty()) {
    const ssize_t taken = ::send(raw, bytes.data(), std::min(chunk, bytes.size()), kSendFlags);
    if (taken > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(taken));
    } else if (taken < 0 && (errno == ENOMEM || errno == ENOBUFS)) {
      if (!receive_buffer_raised_) {
        TRY(raise_receive_buffer(bytes.size()));
      } else if (chunk > kMinReceiveChunkBytes) {
        chunk /= 2;
      } else {
        return system_error("put bytes into the receive queue");
      }
    } else if (taken < 0 && errno != EINTR) {
      return system_error("put bytes into the receive queue");
    }
  }
  return {};
}

// In repair mode what is written counts as sent and leaves no packet. A call begins a segment.
Result<> LinuxKernelConn::put_send_queue(const RestoreQueues& queues) {
  TRY(repair::select_queue(socket_.get(), repair::Queue::kSend));
  TRY(put_sent(queues.unacked.first(queues.acked_bytes)));
  return put_sent(queues.unacked.subspan(queues.acked_bytes));
}

Result<> LinuxKernelConn::put_sent(std::span<const std::byte> bytes) {
  const int raw = socket_.get();
  int refused = send_some(raw, bytes);
  if (refused == EAGAIN) {
    TRY(raise_send_buffer(bytes.size()));
    refused = send_some(raw, bytes);
  }
  if (refused == EAGAIN) refused = send_above_low_water(raw, bytes, 0);
  if (refused != 0) return system_error("put bytes into the send queue", refused);
  return {};
}

// R18: a snd_wl1 beyond the receive window is refused, and a kernel that had no memory for a segment closes its window
// at once, under the numbers that it has taken windows from. An older snd_wl1 only lets the next segment count.
Result<> LinuxKernelConn::put_window(const tcp::MinTcp& min) {
  const Seq right_edge = Seq(min.rcv_nxt) + min.rcv_wnd;
  const tcp_repair_window window{.snd_wl1 = twinstack::min(Seq(min.snd_wl1), right_edge).raw(),
                                 .snd_wnd = min.snd_wnd,
                                 .max_window = std::max(min.max_window, min.snd_wnd),
                                 .rcv_wnd = min.rcv_wnd,
                                 .rcv_wup = min.rcv_wup};
  return set_option(socket_.get(), IPPROTO_TCP, TCP_REPAIR_WINDOW, window, "TCP_REPAIR_WINDOW");
}

// The connection is whole without it (it begins with the initial window), so a refusal is only reported.
bool LinuxKernelConn::put_congestion(const tcp::MinTcp& min) {
  if (shared_.congestion == nullptr || min.cwnd_segments == 0) return false;
  std::array<char, 17> name{};  // the program may have chosen another one while the connection was away
  socklen_t length = name.size() - 1;
  if (::getsockopt(socket_.get(), IPPROTO_TCP, TCP_CONGESTION, name.data(), &length) != 0) return false;
  return shared_.congestion->apply(socket_.get(), min.cwnd_segments, min.ssthresh_segments, name.data()).has_value();
}

// R9, those that can be set while held. The clamp comes after the window: it also lets the receive window grow again.
Result<> LinuxKernelConn::put_lost_options() {
  const int raw = socket_.get();
  if (options_.window_clamp_bytes > 0) {
    TRY(set_option(raw, IPPROTO_TCP, TCP_WINDOW_CLAMP, options_.window_clamp_bytes, "TCP_WINDOW_CLAMP"));
  }
  if (options_.peek_offset >= 0) {
    TRY(set_option(raw, SOL_SOCKET, SO_PEEK_OFF, options_.peek_offset, "SO_PEEK_OFF"));
  }
  return {};
}

Result<ReleaseReport> LinuxKernelConn::release(std::span<const std::byte> unsent, bool probe) {
  ASSERT(phase_ == Phase::kRestored);
  const int raw = socket_.get();
  TRY(repair::set_mode(raw, probe ? repair::Mode::kOffWithProbe : repair::Mode::kOffSilent));  // R11
  phase_ = Phase::kRunning;
  out_of_order_ = {};  // the counters of TCP_INFO began anew (R10)
  if (options_.reuse_address != 0) {
    TRY(set_option(raw, SOL_SOCKET, SO_REUSEADDR, options_.reuse_address, "SO_REUSEADDR"));
  }
  if (options_.keepalive != 0) TRY(set_option(raw, SOL_SOCKET, SO_KEEPALIVE, options_.keepalive, "SO_KEEPALIVE"));
  ReleaseReport report;
  if (!unsent.empty()) report = write_unsent(unsent);
  if (send_buffer_raised_ || receive_buffer_raised_) TRY(put_buffer_sizes_back());
  if (unread_restored_) TRY(announce_unread());
  // Last: a reset that came in before the unsent bytes were written would be taken off the socket by the write (R12).
  TRY(detach_late_filter());
  return report;
}

// R7: what does not fit is the caller's to write before anything newer. It fits, but for memory that the machine lacks:
// the buffer is raised, and TCP_NOTSENT_LOWAT lifted, for as long as it takes.
ReleaseReport LinuxKernelConn::write_unsent(std::span<const std::byte> unsent) {
  const int raw = socket_.get();
  const int more = (restored_.flags & tcp::kFlagMoreFollows) != 0 ? MSG_MORE : 0;
  std::span<const std::byte> left = unsent;
  int refused = send_some(raw, left, more);
  if (refused == EAGAIN && raise_send_buffer(left.size()).has_value()) refused = send_some(raw, left, more);
  if (refused == EAGAIN) refused = send_above_low_water(raw, left, more);
  return {.unsent_taken_bytes = unsent.size() - left.size(), .socket_error = refused == EAGAIN ? 0 : refused};
}

// Puts what sleeps on the descriptor right about the restored bytes: setting the low-water mark, even to what it is,
// makes the kernel look and wake (edge-triggered epoll needs that).
Result<> LinuxKernelConn::announce_unread() {
  unread_restored_ = false;
  ASSIGN_OR_RETURN(const int mark, get_option(socket_.get(), SOL_SOCKET, SO_RCVLOWAT, "SO_RCVLOWAT"));
  return set_option(socket_.get(), SOL_SOCKET, SO_RCVLOWAT, mark, "SO_RCVLOWAT");
}

Result<> LinuxKernelConn::remember_buffer_sizes() {
  if (send_buffer_raised_ || receive_buffer_raised_) return {};
  const int raw = socket_.get();
  ASSIGN_OR_RETURN(options_.send_buffer_bytes, get_option(raw, SOL_SOCKET, SO_SNDBUF, "SO_SNDBUF"));
  ASSIGN_OR_RETURN(options_.receive_buffer_bytes, get_option(raw, SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF"));
  ASSIGN_OR_RETURN(options_.buffer_lock, get_option(raw, SOL_SOCKET, SO_BUF_LOCK, "SO_BUF_LOCK"));
  return {};
}

// By as much once more when it was raised already: the unacknowledged bytes raise it first, the unsent ones then.
Result<> LinuxKernelConn::raise_send_buffer(std::size_t bytes) {
  TRY(remember_buffer_sizes());
  ASSIGN_OR_RETURN(const int now, get_option(socket_.get(), SOL_SOCKET, SO_SNDBUF, "SO_SNDBUF"));
  const std::size_t wanted = static_cast<std::size_t>(now) + 2 * bytes;
  TRY(set_option(socket_.get(), SOL_SOCKET, SO_SNDBUFFORCE, force_value(wanted), "SO_SNDBUFFORCE"));
  send_buffer_raised_ = true;
  return {};
}

// The engine's auto-tuning has made the buffer larger: what it has offered must find room. What the program has set
// meanwhile goes before.
Result<> LinuxKernelConn::take_over_receive_buffer(std::uint32_t bytes) {
  TRY(remember_buffer_sizes());
  if ((options_.buffer_lock & SOCK_RCVBUF_LOCK) != 0) return {};
  if (bytes <= static_cast<std::uint32_t>(options_.receive_buffer_bytes)) return {};
  const int raw = socket_.get();
  TRY(set_option(raw, SOL_SOCKET, SO_RCVBUFFORCE, force_value(bytes / 2), "SO_RCVBUFFORCE"));
  TRY(set_option(raw, SOL_SOCKET, SO_BUF_LOCK, options_.buffer_lock, "SO_BUF_LOCK"));
  options_.receive_buffer_bytes = static_cast<int>(bytes);
  options_.window_clamp_bytes = std::max(options_.window_clamp_bytes, static_cast<int>(bytes / 2));
  return {};
}

Result<> LinuxKernelConn::raise_receive_buffer(std::size_t bytes) {
  TRY(remember_buffer_sizes());
  const std::size_t now = static_cast<std::size_t>(options_.receive_buffer_bytes);
  TRY(set_option(socket_.get(), SOL_SOCKET, SO_RCVBUFFORCE, force_value(now + 2 * bytes), "SO_RCVBUFFORCE"));
  receive_buffer_raised_ = true;
  return {};
}

Result<> LinuxKernelConn::put_buffer_sizes_back() {
  const int raw = socket_.get();
  if (send_buffer_raised_) {
    TRY(set_option(raw, SOL_SOCKET, SO_SNDBUFFORCE, options_.send_buffer_bytes / 2, "SO_SNDBUFFORCE"));
  }
  if (receive_buffer_raised_) {
    TRY(set_option(raw, SOL_SOCKET, SO_RCVBUFFORCE, options_.receive_buffer_bytes / 2, "SO_RCVBUFFORCE"));
  }
  TRY(set_option(raw, SOL_SOCKET, SO_BUF_LOCK, options_.buffer_lock, "SO_BUF_LOCK"));
  send_buffer_raised_ = false;
  receive_buffer_raised_ = false;
  return {};
}

}  // namespace twinstack::kernel
