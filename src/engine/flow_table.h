// FlowTable: FlowKey -> slot index of the lane, O(1): open addressing with linear probing, at most half full, keyed
// hash so that a peer cannot choose collisions. The keys themselves lie in the HwConnRecords. One thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/hw_conn.h"

namespace twinstack::engine {

class FlowTable {
 public:
  // `records` is the lane's table; `secret` a random number.
  FlowTable(std::span<const HwConnRecord> records, std::uint64_t secret);

  // Slot index, or kNone.
  [[nodiscard]] std::uint32_t find(const FlowKey& flow) const noexcept;
  // REQUIRES: the flow of records[index] is not in the table.
  void insert(std::uint32_t index) noexcept;
  // REQUIRES: it is in the table.
  void erase(std::uint32_t index) noexcept;

 private:
  struct Cell {
    std::uint32_t index = kNone;
    std::uint32_t hash = 0;
  };

  [[nodiscard]] std::uint32_t hash_of(const FlowKey& flow) const noexcept {
    return static_cast<std::uint32_t>(flow.hash(secret_));
  }

  std::span<const HwConnRecord> records_;
  std::uint64_t secret_;
  std::uint32_t mask_;
  std::vector<Cell> cells_;
};

}  // namespace twinstack::engine
