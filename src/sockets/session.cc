#include "sockets/session.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <new>
#include <string>

#include "ipc/channel.h"
#include "sockets/layer.h"
#include "sockets/real_calls.h"

namespace twinstack::sockets {
namespace {

constexpr int kAnswerTimeoutMs = 2000;
// A burst of new connections fills the socket faster than a busy service empties it; the program waits this long before
// a connection stays unknown to the service.
constexpr int kRegisterTimeoutMs = 100;

template <typename Message>
Message make_message(ipc::MessageType type) noexcept {
  Message message{};
  message.head = {.type = type, .size_bytes = sizeof(Message)};
  return message;
}

template <std::size_t N>
void copy_text(std::array<char, N>& to, const char* from) noexcept {
  std::strncpy(to.data(), from, N - 1);
}

// Waits for poll bits on one descriptor of the layer; not a cancellation point, goes on after signals.
bool wait_for(int fd, short events, int timeout_ms) noexcept {
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  const std::int64_t deadline = monotonic_ns() + std::int64_t{timeout_ms} * 1'000'000;
  for (;;) {
    const std::int64_t left = std::max<std::int64_t>(deadline - monotonic_ns(), 0);
    timespec limit{.tv_sec = left / 1'000'000'000, .tv_nsec = left % 1'000'000'000};
    const long ready = ::syscall(SYS_ppoll, &entry, 1, &limit, nullptr, 0);
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) return false;
  }
}

struct Handshake {
  UniqueFd socket;
  ipc::Welcome welcome;
  std::vector<UniqueFd> fds;
};

Result<Handshake> shake_hands(const char* path) {
  ASSIGN_OR_RETURN(UniqueFd socket, ipc::connect_to(path));
  auto hello = make_message<ipc::Hello>(ipc::MessageType::kHello);
  hello.version = ipc::kLayoutVersion;
  copy_text(hello.program, program_invocation_short_name);
  TRY(ipc::send_message(socket.get(), std::as_bytes(std::span(&hello, 1)), {}));
  alignas(ipc::Welcome) std::array<std::byte, 512> buffer{};
  if (!wait_for(socket.get(), POLLIN, kAnswerTimeoutMs)) return error(ErrorCode::kTimeout, "no answer");
  ASSIGN_OR_RETURN(ipc::Received received, ipc::receive_message(socket.get(), buffer, MSG_DONTWAIT));
  Handshake result;
  static_assert(sizeof(ipc::Refused) != sizeof(ipc::Welcome));
  if (received.size_bytes == sizeof(ipc::Refused)) {
    ipc::Refused refused;
    std::memcpy(&refused, buffer.data(), sizeof(refused));
    refused.reason.back() = '\0';
    return error(ErrorCode::kProtocol, std::string("the service refused: ") + refused.reason.data());
  }
  if (received.size_bytes != sizeof(result.welcome)) return error(ErrorCode::kProtocol, "the service refused");
  std::memcpy(&result.welcome, buffer.data(), sizeof(result.welcome));
  if (result.welcome.head.type != ipc::MessageType::kWelcome) return error(ErrorCode::kProtocol, "no welcome");
  result.socket = std::move(socket);
  result.fds = std::move(received.fds);
  return result;
}

}  // namespace

Session* Session::open(const char* path, std::uint32_t number) noexcept {
  auto hands = shake_hands(path);
  if (!hands.has_value()) {
    debug_line(hands.error().message().c_str());
    return nullptr;
  }
  if (hands->fds.empty()) return nullptr;
  auto arena = ipc::Arena::map(UniqueFd(move_away(hands->fds[0].release())), hands->welcome.geometry);
  if (!arena.has_value()) {
    debug_line(arena.error().message().c_str());
    return nullptr;
  }
  UniqueFd socket(move_away(hands->socket.release()));
  Session* session = make(std::move(socket), std::move(*arena), std::span(hands->fds).subspan(1), number);
  debug_line(session != nullptr ? "connected to the service"
                                : "the service's welcome is not complete, or memory lacks");
  return session;
}

Session* Session::make(UniqueFd socket, ipc::Arena arena, std::span<UniqueFd> fds, std::uint32_t number) noexcept {
  auto* session = new (std::nothrow) Session(std::move(socket), std::move(arena), number);
  if (session == nullptr) return nullptr;
  if (!session->allocate() || !session->adopt_descriptors(fds)) {
    delete session;
    return nullptr;
  }
  session->hide_descriptors();
  return session;
}

Session::Session(UniqueFd socket, ipc::Arena arena, std::uint32_t number) noexcept
    : number_(number), socket_(std::move(socket)), arena_(std::move(arena)) {}

