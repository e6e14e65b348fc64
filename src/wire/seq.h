// Seq: a TCP sequence number, modulo 2^32 (RFC 9293 3.4). Comparison is by distance: `a < b` means b is ahead of a by
// less than 2^31. No total order, so there is no operator<=> and Seq is not a map key.
#pragma once

#include <cstdint>

namespace twinstack {

class Seq {
 public:
  constexpr Seq() noexcept = default;
  constexpr explicit Seq(std::uint32_t raw) noexcept : raw_(raw) {}

  [[nodiscard]] constexpr std::uint32_t raw() const noexcept { return raw_; }

  constexpr Seq& operator+=(std::uint32_t bytes) noexcept {
    raw_ += bytes;
    return *this;
  }
  friend constexpr Seq operator+(Seq seq, std::uint32_t bytes) noexcept { return Seq(seq.raw_ + bytes); }
  friend constexpr Seq operator-(Seq seq, std::uint32_t bytes) noexcept { return Seq(seq.raw_ - bytes); }
  // Signed distance from b to a.
  friend constexpr std::int32_t operator-(Seq a, Seq b) noexcept { return static_cast<std::int32_t>(a.raw_ - b.raw_); }

  friend constexpr bool operator==(Seq a, Seq b) noexcept { return a.raw_ == b.raw_; }
  friend constexpr bool operator<(Seq a, Seq b) noexcept { return a - b < 0; }
  friend constexpr bool operator<=(Seq a, Seq b) noexcept { return a - b <= 0; }
  friend constexpr bool operator>(Seq a, Seq b) noexcept { return a - b > 0; }
  friend constexpr bool operator>=(Seq a, Seq b) noexcept { return a - b >= 0; }

 private:
  std::uint32_t raw_ = 0;
};

[[nodiscard]] constexpr Seq max(Seq a, Seq b) noexcept { return a < b ? b : a; }
[[nodiscard]] constexpr Seq min(Seq a, Seq b) noexcept { return a < b ? a : b; }

// Bytes from `from` up to `to`. REQUIRES: from <= to.
[[nodiscard]] constexpr std::uint32_t bytes_between(Seq from, Seq to) noexcept { return to.raw() - from.raw(); }

}  // namespace twinstack
