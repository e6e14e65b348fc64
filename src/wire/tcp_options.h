// TCP options (RFC 9293 3.2, RFC 7323, RFC 2018): bytes <-> TcpOptions. Pure, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/payload.h"
#include "wire/segment.h"

namespace twinstack::wire {

inline constexpr std::uint32_t kMaxOptionBytes = 40;
inline constexpr std::uint32_t kTimestampBytes = 12;             // NOP NOP kind length TSval TSecr
inline constexpr std::uint32_t kTimestampsAligned = 0x0101080a;  // ... the first four
inline constexpr std::uint8_t kMaxWindowScale = 14;              // RFC 7323 2.3

// Reads the options that follow the fixed header. Unknown kinds are skipped. Options of a wrong length are taken as
// unknown; a length that leads out of `bytes` (or under 2) ends the list: what was read before it stays, the result
// is false, and the segment may still be used, as Linux does.
bool parse_options(ByteView bytes, TcpOptions& out) noexcept;

// Timestamps and nothing else, as nearly every segment carries them.
[[nodiscard]] inline bool only_timestamps(const TcpOptions& options) noexcept {
  const bool others =
      options.has_mss || options.has_window_scale || options.sack_permitted || options.fast_open.present;
  return options.has_timestamps && options.sack_count == 0 && !others;
}

// Bytes that write_options() takes: a multiple of 4, at most 40.
[[nodiscard]] std::uint32_t all_options_bytes(const TcpOptions& options) noexcept;
[[nodiscard]] inline std::uint32_t options_bytes(const TcpOptions& options) noexcept {
  return only_timestamps(options) ? kTimestampBytes : all_options_bytes(options);
}

// Writes the options in Linux's order, padded with NOPs to options_bytes(). SACK blocks that do not fit are left out,
// last first. REQUIRES: out.size() >= options_bytes(options).
std::uint32_t write_options(std::span<std::byte> out, const TcpOptions& options) noexcept;

// How many SACK blocks fit beside the other options.
[[nodiscard]] std::uint32_t sack_blocks_that_fit(const TcpOptions& options) noexcept;

}  // namespace twinstack::wire
