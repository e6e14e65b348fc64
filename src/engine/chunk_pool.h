// ChunkPool: the engine's own count of the chunks that it lends to one session (layout.h: chunks from tx_chunk_count
// on). The application can return only what was posted to it, byte by byte; anything else is reported, never believed.
// One thread at a time (the lane's). Every received segment passes here, so all is inline.
#pragma once

#include <cstdint>
#include <vector>

#include "base/assert.h"
#include "engine/hw_conn.h"

namespace twinstack::engine {

class ChunkPool {
 public:
  // Chunks [first, first + count).
  ChunkPool(std::uint32_t first, std::uint32_t count);

  [[nodiscard]] std::uint32_t available() const noexcept { return static_cast<std::uint32_t>(free_.size()); }
  [[nodiscard]] std::uint32_t capacity() const noexcept { return count_; }

  // A chunk that the engine holds; kNone when there is none.
  [[nodiscard]] std::uint32_t take() noexcept {
    if (free_.empty()) return kNone;
    const std::uint32_t chunk = free_.back();
    free_.pop_back();
    entry(chunk) = Entry{.posted_bytes = 0, .held = true};
    return chunk;
  }
  // The engine lets go of a chunk that it took; it is free once the application has returned all posted bytes as well.
  void drop(std::uint32_t chunk) noexcept {
    Entry& e = entry(chunk);
    ASSERT(e.held);
    e.held = false;
    if (e.posted_bytes == 0) free_.push_back(chunk);
  }
  // `bytes` of the chunk were posted to the application.
  void post(std::uint32_t chunk, std::uint32_t bytes) noexcept {
    Entry& e = entry(chunk);
    ASSERT(e.held);
    e.posted_bytes += bytes;
  }
  // The application returns `bytes` of the chunk; false when it does not owe them. `*drained` tells that nothing of
  // the chunk is with the application any more.
  [[nodiscard]] bool give_back(std::uint32_t chunk, std::uint32_t bytes, bool* drained) noexcept {
    if (!contains(chunk)) return false;
    Entry& e = entry(chunk);
    if (bytes == 0 || bytes > e.posted_bytes) return false;
    e.posted_bytes -= bytes;
    *drained = e.posted_bytes == 0;
    if (*drained && !e.held) free_.push_back(chunk);
    return true;
  }

  // Whether `chunk` is one of this pool.
  [[nodiscard]] bool contains(std::uint32_t chunk) const noexcept {
    return chunk - first_ < count_;  // what lies below wraps around
  }

 private:
  struct Entry {
    std::uint32_t posted_bytes = 0;
    bool held = false;  // by the engine
  };

  Entry& entry(std::uint32_t chunk) noexcept {
    ASSERT(contains(chunk));
    return entries_[chunk - first_];
  }

  std::uint32_t first_;
  std::uint32_t count_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> free_;  // last in, first out: warm chunks first. Never grows: its room is reserved
};

}  // namespace twinstack::engine
