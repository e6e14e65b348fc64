#include "sockets/poll.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <memory>
#include <new>

#include "sockets/epoll_set.h"
#include "sockets/layer.h"
#include "sockets/wait.h"

namespace twinstack::sockets {
namespace {

constexpr std::size_t kInlineFds = 32;
constexpr std::size_t kSigsetBytes = 8;
constexpr int kLongBits = CHAR_BIT * sizeof(long);

bool is_ours(int fd) noexcept {
  const FdKind kind = g_layer.table.get(fd).kind;
  return kind == FdKind::kSonode || kind == FdKind::kEpoll;
}

// One call: the program's entries, what the kernel is asked, and the connections among them.
class PollCall {
 public:
  explicit PollCall(std::span<pollfd> fds) noexcept : fds_(fds) {
    const std::size_t count = fds.size();
    if (count > kInlineFds) {
      more_asked_.reset(new (std::nothrow) pollfd[count]);
      more_refs_.reset(new (std::nothrow) Sonode*[count]());
    }
    asked_ = count > kInlineFds ? more_asked_.get() : inline_asked_.data();
    sonodes_ = count > kInlineFds ? more_refs_.get() : inline_sonodes_.data();
    if (asked_ == nullptr || sonodes_ == nullptr) return;
    for (std::size_t i = 0; i < count; ++i) find(i);
  }
  ~PollCall() {
    if (sonodes_ == nullptr) return;
    for (std::size_t i = 0; i < fds_.size(); ++i)
      if (sonodes_[i] != nullptr) sonodes_[i]->session->unref(*sonodes_[i]);
  }
  PollCall(const PollCall&) = delete;
  PollCall& operator=(const PollCall&) = delete;

  [[nodiscard]] Outcome run(std::int64_t timeout_ns, const sigset_t* mask) noexcept;

 private:
  void find(std::size_t i) noexcept {
    if (EpollSet* set = EpollSets::find(fds_[i].fd); set != nullptr) set->watch_from_outside(fds_[i].fd);
    SonodeRef ref = g_layer.find(fds_[i].fd);
    sonodes_[i] = ref.release();
    if (sonodes_[i] != nullptr) ++sonode_count_;
  }
  void ask() noexcept;
  [[nodiscard]] bool is_engine_ready() const noexcept;
  [[nodiscard]] int answer() noexcept;
  [[nodiscard]] Outcome look(const sigset_t* mask) noexcept;

