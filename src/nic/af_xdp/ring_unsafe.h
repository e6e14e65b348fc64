// The four rings that an AF_XDP socket shares with the kernel: single producer, single consumer, in mapped memory. All
// casts of that memory are in this file and in umem_unsafe.h. Indexes run freely and are masked on use.
//
// One thread at a time on our side, but for occupied() and needs_wakeup(); the other side is the kernel.
#pragma once

#include <linux/if_xdp.h>
#include <sys/mman.h>
#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/result.h"

namespace twinstack::nic {

// One mapped ring; unmaps at the end.
class RingMapping {
 public:
  RingMapping() noexcept = default;
  RingMapping(void* memory, std::size_t bytes) noexcept : memory_(memory), bytes_(bytes) {}
  RingMapping(RingMapping&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  RingMapping& operator=(RingMapping&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~RingMapping() {
    if (memory_ != nullptr) ::munmap(memory_, bytes_);
  }

  template <typename T>
  [[nodiscard]] T* at(std::uint64_t offset_bytes) const noexcept {
    return reinterpret_cast<T*>(static_cast<std::byte*>(memory_) + offset_bytes);
  }

 private:
  void* memory_ = nullptr;
  std::size_t bytes_ = 0;
};

// What both directions share. `size` is a power of two.
template <typename Slot>
class Ring {
 public:
  static Result<RingMapping> map(int socket_fd, off_t page_offset, const xdp_ring_offset& offsets, std::uint32_t size) {
    const std::size_t bytes = offsets.desc + std::size_t{size} * sizeof(Slot);
    void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, socket_fd, page_offset);
    if (memory == MAP_FAILED) return system_error("mmap of an AF_XDP ring");
    return RingMapping(memory, bytes);
  }

  Ring() noexcept = default;
  Ring(RingMapping mapping, const xdp_ring_offset& offsets, std::uint32_t size) noexcept
      : mapping_(std::move(mapping)),
        producer_(mapping_.at<std::uint32_t>(offsets.producer)),
        consumer_(mapping_.at<std::uint32_t>(offsets.consumer)),
        flags_(mapping_.at<std::uint32_t>(offsets.flags)),
        slots_(mapping_.at<Slot>(offsets.desc)),
        mask_(size - 1) {}

  [[nodiscard]] Slot& slot(std::uint32_t index) const noexcept { return slots_[index & mask_]; }
  // Entries between producer and consumer: at least those of now, while others move on.
  [[nodiscard]] std::uint32_t occupied() const noexcept {
    const std::uint32_t consumer = load(consumer_);
    return load(producer_) - consumer;
  }
  [[nodiscard]] bool needs_wakeup() const noexcept {
    return (std::atomic_ref(*flags_).load(std::memory_order_relaxed) & XDP_RING_NEED_WAKEUP) != 0;
  }

 protected:
  [[nodiscard]] static std::uint32_t load(std::uint32_t* index) noexcept {
    return std::atomic_ref(*index).load(std::memory_order_acquire);
  }
  static void store(std::uint32_t* index, std::uint32_t value) noexcept {
    std::atomic_ref(*index).store(value, std::memory_order_release);
  }

  RingMapping mapping_;
  std::uint32_t* producer_ = nullptr;
  std::uint32_t* consumer_ = nullptr;
  std::uint32_t* flags_ = nullptr;
  Slot* slots_ = nullptr;
  std::uint32_t mask_ = 0;
  std::uint32_t own_ = 0;  // our index; ahead of the shared one until submit() or release()
};

// We produce: fill and tx.
template <typename Slot>
class ProducerRing : public Ring<Slot> {
 public:
  using Ring<Slot>::Ring;

  // The caller knows by its own accounting that the ring cannot be full: it has no more buffers than slots.
  void push(const Slot& value) noexcept { this->slot(this->own_++) = value; }
  // The kernel sees what was pushed.
  void submit() noexcept { this->store(this->producer_, this->own_); }
  // Pushed and not submitted.
  [[nodiscard]] std::uint32_t pending() const noexcept { return this->own_ - *this->producer_; }
};

// The kernel produces: rx and completion.
template <typename Slot>
class ConsumerRing : public Ring<Slot> {
 public:
  using Ring<Slot>::Ring;

  // Entries [first(), first() + available()) can be read.
  [[nodiscard]] std::uint32_t first() const noexcept { return this->own_; }
  [[nodiscard]] std::uint32_t available() const noexcept { return this->load(this->producer_) - this->own_; }
  // The kernel gets the entries before `index` back.
  void release_to(std::uint32_t index) noexcept {
    this->own_ = index;
    this->store(this->consumer_, index);
  }
};

}  // namespace twinstack::nic
