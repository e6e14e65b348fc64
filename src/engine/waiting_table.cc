#include "engine/waiting_table.h"

#include "base/assert.h"

namespace twinstack::engine {

WaitingTable::WaitingTable(std::span<Waiting> entries) noexcept : entries_(entries) {
  ASSERT(entries.size() < kNoWaiting);
  for (std::size_t i = entries.size(); i > 0; --i) put_back(static_cast<std::uint16_t>(i - 1));
}

std::uint16_t WaitingTable::take() noexcept {
  if (free_head_ == kNoWaiting) return kNoWaiting;
  const std::uint16_t index = free_head_;
  free_head_ = entries_[index].next_free;
  --available_;
  entries_[index] = Waiting{};
  return index;
}

void WaitingTable::put_back(std::uint16_t index) noexcept {
  ASSERT(entries_[index].empty());
  entries_[index].next_free = free_head_;
  free_head_ = index;
  ++available_;
}

}  // namespace twinstack::engine
