// The byte streams of the peers: pseudo-random from a seed and addressable by position, so that a receiver can check
// any piece on its own, and a digest that does not depend on how the stream was cut. No I/O; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace twinstack::peers {

// splitmix64's output function: a bijection that scatters its input.
[[nodiscard]] constexpr std::uint64_t mix64(std::uint64_t z) noexcept {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

// Byte k of the stream is byte (k % 8), little endian, of mix64(seed + (k / 8 + 1) * golden ratio).
class Pattern {
 public:
  explicit Pattern(std::uint64_t seed) noexcept : seed_(seed) {}

  // Writes the bytes [offset, offset + out.size()) of the stream.
  void fill(std::uint64_t offset, std::span<std::byte> out) const noexcept;

  // Position in the stream of the first byte that is not as it must be, if there is one.
  [[nodiscard]] std::optional<std::uint64_t> first_mismatch(std::uint64_t offset,
                                                            std::span<const std::byte> bytes) const noexcept;

 private:
  [[nodiscard]] std::uint64_t word(std::uint64_t index) const noexcept;
  [[nodiscard]] std::byte byte_at(std::uint64_t offset) const noexcept;

  std::uint64_t seed_;
};

// A 64-bit digest of a byte stream (a mix of every 8-byte word with its place). Not for secrets.
class StreamDigest {
 public:
  void update(std::span<const std::byte> bytes) noexcept;
  // Of all bytes so far.
  [[nodiscard]] std::uint64_t value() const noexcept;

 private:
  void add_word(std::uint64_t word) noexcept;

  std::uint64_t sum_ = 0;
  std::uint64_t length_bytes_ = 0;
  std::array<std::byte, 8> partial_{};
};

}  // namespace twinstack::peers