bool Session::allocate() noexcept {
  const ipc::ArenaGeometry& g = geometry();
  if (g.slot_count > kMaxSlots) return false;
  const MutexLock lock(slots_mutex_);
  rings_.reset(new (std::nothrow) RingPort[g.ring_count]);
  doorbells_.reset(new (std::nothrow) UniqueFd[g.lane_count]);
  sonodes_.reset(new (std::nothrow) Sonode[g.slot_count]);
  rx_nodes_.reset(new (std::nothrow) RxNode[g.chunk_count - g.tx_chunk_count]);
  free_slots_.reset(new (std::nothrow) std::uint32_t[g.slot_count]);
  closed_slots_.reset(new (std::nothrow) std::uint32_t[g.slot_count]);
  if (!rings_ || !doorbells_ || !sonodes_ || !rx_nodes_ || !free_slots_ || !closed_slots_) return false;
  for (std::uint32_t i = 0; i < g.slot_count; ++i) {
    sonodes_[i].session = this;
    sonodes_[i].slot = &arena_.slot(i);
    sonodes_[i].slot_index = i;
    free_slots_[i] = g.slot_count - 1 - i;  // low slots first
  }
  free_count_ = g.slot_count;
  return tx_chunks_.init(g.tx_chunk_count);
}

bool Session::adopt_descriptors(std::span<UniqueFd> fds) noexcept {
  const ipc::ArenaGeometry& g = geometry();
  if (fds.size() != g.lane_count + g.ring_count) return false;
  for (std::uint32_t i = 0; i < g.lane_count; ++i) doorbells_[i].reset(move_away(fds[i].release()));
  for (std::uint32_t i = 0; i < g.ring_count; ++i) rings_[i].event.reset(move_away(fds[g.lane_count + i].release()));
  make_rings();
  return true;
}

void Session::hide_descriptors() const noexcept {
  hide(socket_.get());
  hide(arena_.fd());
  for (std::uint32_t i = 0; i < geometry().lane_count; ++i) hide(doorbells_[i].get());
  for (std::uint32_t i = 0; i < geometry().ring_count; ++i) hide(rings_[i].event.get());
}

void Session::make_rings() noexcept {
  const ipc::ArenaGeometry& g = geometry();
  for (std::uint32_t i = 0; i < g.ring_count; ++i) {
    ipc::RingHeader& header = arena_.ring(i);
    RingPort& ring = rings_[i];
    const MutexLock cq_lock(ring.cq_mutex);
    const MutexLock sq_lock(ring.sq_mutex);
    ring.header = &header;
    ring.doorbell = doorbells_[i % g.lane_count].get();
    ring.cq = ipc::CompleteConsumer(header.cq_tail, header.cq_head, header.cq_need_wakeup, arena_.cq(i), g.cq_entries);
    ring.sq = ipc::SubmitProducer(header.sq_tail, header.sq_head, header.sq_need_wakeup, arena_.sq(i), g.sq_entries);
  }
}

Sonode* Session::take(SonodeState state) noexcept {
  std::uint32_t index = 0;
  {
    const MutexLock lock(slots_mutex_);
    collect_closed();
    if (free_count_ == 0) return nullptr;
    index = free_slots_[--free_count_];
  }
  Sonode& sonode = sonodes_[index];
  ipc::ConnSlot& slot = *sonode.slot;
  slot.hw_conn_id.store(0, std::memory_order_relaxed);
  slot.kernel_cookie.store(0, std::memory_order_relaxed);
  slot.rx_posted_bytes.store(0, std::memory_order_relaxed);
  slot.tx_acked_bytes.store(0, std::memory_order_relaxed);
  slot.rx_read_bytes.store(0, std::memory_order_relaxed);
  slot.tx_submitted_bytes.store(0, std::memory_order_relaxed);
  slot.want_tx_space.store(0, std::memory_order_relaxed);
  slot.want_read.store(ipc::WantRead::kNone, std::memory_order_relaxed);
  slot.lesson_due.store(0, std::memory_order_relaxed);
  slot.calls_inside.store(0, std::memory_order_relaxed);
  ipc::store_counters(slot.base, {});
  const std::uint32_t tag = slot.tag.load(std::memory_order_relaxed) + 1;
  slot.tag.store(tag, std::memory_order_relaxed);
  slot.ring_hint.store(static_cast<std::uint32_t>(::syscall(SYS_gettid)), std::memory_order_relaxed);
  sonode.aborted.store(false, std::memory_order_relaxed);
  sonode.plain.store(false, std::memory_order_relaxed);
  sonode.pending_error.store(0, std::memory_order_relaxed);
  sonode.read_in_move.store(false, std::memory_order_relaxed);
  sonode.nonblocking.store(Toggle::kUnknown, std::memory_order_relaxed);
  sonode.receive_timeout_ns.store(Sonode::kTimeoutUnknown, std::memory_order_relaxed);
  sonode.send_timeout_ns.store(Sonode::kTimeoutUnknown, std::memory_order_relaxed);
  {
    const MutexLock lock(sonode.tx_mutex);
    sonode.tx_settled_bytes = 0;
    sonode.tx_tail_fill = 0;
  }
  sonode.fd_refs.store(1, std::memory_order_relaxed);
  sonode.refs.fetch_add(1, std::memory_order_relaxed);
  {
    const MutexLock lock(sonode.rx_mutex);
    sonode.tag.store(tag, std::memory_order_release);
    sonode.state.store(state, std::memory_order_release);
  }
  sonode.gate().set_owner(ipc::Owner::kKernel);
  return &sonode;
}

