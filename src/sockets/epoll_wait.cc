// Waiting on an epoll set: the kernel's events, weighed against the owner records, and the candidates of the engine.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

#include "sockets/epoll_set.h"
#include "sockets/layer.h"
#include "sockets/poll.h"

namespace twinstack::sockets {
namespace {

constexpr std::size_t kSigsetBytes = 8;

// The system call itself: libc's function is a cancellation point, and must not unwind through the layer.
Outcome raw_wait(int epfd, epoll_event* events, int max_events, std::int64_t timeout_ns, const EpollSet::Limit& limit) {
  if (limit.fine && timeout_ns >= 0) {
    timespec time{.tv_sec = timeout_ns / 1'000'000'000, .tv_nsec = timeout_ns % 1'000'000'000};
    return outcome_of(::syscall(SYS_epoll_pwait2, epfd, events, max_events, &time, limit.mask, kSigsetBytes));
  }
  const std::int64_t rounded_up = timeout_ns < 0 ? -1 : (timeout_ns + 999'999) / 1'000'000;
  const int timeout_ms = static_cast<int>(std::min<std::int64_t>(rounded_up, INT_MAX));
  return outcome_of(::syscall(SYS_epoll_pwait, epfd, events, max_events, timeout_ms, limit.mask, kSigsetBytes));
}

}  // namespace

Outcome EpollSet::wait(int epfd, epoll_event* events, int max_events, const Limit& limit) noexcept {
  epfd_hint_.store(epfd, std::memory_order_relaxed);
  if (inherited_.load(std::memory_order_relaxed)) [[unlikely]]
    bring_home_inherited();
  // What Linux refuses, it refuses itself.
  if (max_events <= 0 || events == nullptr) return raw_wait(epfd, events, max_events, 0, limit);
  if (active_.load(std::memory_order_seq_cst)) return wait_actively(epfd, events, max_events, limit);
  return wait_passively(epfd, events, max_events, limit);
}

// No connection of ours is in the set. One may come while we sleep.
Outcome EpollSet::wait_passively(int epfd, epoll_event* events, int max_events, const Limit& limit) noexcept {
  const std::int64_t deadline = limit.timeout_ns < 0 ? INT64_MAX : monotonic_ns() + limit.timeout_ns;
  passive_sleepers_.fetch_add(1, std::memory_order_seq_cst);
  const bool stays = !active_.load(std::memory_order_seq_cst);
  const Outcome ready = stays ? raw_wait(epfd, events, max_events, limit.timeout_ns, limit) : 0;
  passive_sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  if (!active_.load(std::memory_order_seq_cst)) return ready;
  if (ready > 0) {
    const int count = finish_round(events, static_cast<int>(ready), max_events);
    if (count > 0) return count;
  }
  if (ready < 0) return ready;
  Limit rest = limit;
  if (deadline != INT64_MAX) rest.timeout_ns = std::max<std::int64_t>(deadline - monotonic_ns(), 0);
  return wait_actively(epfd, events, max_events, rest);
}

Outcome EpollSet::wait_actively(int epfd, epoll_event* events, int max_events, const Limit& limit) noexcept {
  // Read the clock only when somebody has to wait.
  std::int64_t deadline = limit.timeout_ns < 0 ? INT64_MAX : 0;
  for (;;) {
    g_layer.drain();
    // Without sleeping: the kernel's part and the engine's, when there is any of the latter or no time.
    if (limit.timeout_ns == 0 || has_candidates()) {
      const int share = share_for_kernel(max_events);
      const Outcome ready = share > 0 ? raw_wait(epfd, events, share, 0, limit) : 0;
      if (ready < 0) return ready;
      const int count = finish_round(events, static_cast<int>(ready), max_events);
      if (count > 0 || (limit.timeout_ns == 0 && share > 0)) return count;
      if (share == 0) continue;
    }
    std::int64_t left = -1;
    if (limit.timeout_ns >= 0) {
      const std::int64_t now = monotonic_ns();
      if (deadline == 0) deadline = now + limit.timeout_ns;
      left = std::max<std::int64_t>(deadline - now, 0);
    }
    // From here on, whatever becomes ready wakes us; what became ready before is seen by has_candidates().
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    const bool idle = g_layer.begin_sleep();
    if (!idle || has_candidates()) {
      if (idle) g_layer.end_sleep();
      sleepers_.fetch_sub(1, std::memory_order_seq_cst);
      continue;
    }
    const Outcome ready = raw_wait(epfd, events, max_events, left, limit);
    g_layer.end_sleep();
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    if (ready < 0) return ready;
    const int count = finish_round(events, static_cast<int>(ready), max_events);
    if (count > 0 || (ready == 0 && deadline != INT64_MAX && monotonic_ns() >= deadline)) return count;
  }
}

// Half of a crowded array at most, so that a busy engine cannot hide the kernel's events, nor they the engine's. With
// room for one event only, they take turns.
int EpollSet::share_for_kernel(int max_events) noexcept {
  const MutexLock lock(mutex_);
  if (ready_count_ == 0) return max_events;
  if (max_events == 1) {
    engine_first_ = !engine_first_;
    return engine_first_ ? 0 : 1;
  }
  return max_events - std::min(static_cast<int>(std::min<std::uint32_t>(ready_count_, INT_MAX)), max_events / 2);
}

// `events` holds what the kernel reported: keeps what is the program's, adds what the engine has.
int EpollSet::finish_round(epoll_event* events, int from_kernel, int max_events) noexcept {
  serve_internal(events, from_kernel);
  Report report;
  bool more = false;
  {
    const MutexLock lock(mutex_);
    report.stamp = ++last_stamp_;
    translate(events, from_kernel, report);
    collect(events, max_events, report);
    // As the kernel does: what found no room, and what is level-triggered, is for those who sleep on.
    more = has_sleepers() && has_candidates_locked();
  }
  if (more) signal();
  return report.count;
}

// What the kernel reported of the layer's own descriptors. Before collect(), which then sees what they stood for.
void EpollSet::serve_internal(const epoll_event* events, int from_kernel) noexcept {
  bool ring = false;
  bool wake = false;
  bool service_end = false;
  for (int i = 0; i < from_kernel; ++i) {
    const std::uint64_t data = events[i].data.u64;
    if (!is_cookie(data)) continue;
    const auto index = static_cast<std::uint32_t>(data & 0xffffff);
    ring = ring || index == kRingCookie;
    wake = wake || index == kWakeCookie;
    service_end = service_end || index == kServiceCookie;
  }
  // The edge was ours alone: what it announced must be a candidate before this thread goes back to the program.
  if (ring) g_layer.drain();
  // Who finds the signal still up has its candidate in the list by now.
  if (wake) clear_signal();
  if (service_end) g_layer.for_each_session([](Session& session) { session.check_alive(); });
}

void EpollSet::translate(epoll_event* events, int from_kernel, Report& report) noexcept {
  for (int i = 0; i < from_kernel; ++i) {
    const std::uint64_t data = events[i].data.u64;
    if (!is_cookie(data)) {
      events[report.count++] = events[i];
      continue;
    }
    const auto index = static_cast<std::uint32_t>(data & 0xffffff);
    if (index >= items_made_) continue;  // the layer's own, too
    EpollItem& item = item_at(index);
    const bool is_current = item.live && item.sonode != nullptr && (item.generation & 0xffff) == (data >> 24 & 0xffff);
    if (is_current) translate_item(item, events, events[i].events, report);
  }
}

void EpollSet::translate_item(EpollItem& item, epoll_event* events, std::uint32_t bits, Report& report) noexcept {
  if (!item.armed) return;
  const Sonode& sonode = *item.sonode;
  if (kernel_speaks_for(sonode) && !item.muted) {
    // In the gap of a move a socket shows an error and a hang-up that are not the connection's: ask again.
    if ((bits & (EPOLLERR | EPOLLHUP)) != 0) bits = kernel_readiness(sonode, item.fd, bits);
    if (bits != 0) {
      put(item, events, bits, report);
      return;
    }
  }
  mute(item);
}

void EpollSet::put(EpollItem& item, epoll_event* events, std::uint32_t bits, Report& report) noexcept {
  // One event per registration and call: programs free things in the first that the second would use.
  if (item.stamp == report.stamp) {
    events[item.reported_at].events |= bits;
    return;
  }
  item.stamp = report.stamp;
  item.reported_at = static_cast<std::uint32_t>(report.count);
  events[report.count].events = bits;
  events[report.count].data.u64 = item.data;
  ++report.count;
  if ((item.events & EPOLLONESHOT) != 0) item.armed = false;
}

void EpollSet::collect(epoll_event* events, int max_events, Report& report) noexcept {
  for (std::uint32_t left = ready_count_; left > 0; --left) {
    EpollItem& item = *ready_head_;
    const bool was_reported = item.stamp == report.stamp;
    if (report.count == max_events && !was_reported) break;
    unlink_candidate(item);
    if (!item.armed && !was_reported) continue;
    const std::uint32_t bits = engine_readiness(*item.sonode, item.events);
    if (bits == 0) continue;
    put(item, events, bits, report);
    // As the kernel does: a level-triggered item is looked at again, after the others.
    if ((item.events & (EPOLLET | EPOLLONESHOT)) == 0) push_candidate(item);
  }
}

void EpollSet::clear_signal() noexcept {
  // Threads that fell asleep before the set was active are woken by the same event, one after the other.
  if (passive_sleepers_.load(std::memory_order_seq_cst) != 0) return;
  std::uint64_t count = 0;
  ::syscall(SYS_read, wake_event_.get(), &count, sizeof(count));
  wake_pending_.exchange(false, std::memory_order_acq_rel);
}

// In a forked child, once: the parent's connections in this set go to the kernel, whose events are then the truth.
void EpollSet::bring_home_inherited() noexcept {
  if (!inherited_.exchange(false, std::memory_order_acq_rel)) return;
  for (std::uint32_t fd = 0; fd < SonodeTable::kMaxFds; ++fd) {
    {
      const MutexLock lock(mutex_);
      if (fd >= by_fd_size_) return;
      if (by_fd_[fd] == 0) continue;
    }
    static_cast<void>(g_layer.find(static_cast<int>(fd)));
  }
}

}  // namespace twinstack::sockets
