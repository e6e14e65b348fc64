// Sonode: what the socket layer knows of one connection (SONODE of the founding document): its own identifier (slot and
// tag), the hardware connection id and the reference to the kernel's state (both read from the slot, where the driver
// writes them), the bytes that wait in chunks, and who waits for it. One per connection and process, however many
// descriptors refer to it; it lies in the array of its session and is never freed, only used again.
//
// Threads: any. Lock order: ring cq_mutex -> rx_mutex -> epoll set / waiter; tx_mutex -> ring sq_mutex. None is held
// across a system call that sleeps.
#pragma once

#include <atomic>
#include <cstdint>

#include "ipc/layout.h"
#include "ipc/owner_gate.h"
#include "sockets/chunks.h"
#include "sockets/mutex.h"

namespace twinstack::sockets {

class Session;
struct Sonode;

// Someone who waits for a connection: an item of an epoll set, or a thread in poll() or in a blocking call. In a list
// of the Sonode, under its rx_mutex.
class Watch {
 public:
  virtual ~Watch() = default;
  // The connection may have become ready, or its owner changed. With rx_mutex held; must not sleep.
  virtual void on_change() noexcept = 0;

  Watch* next_watch = nullptr;
  Watch* previous_watch = nullptr;
};

enum class SonodeState : std::uint8_t {
  kFree = 0,
  kConnecting = 1,  // connect() is under way: the service does not know it yet
  kKnown = 2,       // registered with the service
  kClosing = 3,     // the program closed its last descriptor; calls may still be inside
};

enum class Toggle : std::uint8_t { kUnknown, kNo, kYes };

struct alignas(64) Sonode {
  // Set when the slot is taken, constant over one life.
  Session* session = nullptr;
  ipc::ConnSlot* slot = nullptr;
  std::uint32_t slot_index = 0;
  std::atomic<std::uint32_t> tag = 0;

  std::atomic<std::uint32_t> refs = 0;     // calls inside, and one for the descriptors
  std::atomic<std::uint32_t> fd_refs = 0;  // descriptors of this process
  std::atomic<SonodeState> state = SonodeState::kFree;
  std::atomic<bool> aborted = false;  // the service died with it
  // The service refused or gave up the connection, or another process has it as well: it stays in the kernel.
  std::atomic<bool> plain = false;
  std::atomic<bool> lesson_missed = false;  // in a forked child: nobody takes ConnSlot::lesson_due back

  // An error that the kernel gave out behind bytes of the same call: errno for the next call, 0 when there is none.
  std::atomic<int> pending_error = 0;

  std::atomic<std::uint32_t> epoll_items = 0;  // in epoll sets of this process

  // What the kernel knows, remembered until the program changes it.
  std::atomic<Toggle> nonblocking = Toggle::kUnknown;
  static constexpr std::int64_t kTimeoutUnknown = -1;
  std::atomic<std::int64_t> receive_timeout_ns = kTimeoutUnknown;  // 0: none
  std::atomic<std::int64_t> send_timeout_ns = kTimeoutUnknown;

  alignas(64) Mutex rx_mutex;
  std::uint32_t rx_head TS_GUARDED_BY(rx_mutex) = kNoChunk;
  std::uint32_t rx_tail TS_GUARDED_BY(rx_mutex) = kNoChunk;
  Watch* watches TS_GUARDED_BY(rx_mutex) = nullptr;
  std::atomic<std::uint64_t> rx_queued_bytes = 0;  // in the queue; written under rx_mutex
  std::atomic<bool> read_in_move = false;          // a read got less than it asked for while a move was under way
  std::atomic<bool> inherited_ready = false;       // in the child of a fork: take_inherited() is done
  // In the child of a fork: bytes that the engine had received before, copied out of the shared chunks.
  std::byte* inherited_bytes TS_GUARDED_BY(rx_mutex) = nullptr;
  std::uint64_t inherited_offset TS_GUARDED_BY(rx_mutex) = 0;

  alignas(64) Mutex tx_mutex;
  std::uint32_t tx_head TS_GUARDED_BY(tx_mutex) = kNoChunk;    // oldest chunk with unacknowledged bytes
  std::uint32_t tx_tail TS_GUARDED_BY(tx_mutex) = kNoChunk;    // the one that is being filled
  std::uint32_t tx_tail_fill TS_GUARDED_BY(tx_mutex) = 0;      // bytes of it in use
  std::uint64_t tx_settled_bytes TS_GUARDED_BY(tx_mutex) = 0;  // of tx_acked_bytes: taken off the nodes
  std::atomic<bool> tx_starved = false;                        // found no chunk; wake it when one is free again