  std::span<pollfd> fds_;
  pollfd* asked_ = nullptr;
  Sonode** sonodes_ = nullptr;  // with a reference each
  std::size_t sonode_count_ = 0;
  std::array<pollfd, kInlineFds> inline_asked_;
  std::array<Sonode*, kInlineFds> inline_sonodes_{};
  std::unique_ptr<pollfd[]> more_asked_;
  std::unique_ptr<Sonode*[]> more_refs_;
};

// What the kernel is asked: not about connections that the engine owns.
void PollCall::ask() noexcept {
  for (std::size_t i = 0; i < fds_.size(); ++i) {
    asked_[i] = fds_[i];
    asked_[i].revents = 0;
    if (sonodes_[i] != nullptr && !kernel_speaks_for(*sonodes_[i])) asked_[i].fd = -1;
  }
}

bool PollCall::is_engine_ready() const noexcept {
  for (std::size_t i = 0; i < fds_.size(); ++i)
    if (sonodes_[i] != nullptr && engine_readiness(*sonodes_[i], static_cast<std::uint16_t>(fds_[i].events)) != 0)
      return true;
  return false;
}

int PollCall::answer() noexcept {
  int count = 0;
  for (std::size_t i = 0; i < fds_.size(); ++i) {
    std::uint32_t bits = static_cast<std::uint16_t>(asked_[i].revents);
    if (sonodes_[i] != nullptr) {
      if (!kernel_speaks_for(*sonodes_[i])) bits = 0;
      // In the gap of a move a socket shows an error and a hang-up that are not the connection's: ask again.
      if ((bits & (POLLERR | POLLHUP)) != 0) bits = kernel_readiness(*sonodes_[i], fds_[i].fd, bits);
      bits |= engine_readiness(*sonodes_[i], static_cast<std::uint16_t>(fds_[i].events));
    }
    fds_[i].revents = static_cast<short>(bits);
    if (bits != 0) ++count;
  }
  return count;
}

// Without waiting. EINTR included, as the kernel's.
Outcome PollCall::look(const sigset_t* mask) noexcept {
  g_layer.drain();
  ask();
  timespec none{};
  const Outcome result = outcome_of(::syscall(SYS_ppoll, asked_, fds_.size(), &none, mask, kSigsetBytes));
  return result < 0 ? result : answer();
}

Outcome PollCall::run(std::int64_t timeout_ns, const sigset_t* mask) noexcept {
  if (asked_ == nullptr || sonodes_ == nullptr) return fail(Failure::kNoMemory);
  Outcome result = look(mask);
  if (result != 0 || timeout_ns == 0) return result;
  Wait wait(timeout_ns, std::max<std::size_t>(sonode_count_, 1));
  if (!wait.is_ready()) return fail(Failure::kNoMemory);
  for (std::size_t i = 0; i < fds_.size(); ++i)
    if (sonodes_[i] != nullptr) wait.watch(*sonodes_[i]);
  for (;;) {
    if (is_engine_ready()) {
      result = look(mask);
      if (result != 0) return result;
    }
    ask();
    const Woken woken = wait.sleep({asked_, fds_.size()}, mask);
    if (woken == Woken::kInterrupted) return fail(Failure::kInterrupted);
    if (woken == Woken::kFailed) return fail(Failure::kNoMemory);
    const int count = answer();
    if (count > 0 || woken == Woken::kTimeout) return count;
  }
}

bool is_set(const fd_set* set, int fd) noexcept {
  return set != nullptr && (static_cast<unsigned long>(set->fds_bits[fd / kLongBits]) >> (fd % kLongBits) & 1) != 0;
}

void put_bit(fd_set* set, int fd) noexcept {
  set->fds_bits[fd / kLongBits] |= static_cast<long>(1UL << (fd % kLongBits));
}

void clear_bits(fd_set* set, int count) noexcept {
  if (set == nullptr) return;
  for (int i = 0; i < (count + kLongBits - 1) / kLongBits; ++i) set->fds_bits[i] = 0;
}

// select(2), "Correspondence between select() and poll() notifications".
constexpr unsigned kReadableBits = POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR;
constexpr unsigned kWritableBits = POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR;
constexpr unsigned kSpecialBits = POLLPRI;

}  // namespace

bool kernel_speaks_for(const Sonode& sonode) noexcept {
  const ipc::Owner owner = sonode.owner();
  return owner == ipc::Owner::kKernel || owner == ipc::Owner::kFree || sonode.plain.load(std::memory_order_acquire);
}

std::uint32_t kernel_readiness(const Sonode& sonode, int fd, std::uint32_t wanted) noexcept {
  ipc::OwnerGate gate = sonode.gate();
  ipc::Owner owner{};
  const bool plain = sonode.plain.load(std::memory_order_acquire);
  if (!plain && !gate.enter(owner)) return owner == ipc::Owner::kFree ? wanted : 0;
  std::uint32_t now = 0;
  if (plain || owner == ipc::Owner::kKernel) {
    pollfd entry{.fd = fd, .events = static_cast<short>(wanted), .revents = 0};
    timespec none{};
    ::syscall(SYS_ppoll, &entry, 1, &none, nullptr, kSigsetBytes);
    now = static_cast<std::uint16_t>(entry.revents) & ~static_cast<std::uint32_t>(POLLNVAL);
  }
  if (!plain) gate.leave();
  return now;
}

bool needs_layer(std::span<const pollfd> fds) noexcept {
  return std::ranges::any_of(fds, [](const pollfd& entry) { return is_ours(entry.fd); });
}

bool needs_layer(int count, const fd_set* readable, const fd_set* writable, const fd_set* special) noexcept {
  for (int fd = 0; fd < count; ++fd)
    if (is_ours(fd) && (is_set(readable, fd) || is_set(writable, fd) || is_set(special, fd))) return true;
  return false;
}

Outcome poll_descriptors(std::span<pollfd> fds, std::int64_t timeout_ns, const sigset_t* mask) noexcept {
  PollCall call(fds);
  return call.run(timeout_ns, mask);
}

Outcome select_descriptors(int count, fd_set* readable, fd_set* writable, fd_set* special, std::int64_t timeout_ns,
                           const sigset_t* mask) noexcept {
  std::unique_ptr<pollfd[]> fds(new (std::nothrow) pollfd[static_cast<std::size_t>(std::max(count, 1))]);
  if (fds == nullptr) return fail(Failure::kNoMemory);
  std::size_t used = 0;
  for (int fd = 0; fd < count; ++fd) {
    short events = 0;
    if (is_set(readable, fd)) events |= POLLIN | POLLRDNORM | POLLRDBAND;
    if (is_set(writable, fd)) events |= POLLOUT | POLLWRNORM | POLLWRBAND;
    if (is_set(special, fd)) events |= POLLPRI;
    if (events != 0) fds[used++] = {.fd = fd, .events = events, .revents = 0};
  }
  const Outcome result = poll_descriptors({fds.get(), used}, timeout_ns, mask);
  if (result < 0) return result;
  for (std::size_t i = 0; i < used; ++i)
    if ((fds[i].revents & POLLNVAL) != 0) return fail(Failure::kBadDescriptor);
  clear_bits(readable, count);
  clear_bits(writable, count);
  clear_bits(special, count);
  Outcome bits = 0;
  for (std::size_t i = 0; i < used; ++i) {
    const auto [fd, events, revents] = fds[i];
    const auto report = [&](fd_set* set, short asked, unsigned meaning) noexcept {
      if (set == nullptr || (events & asked) == 0 || (static_cast<std::uint16_t>(revents) & meaning) == 0) return;
      put_bit(set, fd);
      ++bits;
    };
    report(readable, POLLIN, kReadableBits);
    report(writable, POLLOUT, kWritableBits);
    report(special, POLLPRI, kSpecialBits);
  }
  return bits;
}

}  // namespace twinstack::sockets
