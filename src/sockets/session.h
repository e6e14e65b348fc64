// Session: this process's dealings with the service: the unix socket, the arena, the rings, and the Sonode of every
// slot. Made on demand at the first TCP connection, never destroyed (calls may be inside), marked lost when the service
// goes. Unprivileged; prints nothing; after it is made it allocates nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/unique_fd.h"
#include "ipc/arena.h"
#include "ipc/messages.h"
#include "ipc/ring.h"
#include "sockets/chunks.h"
#include "sockets/mutex.h"
#include "sockets/sonode.h"

namespace twinstack::sockets {

enum class SessionState : std::uint8_t {
  kLive,
  kLost,       // the service is gone: what it brought home works on, new connections look for another service
  kInherited,  // this process is a forked child; the session is the parent's
};

// The application's ends of one pair of rings. Any thread, by the two locks.
struct RingPort {
  Mutex cq_mutex;
  ipc::CompleteConsumer cq TS_GUARDED_BY(cq_mutex);
  Mutex sq_mutex;
  ipc::SubmitProducer sq TS_GUARDED_BY(sq_mutex);
  // Chunks that could not be given back because the submission ring was full: nodes, linked by `next`.
  std::uint32_t late_returns TS_GUARDED_BY(sq_mutex) = kNoChunk;
  std::atomic<bool> has_late_returns = false;             // written under sq_mutex
  std::uint32_t sq_reserved TS_GUARDED_BY(sq_mutex) = 0;  // places that calls have kept for themselves
  ipc::RingHeader* header = nullptr;
  UniqueFd event;
  int doorbell = -1;  // of the ring's lane

  // Free places of the submission ring at this moment, without the lock.
  [[nodiscard]] std::uint32_t sq_room(std::uint32_t entries) const noexcept {
    const std::uint32_t used =
        header->sq_tail.value.load(std::memory_order_relaxed) - header->sq_head.value.load(std::memory_order_acquire);
    return used > entries ? 0 : entries - used;
  }
  // Looks without the lock; entries that another thread is working on still count as there.
  [[nodiscard]] bool looks_empty() const noexcept {
    return header->cq_tail.value.load(std::memory_order_acquire) ==
           header->cq_head.value.load(std::memory_order_acquire);
  }
};

class Session {
 public:
  // Connects to the service at `path`, says hello, maps the arena. nullptr: no service, or it refused.
  [[nodiscard]] static Session* open(const char* path, std::uint32_t number) noexcept;
  // The same with what a service has given already: the socket, the arena, a doorbell for each lane and an event for
  // each ring. nullptr: memory lacks, or descriptors do.
  [[nodiscard]] static Session* make(UniqueFd socket, ipc::Arena arena, std::span<UniqueFd> fds,
                                     std::uint32_t number) noexcept;

  [[nodiscard]] std::uint32_t number() const noexcept { return number_; }
  [[nodiscard]] SessionState state() const noexcept { return state_.load(std::memory_order_acquire); }
  [[nodiscard]] bool is_inherited() const noexcept { return state() == SessionState::kInherited; }
  [[nodiscard]] Sonode& sonode(std::uint32_t slot) noexcept { return sonodes_[slot]; }
  [[nodiscard]] std::uint32_t slot_count() const noexcept { return geometry().slot_count; }
  [[nodiscard]] const ipc::ArenaGeometry& geometry() const noexcept { return arena_.geometry(); }
  [[nodiscard]] const ipc::Arena& arena() const noexcept { return arena_; }
  [[nodiscard]] std::span<RingPort> rings() noexcept { return {rings_.get(), geometry().ring_count}; }
  [[nodiscard]] TxChunks& tx_chunks() noexcept { return tx_chunks_; }
  [[nodiscard]] int socket() const noexcept { return socket_.get(); }

  // --- Connections (session.cc) ---
  // Takes a free slot for the socket `fd`, one reference for the descriptors. nullptr: none is free. The service does
  // not know of it yet.
  [[nodiscard]] Sonode* take(SonodeState state) noexcept;
  // Tells the service. False: it could not be told (the slot is still the caller's: discard() it).
  [[nodiscard]] bool announce(Sonode& sonode, int fd) noexcept;
  // The service never knew it (or never will): the slot is free at once when the last call has left.
  void discard(Sonode& sonode) noexcept;
  // Drops a reference; with the last one of a closing connection its slot waits for the service to free it.
  void unref(Sonode& sonode) noexcept;
  void send_close(const Sonode& sonode) noexcept TS_EXCLUDES(control_mutex_);
  // Asks the driver to bring it back; `stay`: for ever. No wait.
  void send_upload(const Sonode& sonode, bool stay, const char* reason) noexcept TS_EXCLUDES(control_mutex_);
  // The engine's state of the connection; empty when the engine does not own it.
  [[nodiscard]] std::optional<ipc::HwConnState> query(const Sonode& sonode) noexcept;

  // --- The service's life (session.cc) ---
  // Looks whether the service is still there; on the first sight of its end, tells every connection.
  bool check_alive() noexcept;
  // In the child of a fork, once. The session stays the parent's.
  void mark_inherited() noexcept;
  // In the child: what the rings held and hold is sorted to the (private) queues; the parent's rings are only read.
  void look_into_inherited_rings() noexcept;

