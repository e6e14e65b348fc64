// IoCursor: the program's buffers of one data call, and how far the call has come. Plain data, one thread.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace twinstack::sockets {

class IoCursor {
 public:
  // REQUIRES: `parts` outlives the cursor.
  explicit IoCursor(std::span<const iovec> parts) noexcept : parts_(parts) {
    for (const iovec& part : parts) left_ += part.iov_len;
  }

  // What Linux's import_iovec() refuses: too many parts, or more bytes than a ssize_t counts.
  [[nodiscard]] static bool is_valid(std::span<const iovec> parts) noexcept {
    if (parts.size() > IOV_MAX) return false;
    std::size_t total = 0;
    for (const iovec& part : parts) {
      if (part.iov_len > static_cast<std::size_t>(SSIZE_MAX) - total) return false;
      total += part.iov_len;
    }
    return true;
  }

  [[nodiscard]] std::size_t left() const noexcept { return left_; }
  [[nodiscard]] std::size_t done() const noexcept { return done_; }

  // Copies min(size, left()) bytes into or out of the program's buffers and advances.
  void copy_in(const std::byte* from, std::size_t size) noexcept {
    for_pieces(size, [&from](void* part, std::size_t here) {
      std::memcpy(part, from, here);
      from += here;
    });
  }
  void copy_out(std::byte* to, std::size_t size) noexcept {
    for_pieces(size, [&to](const void* part, std::size_t here) {
      std::memcpy(to, part, here);
      to += here;
    });
  }
  // Advances without touching the bytes.
  void skip(std::size_t size) noexcept {
    for_pieces(size, [](const void*, std::size_t) {});
  }

  // The next buffers as the kernel takes them, at most `limit` bytes; points into `room`.
  [[nodiscard]] std::span<iovec> next(std::span<iovec> room, std::size_t limit) const noexcept {
    std::size_t count = 0;
    std::size_t offset = offset_;
    for (std::size_t i = index_; i < parts_.size() && count < room.size() && limit > 0; ++i) {
      const std::size_t here = std::min(parts_[i].iov_len - offset, limit);
      if (here > 0) room[count++] = {.iov_base = static_cast<std::byte*>(parts_[i].iov_base) + offset, .iov_len = here};
      limit -= here;
      offset = 0;
    }
    return room.first(count);
  }

 private:
  template <typename Fn>
  void for_pieces(std::size_t size, Fn&& fn) noexcept {
    size = std::min(size, left_);
    left_ -= size;
    done_ += size;
    while (size > 0) {
      const iovec& part = parts_[index_];
      const std::size_t here = std::min(part.iov_len - offset_, size);
      if (here > 0) fn(static_cast<std::byte*>(part.iov_base) + offset_, here);
      size -= here;
      offset_ += here;
      if (offset_ == part.iov_len) {
        ++index_;
        offset_ = 0;
      }
    }
  }

  std::span<const iovec> parts_;
  std::size_t index_ = 0;
  std::size_t offset_ = 0;
  std::size_t left_ = 0;
  std::size_t done_ = 0;
};

}  // namespace twinstack::sockets
