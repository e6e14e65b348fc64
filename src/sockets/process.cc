#include "sockets/process.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

#include "sockets/epoll_set.h"
#include "sockets/layer.h"
#include "sockets/real_calls.h"
#include "sockets/transfer.h"
#include "sockets/wait.h"

namespace twinstack::sockets {
namespace {

constexpr Duration kOwnerWait = std::chrono::milliseconds(20);
constexpr FdEntry kNothing{};

constinit Mutex g_inherit_mutex;

FdEntry entry_of(const Sonode& sonode) noexcept {
  return {.kind = FdKind::kSonode,
          .session = static_cast<std::uint8_t>(sonode.session->number()),
          .slot = sonode.slot_index,
          .tag = sonode.tag.load(std::memory_order_relaxed)};
}

bool is_tcp(int fd) noexcept {
  int protocol = 0;
  socklen_t length = sizeof(protocol);
  return real().getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == 0 && protocol == IPPROTO_TCP;
}

// What accept() on this socket gives; asked of the kernel once per listener.
bool gives_tcp(int listener) noexcept {
  const FdEntry known = g_layer.table.get(listener);
  if (known.kind == FdKind::kTcpListener) return true;
  if (known.kind != FdKind::kUnknown) return false;
  const bool tcp = is_tcp(listener);
  g_layer.table.replace(
      listener, kNothing,
      {.kind = tcp ? FdKind::kTcpListener : FdKind::kOtherListener, .session = 0, .slot = 0, .tag = 0});
  return tcp;
}

bool is_established(int fd) noexcept {
  tcp_info info{};
  socklen_t length = sizeof(info);
  return real().getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_state == TCP_ESTABLISHED;
}

// A slot and a table entry for `fd`; nullptr: it stays unknown.
Sonode* introduce(int fd, bool established) noexcept {
  Session* session = g_layer.session_for_new();
  if (session == nullptr) return nullptr;
  Sonode* sonode = session->take(SonodeState::kConnecting);
  if (sonode == nullptr) return nullptr;
  if (established && !session->announce(*sonode, fd)) {
    session->discard(*sonode);
    return nullptr;
  }
  if (g_layer.table.get(fd).kind != FdKind::kUnknown) forget(fd);  // closed behind our back
  g_layer.table.exchange(fd, entry_of(*sonode));
  return sonode;
}

// The program holds no descriptor any more.
void end_life(Sonode& sonode) noexcept {
  Session& session = *sonode.session;
  if (session.is_inherited()) {
    // In a forked child: nobody else knows of this copy, and a thread of the parent may have held the locks.
    sonode.state.store(SonodeState::kClosing, std::memory_order_release);
    return;
  }
  SonodeState before{};
  {
    const MutexLock lock(sonode.rx_mutex);
    before = sonode.state.exchange(SonodeState::kClosing, std::memory_order_acq_rel);
    sonode.notify_locked();
  }
  drop_queued(sonode);
  if (before == SonodeState::kKnown)
    session.send_close(sonode);
  else
    sonode.gate().set_owner(ipc::Owner::kFree);
  session.unref(sonode);
}

void copy_inherited_bytes(Sonode& sonode) noexcept {
  Session& session = *sonode.session;
  const MutexLock lock(sonode.rx_mutex);
  const ipc::ConnSlot& slot = *sonode.slot;
  const std::uint64_t queued = sonode.rx_queued_bytes.load(std::memory_order_relaxed);
  const bool is_ours = slot.tag.load(std::memory_order_acquire) == sonode.tag.load(std::memory_order_relaxed) &&
                       sonode.owner() != ipc::Owner::kFree;
  const std::uint64_t unread = is_ours ? slot.rx_posted_bytes.load(std::memory_order_acquire) -
                                             slot.rx_read_bytes.load(std::memory_order_acquire)
                                       : queued;
  std::byte* copy = unread > 0 && is_ours && queued >= unread ? static_cast<std::byte*>(std::malloc(unread)) : nullptr;
  if (unread > 0 && copy == nullptr) {
    // The parent has them, or they are gone: better an error than a hole in the stream.
    sonode.aborted.store(true, std::memory_order_release);
    return;
  }
  std::uint64_t skip = queued - unread;  // the parent has read these since
  std::uint64_t done = 0;
  for (std::uint32_t chunk = sonode.rx_head; unread > 0 && chunk != kNoChunk; chunk = session.rx_node(chunk).next) {
    const RxNode& node = session.rx_node(chunk);
    const std::uint64_t skipped = std::min<std::uint64_t>(skip, node.length);
    skip -= skipped;
    std::memcpy(copy + done, session.arena().chunk(chunk).data() + node.offset + skipped, node.length - skipped);
    done += node.length - skipped;
  }
  sonode.rx_head = kNoChunk;
  sonode.rx_tail = kNoChunk;
  sonode.inherited_bytes = copy;
  sonode.inherited_offset = 0;
  sonode.rx_queued_bytes.store(unread, std::memory_order_release);
}

}  // namespace

void on_accepted(int listener, int fd, bool nonblocking) noexcept {
  if (!g_layer.enabled.load(std::memory_order_relaxed) || !gives_tcp(listener)) return;
  Sonode* sonode = introduce(fd, true);
  if (sonode != nullptr) sonode->nonblocking.store(nonblocking ? Toggle::kYes : Toggle::kNo, std::memory_order_release);
}

void on_connected(int fd, const sockaddr* address, bool in_progress) noexcept {
  if (!g_layer.enabled.load(std::memory_order_relaxed) || address == nullptr) return;
  if (address->sa_family != AF_INET && address->sa_family != AF_INET6) return;
  if (g_layer.table.get(fd).kind == FdKind::kSonode || !is_tcp(fd)) return;
  const Sonode* sonode = introduce(fd, !in_progress);
  // It may have been put into an epoll set before.
  if (sonode != nullptr) EpollSets::adopt(fd);
}

void confirm_connected(Sonode& sonode, int fd) noexcept {
  if (sonode.plain.load(std::memory_order_acquire) || sonode.session->is_inherited() || !is_established(fd)) return;
  // Two threads may come here at once: one tells the service.
  const MutexLock lock(sonode.tx_mutex);
  if (sonode.state.load(std::memory_order_acquire) != SonodeState::kConnecting) return;
  if (!sonode.session->announce(sonode, fd)) sonode.plain.store(true, std::memory_order_release);
}

void forget(int fd) noexcept {
  const FdEntry entry = g_layer.table.get(fd);
  if (entry.kind == FdKind::kUnknown || entry.kind == FdKind::kInternal) return;
  // The child of a vfork closes its own copies, in our memory.
  if (!g_layer.is_own_process() || !g_layer.table.replace(fd, entry, kNothing)) return;
  if (entry.kind == FdKind::kEpoll) EpollSets::close(entry.slot);
  if (entry.kind != FdKind::kSonode) return;
  Sonode& sonode = g_layer.sessions[entry.session].load(std::memory_order_acquire)->sonode(entry.slot);
  // The driver holds the socket as well: the kernel would not take it out of the sets by itself.
  EpollSets::remove(sonode, fd);
  if (sonode.fd_refs.fetch_sub(1, std::memory_order_acq_rel) == 1) end_life(sonode);
}

void on_duplicated(int fd, int copy) noexcept {
  const FdEntry entry = g_layer.table.get(fd);
  if (entry.kind == FdKind::kUnknown || entry.kind == FdKind::kInternal || !g_layer.is_own_process()) return;
  if (entry.kind == FdKind::kSonode) {
    Sonode& sonode = g_layer.sessions[entry.session].load(std::memory_order_acquire)->sonode(entry.slot);
    sonode.fd_refs.fetch_add(1, std::memory_order_acq_rel);
  } else if (entry.kind == FdKind::kEpoll) {
    EpollSets::add_reference(entry.slot);
  }
  g_layer.table.exchange(copy, entry);
}

Outcome close_descriptor(int fd) noexcept {
  const FdKind kind = g_layer.table.get(fd).kind;
  if (kind == FdKind::kInternal && g_layer.is_own_process()) return fail(Failure::kBadDescriptor);
  forget(fd);
  return outcome_of(real().close(fd));
}

Outcome close_descriptors(std::uint32_t first, std::uint32_t last, int flags) noexcept {
  const auto close_gap = [flags](std::uint32_t from, std::uint32_t to) noexcept -> Outcome {
    return outcome_of(::syscall(SYS_close_range, from, to, flags));
  };
  // CLOSE_RANGE_CLOEXEC closes nothing now; our own are close-on-exec anyway. A vfork child closes its own copies.
  const bool closes = (static_cast<unsigned>(flags) & CLOSE_RANGE_CLOEXEC) == 0;
  if (first > last || !closes || !g_layer.is_own_process()) return close_gap(first, last);
  std::uint32_t next = first;
  Outcome result = 0;
  g_layer.table.for_each(first, last, [&](int fd, FdEntry entry) noexcept {
    const auto number = static_cast<std::uint32_t>(fd);
    if (number > next && result == 0) result = close_gap(next, number - 1);
    if (entry.kind != FdKind::kInternal) static_cast<void>(close_descriptor(fd));
    next = number + 1;
  });
  if (result == 0 && next <= last && next >= first) result = close_gap(next, last);
  return result;
}

Outcome duplicate_to(int fd, int wanted, int flags) noexcept {
  const auto duplicate = [=]() noexcept {
    return outcome_of(flags < 0 ? real().dup2(fd, wanted) : real().dup3(fd, wanted, flags));
  };
  // What fails leaves `wanted` as it is.
  const bool bad_flags = flags > 0 && (flags & ~O_CLOEXEC) != 0;
  rlimit limit{};
  const bool out_of_range =
      wanted < 0 || (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && static_cast<rlim_t>(wanted) >= limit.rlim_cur);
  if (fd == wanted || bad_flags || out_of_range || real().fcntl(fd, F_GETFD, nullptr) < 0) return duplicate();
  if (g_layer.table.get(wanted).kind == FdKind::kInternal && g_layer.is_own_process()) return -EBUSY;
  forget(wanted);
  const Outcome result = duplicate();
  if (result >= 0) on_duplicated(fd, wanted);
  return result;
}

Outcome bring_back(Sonode& sonode, bool stay, const char* reason) noexcept {
  Session& session = *sonode.session;
  if (sonode.plain.load(std::memory_order_acquire)) return 0;
  session.send_upload(sonode, stay, reason);
  // The answer to a question comes after the upload was noted: from then on no new offload begins. (In a forked child
  // the answer could be read by the parent.)
  if (stay && !session.is_inherited()) static_cast<void>(session.query(sonode));
  for (;;) {
    if (sonode.is_closing()) return fail(Failure::kBadDescriptor);
    if (sonode.aborted.load(std::memory_order_acquire)) return fail(Failure::kAborted);
    if (sonode.slot->tag.load(std::memory_order_acquire) != sonode.tag.load(std::memory_order_relaxed)) return 0;
    if (sonode.gate().wait_owner(ipc::Owner::kKernel, kOwnerWait)) return 0;
    // It may have been home and gone again before this thread was scheduled.
    if (sonode.owner() == ipc::Owner::kEngine) session.send_upload(sonode, stay, reason);
    session.check_alive();
  }
}

Outcome keep_in_kernel(Sonode& sonode, const char* reason) noexcept {
  if (sonode.plain.load(std::memory_order_acquire)) return 0;
  if (sonode.state.load(std::memory_order_acquire) == SonodeState::kKnown)
    if (const Outcome back = bring_back(sonode, true, reason); back < 0) return back;
  sonode.plain.store(true, std::memory_order_release);
  return 0;
}

void after_fork_in_parent() noexcept { g_layer.forks.fetch_add(1, std::memory_order_relaxed); }

void after_fork_in_child() noexcept {
  g_layer.forks.fetch_add(1, std::memory_order_relaxed);
  g_layer.pid.store(static_cast<pid_t>(::syscall(SYS_getpid)), std::memory_order_relaxed);
  g_layer.open_mutex.reset_after_fork();
  g_inherit_mutex.reset_after_fork();
  g_wait_room.reset_after_fork();
  g_layer.sleepers.store(0, std::memory_order_relaxed);
  g_layer.for_each_session([](Session& session) { session.mark_inherited(); });
  g_layer.current.store(nullptr, std::memory_order_release);
  EpollSets::after_fork_in_child();
}

void take_inherited(Sonode& sonode) noexcept {
  if (sonode.inherited_ready.load(std::memory_order_acquire)) return;
  const int saved_errno = errno;
  {
    const MutexLock lock(g_inherit_mutex);
    if (!sonode.inherited_ready.load(std::memory_order_acquire)) {
      sonode.rx_mutex.reset_after_fork();
      sonode.tx_mutex.reset_after_fork();
      if (sonode.state.load(std::memory_order_relaxed) == SonodeState::kKnown)
        static_cast<void>(bring_back(sonode, true, "fork"));
      sonode.session->look_into_inherited_rings();
      copy_inherited_bytes(sonode);
      sonode.inherited_ready.store(true, std::memory_order_release);
    }
  }
  errno = saved_errno;
}

}  // namespace twinstack::sockets
