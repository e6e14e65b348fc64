#include "engine/chunk_pool.h"

#include "base/assert.h"
#include "engine/hw_conn.h"

namespace twinstack::engine {

ChunkPool::ChunkPool(std::uint32_t first, std::uint32_t count) : first_(first), entries_(count) {
  free_.reserve(count);
  for (std::uint32_t i = count; i > 0; --i) free_.push_back(first + i - 1);
}

ChunkPool::Entry& ChunkPool::entry(std::uint32_t chunk) noexcept {
  ASSERT(contains(chunk));
  return entries_[chunk - first_];
}

std::uint32_t ChunkPool::take() noexcept {
  if (free_.empty()) return kNone;
  const std::uint32_t chunk = free_.back();
  free_.pop_back();
  entry(chunk) = Entry{.posted_bytes = 0, .held = true};
  return chunk;
}

void ChunkPool::drop(std::uint32_t chunk) noexcept {
  Entry& e = entry(chunk);
  ASSERT(e.held);
  e.held = false;
  if (e.posted_bytes == 0) free_.push_back(chunk);
}

void ChunkPool::post(std::uint32_t chunk, std::uint32_t bytes) noexcept {
  Entry& e = entry(chunk);
  ASSERT(e.held);
  e.posted_bytes += bytes;
}

bool ChunkPool::give_back(std::uint32_t chunk, std::uint32_t bytes, bool* drained) noexcept {
  if (!contains(chunk)) return false;
  Entry& e = entry(chunk);
  if (bytes == 0 || bytes > e.posted_bytes) return false;
  e.posted_bytes -= bytes;
  *drained = e.posted_bytes == 0;
  if (*drained && !e.held) free_.push_back(chunk);
  return true;
}

}  // namespace twinstack::engine
