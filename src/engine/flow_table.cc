#include "engine/flow_table.h"

#include "base/assert.h"

namespace twinstack::engine {

FlowTable::FlowTable(std::span<const HwConnRecord> records, std::span<Cell> cells, std::uint64_t secret) noexcept
    : records_(records), cells_(cells), secret_(secret), mask_(static_cast<std::uint32_t>(cells.size()) - 1) {
  ASSERT(cells.size() == cells_for(static_cast<std::uint32_t>(records.size())));
  std::ranges::fill(cells_, kEmpty);
}

std::uint32_t FlowTable::find(const FlowKey& flow, std::uint32_t hash) const noexcept {
  for (std::uint32_t at = hash & mask_; cells_[at] != kEmpty; at = (at + 1) & mask_) {
    const std::uint32_t index = index_of(cells_[at]);
    if (tag_of(cells_[at]) == tag(hash) && records_[index].flow == flow) return index;
  }
  return kNone;
}

void FlowTable::insert(std::uint32_t index) noexcept {
  const std::uint32_t hash_of_it = hash(records_[index].flow);
  std::uint32_t at = hash_of_it & mask_;
  while (cells_[at] != kEmpty) at = (at + 1) & mask_;
  cells_[at] = tag(hash_of_it) << 24 | index;
}

void FlowTable::erase(std::uint32_t index) noexcept {
  std::uint32_t at = hash(records_[index].flow) & mask_;
  for (;; at = (at + 1) & mask_) {
    ASSERT(cells_[at] != kEmpty);
    if (index_of(cells_[at]) == index) break;
  }
  // Backward-shift deletion: no tombstones, so lookups stay short for ever.
  for (std::uint32_t next = (at + 1) & mask_; cells_[next] != kEmpty; next = (next + 1) & mask_) {
    if (((next - home_of(cells_[next])) & mask_) >= ((next - at) & mask_)) {
      cells_[at] = cells_[next];
      at = next;
    }
  }
  cells_[at] = kEmpty;
}

}  // namespace twinstack::engine
