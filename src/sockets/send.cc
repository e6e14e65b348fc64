// Sending: into the kernel's socket or, copied into chunks, into the submission ring; in order across a move because a
// piece is submitted inside the gate.
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>

#include "sockets/blocking.h"
#include "sockets/process.h"
#include "sockets/real_calls.h"
#include "sockets/session.h"
#include "sockets/transfer.h"

namespace twinstack::sockets {
namespace {

// Copied inside the gate at a time: a move waits for the calls inside.
constexpr std::size_t kBytesPerPass = 128U << 10;
constexpr std::uint32_t kEntriesPerPass = 72;  // 128 KB in chunks of 2 KB, and the ends
// The engine takes entries within microseconds as a rule: so often a call lets it run. It does not while none of its
// pieces is free; then the call would block.
constexpr unsigned kNudges = 8;

constexpr int kSendFlags = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE | MSG_EOR;

// The submission ring is full, or things changed while we looked: the call tries on for a moment, which is cheaper than
// having the program wait. Never leaves this file.
constexpr Outcome kTryAgain = -EBUSY;

struct Writer {
  Sonode& sonode;
  int fd;
  int flags;
  IoCursor& in;

  [[nodiscard]] Outcome to_kernel() const noexcept;
  [[nodiscard]] Outcome to_engine() const noexcept;
  [[nodiscard]] std::size_t room() const noexcept;
  [[nodiscard]] bool open_chunk() const noexcept TS_REQUIRES(sonode.tx_mutex);
  [[nodiscard]] Outcome submit(RingPort& ring, std::uint32_t places) const noexcept TS_REQUIRES(sonode.tx_mutex);
  [[nodiscard]] ipc::SubmitEntry fill(std::size_t limit) const noexcept TS_REQUIRES(sonode.tx_mutex);
  [[nodiscard]] Outcome pass() const noexcept;
  [[nodiscard]] Outcome attempt() const noexcept;
};

// REQUIRES: inside the gate with the kernel as owner, or a connection that is not moved.
Outcome Writer::to_kernel() const noexcept {
  std::array<iovec, kPartsPerCall> room_for_parts;
  const std::span<iovec> parts = in.next(room_for_parts, SSIZE_MAX);
  const int real_flags = flags | MSG_DONTWAIT | MSG_NOSIGNAL;
  if ((flags & MSG_MORE) != 0) wait_for_lesson(sonode);
  ssize_t result = -1;
  if (parts.size() <= 1) {
    const void* base = parts.empty() ? nullptr : parts[0].iov_base;
    result = real().send(fd, base, parts.empty() ? 0 : parts[0].iov_len, real_flags);
  } else {
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    result = real().sendmsg(fd, &message, real_flags);
  }
  if (result > 0) in.skip(static_cast<std::size_t>(result));
  return outcome_of(result);
}

std::size_t Writer::room() const noexcept {
  const ipc::ConnSlot& slot = *sonode.slot;
  const std::uint64_t acked = slot.tx_acked_bytes.load(std::memory_order_seq_cst);
  const std::uint64_t ahead = slot.tx_submitted_bytes.load(std::memory_order_relaxed) - acked;
  const std::uint64_t limit = slot.tx_limit_bytes.load(std::memory_order_relaxed);
  return limit > ahead ? limit - ahead : 0;
}

// Makes sure that the last chunk has room. False: no chunk is free.
bool Writer::open_chunk() const noexcept {
  Session& session = *sonode.session;
  if (sonode.tx_tail != kNoChunk && sonode.tx_tail_fill < session.geometry().chunk_bytes) return true;
  const std::uint32_t chunk = session.take_tx_chunk();
  if (chunk == kNoChunk) return false;
  if (sonode.tx_tail == kNoChunk)
    sonode.tx_head = chunk;
  else
    session.tx_chunks().node(sonode.tx_tail).next = chunk;
  sonode.tx_tail = chunk;
  sonode.tx_tail_fill = 0;
  return true;
}

// The next piece of the last chunk, filled with the program's bytes. REQUIRES: open_chunk(), limit > 0.
ipc::SubmitEntry Writer::fill(std::size_t limit) const noexcept {
  Session& session = *sonode.session;
  const std::uint32_t chunk = sonode.tx_tail;
  const auto bytes =
      static_cast<std::uint32_t>(std::min<std::size_t>(limit, session.geometry().chunk_bytes - sonode.tx_tail_fill));
  in.copy_out(session.arena().chunk(chunk).data() + sonode.tx_tail_fill, bytes);
  const ipc::SubmitEntry entry{.op = ipc::SubmitOp::kSend,
                               .flags = 0,
                               .reserved0 = 0,
                               .slot = sonode.slot_index,
                               .hw_conn_id = sonode.hw_conn_id(),
                               .chunk = chunk,
                               .offset = sonode.tx_tail_fill,
                               .length = bytes,
                               .reserved1 = 0};
  sonode.tx_tail_fill += bytes;
  session.tx_chunks().node(chunk).bytes += bytes;
  return entry;
}

// Fills chunks and submits them; `places` of the ring are kept for it.
Outcome Writer::submit(RingPort& ring, std::uint32_t places) const noexcept {
  Session& session = *sonode.session;
  std::size_t allowed = std::min({room(), in.left(), kBytesPerPass});
  std::array<ipc::SubmitEntry, kEntriesPerPass> entries;
  std::size_t count = 0;
  std::size_t taken = 0;
  while (allowed > 0 && count < places && open_chunk()) {
    entries[count] = fill(allowed);
    allowed -= entries[count].length;
    taken += entries[count].length;
    ++count;
  }
  for (std::size_t i = 0; i + 1 < count; ++i) entries[i].flags = ipc::kSubmitMore;
  if (count > 0 && (flags & MSG_MORE) != 0) entries[count - 1].flags = ipc::kSubmitMore;
  if (count > 0 && (flags & MSG_EOR) != 0 && in.left() == 0) entries[count - 1].flags |= ipc::kSubmitRecordEnd;
  // Before the engine can acknowledge them.
  auto& submitted = sonode.slot->tx_submitted_bytes;
  submitted.store(submitted.load(std::memory_order_relaxed) + taken, std::memory_order_release);
  session.submit_reserved(ring, {entries.data(), count}, places);
  return static_cast<Outcome>(taken);
}

// REQUIRES: inside the gate with the engine as owner.
Outcome Writer::to_engine() const noexcept {
  if (in.left() == 0) return 0;
  const MutexLock lock(sonode.tx_mutex);
  sonode.session->reclaim_tx(sonode);
  RingPort& ring = ring_of(sonode);
  const std::uint32_t places = sonode.session->reserve(ring, kEntriesPerPass);
  const Outcome taken = submit(ring, places);
  if (taken > 0) return taken;
  // Says also whom to wake later: no room asks the engine, no chunk marks the connection.
  if (has_engine_room(sonode) || places == 0) return kTryAgain;
  return fail(Failure::kWouldBlock);
}

Outcome Writer::pass() const noexcept {
  const GateScope gate(sonode);
  switch (gate.access()) {
    case Access::kEngine:
      return to_engine();
    case Access::kAborted:
      return fail(Failure::kAborted);
    case Access::kClosed:
      return fail(Failure::kBadDescriptor);
    case Access::kPlain:
    case Access::kKernel:
      break;
  }
  return to_kernel();
}

// Sends until all is sent (the count of this attempt) or it would block.
Outcome Writer::attempt() const noexcept {
  for (unsigned nudges = 0;;) {
    const Outcome outcome = pass();
    if (outcome == kTryAgain) {
      if (++nudges > kNudges && !has_engine_room(sonode)) return fail(Failure::kWouldBlock);
      sonode.session->nudge(ring_of(sonode));
      continue;
    }
    nudges = 0;
    if (outcome < 0 || in.left() == 0) return outcome;
  }
}

void raise_sigpipe() noexcept { ::syscall(SYS_tgkill, ::getpid(), ::syscall(SYS_gettid), SIGPIPE); }

}  // namespace

Outcome send(Sonode& sonode, int fd, std::span<const iovec> parts, int flags) noexcept {
  if (!IoCursor::is_valid(parts)) return fail(Failure::kInvalid);
  if (sonode.state.load(std::memory_order_acquire) == SonodeState::kConnecting) confirm_connected(sonode, fd);
  if ((flags & ~kSendFlags) != 0)
    if (const Outcome moved = keep_in_kernel(sonode, "send flags"); moved < 0) return moved;
  if (const Outcome late = take_pending_error(sonode); late < 0) return late;
  IoCursor in(parts);
  const Writer writer{.sonode = sonode, .fd = fd, .flags = flags, .in = in};
  Outcome outcome = writer.attempt();
  if (would_block(outcome) && (flags & MSG_DONTWAIT) == 0 && !is_nonblocking(sonode, fd))
    outcome = try_until(sonode, fd, POLLOUT, timeout_ns(sonode, fd, false),
                        [&writer]() noexcept { return writer.attempt(); });
  // What was sent counts; the error is for the next call.
  if (in.done() > 0) keep_pending_error(sonode, outcome);
  if (in.done() > 0) return static_cast<Outcome>(in.done());
  if (outcome == -EPIPE && (flags & MSG_NOSIGNAL) == 0) raise_sigpipe();
  return outcome;
}

}  // namespace twinstack::sockets
