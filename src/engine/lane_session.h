// LaneSession: one application as one lane sees it: the arena, the rings that this lane serves, the chunks that this
// lane lends. One thread at a time (the lane's).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "engine/chunk_pool.h"
#include "ipc/arena.h"
#include "ipc/ring.h"

namespace twinstack::engine {

struct LaneRing {
  std::uint32_t session = 0;  // number
  std::uint32_t index = 0;    // in the arena
  ipc::SubmitConsumer submit;
  ipc::CompleteProducer complete;
  std::atomic<std::uint32_t>* want_room = nullptr;  // RingHeader::sq_want_room
  std::uint32_t half_entries = 0;                   // half of what the submission ring holds
  bool dirty = false;                               // in the lane's list of rings with entries to publish
  std::uint32_t unread_pieces = 0;                  // of connections that wait to be activated: each will need an entry
  bool waiting = false;                             // `next` was taken from the ring and waits for pieces to come free
  ipc::SubmitEntry next{};
};

class LaneSession {
 public:
  // REQUIRES: `arena` outlives the session.
  LaneSession(std::uint32_t number, const ipc::Arena& arena, std::uint32_t lane);
  LaneSession(const LaneSession&) = delete;
  LaneSession& operator=(const LaneSession&) = delete;

  [[nodiscard]] const ipc::Arena& arena() const noexcept { return *arena_; }
  [[nodiscard]] ChunkPool& pool() noexcept { return pool_; }
  [[nodiscard]] std::vector<LaneRing>& rings() noexcept { return rings_; }
  // The ring with this index of the arena, nullptr when this lane does not serve it.
  [[nodiscard]] LaneRing* ring(std::uint32_t index) noexcept {
    return index < ring_of_.size() ? ring_of_[index] : nullptr;
  }
  [[nodiscard]] std::uint32_t chunk_bytes() const noexcept { return chunk_bytes_; }
  // REQUIRES: index < slot_count.
  [[nodiscard]] ipc::ConnSlot& slot(std::uint32_t index) const noexcept { return slots_[index]; }
  // Completion entries of a ring that received data leaves free, for owner changes and acknowledgements.
  [[nodiscard]] std::uint32_t completion_reserve() const noexcept { return completion_reserve_; }

  bool broken = false;                 // the application broke the protocol: its rings are not read any more
  std::uint32_t pieces_in_flight = 0;  // nodes of the lane's pool that the program's data holds
  std::uint32_t connections = 0;
  // Connections to be offered more when chunks come back, those first that have waited longest.
  struct Short {
    std::uint32_t index;
    std::uint32_t generation;  // another one by now: it is gone
  };
  std::deque<Short> short_of_chunks;
  std::size_t offers_due = 0;  // to so many of them

 private:
  const ipc::Arena* arena_;
  ipc::ConnSlot* slots_;
  std::uint32_t chunk_bytes_;
  std::uint32_t completion_reserve_;
  ChunkPool pool_;
  std::vector<LaneRing> rings_;     // never grows after construction
  std::vector<LaneRing*> ring_of_;  // by index in the arena; nullptr: another lane's
};

}  // namespace twinstack::engine
