#include "stack/byte_queue.h"

#include <algorithm>
#include <bit>

#include "base/assert.h"

namespace twinstack::stack {

namespace {
constexpr std::uint32_t kSmallest = 64;
}  // namespace

void ByteQueue::reserve(std::uint32_t size) {
  if (size <= capacity_) return;
  const std::uint32_t capacity = std::bit_ceil(std::max(size, kSmallest));
  auto ring = std::make_unique_for_overwrite<std::byte[]>(capacity);
  copy(0, {ring.get(), size_});
  ring_ = std::move(ring);
  capacity_ = capacity;
  first_ = 0;
}

void ByteQueue::append(ByteView bytes) {
  if (bytes.empty()) return;
  reserve(size_ + static_cast<std::uint32_t>(bytes.size()));
  const std::uint32_t at = (first_ + size_) & (capacity_ - 1);
  const std::size_t before_wrap = std::min<std::size_t>(bytes.size(), capacity_ - at);
  std::memcpy(ring_.get() + at, bytes.data(), before_wrap);
  if (before_wrap < bytes.size()) {
    std::memcpy(ring_.get(), bytes.data() + before_wrap, bytes.size() - before_wrap);
  }
  size_ += static_cast<std::uint32_t>(bytes.size());
}

void ByteQueue::append(const Payload& payload) {
  reserve(size_ + payload.size());
  payload.for_each([this](ByteView piece) { append(piece); });
}

void ByteQueue::pop_front(std::uint32_t count) noexcept {
  ASSERT(count <= size_);
  size_ -= count;
  if (size_ == 0) return clear();
  first_ = (first_ + count) & (capacity_ - 1);
}

void ByteQueue::copy(std::uint32_t offset, std::span<std::byte> out) const noexcept {
  ASSERT(offset + out.size() <= size_);
  if (out.empty()) return;
  const std::uint32_t at = (first_ + offset) & (capacity_ - 1);
  const std::size_t before_wrap = std::min<std::size_t>(out.size(), capacity_ - at);
  std::memcpy(out.data(), ring_.get() + at, before_wrap);
  if (before_wrap < out.size()) std::memcpy(out.data() + before_wrap, ring_.get(), out.size() - before_wrap);
}

void ByteQueue::clear() noexcept {
  ring_.reset();
  capacity_ = first_ = size_ = 0;
}

}  // namespace twinstack::stack
