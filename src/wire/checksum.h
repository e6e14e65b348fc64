// Internet checksum (RFC 1071), over bytes that may lie in several pieces of odd length. Pure, any thread.
//
// Sums are kept in the byte order of memory: by RFC 1071 2(B) the result is right on every machine as long as it is
// stored as it is (memcpy, no swap). Functions say so where a value in memory order meets one in host order.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "wire/bytes.h"
#include "wire/flow.h"
#include "wire/payload.h"

namespace twinstack::wire {

// How checksums of received frames are to be taken.
enum class ChecksumMode : std::uint8_t {
  kVerify,         // verify every one
  kAcceptPartial,  // frames of a local peer: also accept a field that holds only the folded pseudo-header sum
};

// One's complement addition of 64-bit words; 2^64 - 1 is 0 modulo 2^16 - 1, so folding later is sound.
[[nodiscard]] constexpr std::uint64_t add_carry(std::uint64_t a, std::uint64_t b) noexcept {
  const std::uint64_t sum = a + b;
  return sum + (sum < a ? 1 : 0);
}

// A sum of 64-bit words folded to 16 bits. The halves are added to each other twice, the second time with the carry of
// the first. 0 only when `sum` is.
[[nodiscard]] constexpr std::uint16_t fold(std::uint64_t sum) noexcept {
  const auto half = static_cast<std::uint32_t>((sum + std::rotl(sum, 32)) >> 32);
  return static_cast<std::uint16_t>((half + std::rotl(half, 16)) >> 16);
}

// Sum of `count` bytes as if they began at an even offset. sum_words() is for few bytes, of headers: it is inlined.
[[nodiscard]] std::uint64_t sum_bytes(const std::byte* in, std::size_t count) noexcept;
[[nodiscard]] inline std::uint64_t sum_words(const std::byte* in, std::size_t count) noexcept {
  const auto load = [&in]<typename T>(T value) {
    std::memcpy(&value, in, sizeof value);
    in += sizeof value;
    return value;
  };
  std::uint64_t sum = 0;
  for (; count >= 8; count -= 8) sum = add_carry(sum, load(std::uint64_t{}));
  if ((count & 4) != 0) sum = add_carry(sum, load(std::uint32_t{}));
  if ((count & 2) != 0) sum = add_carry(sum, load(std::uint16_t{}));
  std::uint16_t last = 0;  // padded with a zero behind it (RFC 1071 4.1)
  if ((count & 1) != 0) std::memcpy(&last, in, 1);
  return add_carry(sum, last);
}

// Accumulates a one's complement sum.
class InternetSum {
 public:
  // Bytes in order; a piece of odd length is followed by the next byte of the stream, not by padding.
  void add(ByteView bytes) noexcept { add_words(sum_bytes(bytes.data(), bytes.size()), bytes.size() % 2 != 0); }
  void add(const Payload& payload) noexcept {
    payload.for_each([this](ByteView piece) { add(piece); });
  }
  // The same for a few bytes whose number the compiler knows.
  void add_few(ByteView bytes) noexcept { add_words(sum_words(bytes.data(), bytes.size()), bytes.size() % 2 != 0); }
  // What `other` has summed, as if its bytes followed.
  void add(const InternetSum& other) noexcept { add_words(other.sum_, other.odd_); }
  // A 16-bit field in host order. REQUIRES: an even number of bytes so far.
  void add_field(std::uint16_t value) noexcept { sum_ = add_carry(sum_, swap_to_network(value)); }
  // RFC 9293 3.1 (IPv4), RFC 8200 8.1 (IPv6). `tcp_bytes`: header and payload.
  // REQUIRES: an even number of bytes so far.
  void add_pseudo_header(const FlowKey& flow, std::uint32_t tcp_bytes) noexcept;

  // The sum folded to 16 bits, memory order, not complemented. 0 only when every byte was zero.
  [[nodiscard]] std::uint16_t folded() const noexcept { return fold(sum_); }
  // What goes into a checksum field, memory order. Over bytes that contain their own checksum: 0 when it is right.
  [[nodiscard]] std::uint16_t checksum() const noexcept { return static_cast<std::uint16_t>(~folded()); }

 private:
  friend void copy_and_sum(std::span<std::byte> out, ByteView in, InternetSum& sum) noexcept;
  void add_words(std::uint64_t word_sum, bool odd_length) noexcept {
    // A piece that begins at an odd offset: every byte counts in the other half of its 16-bit word (RFC 1071 2(B)).
    sum_ = add_carry(sum_, odd_ ? std::byteswap(fold(word_sum)) : word_sum);
    odd_ ^= odd_length;
  }

  std::uint64_t sum_ = 0;  // of 64-bit words, end-around carry included
  bool odd_ = false;       // an odd number of bytes so far
};

// Copies `in` to `out` and adds it to `sum` in the same pass over memory.
// REQUIRES: out.size() >= in.size().
void copy_and_sum(std::span<std::byte> out, ByteView in, InternetSum& sum) noexcept;

}  // namespace twinstack::wire
