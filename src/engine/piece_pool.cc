#include "engine/piece_pool.h"

#include "base/assert.h"

namespace twinstack::engine {

PiecePool::PiecePool(std::span<Piece> nodes) noexcept
    : nodes_(nodes), available_(static_cast<std::uint32_t>(nodes.size())) {
  for (std::uint32_t i = available_; i > 0; --i) {
    nodes_[i - 1].next = free_head_;
    free_head_ = i - 1;
  }
}

bool PiecePool::append(PieceList& list, const Piece& piece) noexcept {
  if (free_head_ == kNone) return false;
  const std::uint32_t index = free_head_;
  free_head_ = nodes_[index].next;
  --available_;
  nodes_[index] = piece;
  nodes_[index].next = kNone;
  if (list.empty())
    list.head = index;
  else
    nodes_[list.tail].next = index;
  list.tail = index;
  return true;
}

void PiecePool::pop_front(PieceList& list) noexcept {
  ASSERT(!list.empty());
  const std::uint32_t index = list.head;
  list.head = nodes_[index].next;
  if (list.head == kNone) list.tail = kNone;
  nodes_[index].next = free_head_;
  free_head_ = index;
  ++available_;
}

}  // namespace twinstack::engine
