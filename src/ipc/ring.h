// The two ends of a submission or completion ring: io_uring-like, one producer and one consumer at a time. The consumer
// trusts nothing that the other side wrote: an index out of range is reported, entries are copied before they are read.
#pragma once

#include <atomic>
#include <cstdint>

#include "ipc/layout.h"

namespace twinstack::ipc {

template <typename Entry>
class RingProducer {
 public:
  RingProducer() noexcept = default;
  RingProducer(RingIndex& tail, RingIndex& head, RingIndex& need_wakeup, Entry* entries, std::uint32_t count) noexcept
      : tail_(&tail.value),
        head_(&head.value),
        need_wakeup_(&need_wakeup.value),
        entries_(entries),
        mask_(count - 1),
        next_(tail_->load(std::memory_order_relaxed)) {}

  // Free entries now. A head that the other side corrupted counts as a full ring.
  [[nodiscard]] std::uint32_t room() noexcept {
    const std::uint32_t used = next_ - head_->load(std::memory_order_acquire);
    return used > mask_ + 1 ? 0 : mask_ + 1 - used;
  }
  // Whether the consumer has taken everything that was published.
  [[nodiscard]] bool is_empty() noexcept { return head_->load(std::memory_order_acquire) == next_; }
  // REQUIRES: room() > 0. The entry is seen by the consumer after publish().
  void push(const Entry& entry) noexcept { entries_[next_++ & mask_] = entry; }
  void publish() noexcept { tail_->store(next_, std::memory_order_release); }
  // After publish(): whether the sleeping consumer asked for a wake-up; clears the request.
  [[nodiscard]] bool take_wakeup() noexcept {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return need_wakeup_->load(std::memory_order_relaxed) != 0 &&
           need_wakeup_->exchange(0, std::memory_order_acq_rel) != 0;
  }

 private:
  std::atomic<std::uint32_t>* tail_ = nullptr;
  std::atomic<std::uint32_t>* head_ = nullptr;
  std::atomic<std::uint32_t>* need_wakeup_ = nullptr;
  Entry* entries_ = nullptr;
  std::uint32_t mask_ = 0;
  std::uint32_t next_ = 0;
};

template <typename Entry>
class RingConsumer {
 public:
  enum class Pop : std::uint8_t { kEntry, kEmpty, kCorrupt };

  RingConsumer() noexcept = default;
  RingConsumer(RingIndex& tail, RingIndex& head, RingIndex& need_wakeup, const Entry* entries,
               std::uint32_t count) noexcept
      : tail_(&tail.value),
        head_(&head.value),
        need_wakeup_(&need_wakeup.value),
        entries_(entries),
        mask_(count - 1),
        next_(head_->load(std::memory_order_relaxed)) {}

  // Copies the next entry out. kCorrupt: the producer's tail is impossible.
  [[nodiscard]] Pop pop(Entry& entry) noexcept {
    if (next_ == seen_tail_) {
      seen_tail_ = tail_->load(std::memory_order_acquire);
      if (next_ == seen_tail_) return Pop::kEmpty;
      if (seen_tail_ - next_ > mask_ + 1) return Pop::kCorrupt;
    }
    entry = entries_[next_++ & mask_];
    return Pop::kEntry;
  }
  // Gives the entries popped so far back to the producer.
  void release() noexcept { head_->store(next_, std::memory_order_release); }
  [[nodiscard]] bool is_empty() const noexcept { return tail_->load(std::memory_order_acquire) == next_; }
  // Entries that were published and not popped yet. A tail that the other side corrupted gives any number.
  [[nodiscard]] std::uint32_t backlog() const noexcept { return tail_->load(std::memory_order_acquire) - next_; }

  // Before sleeping: ask for a wake-up, then look again. True: nothing is there, sleep. False: there is work.
  [[nodiscard]] bool prepare_sleep() noexcept {
    need_wakeup_->store(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (is_empty()) return true;
    need_wakeup_->store(0, std::memory_order_relaxed);
    return false;
  }
  void cancel_sleep() noexcept { need_wakeup_->store(0, std::memory_order_relaxed); }

 private:
  std::atomic<std::uint32_t>* tail_ = nullptr;
  std::atomic<std::uint32_t>* head_ = nullptr;
  std::atomic<std::uint32_t>* need_wakeup_ = nullptr;
  const Entry* entries_ = nullptr;
  std::uint32_t mask_ = 0;
  std::uint32_t next_ = 0;
  std::uint32_t seen_tail_ = next_;
};

using SubmitProducer = RingProducer<SubmitEntry>;
using SubmitConsumer = RingConsumer<SubmitEntry>;
using CompleteProducer = RingProducer<CompleteEntry>;
using CompleteConsumer = RingConsumer<CompleteEntry>;

}  // namespace twinstack::ipc
