// EpollSet: one epoll set of the program. The kernel's set stays the one wait primitive: descriptors that are no moved
// connections are registered exactly as the program asks; a connection with a Sonode is registered under a cookie of
// ours, so that the kernel's word can be weighed against the owner record; the rings' WakeEvents and a wake-up eventfd
// are registered beside them. What the engine makes ready stands in a list of candidates that epoll_wait looks through.
//
// INVARIANT: an item whose connection may be ready by the engine is in the candidate list, or its watch is about to put
// it there. An item whose kernel event was dropped is muted, and is registered anew when the kernel owns it again.
//
// Lock order: ctl_mutex_ -> a ring's cq_mutex -> a Sonode's rx_mutex -> mutex_. Any thread. Objects are used again,
// never freed.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <bitset>
#include <csignal>
#include <cstdint>
#include <memory>

#include "base/unique_fd.h"
#include "sockets/errno_map.h"
#include "sockets/mutex.h"
#include "sockets/sonode.h"
#include "sockets/sonode_table.h"

namespace twinstack::sockets {

class EpollSet;

struct EpollItem final : Watch {
  void on_change() noexcept override;

  EpollSet* set = nullptr;
  Sonode* sonode = nullptr;  // nullptr: only remembered, the kernel has the program's own data
  int fd = -1;
  std::uint32_t index = 0;
  std::uint32_t generation = 0;
  std::uint32_t events = 0;  // as the program asked
  std::uint64_t data = 0;    // the program's
  bool live = false;
  bool armed = false;       // false: EPOLLONESHOT has fired
  bool muted = false;       // registered with the kernel without interest
  bool queued = false;      // in the candidate list
  std::uint32_t stamp = 0;  // of the epoll_wait that reported it last, and where
  std::uint32_t reported_at = 0;
  EpollItem* next_ready = nullptr;
  EpollItem* previous_ready = nullptr;
};

class EpollSet {
 public:
  EpollSet() noexcept = default;

  // --- epoll_set.cc ---
  void open(std::uint32_t generation) noexcept;
  [[nodiscard]] std::uint32_t generation() const noexcept { return generation_.load(std::memory_order_acquire); }
  // The program closed its last descriptor of the set.
  void close() noexcept TS_EXCLUDES(ctl_mutex_, mutex_);
  [[nodiscard]] Outcome control(int epfd, int operation, int fd, epoll_event* event) noexcept
      TS_EXCLUDES(ctl_mutex_, mutex_);
  // `fd` has become a connection with a Sonode: takes over its registration, if there is one.
  void adopt(int fd, Sonode& sonode) noexcept TS_EXCLUDES(ctl_mutex_, mutex_);
  // The program closes `fd`.
  void remove(const Sonode& sonode, int fd) noexcept TS_EXCLUDES(ctl_mutex_, mutex_);
  void after_fork_in_child() noexcept;
  // Somebody polls the set's descriptor: its readiness must show there.
  void watch_from_outside(int epfd) noexcept TS_EXCLUDES(ctl_mutex_, mutex_);

  // A watch: the item's connection changed. With the Sonode's rx_mutex held.
  void on_item_change(EpollItem& item) noexcept TS_EXCLUDES(mutex_);

  // --- epoll_wait.cc ---
  struct Limit {
    std::int64_t timeout_ns;  // < 0: none
    bool fine;                // finer than milliseconds: epoll_pwait2
    const sigset_t* mask;     // nullptr: none
  };
  [[nodiscard]] Outcome wait(int epfd, epoll_event* events, int max_events, const Limit& limit) noexcept;

 private:
  static constexpr std::uint32_t kBlockItems = 256;
  static constexpr std::uint32_t kBlocks = 4096;
  static constexpr std::uint32_t kSpecialItems = 0xfffff0;  // cookies from here on are not items
  static constexpr std::uint32_t kRingCookie = kSpecialItems;
  static constexpr std::uint32_t kWakeCookie = kSpecialItems + 1;
  static constexpr std::uint32_t kServiceCookie = kSpecialItems + 2;

  // Cookies: 24 bits of secret, 16 of generation, 24 of index.
  [[nodiscard]] std::uint64_t cookie(std::uint32_t index, std::uint32_t generation) const noexcept {
    return secret_ << 40 | std::uint64_t{generation & 0xffff} << 24 | index;
  }
  [[nodiscard]] bool is_cookie(std::uint64_t data) const noexcept { return data >> 40 == secret_; }

  [[nodiscard]] EpollItem* item_of(int fd) noexcept TS_REQUIRES(mutex_);
  [[nodiscard]] EpollItem* make_item(int fd) noexcept TS_REQUIRES(mutex_);
  void free_item(EpollItem& item) noexcept TS_REQUIRES(mutex_);
  [[nodiscard]] EpollItem& item_at(std::uint32_t index) noexcept TS_REQUIRES(mutex_) {
    return blocks_[index / kBlockItems][index % kBlockItems];
  }
  [[nodiscard]] bool reserve_fd(int fd) noexcept TS_REQUIRES(mutex_);

  [[nodiscard]] Outcome add(int epfd, int fd, Sonode& sonode, epoll_event& event) noexcept TS_REQUIRES(ctl_mutex_);
  [[nodiscard]] Outcome modify(int epfd, int fd, Sonode& sonode, epoll_event& event) noexcept TS_REQUIRES(ctl_mutex_);
  [[nodiscard]] Outcome erase(int epfd, int fd) noexcept TS_REQUIRES(ctl_mutex_);
  [[nodiscard]] Outcome control_other(int epfd, int operation, int fd, epoll_event* event) noexcept
      TS_REQUIRES(ctl_mutex_);
  void drop_item(EpollItem& item) noexcept TS_REQUIRES(ctl_mutex_);
  static void attach(EpollItem& item, Sonode& sonode) noexcept;
  void start_watching(EpollItem& item, Sonode& sonode) noexcept TS_REQUIRES(ctl_mutex_);
  [[nodiscard]] bool activate(int epfd, Session* session) noexcept TS_REQUIRES(ctl_mutex_);

