// TCP Fast Open's option (RFC 7413 4.1.1): kind 34, or the one of the experiment (kind 254 with a magic number, RFC
// 6994), as Linux speaks both. Only SYNs carry it, so it is no part of TcpOptions. Pure, any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/payload.h"

namespace twinstack::wire {

inline constexpr std::size_t kLargestCookie = 16;  // bytes; RFC 7413 4.1.1: 4 to 16, an even number

struct FastOpenOption {
  // In Linux's words: a request has no cookie, a SYN-ACK that has one grants it.
  bool present = false;
  bool experimental = false;
  std::uint8_t cookie_bytes = 0;
  std::array<std::byte, kLargestCookie> cookie{};

  [[nodiscard]] ByteView value() const noexcept { return {cookie.data(), cookie_bytes}; }
  friend bool operator==(const FastOpenOption&, const FastOpenOption&) = default;
};

// The option among those that follow a fixed header. A cookie of a length that may not be counts as absent.
[[nodiscard]] FastOpenOption parse_fast_open(ByteView options) noexcept;

// Bytes that write_fast_open() takes: a multiple of 4, 0 when it is not present.
[[nodiscard]] std::uint32_t fast_open_bytes(const FastOpenOption& option) noexcept;
// Padded with NOPs at its end. REQUIRES: out.size() >= fast_open_bytes(option).
void write_fast_open(std::span<std::byte> out, const FastOpenOption& option) noexcept;

}  // namespace twinstack::wire
