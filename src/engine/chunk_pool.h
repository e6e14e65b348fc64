// ChunkPool: the engine's own count of the chunks that it lends to one session (layout.h: chunks from tx_chunk_count
// on). The application can return only what was posted to it, byte by byte; anything else is reported, never believed.
// One thread at a time (the lane's).
#pragma once

#include <cstdint>
#include <vector>

namespace twinstack::engine {

class ChunkPool {
 public:
  // Chunks [first, first + count).
  ChunkPool(std::uint32_t first, std::uint32_t count);

  [[nodiscard]] std::uint32_t available() const noexcept { return static_cast<std::uint32_t>(free_.size()); }
  [[nodiscard]] std::uint32_t capacity() const noexcept { return static_cast<std::uint32_t>(entries_.size()); }

  // A chunk that the engine holds; kNone when there is none.
  [[nodiscard]] std::uint32_t take() noexcept;
  // The engine lets go of a chunk that it took; it is free once the application has returned all posted bytes as well.
  void drop(std::uint32_t chunk) noexcept;
  // `bytes` of the chunk were posted to the application.
  void post(std::uint32_t chunk, std::uint32_t bytes) noexcept;
  // The application returns `bytes` of the chunk; false when it does not owe them. `*drained` tells that nothing of
  // the chunk is with the application any more.
  [[nodiscard]] bool give_back(std::uint32_t chunk, std::uint32_t bytes, bool* drained) noexcept;

  // Whether `chunk` is one of this pool.
  [[nodiscard]] bool contains(std::uint32_t chunk) const noexcept {
    return chunk >= first_ && chunk - first_ < entries_.size();
  }

 private:
  struct Entry {
    std::uint32_t posted_bytes = 0;
    bool held = false;  // by the engine
  };

  Entry& entry(std::uint32_t chunk) noexcept;

  std::uint32_t first_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> free_;  // last in, first out: warm chunks first
};

}  // namespace twinstack::engine