  [[nodiscard]] Outcome register_item(const EpollItem& item, int operation, std::uint32_t events) const noexcept;
  void mute(EpollItem& item) noexcept TS_REQUIRES(mutex_);
  void unmute_if_due(EpollItem& item) noexcept TS_REQUIRES(mutex_);
  void push_candidate(EpollItem& item) noexcept TS_REQUIRES(mutex_);
  void unlink_candidate(EpollItem& item) noexcept TS_REQUIRES(mutex_);
  void signal() noexcept;

  struct Report {
    std::uint32_t stamp = 0;
    int count = 0;
  };
  [[nodiscard]] Outcome wait_passively(int epfd, epoll_event* events, int max_events, const Limit& limit) noexcept;
  [[nodiscard]] Outcome wait_actively(int epfd, epoll_event* events, int max_events, const Limit& limit) noexcept;
  [[nodiscard]] int finish_round(epoll_event* events, int from_kernel, int max_events) noexcept TS_EXCLUDES(mutex_);
  void serve_internal(const epoll_event* events, int from_kernel) noexcept TS_EXCLUDES(mutex_);
  void translate(epoll_event* events, int from_kernel, Report& report) noexcept TS_REQUIRES(mutex_);
  void translate_item(EpollItem& item, epoll_event* events, std::uint32_t bits, Report& report) noexcept
      TS_REQUIRES(mutex_);
  void collect(epoll_event* events, int max_events, Report& report) noexcept TS_REQUIRES(mutex_);
  void put(EpollItem& item, epoll_event* events, std::uint32_t bits, Report& report) noexcept TS_REQUIRES(mutex_);
  void clear_signal() noexcept;
  void bring_home_inherited() noexcept;
  [[nodiscard]] bool has_candidates() noexcept TS_EXCLUDES(mutex_);
  [[nodiscard]] bool has_candidates_locked() noexcept TS_REQUIRES(mutex_);
  // Whoever asks under mutex_ after a change of the list, and whoever looks at the list after he was counted, cannot
  // miss each other.
  [[nodiscard]] bool has_sleepers() const noexcept TS_REQUIRES(mutex_) {
    return sleepers_.load(std::memory_order_seq_cst) != 0 || outside_.load(std::memory_order_seq_cst);
  }
  [[nodiscard]] int share_for_kernel(int max_events) noexcept TS_EXCLUDES(mutex_);

  std::atomic<std::uint32_t> generation_ = 0;
  std::uint64_t secret_ = 0;

  Mutex ctl_mutex_;
  std::bitset<kMaxSessions> sessions_seen_ TS_GUARDED_BY(ctl_mutex_);  // those whose rings are registered

  // True once rings and the wake-up eventfd are registered: from then on waits look at candidates.
  std::atomic<bool> active_ = false;
  std::atomic<int> epfd_hint_ = -1;  // the program's number of it, as last seen
  UniqueFd own_fd_;      // the layer's own descriptor of the set: the program may close the number that it gave us
  UniqueFd wake_event_;  // level-triggered in the set
  std::atomic<bool> wake_pending_ = false;
  std::atomic<std::uint32_t> sleepers_ = 0;          // threads asleep in an active wait
  std::atomic<std::uint32_t> passive_sleepers_ = 0;  // threads that went to sleep before the set was active
  std::atomic<bool> outside_ = false;                // the set's descriptor is polled, or in another set
  std::atomic<bool> inherited_ = false;              // this process is a forked child, the set was the parent's

  Mutex mutex_;
  std::array<std::unique_ptr<EpollItem[]>, kBlocks> blocks_ TS_GUARDED_BY(mutex_);
  std::uint32_t items_made_ TS_GUARDED_BY(mutex_) = 0;
  EpollItem* free_items_ TS_GUARDED_BY(mutex_) = nullptr;         // linked by next_ready
  std::unique_ptr<std::uint32_t[]> by_fd_ TS_GUARDED_BY(mutex_);  // descriptor -> item index + 1
  std::uint32_t by_fd_size_ TS_GUARDED_BY(mutex_) = 0;
  EpollItem* ready_head_ TS_GUARDED_BY(mutex_) = nullptr;
  EpollItem* ready_tail_ TS_GUARDED_BY(mutex_) = nullptr;
  std::uint32_t ready_count_ TS_GUARDED_BY(mutex_) = 0;
  std::uint32_t last_stamp_ TS_GUARDED_BY(mutex_) = 0;
  bool engine_first_ TS_GUARDED_BY(mutex_) = false;  // with room for one event only, take turns
};

// All sets of the process, by the number that stands in the SonodeTable.
class EpollSets {
 public:
  static void on_created(int epfd) noexcept;
  // nullptr: not a set that we know.
  [[nodiscard]] static EpollSet* find(int epfd) noexcept;
  static void add_reference(std::uint32_t number) noexcept;
  static void close(std::uint32_t number) noexcept;
  // After connect(): `fd` may stand in sets already.
  static void adopt(int fd) noexcept;
  static void remove(Sonode& sonode, int fd) noexcept;
  static void after_fork_in_child() noexcept;
};

}  // namespace twinstack::sockets
