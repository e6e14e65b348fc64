// Payload: a view of bytes that lie in several buffers (a multi-buffer frame of AF_XDP). Cheap to narrow; owns nothing.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/assert.h"

namespace twinstack {

using ByteView = std::span<const std::byte>;

class Payload {
 public:
  Payload() noexcept = default;
  // REQUIRES: `parts` outlives the view; skip + length <= total bytes of parts.
  Payload(std::span<const ByteView> parts, std::uint32_t skip, std::uint32_t length) noexcept
      : parts_(parts), skip_(skip), length_(length) {}

  [[nodiscard]] std::uint32_t size() const noexcept { return length_; }
  [[nodiscard]] bool empty() const noexcept { return length_ == 0; }

  // REQUIRES: offset + length <= size().
  [[nodiscard]] Payload narrow(std::uint32_t offset, std::uint32_t length) const noexcept {
    ASSERT(offset + length <= length_);
    return Payload(parts_, skip_ + offset, length);
  }

  // Calls fn(ByteView) for each piece in order.
  template <typename Fn>
  void for_each(Fn&& fn) const {
    if (length_ == 0) return;
    if (std::size_t{skip_} + length_ <= parts_.front().size()) {  // as most lie
      fn(parts_.front().subspan(skip_, length_));
      return;
    }
    std::size_t skip = skip_;
    std::size_t left = length_;
    for (const ByteView part : parts_) {
      if (left == 0) break;
      if (skip >= part.size()) {
        skip -= part.size();
        continue;
      }
      const std::size_t here = std::min(part.size() - skip, left);
      fn(part.subspan(skip, here));
      skip = 0;
      left -= here;
    }
  }

  // Copies min(size(), out.size()) bytes; returns how many.
  std::size_t copy_to(std::span<std::byte> out) const noexcept {
    std::size_t done = 0;
    for_each([&](ByteView piece) {
      const std::size_t here = std::min(piece.size(), out.size() - done);
      if (here > 0) std::memcpy(out.data() + done, piece.data(), here);
      done += here;
    });
    return done;
  }

 private:
  std::span<const ByteView> parts_;
  std::uint32_t skip_ = 0;
  std::uint32_t length_ = 0;
};

}  // namespace twinstack
