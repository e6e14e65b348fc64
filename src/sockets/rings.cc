// The rings of a session, seen from the application: what the engine posted is sorted to the connections, what they
// submit goes out, sleepers are woken. The session's other half (slots, messages) is session.cc.
#include <algorithm>
#include <cstdint>

#include "sockets/layer.h"
#include "sockets/real_calls.h"
#include "sockets/session.h"

namespace twinstack::sockets {
namespace {

constexpr std::uint32_t kReleaseEvery = 64;  // entries, so that the engine gets room while we work

}  // namespace

void Session::drain() noexcept {
  if (is_inherited()) [[unlikely]]
    return;
  for (RingPort& ring : rings())
    if (!ring.looks_empty()) drain(ring);
}

void Session::drain(RingPort& ring) noexcept {
  const MutexLock lock(ring.cq_mutex);
  take_in(ring);
  // The wake-up that brought us here may have been the only one, and others sleep on: arm it again for them.
  if (g_layer.sleepers.load(std::memory_order_seq_cst) != 0)
    while (!ring.cq.prepare_sleep()) take_in(ring);
}

void Session::take_in(RingPort& ring) noexcept {
  using Pop = ipc::CompleteConsumer::Pop;
  const auto index = static_cast<std::uint32_t>(&ring - rings_.get());
  ipc::CompleteEntry entry;
  std::uint32_t count = 0;
  while (ring.cq.pop(entry) == Pop::kEntry) {
    handle(index, entry);
    if (++count % kReleaseEvery == 0) ring.cq.release();
  }
  ring.cq.release();
  // The engine drops what it cannot post (kSent, kOwnerChanged) when the ring is full: everybody looks for himself.
  if (count >= geometry().cq_entries / 2) notify_all();
  if (!ring.has_late_returns.load(std::memory_order_relaxed)) [[likely]]
    return;
  const MutexLock lock(ring.sq_mutex);
  flush_late_returns(ring);
}

void Session::handle(std::uint32_t ring, const ipc::CompleteEntry& entry) noexcept {
  if (entry.op == ipc::CompleteOp::kRingRoom) notify_all();
  if (entry.slot >= slot_count()) return;
  if (entry.op == ipc::CompleteOp::kReceived) {
    on_received(ring, entry);
    return;
  }
  // kSent, kOwnerChanged: the slot has it all; whoever waits looks there.
  Sonode& connection = sonode(entry.slot);
  if (connection.tag.load(std::memory_order_acquire) != entry.tag) return;
  // An idle connection owns no chunk. Who holds the lock is sending and does this himself.
  if (connection.tx_mutex.try_lock()) {
    reclaim_tx(connection);
    connection.tx_mutex.unlock();
  }
  connection.notify();
}

void Session::on_received(std::uint32_t ring, const ipc::CompleteEntry& entry) noexcept {
  const ipc::ArenaGeometry& g = geometry();
  if (entry.chunk < g.tx_chunk_count || entry.chunk >= g.chunk_count || entry.length > g.chunk_bytes ||
      entry.offset > g.chunk_bytes - entry.length)
    return;
  Sonode& connection = sonode(entry.slot);
  {
    const MutexLock lock(connection.rx_mutex);
    if (connection.tag.load(std::memory_order_relaxed) == entry.tag &&
        connection.state.load(std::memory_order_relaxed) == SonodeState::kKnown) {
      // A piece that does not continue its chunk cannot be kept in order: the stream is broken.
      if (!append(connection, ring, entry)) connection.aborted.store(true, std::memory_order_release);
      connection.notify_locked();
      return;
    }
  }
  // Closed meanwhile, or an earlier life of the slot.
  return_chunk(ring, entry.chunk, entry.length, entry.hw_conn_id, entry.slot, false);
}

bool Session::append(Sonode& connection, std::uint32_t ring, const ipc::CompleteEntry& entry) noexcept {
  RxNode& node = rx_node(entry.chunk);
  if (node.queued.load(std::memory_order_acquire)) {
    if (connection.rx_tail != entry.chunk || node.offset + node.length != entry.offset) return false;
    node.length += entry.length;
  } else {
    node.hw_conn_id = entry.hw_conn_id;
    node.next = kNoChunk;
    node.offset = entry.offset;
    node.length = entry.length;
    node.unreturned = 0;
    node.ring = ring;
    node.queued.store(true, std::memory_order_relaxed);
    if (connection.rx_tail == kNoChunk)
      connection.rx_head = entry.chunk;
    else
      rx_node(connection.rx_tail).next = entry.chunk;
    connection.rx_tail = entry.chunk;
  }
  connection.rx_queued_bytes.store(connection.rx_queued_bytes.load(std::memory_order_relaxed) + entry.length,
                                   std::memory_order_release);
  return true;
}

void Session::reclaim_tx(Sonode& connection) noexcept {
  const std::uint64_t acked = connection.slot->tx_acked_bytes.load(std::memory_order_seq_cst);
  std::uint64_t gone = acked - connection.tx_settled_bytes;
  bool freed = false;
  while (connection.tx_head != kNoChunk && gone > 0) {
    TxChunks::Node& node = tx_chunks_.node(connection.tx_head);
    if (gone < node.bytes) {
      node.bytes -= static_cast<std::uint32_t>(gone);
      break;
    }
    gone -= node.bytes;
    const std::uint32_t chunk = connection.tx_head;
    connection.tx_head = node.next;
    if (chunk == connection.tx_tail) connection.tx_tail = kNoChunk;
    tx_chunks_.give(chunk);
    freed = true;
  }
  connection.tx_settled_bytes = acked;
  if (freed) on_tx_chunk_freed();
}

bool Session::arm() noexcept {
  if (state() == SessionState::kLost) return true;  // nothing is posted any more
  bool idle = true;
  for (RingPort& ring : rings()) {
    if (ring.has_late_returns.load(std::memory_order_relaxed)) [[unlikely]] {
      // The engine may wait for just these chunks: no sleep before it has them, or will tell that it takes some.
      nudge(ring);
      const bool told = !has_ring_room(ring);
      const MutexLock lock(ring.sq_mutex);
      flush_late_returns(ring);
      idle = (ring.late_returns == kNoChunk || told) && idle;
    }
    if (ring.header->cq_need_wakeup.value.load(std::memory_order_seq_cst) != 0 && ring.looks_empty()) continue;
    const MutexLock lock(ring.cq_mutex);
    idle = ring.cq.prepare_sleep() && idle;
  }
  return idle;
}

void Session::return_chunk(std::uint32_t ring_index, std::uint32_t chunk, std::uint32_t bytes, std::uint64_t hw_conn_id,
                           std::uint32_t slot, bool urgent) noexcept {
  if (state() == SessionState::kLost) return;  // nobody takes it
  RingPort& ring = rings_[ring_index];
  bool wake = false;
  {
    const MutexLock lock(ring.sq_mutex);
    flush_late_returns(ring);
    if (ring.late_returns != kNoChunk || ring.sq.room() <= ring.sq_reserved) {
      RxNode& node = rx_node(chunk);
      if (node.late_bytes == 0) {
        node.late_next = ring.late_returns;
        ring.late_returns = chunk;
        ring.has_late_returns.store(true, std::memory_order_relaxed);
      }
      node.late_bytes += bytes;
      return;
    }
    ring.sq.push({.op = ipc::SubmitOp::kReturn,
                  .flags = 0,
                  .reserved0 = 0,
                  .slot = slot,
                  .hw_conn_id = hw_conn_id,
                  .chunk = chunk,
                  .offset = 0,
                  .length = bytes,
                  .reserved1 = 0});
    ring.sq.publish();
    wake = urgent && ring.sq.take_wakeup();
  }
  if (wake) ring_doorbell(ring);
}

void Session::flush_late_returns(RingPort& ring) noexcept {
  if (ring.late_returns == kNoChunk) [[likely]]
    return;
  while (ring.late_returns != kNoChunk && ring.sq.room() > ring.sq_reserved) {
    const std::uint32_t chunk = ring.late_returns;
    RxNode& node = rx_node(chunk);
    ring.late_returns = node.late_next;
    ring.sq.push({.op = ipc::SubmitOp::kReturn,
                  .flags = 0,
                  .reserved0 = 0,
                  .slot = 0,
                  .hw_conn_id = node.hw_conn_id,
                  .chunk = chunk,
                  .offset = 0,
                  .length = node.late_bytes,
                  .reserved1 = 0});
    node.late_bytes = 0;
  }
  ring.has_late_returns.store(ring.late_returns != kNoChunk, std::memory_order_relaxed);
  ring.sq.publish();
}

void Session::look_into_inherited_rings() noexcept {
  for (std::uint32_t i = 0; i < geometry().ring_count; ++i) {
    RingPort& ring = rings_[i];
    const MutexLock lock(ring.cq_mutex);
    ipc::CompleteEntry entry;
    while (ring.cq.pop(entry) == ipc::CompleteConsumer::Pop::kEntry) {
      if (entry.op != ipc::CompleteOp::kReceived || entry.slot >= slot_count()) continue;
      Sonode& connection = sonode(entry.slot);
      const MutexLock queue_lock(connection.rx_mutex);
      if (connection.tag.load(std::memory_order_relaxed) == entry.tag && !append(connection, i, entry))
        connection.aborted.store(true, std::memory_order_release);
    }
  }
}

std::uint32_t Session::reserve(RingPort& ring, std::uint32_t count) noexcept {
  const std::uint32_t left_free = geometry().sq_entries / 4;
  const MutexLock lock(ring.sq_mutex);
  const std::uint32_t room = ring.sq.room();
  const std::uint32_t kept = ring.sq_reserved + left_free;
  const std::uint32_t got = std::min(count, room - std::min(room, kept));
  ring.sq_reserved += got;
  return got;
}

void Session::submit_reserved(RingPort& ring, std::span<const ipc::SubmitEntry> entries,
                              std::uint32_t places) noexcept {
  bool wake = false;
  {
    const MutexLock lock(ring.sq_mutex);
    ring.sq_reserved -= places;
    for (const ipc::SubmitEntry& entry : entries) ring.sq.push(entry);
    ring.sq.publish();
    wake = ring.sq.take_wakeup();
  }
  if (wake) ring_doorbell(ring);
}

bool Session::has_ring_room(RingPort& ring) noexcept {
  const std::uint32_t entries = geometry().sq_entries;
  if (ring.sq_room(entries) >= entries / 2) return true;
  // Ask, then look again: either the engine sees the wish, or we see what it has taken.
  ring.header->sq_want_room.value.store(1, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return ring.sq_room(entries) >= entries / 2;
}

void Session::nudge(RingPort& ring) noexcept {
  ring_doorbell(ring);
  static_cast<void>(real().sched_yield());
  check_alive();
}

void Session::ring_doorbell(const RingPort& ring) const noexcept {
  const int saved_errno = errno;
  const std::uint64_t one = 1;
  // A full counter is a wake-up that is still pending.
  static_cast<void>(real().write(ring.doorbell, &one, sizeof(one)));
  errno = saved_errno;
}

}  // namespace twinstack::sockets
