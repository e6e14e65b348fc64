#include "engine/chunk_pool.h"

namespace twinstack::engine {

ChunkPool::ChunkPool(std::uint32_t first, std::uint32_t count) : first_(first), count_(count), entries_(count) {
  free_.reserve(count);
  for (std::uint32_t i = count; i > 0; --i) free_.push_back(first + i - 1);
}

}  // namespace twinstack::engine
