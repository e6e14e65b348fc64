// The registry of epoll sets: numbers, references by descriptors, reuse.
#include <array>
#include <atomic>
#include <new>

#include "sockets/epoll_set.h"
#include "sockets/layer.h"

namespace twinstack::sockets {
namespace {

constexpr std::uint32_t kMaxSets = 65536;

struct Place {
  std::atomic<EpollSet*> set{nullptr};
  std::atomic<std::uint32_t> references = 0;  // descriptors of the program; 0: free
};

// 1 MB of zeros that are not touched until they are used.
constinit std::array<Place, kMaxSets> g_places{};
constinit std::atomic<std::uint32_t> g_used{0};  // places that ever held a set
constinit Mutex g_mutex;                         // taking and freeing places

template <typename Fn>
void for_each_set(Fn&& fn) noexcept {
  const std::uint32_t used = g_used.load(std::memory_order_acquire);
  for (std::uint32_t i = 0; i < used; ++i)
    if (g_places[i].references.load(std::memory_order_acquire) != 0) fn(*g_places[i].set.load());
}

}  // namespace

void EpollSets::on_created(int epfd) noexcept {
  if (!g_layer.enabled.load(std::memory_order_relaxed) || !g_layer.is_own_process()) return;
  const MutexLock lock(g_mutex);
  std::uint32_t number = 0;
  while (number < kMaxSets && g_places[number].references.load(std::memory_order_relaxed) != 0) ++number;
  if (number == kMaxSets) return;
  EpollSet* set = g_places[number].set.load(std::memory_order_relaxed);
  if (set == nullptr) {
    set = new (std::nothrow) EpollSet;
    if (set == nullptr) return;
    g_places[number].set.store(set, std::memory_order_release);
  }
  set->open(set->generation() + 1);
  g_places[number].references.store(1, std::memory_order_release);
  if (number >= g_used.load(std::memory_order_relaxed)) g_used.store(number + 1, std::memory_order_release);
  g_layer.table.exchange(epfd, {.kind = FdKind::kEpoll, .session = 0, .slot = number, .tag = set->generation()});
}

EpollSet* EpollSets::find(int epfd) noexcept {
  const FdEntry entry = g_layer.table.get(epfd);
  if (entry.kind != FdKind::kEpoll) return nullptr;
  EpollSet* set = g_places[entry.slot].set.load(std::memory_order_acquire);
  return set->generation() == entry.tag ? set : nullptr;
}

void EpollSets::add_reference(std::uint32_t number) noexcept {
  g_places[number].references.fetch_add(1, std::memory_order_acq_rel);
}

void EpollSets::close(std::uint32_t number) noexcept {
  const MutexLock lock(g_mutex);
  if (g_places[number].references.load(std::memory_order_relaxed) == 1) g_places[number].set.load()->close();
  g_places[number].references.fetch_sub(1, std::memory_order_acq_rel);
}

void EpollSets::adopt(int fd) noexcept {
  const SonodeRef sonode = g_layer.find(fd);
  if (!sonode) return;
  for_each_set([&](EpollSet& set) { set.adopt(fd, *sonode); });
}

void EpollSets::remove(Sonode& sonode, int fd) noexcept {
  if (sonode.epoll_items.load(std::memory_order_acquire) == 0) return;
  for_each_set([&](EpollSet& set) { set.remove(sonode, fd); });
}

void EpollSets::after_fork_in_child() noexcept {
  g_mutex.reset_after_fork();
  for_each_set([](EpollSet& set) { set.after_fork_in_child(); });
}

}  // namespace twinstack::sockets
