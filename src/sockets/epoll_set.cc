// The registrations of an epoll set; waiting is in epoll_wait.cc.
#include "sockets/epoll_set.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <new>

#include "sockets/layer.h"
#include "sockets/poll.h"
#include "sockets/real_calls.h"

namespace twinstack::sockets {
namespace {

// Registered for a muted item: the kernel reports errors and hang-ups always, but so each of them only once.
constexpr std::uint32_t kMutedEvents = EPOLLET;

}  // namespace

void EpollItem::on_change() noexcept { set->on_item_change(*this); }

void EpollSet::open(std::uint32_t generation) noexcept {
  std::uint32_t random = 0;
  ::syscall(SYS_getrandom, &random, sizeof(random), GRND_NONBLOCK);
  // The top bit makes it a number that is neither a descriptor nor a user-space pointer.
  secret_ = (random & 0xffffff) | 0x800000;
  generation_.store(generation, std::memory_order_release);
}

void EpollSet::close() noexcept {
  const MutexLock ctl_lock(ctl_mutex_);
  for (std::uint32_t fd = 0;; ++fd) {
    EpollItem* item = nullptr;
    {
      const MutexLock lock(mutex_);
      while (fd < by_fd_size_ && by_fd_[fd] == 0) ++fd;
      if (fd >= by_fd_size_) break;
      item = item_of(static_cast<int>(fd));
    }
    drop_item(*item);
  }
  const MutexLock lock(mutex_);
  active_.store(false, std::memory_order_release);
  sessions_seen_.reset();
  g_layer.table.exchange(own_fd_.get(), {});
  own_fd_.reset();
  g_layer.table.exchange(wake_event_.get(), {});
  wake_event_.reset();
  wake_pending_.store(false, std::memory_order_relaxed);
  outside_.store(false, std::memory_order_relaxed);
  inherited_.store(false, std::memory_order_relaxed);
}

EpollItem* EpollSet::item_of(int fd) noexcept {
  const auto at = static_cast<std::uint32_t>(fd);
  if (fd < 0 || at >= by_fd_size_ || by_fd_[at] == 0) return nullptr;
  return &item_at(by_fd_[at] - 1);
}

bool EpollSet::reserve_fd(int fd) noexcept {
  const auto needed = static_cast<std::uint32_t>(fd) + 1;
  if (needed <= by_fd_size_) return true;
  const std::uint32_t size = std::max({needed, by_fd_size_ * 2, 64U});
  std::unique_ptr<std::uint32_t[]> larger(new (std::nothrow) std::uint32_t[size]());
  if (larger == nullptr) return false;
  std::copy_n(by_fd_.get(), by_fd_size_, larger.get());
  by_fd_ = std::move(larger);
  by_fd_size_ = size;
  return true;
}

EpollItem* EpollSet::make_item(int fd) noexcept {
  if (!reserve_fd(fd)) return nullptr;
  EpollItem* item = free_items_;
  if (item != nullptr) {
    free_items_ = item->next_ready;
  } else {
    const std::uint32_t block = items_made_ / kBlockItems;
    if (block >= kBlocks) return nullptr;
    if (blocks_[block] == nullptr) blocks_[block].reset(new (std::nothrow) EpollItem[kBlockItems]);
    if (blocks_[block] == nullptr) return nullptr;
    item = &blocks_[block][items_made_ % kBlockItems];
    item->index = items_made_++;
  }
  item->set = this;
  item->sonode = nullptr;
  item->fd = fd;
  ++item->generation;
  item->live = true;
  item->armed = true;
  item->muted = false;
  item->next_ready = nullptr;
  by_fd_[static_cast<std::uint32_t>(fd)] = item->index + 1;
  return item;
}

void EpollSet::free_item(EpollItem& item) noexcept {
  item.sonode = nullptr;
  item.next_ready = free_items_;
  free_items_ = &item;
}

Outcome EpollSet::register_item(const EpollItem& item, int operation, std::uint32_t events) const noexcept {
  epoll_event event{};
  event.events = events;
  event.data.u64 = cookie(item.index, item.generation);
  return outcome_of(real().epoll_ctl(own_fd_.get(), operation, item.fd, &event));
}

// A kernel event of the item was dropped: it must not come again and again, and it must come once the kernel speaks.
void EpollSet::mute(EpollItem& item) noexcept {
  if (!item.muted) {
    item.muted = true;
    static_cast<void>(register_item(item, EPOLL_CTL_MOD, kMutedEvents));
  }
  // The owner may have changed, and its notice may have come, while the item was not yet muted.
  unmute_if_due(item);
}

void EpollSet::unmute_if_due(EpollItem& item) noexcept {
  // Also after a move that was undone: an edge from before may have been answered by a read that saw only the chunks.
  const bool is_due = item.muted || item.sonode->read_in_move.load(std::memory_order_seq_cst);
  if (!is_due || !item.armed || !kernel_speaks_for(*item.sonode)) return;
  item.muted = false;
  // Registering anew makes the kernel report what is ready now, also to an edge-triggered item.
  static_cast<void>(register_item(item, EPOLL_CTL_MOD, item.events & ~static_cast<std::uint32_t>(EPOLLEXCLUSIVE)));
}

void EpollSet::push_candidate(EpollItem& item) noexcept {
  if (item.queued) return;
  item.queued = true;
  item.next_ready = nullptr;
  item.previous_ready = ready_tail_;
  (ready_tail_ != nullptr ? ready_tail_->next_ready : ready_head_) = &item;
  ready_tail_ = &item;
  ++ready_count_;
}

void EpollSet::unlink_candidate(EpollItem& item) noexcept {
  if (!item.queued) return;
  item.queued = false;
  (item.previous_ready != nullptr ? item.previous_ready->next_ready : ready_head_) = item.next_ready;
  (item.next_ready != nullptr ? item.next_ready->previous_ready : ready_tail_) = item.previous_ready;
  item.next_ready = nullptr;
  item.previous_ready = nullptr;
  --ready_count_;
}

void EpollSet::on_item_change(EpollItem& item) noexcept {
  bool wake = false;
  {
    const MutexLock lock(mutex_);
    if (!item.live) return;
    unmute_if_due(item);
    push_candidate(item);
    wake = has_sleepers() && item.armed && engine_readiness(*item.sonode, item.events) != 0;
  }
  if (wake) signal();
}

void EpollSet::signal() noexcept {
  if (wake_pending_.exchange(true, std::memory_order_acq_rel)) return;
  const int saved_errno = errno;
  const std::uint64_t one = 1;
  ::syscall(SYS_write, wake_event_.get(), &one, sizeof(one));
  errno = saved_errno;
}

// From now on waits look at candidates; the rings of `session` (nullptr: of none yet) wake them. False: no descriptors.
bool EpollSet::activate(int epfd, Session* session) noexcept {
  if (!own_fd_) {
    own_fd_.reset(move_away(static_cast<int>(::syscall(SYS_fcntl, epfd, F_DUPFD_CLOEXEC, 0))));
    wake_event_.reset(move_away(static_cast<int>(::syscall(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK))));
    if (!own_fd_ || !wake_event_) return false;
    hide(own_fd_.get());
    hide(wake_event_.get());
    // Before the first cookie is registered: a thread that sleeps passively must know what it gets.
    active_.store(true, std::memory_order_seq_cst);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = cookie(kWakeCookie, 0);
    if (real().epoll_ctl(own_fd_.get(), EPOLL_CTL_ADD, wake_event_.get(), &event) != 0) return false;
  }
  if (session != nullptr && !sessions_seen_.test(session->number())) {
    sessions_seen_.set(session->number());
    const auto add = [this](int fd, std::uint32_t events, std::uint32_t number) {
      epoll_event event{};
      event.events = events;
      event.data.u64 = cookie(number, 0);
      real().epoll_ctl(own_fd_.get(), EPOLL_CTL_ADD, fd, &event);
    };
    // Edge-triggered: every set gets an event for every signal, and nobody has to clear it.
    for (RingPort& ring : session->rings()) add(ring.event.get(), EPOLLIN | EPOLLET, kRingCookie);
    add(session->socket(), EPOLLRDHUP | EPOLLET, kServiceCookie);
    // Those who sleep have armed the rings of the sessions that there were.
    if (g_layer.sleepers.load(std::memory_order_seq_cst) != 0 && !session->arm()) session->drain();
  }
  if (passive_sleepers_.load(std::memory_order_seq_cst) != 0) signal();
  return true;
}

void EpollSet::watch_from_outside(int epfd) noexcept {
  const MutexLock ctl_lock(ctl_mutex_);
  if (outside_.load(std::memory_order_relaxed) || !activate(epfd, nullptr)) return;
  outside_.store(true, std::memory_order_seq_cst);
  if (has_candidates()) signal();
}

void EpollSet::attach(EpollItem& item, Sonode& sonode) noexcept {
  item.sonode = &sonode;
  sonode.epoll_items.fetch_add(1, std::memory_order_acq_rel);
}

void EpollSet::start_watching(EpollItem& item, Sonode& sonode) noexcept {
  sonode.add_watch(item);
  // What happened before the watch was there.
  on_item_change(item);
}

void EpollSet::drop_item(EpollItem& item) noexcept {
  Sonode* sonode = nullptr;
  {
    const MutexLock lock(mutex_);
    item.live = false;
    unlink_candidate(item);
    by_fd_[static_cast<std::uint32_t>(item.fd)] = 0;
    sonode = item.sonode;
  }
  if (sonode != nullptr && !inherited_.load(std::memory_order_relaxed)) {
    sonode->remove_watch(item);
    sonode->epoll_items.fetch_sub(1, std::memory_order_acq_rel);
  }
  const MutexLock lock(mutex_);
  free_item(item);
}

Outcome EpollSet::control(int epfd, int operation, int fd, epoll_event* event) noexcept {
  const SonodeRef sonode = g_layer.find(fd);
  epfd_hint_.store(epfd, std::memory_order_relaxed);
  const MutexLock ctl_lock(ctl_mutex_);
  if (!sonode || sonode->session->is_inherited() || (event == nullptr && operation != EPOLL_CTL_DEL))
    return control_other(epfd, operation, fd, event);
  switch (operation) {
    case EPOLL_CTL_ADD:
      return add(epfd, fd, *sonode, *event);
    case EPOLL_CTL_MOD:
      return modify(epfd, fd, *sonode, *event);
    case EPOLL_CTL_DEL:
      return erase(epfd, fd);
    default:
      return outcome_of(real().epoll_ctl(epfd, operation, fd, event));
  }
}

Outcome EpollSet::add(int epfd, int fd, Sonode& sonode, epoll_event& event) noexcept {
  if (!activate(epfd, sonode.session)) return outcome_of(real().epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event));
  EpollItem* item = nullptr;
  {
    const MutexLock lock(mutex_);
    const EpollItem* present = item_of(fd);
    if (present == nullptr) item = make_item(fd);
    if (item != nullptr) {
      item->events = event.events;
      item->data = event.data.u64;
      attach(*item, sonode);
    }
  }
  // Registered already: the kernel says so. (A remembered descriptor that was closed meanwhile is replaced.)
  if (item == nullptr) {
    const Outcome result = outcome_of(real().epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event));
    if (result < 0) return result;
    static_cast<void>(outcome_of(real().epoll_ctl(epfd, EPOLL_CTL_DEL, fd, nullptr)));
    EpollItem* stale = nullptr;
    {
      const MutexLock lock(mutex_);
      stale = item_of(fd);
    }
    if (stale == nullptr) return fail(Failure::kNoMemory);
    drop_item(*stale);
    return add(epfd, fd, sonode, event);
  }
  // EPOLLEXCLUSIVE could not be changed later; waking more than one is allowed.
  const Outcome result =
      register_item(*item, EPOLL_CTL_ADD, event.events & ~static_cast<std::uint32_t>(EPOLLEXCLUSIVE));
  if (result < 0) {
    drop_item(*item);
    return result;
  }
  start_watching(*item, sonode);
  return result;
}

