// PiecePool: the nodes of all piece lists of a lane, in the lane's region. Bounded; LIFO. One thread at a time.
#pragma once

#include <cstdint>
#include <span>

#include "engine/hw_conn.h"

namespace twinstack::engine {

class PiecePool {
 public:
  explicit PiecePool(std::span<Piece> nodes) noexcept;

  [[nodiscard]] std::uint32_t available() const noexcept { return available_; }
  [[nodiscard]] std::uint32_t capacity() const noexcept { return static_cast<std::uint32_t>(nodes_.size()); }
  [[nodiscard]] Piece& at(std::uint32_t index) noexcept { return nodes_[index]; }

  // Appends a node; false when none is left.
  [[nodiscard]] bool append(PieceList& list, const Piece& piece) noexcept;
  // Removes the first node. REQUIRES: !list.empty().
  void pop_front(PieceList& list) noexcept;

 private:
  std::span<Piece> nodes_;
  std::uint32_t free_head_ = kNone;
  std::uint32_t available_ = 0;
};

}  // namespace twinstack::engine
