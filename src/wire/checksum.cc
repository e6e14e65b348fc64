#include "wire/checksum.h"

#include <array>
#include <bit>
#include <cstring>

#include "wire/bytes.h"

namespace twinstack::wire {

namespace {

constexpr std::uint8_t kProtocolTcp = 6;

// One's complement addition of 64-bit words; 2^64 - 1 is 0 modulo 2^16 - 1, so folding later is sound.
std::uint64_t add_carry(std::uint64_t a, std::uint64_t b) noexcept {
  const std::uint64_t sum = a + b;
  return sum + (sum < a ? 1 : 0);
}

std::uint64_t load_word(const std::byte* from) noexcept {
  std::uint64_t word = 0;
  std::memcpy(&word, from, sizeof word);
  return word;
}

// 0 to 7 bytes as they would lie at the start of a word of zeros.
std::uint64_t load_tail(const std::byte* from, std::size_t count) noexcept {
  std::uint64_t word = 0;
  if (count > 0) std::memcpy(&word, from, count);
  return word;
}

std::uint16_t fold(std::uint64_t sum) noexcept {
  sum = (sum & 0xffffffffU) + (sum >> 32);
  sum = (sum & 0xffffffffU) + (sum >> 32);
  sum = (sum & 0xffffU) + (sum >> 16);
  sum = (sum & 0xffffU) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

// Sum of `bytes` as if they began at an even offset. kCopy: also copies them to `out`, read once.
// Four sums side by side: the additions with carry of one chain would wait for each other.
template <bool kCopy>
std::uint64_t sum_bytes(const std::byte* in, std::size_t count, std::byte* out) noexcept {
  std::array<std::uint64_t, 4> sums{};
  std::size_t at = 0;
  for (; at + 32 <= count; at += 32) {
    std::array<std::uint64_t, 4> words;
    std::memcpy(words.data(), in + at, sizeof words);
    if constexpr (kCopy) std::memcpy(out + at, words.data(), sizeof words);
    for (std::size_t i = 0; i < 4; ++i) sums[i] = add_carry(sums[i], words[i]);
  }
  std::uint64_t sum = add_carry(add_carry(sums[0], sums[1]), add_carry(sums[2], sums[3]));
  for (; at + 8 <= count; at += 8) sum = add_carry(sum, load_word(in + at));
  sum = add_carry(sum, load_tail(in + at, count - at));
  if constexpr (kCopy) {
    const std::size_t copied = count / 32 * 32;
    if (count > copied) std::memcpy(out + copied, in + copied, count - copied);
  }
  return sum;
}

// A piece that begins at an odd offset: every byte counts in the other half of its 16-bit word (RFC 1071 2(B)).
std::uint64_t at_offset(std::uint64_t sum, bool odd) noexcept { return odd ? std::byteswap(fold(sum)) : sum; }

}  // namespace

void InternetSum::add_words(std::uint64_t word_sum, bool odd_length) noexcept {
  sum_ = add_carry(sum_, at_offset(word_sum, odd_));
  odd_ ^= odd_length;
}

void InternetSum::add(ByteView bytes) noexcept {
  add_words(sum_bytes<false>(bytes.data(), bytes.size(), nullptr), bytes.size() % 2 != 0);
}

void InternetSum::add(const InternetSum& other) noexcept { add_words(other.sum_, other.odd_); }

void InternetSum::add(const Payload& payload) noexcept {
  payload.for_each([this](ByteView piece) { add(piece); });
}

void InternetSum::add_field(std::uint16_t value) noexcept { sum_ = add_carry(sum_, swap_to_network(value)); }

void InternetSum::add_pseudo_header(const FlowKey& flow, std::uint32_t tcp_bytes) noexcept {
  // The prefix of an IPv4-mapped address would add 0xffff twice, which is zero in this arithmetic; but a partial
  // checksum is compared bit by bit, so only what is in the header goes in.
  const std::size_t skip = flow.is_v4() ? 12 : 0;
  for (const IpAddress* address : {&flow.local, &flow.remote}) {
    add(std::as_bytes(std::span(address->bytes).subspan(skip)));
  }
  add_field(static_cast<std::uint16_t>(tcp_bytes >> 16));
  add_field(static_cast<std::uint16_t>(tcp_bytes & 0xffffU));
  add_field(kProtocolTcp);
}

std::uint16_t InternetSum::folded() const noexcept { return fold(sum_); }

void copy_and_sum(std::span<std::byte> out, ByteView in, InternetSum& sum) noexcept {
  ASSERT(out.size() >= in.size());
  sum.add_words(sum_bytes<true>(in.data(), in.size(), out.data()), in.size() % 2 != 0);
}

}  // namespace twinstack::wire
