// ByteQueue: bytes of a stream, in at the end, out at the front, readable anywhere between. A ring that grows by
// doubling and holds no memory while it is empty. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "wire/payload.h"

namespace twinstack::stack {

class ByteQueue {
 public:
  [[nodiscard]] std::uint32_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }

  void append(ByteView bytes);
  void append(const Payload& payload);
  // REQUIRES: count <= size().
  void pop_front(std::uint32_t count) noexcept;
  // Copies out.size() bytes from `offset` on. REQUIRES: offset + out.size() <= size().
  void copy(std::uint32_t offset, std::span<std::byte> out) const noexcept;
  void clear() noexcept;

 private:
  void reserve(std::uint32_t size);

  std::unique_ptr<std::byte[]> ring_;
  std::uint32_t capacity_ = 0;  // a power of two, or 0
  std::uint32_t first_ = 0;
  std::uint32_t size_ = 0;
};

}  // namespace twinstack::stack