bool Session::announce(Sonode& sonode, int fd) noexcept {
  auto message = make_message<ipc::Register>(ipc::MessageType::kRegister);
  message.slot = sonode.slot_index;
  message.tag = sonode.tag.load(std::memory_order_relaxed);
  message.program_fd = fd;
  sonode.state.store(SonodeState::kKnown, std::memory_order_release);
  if (send_message(&message, sizeof(message), fd, kRegisterTimeoutMs)) return true;
  sonode.state.store(SonodeState::kConnecting, std::memory_order_release);
  return false;
}

void Session::discard(Sonode& sonode) noexcept {
  sonode.gate().set_owner(ipc::Owner::kFree);
  sonode.state.store(SonodeState::kClosing, std::memory_order_release);
  unref(sonode);
}

void Session::unref(Sonode& sonode) noexcept {
  if (sonode.refs.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  // Only the end of a life releases the slot; a late look at a slot that is free counts up and down as well.
  SonodeState expected = SonodeState::kClosing;
  if (sonode.state.compare_exchange_strong(expected, SonodeState::kFree, std::memory_order_acq_rel))
    release_slot(sonode);
}

void Session::release_slot(Sonode& sonode) noexcept {
  const MutexLock lock(slots_mutex_);
  closed_slots_[(closed_first_ + closed_count_) % slot_count()] = sonode.slot_index;
  ++closed_count_;
  collect_closed();
}

// Takes back the slots that the service has freed, the oldest first; looks at a few only.
void Session::collect_closed() noexcept {
  for (std::uint32_t looked = 0; closed_count_ > 0 && looked < 4; ++looked) {
    const std::uint32_t index = closed_slots_[closed_first_];
    closed_first_ = (closed_first_ + 1) % slot_count();
    --closed_count_;
    if (sonodes_[index].owner() == ipc::Owner::kFree || state() == SessionState::kLost) {
      put_back(index);
    } else {
      closed_slots_[(closed_first_ + closed_count_) % slot_count()] = index;
      ++closed_count_;
    }
  }
}

void Session::put_back(std::uint32_t slot) noexcept {
  Sonode& sonode = sonodes_[slot];
  {
    const MutexLock lock(sonode.tx_mutex);
    while (sonode.tx_head != kNoChunk) {
      const std::uint32_t chunk = sonode.tx_head;
      sonode.tx_head = tx_chunks_.node(chunk).next;
      tx_chunks_.give(chunk);
    }
    sonode.tx_tail = kNoChunk;
  }
  if (sonode.tx_starved.exchange(false)) starved_.fetch_sub(1);
  free_slots_[free_count_++] = slot;
  on_tx_chunk_freed();
}

std::uint32_t Session::take_tx_chunk() noexcept {
  const std::uint32_t chunk = tx_chunks_.take();
  if (chunk != kNoChunk) [[likely]]
    return chunk;
  {
    const MutexLock lock(slots_mutex_);
    collect_closed();
  }
  return tx_chunks_.take();
}

void Session::mark_starved(Sonode& sonode) noexcept {
  if (!sonode.tx_starved.exchange(true)) starved_.fetch_add(1);
}

void Session::wake_starved() noexcept {
  for (std::uint32_t i = 0; i < slot_count(); ++i)
    if (sonodes_[i].tx_starved.exchange(false)) {
      starved_.fetch_sub(1);
      sonodes_[i].notify();
    }
}

void Session::notify_all() noexcept {
  for (std::uint32_t i = 0; i < slot_count(); ++i)
    if (sonodes_[i].state.load(std::memory_order_acquire) != SonodeState::kFree) sonodes_[i].notify();
}

void Session::send_close(const Sonode& sonode) noexcept {
  const MutexLock lock(control_mutex_);
  auto message = make_message<ipc::Close>(ipc::MessageType::kClose);
  message.slot = sonode.slot_index;
  message.tag = sonode.tag.load(std::memory_order_relaxed);
  send_message(&message, sizeof(message), -1, kAnswerTimeoutMs);
}

void Session::send_upload(const Sonode& sonode, bool stay, const char* reason) noexcept {
  const MutexLock lock(control_mutex_);
  if (sonode.state.load(std::memory_order_acquire) != SonodeState::kKnown) return;
  // In a forked child: the parent may have closed it, or used its slot again.
  if (sonode.slot->tag.load(std::memory_order_acquire) != sonode.tag.load(std::memory_order_relaxed) ||
      sonode.owner() == ipc::Owner::kFree)
    return;
  auto message = make_message<ipc::Upload>(ipc::MessageType::kUpload);
  message.slot = sonode.slot_index;
  message.tag = sonode.tag.load(std::memory_order_relaxed);
  message.stay = stay ? 1 : 0;
  copy_text(message.reason, reason);
  send_message(&message, sizeof(message), -1, kAnswerTimeoutMs);
}

std::optional<ipc::HwConnState> Session::query(const Sonode& sonode) noexcept {
  const MutexLock lock(query_mutex_);
  auto message = make_message<ipc::Query>(ipc::MessageType::kQuery);
  message.slot = sonode.slot_index;
  message.tag = sonode.tag.load(std::memory_order_relaxed);
  message.request = ++next_request_;
  if (!send_message(&message, sizeof(message), -1, kAnswerTimeoutMs)) return std::nullopt;
  ipc::QueryReply reply{};
  do {
    if (!wait_for(socket_.get(), POLLIN, kAnswerTimeoutMs)) return std::nullopt;
    const long size = ::syscall(SYS_recvfrom, socket_.get(), &reply, sizeof(reply), MSG_DONTWAIT, nullptr, nullptr);
    if (size != static_cast<long>(sizeof(reply))) return std::nullopt;
  } while (reply.request != message.request);
  if (reply.found == 0) return std::nullopt;
  return reply.state;
}

// One message, with the program's socket when `fd` >= 0. False: the socket stayed full for `patience_ms`, or is broken.
bool Session::send_message(const void* message, std::size_t size, int fd, int patience_ms) const noexcept {
  const int saved_errno = errno;
  iovec part{.iov_base = const_cast<void*>(message), .iov_len = size};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (fd >= 0) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(c), &fd, sizeof(int));
  }
  long sent = -1;
  for (;;) {
    sent = ::syscall(SYS_sendmsg, socket_.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0 || (errno != EINTR && errno != EAGAIN)) break;
    if (errno == EAGAIN && !wait_for(socket_.get(), POLLOUT, patience_ms)) break;
  }
  errno = saved_errno;
  return sent >= 0;
}

