// Segment: the fields of one TCP header as values (RFC 9293 3.1), the same for one that was received and one that is to
// be sent. Plain data, no pointers; the payload travels beside it. Host order throughout.
#pragma once

#include <array>
#include <cstdint>

#include "wire/seq.h"

namespace twinstack::wire {

// Bits of Segment::flags, as they lie in the header.
enum TcpFlag : std::uint8_t {
  kFin = 0x01,
  kSyn = 0x02,
  kRst = 0x04,
  kPsh = 0x08,
  kAck = 0x10,
  kUrg = 0x20,
  kEce = 0x40,
  kCwr = 0x80,
};

// The ECN field of the IP header (RFC 3168 5).
enum class Ecn : std::uint8_t { kNotEct = 0, kEct1 = 1, kEct0 = 2, kCe = 3 };

// [left, right): bytes that the receiver holds above its cumulative ACK (RFC 2018 3).
struct SackBlock {
  Seq left;
  Seq right;

  friend bool operator==(const SackBlock&, const SackBlock&) = default;
};

inline constexpr std::size_t kMaxSackBlocks = 4;

inline constexpr std::size_t kMostCookieBytes = 16;

// TCP Fast Open (RFC 7413 2): a cookie of 4 to 16 bytes, or none, which asks for one. Only SYNs carry it.
struct FastOpen {
  std::array<std::byte, kMostCookieBytes> cookie{};
  std::uint8_t cookie_bytes = 0;
  bool present = false;
  bool experimental = false;  // as the experimental option that came before kind 34 (RFC 6994 numbers)

  friend bool operator==(const FastOpen&, const FastOpen&) = default;
};

struct TcpOptions {
  std::uint32_t ts_val = 0;
  std::uint32_t ts_ecr = 0;
  std::array<SackBlock, kMaxSackBlocks> sack{};
  std::uint16_t mss = 0;
  std::uint8_t window_scale = 0;  // shift, 0..14
  std::uint8_t sack_count = 0;
  bool has_timestamps = false;
  bool has_mss = false;
  bool has_window_scale = false;
  bool sack_permitted = false;
  FastOpen fast_open{};

  friend bool operator==(const TcpOptions&, const TcpOptions&) = default;
};

struct Segment {
  Seq seq;
  Seq ack;
  std::uint16_t window = 0;  // as in the header, not scaled
  std::uint16_t urgent = 0;
  std::uint8_t flags = 0;  // TcpFlag
  Ecn ecn = Ecn::kNotEct;  // of the IP header that carries the segment
  TcpOptions options;

  [[nodiscard]] constexpr bool has(std::uint8_t any_of) const noexcept { return (flags & any_of) != 0; }

  friend bool operator==(const Segment&, const Segment&) = default;
};

}  // namespace twinstack::wire
