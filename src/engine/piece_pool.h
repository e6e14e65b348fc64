// PiecePool: the nodes of all piece lists of a lane, in the lane's region. Bounded; LIFO. One thread at a time.
#pragma once

#include <cstdint>
#include <span>

#include "base/assert.h"
#include "engine/hw_conn.h"

namespace twinstack::engine {

class PiecePool {
 public:
  explicit PiecePool(std::span<Piece> nodes) noexcept;

  [[nodiscard]] std::uint32_t available() const noexcept { return available_; }
  [[nodiscard]] std::uint32_t capacity() const noexcept { return static_cast<std::uint32_t>(nodes_.size()); }
  [[nodiscard]] Piece& at(std::uint32_t index) noexcept { return nodes_[index]; }

  // Appends a node; false when none is left.
  [[nodiscard]] bool append(PieceList& list, const Piece& piece) noexcept {
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
  // Removes the first node. REQUIRES: !list.empty().
  void pop_front(PieceList& list) noexcept {
    ASSERT(!list.empty());
    const std::uint32_t index = list.head;
    list.head = nodes_[index].next;
    if (list.head == kNone) list.tail = kNone;
    nodes_[index].next = free_head_;
    free_head_ = index;
    ++available_;
  }

 private:
  std::span<Piece> nodes_;
  std::uint32_t free_head_ = kNone;
  std::uint32_t available_ = 0;
};

}  // namespace twinstack::engine
