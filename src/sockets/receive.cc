// Receiving: first the bytes that the engine has handed over, whoever owns the connection now, then the kernel's.
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>

#include "sockets/blocking.h"
#include "sockets/poll.h"
#include "sockets/process.h"
#include "sockets/real_calls.h"
#include "sockets/session.h"
#include "sockets/transfer.h"

namespace twinstack::sockets {
namespace {

// A queue this long may have closed the window: the engine is told at once that there is room again.
constexpr std::uint64_t kUrgentReturnBytes = 16384;
// Of one chunk: read bytes that are given back before the rest is read; while the window is small.
constexpr std::uint32_t kReturnAheadBytes = 8192;
constexpr std::uint32_t kSmallReturnBytes = 1024;

// Flags that the layer understands; with any other the connection goes back to the kernel first.
constexpr int kReceiveFlags = MSG_DONTWAIT | MSG_PEEK | MSG_WAITALL | MSG_TRUNC | MSG_NOSIGNAL | MSG_CMSG_CLOEXEC;

struct Reader {
  Sonode& sonode;
  int fd;
  int flags;
  IoCursor& out;
  Ancillary* ancillary;

  [[nodiscard]] bool peeks() const noexcept { return (flags & MSG_PEEK) != 0; }
  [[nodiscard]] bool discards() const noexcept { return (flags & MSG_TRUNC) != 0; }

