#include "sockets/wait.h"

#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <new>

#include "ipc/wake_event.h"
#include "sockets/layer.h"

namespace twinstack::sockets {

constinit WaitRoom g_wait_room;

namespace {

constexpr std::size_t kInlineFds = 96;
constexpr int kLastSignal = 64;

// The kernel's own form of struct sigaction; libc's sigaction() may be somebody's wrapper.
struct KernelSigaction {
  void* handler;
  unsigned long flags;
  void* restorer;
  std::uint64_t mask;
};

void clear_event(int fd) noexcept {
  std::uint64_t count = 0;
  ::syscall(SYS_read, fd, &count, sizeof(count));
}

// The descriptors that a leader sleeps on beside its own: every ring's WakeEvent, and the unix socket for the service's
// end.
std::size_t count_service_fds() noexcept {
  std::size_t count = 0;
  g_layer.for_each_session([&count](Session& session) {
    if (session.state() == SessionState::kLive) count += session.rings().size() + 1;
  });
  return count;
}

std::size_t add_service_fds(std::span<pollfd> to) noexcept {
  std::size_t count = 0;
  const auto add = [&](int fd, short events) {
    if (count < to.size()) to[count++] = {.fd = fd, .events = events, .revents = 0};
  };
  g_layer.for_each_session([&add](Session& session) {
    if (session.state() != SessionState::kLive) return;
    for (const RingPort& ring : session.rings()) add(ring.event.get(), POLLIN);
    add(session.socket(), POLLRDHUP);
  });
  return count;
}

}  // namespace

void Waiter::signal() noexcept {
  if (signaled.exchange(true, std::memory_order_acq_rel)) return;
  const int saved_errno = errno;
  const std::uint64_t one = 1;
  ::syscall(SYS_write, event.get(), &one, sizeof(one));
  errno = saved_errno;
}

Waiter* WaitRoom::enter() noexcept {
  const MutexLock lock(mutex_);
  Waiter* waiter = pool_;
  if (waiter != nullptr) {
    pool_ = waiter->next;
  } else {
    waiter = new (std::nothrow) Waiter;
    if (waiter == nullptr) return nullptr;
    waiter->event.reset(move_away(static_cast<int>(::syscall(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK))));
    if (!waiter->event) {
      delete waiter;
      return nullptr;
    }
    hide(waiter->event.get());
  }
  waiter->previous = nullptr;
  waiter->next = inside_;
  if (inside_ != nullptr) inside_->previous = waiter;
  inside_ = waiter;
  return waiter;
}

void WaitRoom::leave(Waiter* waiter) noexcept {
  const MutexLock lock(mutex_);
  if (waiter->previous != nullptr)
    waiter->previous->next = waiter->next;
  else
    inside_ = waiter->next;
  if (waiter->next != nullptr) waiter->next->previous = waiter->previous;
  if (leader_ == waiter) {
    leader_ = inside_;
    if (leader_ != nullptr) leader_->signal();
  }
  waiter->signaled.store(false, std::memory_order_release);
  waiter->next = pool_;
  pool_ = waiter;
}

bool WaitRoom::lead(Waiter* waiter) noexcept {
  const MutexLock lock(mutex_);
  if (leader_ == nullptr) leader_ = waiter;
  return leader_ == waiter;
}

void WaitRoom::on_new_session() noexcept {
  const MutexLock lock(mutex_);
  if (leader_ != nullptr) leader_->signal();
}

void WaitRoom::reset_after_fork() noexcept {
  mutex_.reset_after_fork();
  const MutexLock lock(mutex_);
  // The waiters belong to threads that do not exist here, and their eventfds are shared with the parent.
  inside_ = nullptr;
  leader_ = nullptr;
  pool_ = nullptr;
}

Wait::Wait(std::int64_t timeout_ns, std::size_t capacity) noexcept
    : waiter_(g_wait_room.enter()), deadline_ns_(timeout_ns < 0 ? INT64_MAX : monotonic_ns() + timeout_ns) {
  if (timeout_ns > INT64_MAX - monotonic_ns()) deadline_ns_ = INT64_MAX;
  entries_ = capacity <= kInlineEntries ? inline_entries_.data() : new (std::nothrow) Entry[capacity];
}

Wait::~Wait() {
  for (std::size_t i = 0; i < count_; ++i) entries_[i].sonode->remove_watch(entries_[i]);
  if (entries_ != inline_entries_.data()) delete[] entries_;
  if (waiter_ != nullptr) g_wait_room.leave(waiter_);
}

void Wait::watch(Sonode& sonode) noexcept {
  Entry& entry = entries_[count_++];
  entry.waiter = waiter_;
  entry.sonode = &sonode;
  sonode.add_watch(entry);
}

bool Wait::is_over() const noexcept { return deadline_ns_ != INT64_MAX && monotonic_ns() >= deadline_ns_; }

Woken Wait::sleep(std::span<pollfd> fds, const sigset_t* mask) noexcept {
  const bool leads = g_wait_room.lead(waiter_);
  std::array<pollfd, kInlineFds> small;
  std::unique_ptr<pollfd[]> large;
  std::span<pollfd> all = small;
  const std::size_t needed = fds.size() + 1 + (leads ? count_service_fds() : 0);
  if (needed > small.size()) {
    large.reset(new (std::nothrow) pollfd[needed]);
    if (large == nullptr) return Woken::kFailed;
    all = {large.get(), needed};
  }
  std::copy(fds.begin(), fds.end(), all.begin());
  all[fds.size()] = {.fd = waiter_->event.get(), .events = POLLIN, .revents = 0};
  const std::size_t own = fds.size() + 1;
  std::size_t count = own;
  if (leads) {
    g_layer.drain();
    if (!g_layer.begin_sleep()) return Woken::kLookAgain;
    count += add_service_fds(all.subspan(own));
  }
  const Woken woken = sleep_among(all, count, mask);
  if (leads) {
    g_layer.end_sleep();
    drain_signaled(all.subspan(own, count - own));
  }
  // The event first: a signal in between leaves at worst one wake-up too many. The exchange: whoever signaled before it
  // has changed what the caller looks at next.
  if (all[fds.size()].revents != 0) clear_event(waiter_->event.get());
  waiter_->signaled.exchange(false, std::memory_order_acq_rel);
  for (std::size_t i = 0; i < fds.size(); ++i) fds[i].revents = all[i].revents;
  return woken;
}

Woken Wait::sleep_among(std::span<pollfd> all, std::size_t count, const sigset_t* mask) const noexcept {
  timespec limit{};
  const bool limited = deadline_ns_ != INT64_MAX;
  if (limited) {
    const std::int64_t left = std::max<std::int64_t>(deadline_ns_ - monotonic_ns(), 0);
    limit = {.tv_sec = left / 1'000'000'000, .tv_nsec = left % 1'000'000'000};
  }
  const long ready = ::syscall(SYS_ppoll, all.data(), count, limited ? &limit : nullptr, mask, sizeof(std::uint64_t));
  if (ready > 0) return Woken::kLookAgain;
  for (std::size_t i = 0; i < count; ++i) all[i].revents = 0;
  if (ready == 0) return Woken::kTimeout;
  return errno == EINTR ? Woken::kInterrupted : Woken::kFailed;
}

void Wait::drain_signaled(std::span<const pollfd> service) const noexcept {
  bool hung_up = false;
  for (const pollfd& entry : service) {
    if ((entry.revents & POLLIN) != 0) ipc::WakeEvent::clear(entry.fd);
    hung_up = hung_up || (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
  }
  g_layer.drain();
  if (hung_up) g_layer.for_each_session([](Session& session) { session.check_alive(); });
}

bool handlers_restart() noexcept {
  for (int signal = 1; signal <= kLastSignal; ++signal) {
    if (signal == 32 || signal == 33) continue;  // glibc's own: cancellation, setuid of all threads
    // Handlers of crashes do not return to a waiting call.
    if (signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL || signal == SIGABRT ||
        signal == SIGTRAP || signal == SIGSYS)
      continue;
    KernelSigaction action{};
    if (::syscall(SYS_rt_sigaction, signal, nullptr, &action, sizeof(std::uint64_t)) != 0) continue;
    const bool is_handled = action.handler != nullptr && action.handler != reinterpret_cast<void*>(SIG_IGN);
    if (is_handled && (action.flags & SA_RESTART) == 0) return false;
  }
  return true;
}

}  // namespace twinstack::sockets
