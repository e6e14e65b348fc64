#include "wire/checksum.h"

#include <array>

#include "base/assert.h"
#include "wire/numbers.h"

namespace twinstack::wire {

namespace {

constexpr std::size_t kBlock = 32;

// Sum of `count` bytes as if they began at an even offset. kCopy: also copies them to `out`, read once.
// Four sums side by side: the additions with carry of one chain would wait for each other.
template <bool kCopy>
std::uint64_t sum_blocks(const std::byte* in, std::size_t count, std::byte* out) noexcept {
  std::uint64_t a = 0;
  std::uint64_t b = 0;
  std::uint64_t c = 0;
  std::uint64_t d = 0;
  for (; count >= kBlock; count -= kBlock, in += kBlock) {
    std::array<std::uint64_t, 4> words;
    std::memcpy(words.data(), in, kBlock);
    if constexpr (kCopy) {
      std::memcpy(out, words.data(), kBlock);
      out += kBlock;
    }
    a = add_carry(a, words[0]);
    b = add_carry(b, words[1]);
    c = add_carry(c, words[2]);
    d = add_carry(d, words[3]);
  }
  if constexpr (kCopy) {
    if (count > 0) std::memcpy(out, in, count);
  }
  const std::uint64_t rest = count > 0 ? sum_words(in, count) : 0;
  return add_carry(add_carry(add_carry(a, b), add_carry(c, d)), rest);
}

}  // namespace

std::uint64_t sum_bytes(const std::byte* in, std::size_t count) noexcept {
  return sum_blocks<false>(in, count, nullptr);
}

void InternetSum::add_pseudo_header(const FlowKey& flow, std::uint32_t tcp_bytes) noexcept {
  // The prefix of an IPv4-mapped address would add 0xffff twice, which is zero in this arithmetic; but a partial
  // checksum is compared bit by bit, so only what is in the header goes in.
  const std::size_t skip = flow.is_v4() ? 12 : 0;
  for (const IpAddress* address : {&flow.local, &flow.remote}) {
    add_few(std::as_bytes(std::span(address->bytes).subspan(skip)));
  }
  add_field(static_cast<std::uint16_t>(tcp_bytes >> 16));
  add_field(static_cast<std::uint16_t>(tcp_bytes & 0xffffU));
  add_field(kProtocolTcp);
}

void copy_and_sum(std::span<std::byte> out, ByteView in, InternetSum& sum) noexcept {
  ASSERT(out.size() >= in.size());
  sum.add_words(sum_blocks<true>(in.data(), in.size(), out.data()), in.size() % 2 != 0);
}

}  // namespace twinstack::wire