  [[nodiscard]] Outcome from_queue() const noexcept;
  [[nodiscard]] Outcome from_inherited() const noexcept TS_REQUIRES(sonode.rx_mutex);
  [[nodiscard]] Outcome from_kernel() const noexcept;
  [[nodiscard]] Outcome add_from_kernel(Outcome queued) const noexcept;
  [[nodiscard]] bool kernel_may_have_more() const noexcept;
  // Bytes that the engine posted and nobody has read, in the queue or on their way to it. (In a forked child the
  // counters are the parent's.)
  [[nodiscard]] std::uint64_t posted_unread() const noexcept;
  [[nodiscard]] Outcome attempt() const noexcept;
  void consume(std::uint32_t chunk, RxNode& node, std::uint32_t bytes, std::uint32_t ahead, bool urgent) const noexcept
      TS_REQUIRES(sonode.rx_mutex);
  void put(const std::byte* from, std::size_t size) const noexcept {
    if (discards())
      out.skip(size);
    else
      out.copy_in(from, size);
  }
};

// `ahead`: so many are given back before the rest is read.
void Reader::consume(std::uint32_t chunk, RxNode& node, std::uint32_t bytes, std::uint32_t ahead,
                     bool urgent) const noexcept {
  node.offset += bytes;
  node.length -= bytes;
  node.unreturned += bytes;
  const bool is_empty = node.length == 0;
  if (!is_empty && node.unreturned < ahead) return;
  const std::uint32_t give_back = std::exchange(node.unreturned, 0U);
  const std::uint32_t ring = node.ring;
  const std::uint64_t hw_conn_id = node.hw_conn_id;
  if (is_empty) {
    sonode.rx_head = node.next;
    if (sonode.rx_tail == chunk) sonode.rx_tail = kNoChunk;
    node.queued.store(false, std::memory_order_release);
  }
  sonode.session->return_chunk(ring, chunk, give_back, hw_conn_id, sonode.slot_index, urgent);
}

Outcome Reader::from_inherited() const noexcept {
  const std::uint64_t left = sonode.rx_queued_bytes.load(std::memory_order_relaxed);
  const std::size_t size = std::min<std::size_t>(left, out.left());
  put(sonode.inherited_bytes + sonode.inherited_offset, size);
  if (peeks()) return static_cast<Outcome>(size);
  sonode.inherited_offset += size;
  sonode.rx_queued_bytes.store(left - size, std::memory_order_release);
  if (left == size) {
    std::free(sonode.inherited_bytes);
    sonode.inherited_bytes = nullptr;
  }
  return static_cast<Outcome>(size);
}

// EAGAIN: nothing lies in chunks.
Outcome Reader::from_queue() const noexcept {
  const MutexLock lock(sonode.rx_mutex);
  const std::uint64_t queued = sonode.rx_queued_bytes.load(std::memory_order_relaxed);
  if (queued == 0) return fail(Failure::kWouldBlock);
  if (sonode.inherited_bytes != nullptr) return from_inherited();
  const ipc::WantRead wanted = sonode.slot->want_read.load(std::memory_order_relaxed);
  const bool ends_wait = queued <= out.left() && wanted == ipc::WantRead::kLast;
  const bool urgent = queued >= kUrgentReturnBytes || ends_wait || wanted == ipc::WantRead::kEvery;
  const std::uint32_t ahead = wanted == ipc::WantRead::kEvery ? kSmallReturnBytes : kReturnAheadBytes;
  const ipc::Arena& arena = sonode.session->arena();
  std::uint64_t taken = 0;
  std::uint32_t chunk = sonode.rx_head;
  while (chunk != kNoChunk && out.left() > 0) {
    RxNode& node = sonode.session->rx_node(chunk);
    const std::uint32_t next = node.next;
    const auto here = static_cast<std::uint32_t>(std::min<std::size_t>(node.length, out.left()));
    put(arena.chunk(chunk).data() + node.offset, here);
    if (!peeks()) consume(chunk, node, here, ahead, urgent);
    taken += here;
    chunk = next;
  }
  if (!peeks()) {
    sonode.rx_queued_bytes.store(queued - taken, std::memory_order_release);
    auto& read = sonode.slot->rx_read_bytes;
    read.store(read.load(std::memory_order_relaxed) + taken, std::memory_order_release);
  }
  return static_cast<Outcome>(taken);
}

// REQUIRES: inside the gate with the kernel as owner, or a connection that is not moved.
Outcome Reader::from_kernel() const noexcept {
  std::array<iovec, kPartsPerCall> room;
  const std::span<iovec> parts = out.next(room, SSIZE_MAX);
  const int real_flags = (flags & ~MSG_WAITALL) | MSG_DONTWAIT;
  const bool wants_control = ancillary != nullptr && !ancillary->room.empty();
  ssize_t result = -1;
  if (parts.size() <= 1 && !wants_control) {
    void* base = parts.empty() ? nullptr : parts[0].iov_base;
    result = real().recv(fd, base, parts.empty() ? 0 : parts[0].iov_len, real_flags);
  } else {
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    if (wants_control) {
      message.msg_control = ancillary->room.data();
      message.msg_controllen = ancillary->room.size();
    }
    result = real().recvmsg(fd, &message, real_flags);
    if (wants_control && result >= 0) {
      ancillary->length = message.msg_controllen;
      ancillary->flags = message.msg_flags;
    }
  }
  if (result > 0) out.skip(static_cast<std::size_t>(result));
  if (sonode.read_in_move.load(std::memory_order_relaxed)) sonode.read_in_move.store(false, std::memory_order_relaxed);
  return outcome_of(result);
}

// `queued` bytes have come from chunks. A read of less than was asked for tells the program that nothing is left
// (epoll(7), question 9), and a peek that gets no more now would never: what the kernel has belongs to it.
// REQUIRES: as from_kernel().
Outcome Reader::add_from_kernel(Outcome queued) const noexcept {
  // Another thread may have drained the rings since: what is in the queue by now comes before the kernel's bytes.
  const auto looked_at = static_cast<std::uint64_t>(peeks() ? queued : 0);
  if (queued <= 0 || out.left() == 0 || posted_unread() != looked_at) return queued;
  // Asked first: an error that stands behind these bytes is for the next call, and so is what lies behind the mark of
  // urgent data.
  int unread = 0;
  int at_mark = 0;
  if (real().ioctl(fd, FIONREAD, &unread) != 0 || unread <= 0) return queued;
  if (real().ioctl(fd, SIOCATMARK, &at_mark) != 0 || at_mark != 0) return queued;
  const Outcome more = from_kernel();
  if (more < 0) keep_pending_error(sonode, more);  // another thread has taken the bytes
  return more > 0 ? queued + more : queued;
}

// A read of chunks does not wait for a move. What the kernel has then comes to the engine with the move, and is told;
// or, when the move is undone, is to be told again (EpollSet::unmute_if_due()).
bool Reader::kernel_may_have_more() const noexcept {
  while (!kernel_speaks_for(sonode)) {
    if (sonode.owner() != ipc::Owner::kToEngine) return false;
    // The end of the move has seen it, or is seen.
    sonode.read_in_move.store(true, std::memory_order_seq_cst);
    if (sonode.owner() == ipc::Owner::kToEngine) return false;
  }
  return true;
}

std::uint64_t Reader::posted_unread() const noexcept {
  if (sonode.session->is_inherited()) return sonode.rx_queued_bytes.load(std::memory_order_acquire);
  const ipc::ConnSlot& slot = *sonode.slot;
  return slot.rx_posted_bytes.load(std::memory_order_acquire) - slot.rx_read_bytes.load(std::memory_order_acquire);
}

Outcome Reader::attempt() const noexcept {
  if (sonode.rx_queued_bytes.load(std::memory_order_acquire) == 0) sonode.session->drain();
  const Outcome queued = from_queue();
  if (!would_block(queued) && (out.left() == 0 || !kernel_may_have_more())) return queued;
  const GateScope gate(sonode);
  const Access access = gate.access();
  const bool is_kernels = access == Access::kKernel || access == Access::kPlain;
  if (!would_block(queued)) return is_kernels ? add_from_kernel(queued) : queued;
  if (access == Access::kAborted) return fail(Failure::kAborted);
  if (access == Access::kClosed) return fail(Failure::kBadDescriptor);
  // The connection may have moved since we looked. What the engine received before it came back is older than anything
  // in the kernel; what the kernel had received before it left is in the rings.
  if (posted_unread() != 0) {
    sonode.session->drain();
    const Outcome late = from_queue();
    if (!would_block(late)) return is_kernels ? add_from_kernel(late) : late;
    if (access == Access::kKernel && posted_unread() != 0) return late;
  }
  if (access == Access::kEngine) return fail(Failure::kWouldBlock);
  return from_kernel();
}

}  // namespace

std::uint64_t queued_bytes(Sonode& sonode) noexcept {
  sonode.session->drain();
  return sonode.rx_queued_bytes.load(std::memory_order_acquire);
}

void drop_queued(Sonode& sonode) noexcept {
  const MutexLock lock(sonode.rx_mutex);
  std::free(sonode.inherited_bytes);
  sonode.inherited_bytes = nullptr;
  while (sonode.rx_head != kNoChunk) {
    const std::uint32_t chunk = sonode.rx_head;
    RxNode& node = sonode.session->rx_node(chunk);
    const std::uint32_t bytes = node.unreturned + node.length;
    const std::uint32_t ring = node.ring;
    const std::uint64_t hw_conn_id = node.hw_conn_id;
    sonode.rx_head = node.next;
    node.queued.store(false, std::memory_order_release);
    sonode.session->return_chunk(ring, chunk, bytes, hw_conn_id, sonode.slot_index, true);
  }
  sonode.rx_tail = kNoChunk;
  sonode.rx_queued_bytes.store(0, std::memory_order_release);
}

// The urgent byte is the kernel's: bytes in chunks are none, and lie before it.
Outcome receive_urgent(Sonode& sonode, int fd, std::span<const iovec> parts, int flags) noexcept {
  if (const Outcome moved = keep_in_kernel(sonode, "MSG_OOB"); moved < 0) return moved;
  const GateScope gate(sonode);
  if (gate.access() == Access::kAborted) return fail(Failure::kAborted);
  if (gate.access() == Access::kClosed) return fail(Failure::kBadDescriptor);
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts.data());
  message.msg_iovlen = parts.size();
  return outcome_of(real().recvmsg(fd, &message, flags));
}

