// Histogram: latencies in nanoseconds, in buckets that are at most 1/64 wide relative to their value. Fixed size, no
// allocation when recording; one thread.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace twinstack::peers {

class Histogram {
 public:
  void record(std::uint64_t nanoseconds) noexcept {
    ++buckets_[index_of(nanoseconds)];
    ++count_;
    max_ns_ = std::max(max_ns_, nanoseconds);
  }

  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] std::uint64_t max_ns() const noexcept { return max_ns_; }

  // Upper end of the bucket that holds the given quantile (0.99 = p99), never above the maximum; 0 when empty.
  [[nodiscard]] std::uint64_t quantile_ns(double quantile) const noexcept {
    if (count_ == 0) return 0;
    const auto wanted = static_cast<std::uint64_t>(quantile * static_cast<double>(count_ - 1)) + 1;
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      seen += buckets_[i];
      if (seen >= wanted) return std::min(upper_end(i), max_ns_);
    }
    return max_ns_;
  }

 private:
  static constexpr unsigned kSubBits = 6;
  static constexpr std::size_t kSub = std::size_t{1} << kSubBits;

  // Values below kSub have a bucket each; above, each power of two has kSub buckets.
  static constexpr std::size_t index_of(std::uint64_t value) noexcept {
    if (value < kSub) return value;
    const unsigned shift = static_cast<unsigned>(std::bit_width(value)) - 1 - kSubBits;
    return (std::size_t{shift} + 1) * kSub + ((value >> shift) - kSub);
  }
  static constexpr std::uint64_t upper_end(std::size_t index) noexcept {
    if (index < kSub) return index;
    const std::size_t shift = index / kSub - 1;
    return ((kSub + index % kSub + 1) << shift) - 1;
  }

  std::array<std::uint64_t, (64 - kSubBits + 1) * kSub> buckets_{};
  std::uint64_t count_ = 0;
  std::uint64_t max_ns_ = 0;
};

}  // namespace twinstack::peers