Outcome EpollSet::modify(int epfd, int fd, Sonode& sonode, epoll_event& event) noexcept {
  EpollItem* item = nullptr;
  Outcome result = 0;
  {
    const MutexLock lock(mutex_);
    item = item_of(fd);
    if (item == nullptr || item->sonode != &sonode || (event.events & EPOLLEXCLUSIVE) != 0)
      return outcome_of(real().epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &event));
    item->events = event.events;
    item->data = event.data.u64;
    item->armed = true;
    if (kernel_speaks_for(sonode)) {
      item->muted = false;
      result = register_item(*item, EPOLL_CTL_MOD, event.events);
    } else {
      mute(*item);
    }
  }
  on_item_change(*item);
  return result;
}

Outcome EpollSet::erase(int epfd, int fd) noexcept {
  const Outcome result = outcome_of(real().epoll_ctl(epfd, EPOLL_CTL_DEL, fd, nullptr));
  EpollItem* item = nullptr;
  {
    const MutexLock lock(mutex_);
    item = item_of(fd);
  }
  if (item != nullptr) drop_item(*item);
  return result;
}

// A descriptor without a Sonode: the kernel's business. Remembered, because it may become a connection by connect().
Outcome EpollSet::control_other(int epfd, int operation, int fd, epoll_event* event) noexcept {
  if (EpollSet* inner = EpollSets::find(fd); inner != nullptr && operation == EPOLL_CTL_ADD && inner != this) {
    inner->watch_from_outside(fd);
    static_cast<void>(activate(epfd, nullptr));
  }
  const Outcome result = outcome_of(real().epoll_ctl(epfd, operation, fd, event));
  if (result < 0 || fd < 0) return result;
  EpollItem* stale = nullptr;
  {
    const MutexLock lock(mutex_);
    EpollItem* item = item_of(fd);
    const bool is_other_life = item != nullptr && item->sonode != nullptr;
    if (operation == EPOLL_CTL_DEL || is_other_life) stale = item;
    if (stale == nullptr) {
      if (item == nullptr) item = make_item(fd);
      if (item != nullptr) {
        item->events = event->events;
        item->data = event->data.u64;
      }
    }
  }
  if (stale != nullptr) drop_item(*stale);
  return result;
}

