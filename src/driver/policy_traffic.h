// Traffic: what a connection of the kernel has carried, and whether the policy `auto` takes a move to pay for it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace twinstack::driver {

struct Traffic {
  std::uint64_t bytes_out = 0;  // sent, repeated ones included, as the segments are
  std::uint64_t bytes_in = 0;
  std::uint64_t data_segments_out = 0;
  std::uint64_t data_segments_in = 0;
  std::uint64_t segments_in = 0;  // with and without data
  std::uint32_t mss = 0;          // payload of a full segment of ours

  // It lives, and is likely to live on.
  [[nodiscard]] bool is_enough() const noexcept {
    constexpr std::uint64_t kBytes = 16384;
    constexpr std::uint64_t kSegments = 16;
    return bytes_out + bytes_in >= kBytes || segments_in >= kSegments;
  }

  // Many full segments one way for each the other way. The kernel passes those through in super-packets (TSO, GRO),
  // the engine one by one: requests and answers of up to about five segments cost it less (bench/rr_compare.py --size).
  [[nodiscard]] bool is_bulk() const noexcept {
    constexpr std::uint64_t kSegmentsForOne = 6;
    const bool out = data_segments_out >= data_segments_in;
    const std::uint64_t most = out ? data_segments_out : data_segments_in;
    const std::uint64_t least = std::min(data_segments_out, data_segments_in);
    const bool are_full = (out ? bytes_out : bytes_in) >= most * mss / 2;
    return most >= kSegmentsForOne * std::max<std::uint64_t>(least, 1) && are_full;
  }
};

}  // namespace twinstack::driver