Outcome receive(Sonode& sonode, int fd, std::span<const iovec> parts, int flags, Ancillary* ancillary) noexcept {
  if (!IoCursor::is_valid(parts)) return fail(Failure::kInvalid);
  if (sonode.state.load(std::memory_order_acquire) == SonodeState::kConnecting) confirm_connected(sonode, fd);
  if ((flags & MSG_OOB) != 0) return receive_urgent(sonode, fd, parts, flags);
  if ((flags & ~kReceiveFlags) != 0)
    if (const Outcome moved = keep_in_kernel(sonode, "recv flags"); moved < 0) return moved;
  if (const Outcome late = take_pending_error(sonode); late < 0) return late;
  IoCursor out(parts);
  const Reader reader{.sonode = sonode, .fd = fd, .flags = flags, .out = out, .ancillary = ancillary};
  const Outcome first = reader.attempt();
  const bool wants_all = (flags & MSG_WAITALL) != 0 && !reader.peeks() && out.left() > 0;
  const bool is_done = first == 0 || (first < 0 && !would_block(first)) || (first > 0 && !wants_all);
  if (is_done || (flags & (MSG_DONTWAIT | MSG_ERRQUEUE)) != 0 || is_nonblocking(sonode, fd)) return first;
  const Outcome rest = try_until(sonode, fd, POLLIN, timeout_ns(sonode, fd, true), [&]() noexcept {
    for (;;) {
      const Outcome more = reader.attempt();
      if (more <= 0 || !wants_all || out.left() == 0) return more;
    }
  });
  // MSG_WAITALL that got some: the error, the signal or the end is for the next call.
  if (out.done() > 0) keep_pending_error(sonode, rest);
  return out.done() > 0 ? static_cast<Outcome>(out.done()) : rest;
}

}  // namespace twinstack::sockets
