// WaitingTable: the Waiting of the connections that are moving, in the lane's region: taken on demand, bounded. One
// thread at a time.
#pragma once

#include <cstdint>
#include <span>

#include "engine/hw_conn.h"

namespace twinstack::engine {

class WaitingTable {
 public:
  // REQUIRES: fewer than kNoWaiting entries.
  explicit WaitingTable(std::span<Waiting> entries) noexcept;

  // An empty entry; kNoWaiting when all are taken.
  [[nodiscard]] std::uint16_t take() noexcept;
  // REQUIRES: it was taken and is empty.
  void put_back(std::uint16_t index) noexcept;
  [[nodiscard]] Waiting& at(std::uint16_t index) noexcept { return entries_[index]; }
  [[nodiscard]] std::uint32_t available() const noexcept { return available_; }

 private:
  std::span<Waiting> entries_;
  std::uint16_t free_head_ = kNoWaiting;
  std::uint32_t available_ = 0;
};

}  // namespace twinstack::engine
