// FlowTable: FlowKey -> slot index of the lane, O(1): open addressing with linear probing, at most half full, keyed
// hash so that a peer cannot choose collisions. Cells of four bytes in the lane's region; the keys themselves lie in
// the HwConnRecords. One thread at a time.
//
// Looking up waits twice for memory, for the cell and for the record. Who looks up many flows at a time takes the steps
// apart: hash() and prefetch() of all, likely_slot() of all (and prefetches its record), then find().
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>

#include "engine/hw_conn.h"

namespace twinstack::engine {

class FlowTable {
 public:
  // An index in the low 24 bits, 8 bits of the hash above; tags stop at 0xfe, so none looks like an empty cell.
  using Cell = std::uint32_t;

  [[nodiscard]] static constexpr std::uint32_t cells_for(std::uint32_t connections) noexcept {
    return std::bit_ceil(connections * 2);
  }

  // `records` is the lane's table; `cells` as many as cells_for() says, made empty here; `secret` a random number.
  FlowTable(std::span<const HwConnRecord> records, std::span<Cell> cells, std::uint64_t secret) noexcept;

  [[nodiscard]] std::uint32_t hash(const FlowKey& flow) const noexcept {
    return static_cast<std::uint32_t>(flow.hash(secret_));
  }
  // Slot index, or kNone. `hash` is that of the flow.
  [[nodiscard]] std::uint32_t find(const FlowKey& flow, std::uint32_t hash) const noexcept;
  [[nodiscard]] std::uint32_t find(const FlowKey& flow) const noexcept { return find(flow, hash(flow)); }
  // REQUIRES: the flow of records[index] is not in the table.
  void insert(std::uint32_t index) noexcept;
  // REQUIRES: it is in the table.
  void erase(std::uint32_t index) noexcept;

  void prefetch(std::uint32_t hash) const noexcept { __builtin_prefetch(&cells_[hash & mask_]); }
  // What find() will return, but for one in 256 and flows that are not in the table. Does not look at the records.
  [[nodiscard]] std::uint32_t likely_slot(std::uint32_t hash) const noexcept {
    for (std::uint32_t at = hash & mask_; cells_[at] != kEmpty; at = (at + 1) & mask_) {
      if (tag_of(cells_[at]) == tag(hash)) return index_of(cells_[at]);
    }
    return kNone;
  }

 private:
  static constexpr Cell kEmpty = 0xffffffffU;
  static constexpr std::uint32_t kMaxTag = 0xfe;
  static_assert((kMaxTag << 24 | (kMaxConnectionsPerLane - 1)) < kEmpty);

  [[nodiscard]] static std::uint32_t tag(std::uint32_t hash) noexcept { return std::min(hash >> 24, kMaxTag); }
  [[nodiscard]] static std::uint32_t tag_of(Cell cell) noexcept { return cell >> 24; }
  [[nodiscard]] static std::uint32_t index_of(Cell cell) noexcept { return cell & 0xffffffU; }
  [[nodiscard]] std::uint32_t home_of(Cell cell) const noexcept { return hash(records_[index_of(cell)].flow) & mask_; }

  std::span<const HwConnRecord> records_;
  std::span<Cell> cells_;
  std::uint64_t secret_;
  std::uint32_t mask_;
};

}  // namespace twinstack::engine
