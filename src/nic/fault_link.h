// FaultLink: a Link that owns another one and spoils its traffic: drops, delays, duplicates, reorders, corrupts. Each
// direction has its own settings; every decision comes from one seeded Rng, so a run with virtual time is repeatable.
//
// Frames are copied (it is a wrapper for tests, not for speed). Delayed frames come out by advance(): the owner calls
// it with the time, and again at next_event(). One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <queue>
#include <vector>

#include "base/rng.h"
#include "nic/link.h"

namespace twinstack::nic {

// Probabilities in parts per million, each decided for itself.
struct FaultRates {
  std::uint32_t drop_ppm = 0;
  std::uint32_t duplicate_ppm = 0;
  std::uint32_t corrupt_ppm = 0;  // one bit of the frame, anywhere, is turned
  std::uint32_t delay_ppm = 0;    // held for up to `delay_max`; frames behind it wait too (order is kept)
  Duration delay_max{0};
  std::uint32_t reorder_ppm = 0;  // held for `reorder_by`; frames behind it overtake
  Duration reorder_by{0};
};

struct FaultCounts {
  std::uint64_t dropped = 0;
  std::uint64_t duplicated = 0;
  std::uint64_t corrupted = 0;
  std::uint64_t delayed = 0;
  std::uint64_t reordered = 0;
};

struct FaultOptions {
  FaultRates rx;
  FaultRates tx;
};

class FaultLink final : public Link {
 public:
  // REQUIRES: inner is not null.
  FaultLink(std::unique_ptr<Link> inner, const FaultOptions& options, std::uint64_t seed);

  std::span<const RxFrame> receive(std::size_t max_frames) override;
  void release() override;
  std::span<std::byte> allocate_tx() override;
  void commit_tx(std::uint32_t length_bytes) override;
  std::size_t tx_room() override { return inner_->tx_room(); }
  void flush() override;
  void kick() override { inner_->kick(); }
  // Of the inner link: says nothing of held frames, see next_event().
  [[nodiscard]] int poll_fd() const override { return inner_->poll_fd(); }
  [[nodiscard]] Time next_event() const override;
  void advance(Time now) override;
  [[nodiscard]] const LinkInfo& info() const override { return inner_->info(); }
  [[nodiscard]] LinkStats stats() const override { return inner_->stats(); }

  // From now on, for frames not yet seen. All zero: faults stop, held frames still come.
  void set_options(const FaultOptions& options) { options_ = options; }
  [[nodiscard]] const FaultCounts& rx_counts() const noexcept { return rx_.counts; }
  [[nodiscard]] const FaultCounts& tx_counts() const noexcept { return tx_.counts; }
  [[nodiscard]] Link& inner() noexcept { return *inner_; }

 private:
  using Buffer = std::vector<std::byte>;
  struct Held {
    Time due;
    std::uint64_t number = 0;  // first come, first served among those due at the same time
    Buffer bytes;
  };
  struct Later {
    bool operator()(const Held& a, const Held& b) const noexcept {
      return a.due != b.due ? a.due > b.due : a.number > b.number;
    }
  };
  struct Direction {
    std::vector<Held> held;  // heap by Later
    Time last_in_order{};    // no frame whose order is kept may be due earlier
    FaultCounts counts;

    [[nodiscard]] Time next() const { return held.empty() ? kNever : held.front().due; }
    Buffer pop();
  };

  void take_in(Direction& direction, const FaultRates& rates, Buffer frame);
  void hold(Direction& direction, const FaultRates& rates, Buffer frame);
  void corrupt(Buffer& frame);
  void pull_from_inner();
  bool push_to_inner();

  std::unique_ptr<Link> inner_;
  FaultOptions options_;
  Rng rng_;
  Time now_{};
  std::uint64_t next_number_ = 0;
  Direction rx_;
  Direction tx_;

  std::vector<Buffer> received_;
  std::vector<ByteView> parts_;
  std::vector<RxFrame> frames_;
  Buffer allocated_;
  bool is_allocated_ = false;
};

}  // namespace twinstack::nic