void EpollSet::adopt(int fd, Sonode& sonode) noexcept {
  const MutexLock ctl_lock(ctl_mutex_);
  EpollItem* item = nullptr;
  {
    const MutexLock lock(mutex_);
    item = item_of(fd);
    if (item == nullptr || item->sonode != nullptr) return;
    attach(*item, sonode);
  }
  const bool registered =
      activate(epfd_hint_.load(std::memory_order_relaxed), sonode.session) &&
      register_item(*item, EPOLL_CTL_MOD, item->events & ~static_cast<std::uint32_t>(EPOLLEXCLUSIVE)) >= 0;
  if (!registered) {
    drop_item(*item);
    return;
  }
  start_watching(*item, sonode);
}

void EpollSet::remove(const Sonode& sonode, int fd) noexcept {
  const MutexLock ctl_lock(ctl_mutex_);
  EpollItem* item = nullptr;
  {
    const MutexLock lock(mutex_);
    item = item_of(fd);
    if (item == nullptr || item->sonode != &sonode) return;
  }
  // In a forked child the kernel's set is the parent's as well, and the registration stays, as on Linux, until the last
  // copy of the descriptor is closed.
  if (!sonode.session->is_inherited()) real().epoll_ctl(own_fd_.get(), EPOLL_CTL_DEL, fd, nullptr);
  drop_item(*item);
}

void EpollSet::after_fork_in_child() noexcept {
  ctl_mutex_.reset_after_fork();
  mutex_.reset_after_fork();
  inherited_.store(true, std::memory_order_relaxed);
  sleepers_.store(0, std::memory_order_relaxed);
  passive_sleepers_.store(0, std::memory_order_relaxed);
}

bool EpollSet::has_candidates() noexcept {
  const MutexLock lock(mutex_);
  return has_candidates_locked();
}

// Drops those from the front that are not ready: what changes from here on puts them back.
bool EpollSet::has_candidates_locked() noexcept {
  while (ready_head_ != nullptr) {
    if (ready_head_->armed && engine_readiness(*ready_head_->sonode, ready_head_->events) != 0) return true;
    unlink_candidate(*ready_head_);
  }
  return false;
}

}  // namespace twinstack::sockets
