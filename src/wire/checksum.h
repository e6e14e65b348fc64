// Internet checksum (RFC 1071), over bytes that may lie in several pieces of odd length. Pure, any thread.
//
// Sums are kept in the byte order of memory: by RFC 1071 2(B) the result is right on every machine as long as it is
// stored as it is (memcpy, no swap). Functions say so where a value in memory order meets one in host order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "wire/flow.h"
#include "wire/payload.h"

namespace twinstack::wire {

// How checksums of received frames are to be taken.
enum class ChecksumMode : std::uint8_t {
  kVerify,         // verify every one
  kAcceptPartial,  // frames of a local peer: also accept a field that holds only the folded pseudo-header sum
};

// Accumulates a one's complement sum.
class InternetSum {
 public:
  // Bytes in order; a piece of odd length is followed by the next byte of the stream, not by padding.
  void add(ByteView bytes) noexcept;
  void add(const Payload& payload) noexcept;
  // What `other` has summed, as if its bytes followed.
  void add(const InternetSum& other) noexcept;
  // A 16-bit field in host order. REQUIRES: an even number of bytes so far.
  void add_field(std::uint16_t value) noexcept;
  // RFC 9293 3.1 (IPv4), RFC 8200 8.1 (IPv6). `tcp_bytes`: header and payload.
  // REQUIRES: an even number of bytes so far.
  void add_pseudo_header(const FlowKey& flow, std::uint32_t tcp_bytes) noexcept;

  // The sum folded to 16 bits, memory order, not complemented. 0 only when every byte was zero.
  [[nodiscard]] std::uint16_t folded() const noexcept;
  // What goes into a checksum field, memory order. Over bytes that contain their own checksum: 0 when it is right.
  [[nodiscard]] std::uint16_t checksum() const noexcept { return static_cast<std::uint16_t>(~folded()); }

 private:
  friend void copy_and_sum(std::span<std::byte> out, ByteView in, InternetSum& sum) noexcept;
  void add_words(std::uint64_t word_sum, bool odd_length) noexcept;

  std::uint64_t sum_ = 0;  // of 64-bit words, end-around carry included
  bool odd_ = false;       // an odd number of bytes so far
};

// Copies `in` to `out` and adds it to `sum` in the same pass over memory.
// REQUIRES: out.size() >= in.size().
void copy_and_sum(std::span<std::byte> out, ByteView in, InternetSum& sum) noexcept;

}  // namespace twinstack::wire
