// ByteQueue: bytes in, bytes out, in order. One thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "wire/payload.h"

namespace twinstack::sim {

class ByteQueue {
 public:
  [[nodiscard]] std::size_t size() const noexcept { return bytes_.size() - head_; }
  [[nodiscard]] bool empty() const noexcept { return size() == 0; }
  [[nodiscard]] ByteView view() const noexcept { return ByteView(bytes_).subspan(head_); }

  void append(ByteView more) {
    if (head_ > 0 && head_ >= size()) compact();
    bytes_.insert(bytes_.end(), more.begin(), more.end());
  }
  void drop(std::size_t count) noexcept {
    head_ += std::min(count, size());
    if (head_ == bytes_.size()) clear();
  }
  void clear() noexcept {
    bytes_.clear();
    head_ = 0;
  }

 private:
  void compact() {
    bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(head_));
    head_ = 0;
  }

  std::vector<std::byte> bytes_;
  std::size_t head_ = 0;  // of bytes_: taken out already
};

}  // namespace twinstack::sim
