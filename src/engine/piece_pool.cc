#include "engine/piece_pool.h"

namespace twinstack::engine {

PiecePool::PiecePool(std::span<Piece> nodes) noexcept
    : nodes_(nodes), available_(static_cast<std::uint32_t>(nodes.size())) {
  for (std::uint32_t i = available_; i > 0; --i) {
    nodes_[i - 1].next = free_head_;
    free_head_ = i - 1;
  }
}

}  // namespace twinstack::engine
