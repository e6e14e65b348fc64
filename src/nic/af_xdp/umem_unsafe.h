// Umem: the packet memory of one AF_XDP socket: buffers of 2048 or 4096 bytes, first those for reception, then those
// for sending. Addresses are offsets from its start, as in the descriptors of the kernel.
//
// Every address that comes back from the kernel is checked against the area before it becomes a pointer.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "base/assert.h"
#include "base/huge_pages.h"
#include "base/result.h"
#include "wire/payload.h"

namespace twinstack::nic {

class Umem {
 public:
  static Result<Umem> make(std::uint32_t buffers, std::uint32_t buffer_bytes) {
    const std::size_t bytes = std::size_t{buffers} * buffer_bytes;
    void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) return system_error("mmap of packet memory");
    use_huge_pages({static_cast<std::byte*>(memory), bytes});  // now: the device is about to hold the pages
    return Umem(static_cast<std::byte*>(memory), bytes, buffer_bytes);
  }
  Umem(Umem&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)), bytes_(other.bytes_), buffer_bytes_(other.buffer_bytes_) {}
  Umem& operator=(Umem&&) = delete;
  ~Umem() {
    if (memory_ != nullptr) ::munmap(memory_, bytes_);
  }

  [[nodiscard]] std::uint64_t start() const noexcept { return reinterpret_cast<std::uintptr_t>(memory_); }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::uint32_t buffer_bytes() const noexcept { return buffer_bytes_; }

  [[nodiscard]] ByteView view(std::uint64_t address, std::uint32_t length) const noexcept {
    ASSERT(address <= bytes_ && length <= bytes_ - address);
    return {memory_ + address, length};
  }
  [[nodiscard]] std::span<std::byte> room(std::uint64_t address, std::uint32_t length) const noexcept {
    ASSERT(address <= bytes_ && length <= bytes_ - address);
    return {memory_ + address, length};
  }

 private:
  Umem(std::byte* memory, std::size_t bytes, std::uint32_t buffer_bytes) noexcept
      : memory_(memory), bytes_(bytes), buffer_bytes_(buffer_bytes) {}

  std::byte* memory_ = nullptr;
  std::size_t bytes_ = 0;
  std::uint32_t buffer_bytes_ = 0;
};

}  // namespace twinstack::nic