  [[nodiscard]] ipc::OwnerGate gate() const noexcept { return ipc::OwnerGate(*slot); }
  [[nodiscard]] ipc::Owner owner() const noexcept { return gate().owner(); }
  [[nodiscard]] std::uint64_t hw_conn_id() const noexcept { return slot->hw_conn_id.load(std::memory_order_acquire); }
  [[nodiscard]] std::uint64_t kernel_cookie() const noexcept {
    return slot->kernel_cookie.load(std::memory_order_acquire);
  }
  [[nodiscard]] bool is_closing() const noexcept {
    return state.load(std::memory_order_acquire) == SonodeState::kClosing;
  }

  // Tells everybody who waits. REQUIRES: any thread.
  void notify() noexcept TS_EXCLUDES(rx_mutex) {
    const MutexLock lock(rx_mutex);
    notify_locked();
  }
  void notify_locked() noexcept TS_REQUIRES(rx_mutex);
  void add_watch(Watch& watch) noexcept TS_EXCLUDES(rx_mutex);
  void remove_watch(Watch& watch) noexcept TS_EXCLUDES(rx_mutex);
};

struct RingPort;
// The rings that serve it while the engine owns it.
[[nodiscard]] RingPort& ring_of(Sonode& sonode) noexcept;

// Whether the engine would take more: at least half of the send buffer is free, as the engine tells when asked
// (ConnSlot::want_tx_space), half of the submission ring is, and there is a chunk to put it in. Asks for the wake-up
// when it says no.
// REQUIRES: the engine owns the connection (else the answer means nothing).
[[nodiscard]] bool has_engine_room(Sonode& sonode) noexcept;

// Those of the poll() bits `interest` (and POLLERR, POLLHUP) that hold by what lies in chunks and by the engine,
// whoever owns it. What the kernel says of a connection that it owns comes on top. Takes no lock.
[[nodiscard]] std::uint32_t engine_readiness(Sonode& sonode, std::uint32_t interest) noexcept;

// A reference that a call holds; the Sonode is not used again while it lives.
class SonodeRef {
 public:
  SonodeRef() noexcept = default;
  explicit SonodeRef(Sonode* counted) noexcept : sonode_(counted) {}
  SonodeRef(SonodeRef&& other) noexcept : sonode_(other.sonode_) { other.sonode_ = nullptr; }
  SonodeRef& operator=(SonodeRef&&) = delete;
  SonodeRef(const SonodeRef&) = delete;
  ~SonodeRef();

  // The caller drops the reference by Session::unref().
  [[nodiscard]] Sonode* release() noexcept {
    Sonode* sonode = sonode_;
    sonode_ = nullptr;
    return sonode;
  }
  [[nodiscard]] explicit operator bool() const noexcept { return sonode_ != nullptr; }
  [[nodiscard]] Sonode& operator*() const noexcept { return *sonode_; }
  [[nodiscard]] Sonode* operator->() const noexcept { return sonode_; }

 private:
  Sonode* sonode_ = nullptr;
};

// A socket that has just come back counts a byte too few as acknowledged, and what waits with MSG_MORE would not wait,
// until the kernel has been taught what a return loses (ConnSlot::lesson_due): waits for that, some tens of
// microseconds; not for one of the engine's. REQUIRES: no lock.
void wait_for_lesson(Sonode& sonode) noexcept;

// Who carries out a data call, from enter to the end of the scope.
enum class Access : std::uint8_t {
  kKernel,   // the kernel's socket, and no move can start now
  kEngine,   // the rings, and no move can start now
  kPlain,    // the kernel's socket, which is not moved any more
  kAborted,  // nobody: the service died with it
  kClosed,   // the program closed it meanwhile
};

class GateScope {
 public:
  // Waits (in short bounded waits) while a move is under way.
  explicit GateScope(Sonode& sonode) noexcept;
  ~GateScope() { leave(); }
  GateScope(const GateScope&) = delete;
  GateScope& operator=(const GateScope&) = delete;

  [[nodiscard]] Access access() const noexcept { return access_; }
  void leave() noexcept {
    if (inside_) sonode_.gate().leave();
    inside_ = false;
  }

 private:
  [[nodiscard]] bool is_other_life() const noexcept;
  bool settle(ipc::Owner owner) noexcept;

  Sonode& sonode_;
  Access access_ = Access::kPlain;
  bool inside_ = false;
};

}  // namespace twinstack::sockets