bool Session::check_alive() noexcept {
  if (state() != SessionState::kLive) return false;
  const int saved_errno = errno;
  pollfd entry{.fd = socket_.get(), .events = POLLRDHUP, .revents = 0};
  timespec none{};
  ::syscall(SYS_ppoll, &entry, 1, &none, nullptr, 0);
  errno = saved_errno;
  if ((entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0) return true;
  // What it posted last still counts.
  drain();
  SessionState expected = SessionState::kLive;
  if (!state_.compare_exchange_strong(expected, SessionState::kLost, std::memory_order_acq_rel)) return false;
  debug_line("the service is gone");
  for (std::uint32_t i = 0; i < slot_count(); ++i) {
    Sonode& sonode = sonodes_[i];
    const SonodeState life = sonode.state.load(std::memory_order_acquire);
    if (life == SonodeState::kFree) continue;
    const ipc::Owner owner = sonode.owner();
    if (owner == ipc::Owner::kKernel || owner == ipc::Owner::kFree)
      sonode.plain.store(true, std::memory_order_release);
    else
      sonode.aborted.store(true, std::memory_order_release);
    sonode.notify();
  }
  return false;
}

void Session::mark_inherited() noexcept {
  state_.store(SessionState::kInherited, std::memory_order_release);
  // Their holders do not exist in this process.
  slots_mutex_.reset_after_fork();
  control_mutex_.reset_after_fork();
  query_mutex_.reset_after_fork();
  for (RingPort& ring : rings()) {
    ring.cq_mutex.reset_after_fork();
    ring.sq_mutex.reset_after_fork();
  }
}

}  // namespace twinstack::sockets