  // --- Rings (rings.cc) ---
  // Takes in everything that the engine has posted.
  void drain() noexcept;
  void drain(RingPort& ring) noexcept;
  // Asks every ring to signal its WakeEvent when something is posted (Layer::begin_sleep). False: there is something.
  [[nodiscard]] bool arm() noexcept;
  // Gives `bytes` of an engine chunk back. `urgent`: the engine may wait for it.
  void return_chunk(std::uint32_t ring, std::uint32_t chunk, std::uint32_t bytes, std::uint64_t hw_conn_id,
                    std::uint32_t slot, bool urgent) noexcept;
  // Keeps up to `count` places of the submission ring for entries that are still to be made; returns how many. A
  // quarter is left to what must not wait. Those that are kept are given up by submit_reserved().
  [[nodiscard]] std::uint32_t reserve(RingPort& ring, std::uint32_t count) noexcept;
  // Pushes the entries, of which there are at most `places`, those that were reserved for them.
  void submit_reserved(RingPort& ring, std::span<const ipc::SubmitEntry> entries, std::uint32_t places) noexcept;
  // Whether half of the submission ring is free. When it says no, everybody is notified once it is.
  [[nodiscard]] bool has_ring_room(RingPort& ring) noexcept;
  // The engine does not take what was submitted: wake it, let it run.
  void nudge(RingPort& ring) noexcept;

  // --- Chunks ---
  // Node of an engine chunk. REQUIRES: tx_chunk_count <= chunk < chunk_count.
  [[nodiscard]] RxNode& rx_node(std::uint32_t chunk) noexcept { return rx_nodes_[chunk - geometry().tx_chunk_count]; }
  // A chunk for data to send; looks everywhere before it says kNoChunk.
  [[nodiscard]] std::uint32_t take_tx_chunk() noexcept;
  // Wakes those who found none.
  void on_tx_chunk_freed() noexcept {
    if (starved_.load(std::memory_order_seq_cst) != 0) [[unlikely]]
      wake_starved();
  }
  void mark_starved(Sonode& sonode) noexcept;
  // Takes back the chunks whose bytes the peer has acknowledged (or the kernel has taken over).
  void reclaim_tx(Sonode& connection) noexcept TS_REQUIRES(connection.tx_mutex);

 private:
  Session(UniqueFd socket, ipc::Arena arena, std::uint32_t number) noexcept;

  [[nodiscard]] bool allocate() noexcept;
  [[nodiscard]] bool adopt_descriptors(std::span<UniqueFd> fds) noexcept;
  void make_rings() noexcept;
  void hide_descriptors() const noexcept;
  void collect_closed() noexcept TS_REQUIRES(slots_mutex_);
  void release_slot(Sonode& sonode) noexcept;
  void put_back(std::uint32_t slot) noexcept TS_REQUIRES(slots_mutex_);
  void notify_all() noexcept;
  void wake_starved() noexcept;
  bool send_message(const void* message, std::size_t size, int fd, int patience_ms) const noexcept;

  void take_in(RingPort& ring) noexcept TS_REQUIRES(ring.cq_mutex);
  void handle(std::uint32_t ring, const ipc::CompleteEntry& entry) noexcept;
  void on_received(std::uint32_t ring, const ipc::CompleteEntry& entry) noexcept;
  bool append(Sonode& connection, std::uint32_t ring, const ipc::CompleteEntry& entry) noexcept
      TS_REQUIRES(connection.rx_mutex);
  void flush_late_returns(RingPort& ring) noexcept TS_REQUIRES(ring.sq_mutex);
  void ring_doorbell(const RingPort& ring) const noexcept;

  std::uint32_t number_;
  std::atomic<SessionState> state_ = SessionState::kLive;
  UniqueFd socket_;
  ipc::Arena arena_;
  std::unique_ptr<UniqueFd[]> doorbells_;
  std::unique_ptr<RingPort[]> rings_;
  std::unique_ptr<Sonode[]> sonodes_;
  std::unique_ptr<RxNode[]> rx_nodes_;
  TxChunks tx_chunks_;
  std::atomic<std::uint32_t> starved_ = 0;

  Mutex slots_mutex_;
  std::unique_ptr<std::uint32_t[]> free_slots_ TS_GUARDED_BY(slots_mutex_);  // a stack
  std::uint32_t free_count_ TS_GUARDED_BY(slots_mutex_) = 0;
  // Slots whose connection was closed: the service frees them when it is done (a ring of slot_count places).
  std::unique_ptr<std::uint32_t[]> closed_slots_ TS_GUARDED_BY(slots_mutex_);
  std::uint32_t closed_first_ TS_GUARDED_BY(slots_mutex_) = 0;
  std::uint32_t closed_count_ TS_GUARDED_BY(slots_mutex_) = 0;

  Mutex control_mutex_;  // no message about a connection may follow its Close: the service would call it a breach
  Mutex query_mutex_;
  std::uint32_t next_request_ TS_GUARDED_BY(query_mutex_) = 0;
};

}  // namespace twinstack::sockets
