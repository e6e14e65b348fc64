#include "engine/flow_table.h"

#include <bit>

#include "base/assert.h"

namespace twinstack::engine {

FlowTable::FlowTable(std::span<const HwConnRecord> records, std::uint64_t secret)
    : records_(records),
      secret_(secret),
      mask_(std::bit_ceil(static_cast<std::uint32_t>(records.size()) * 2) - 1),
      cells_(mask_ + 1) {}

std::uint32_t FlowTable::find(const FlowKey& flow) const noexcept {
  const std::uint32_t hash = hash_of(flow);
  for (std::uint32_t at = hash & mask_; cells_[at].index != kNone; at = (at + 1) & mask_) {
    if (cells_[at].hash == hash && records_[cells_[at].index].flow == flow) return cells_[at].index;
  }
  return kNone;
}

void FlowTable::insert(std::uint32_t index) noexcept {
  const std::uint32_t hash = hash_of(records_[index].flow);
  std::uint32_t at = hash & mask_;
  while (cells_[at].index != kNone) at = (at + 1) & mask_;
  cells_[at] = Cell{.index = index, .hash = hash};
}

void FlowTable::erase(std::uint32_t index) noexcept {
  std::uint32_t at = hash_of(records_[index].flow) & mask_;
  while (cells_[at].index != index) {
    ASSERT(cells_[at].index != kNone);
    at = (at + 1) & mask_;
  }
  // Backward-shift deletion: no tombstones, so lookups stay short for ever.
  for (std::uint32_t next = (at + 1) & mask_; cells_[next].index != kNone; next = (next + 1) & mask_) {
    const std::uint32_t home = cells_[next].hash & mask_;
    if (((next - home) & mask_) >= ((next - at) & mask_)) {
      cells_[at] = cells_[next];
      at = next;
    }
  }
  cells_[at] = Cell{};
}

}  // namespace twinstack::engine
