#include "wire/checksum.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/rng.h"

namespace twinstack::wire {
namespace {

// RFC 1071 4.1, as slow and plain as it is written there; host order.
std::uint16_t reference(ByteView bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    const auto high = static_cast<std::uint32_t>(bytes[i]) << 8;
    const auto low = i + 1 < bytes.size() ? static_cast<std::uint32_t>(bytes[i + 1]) : 0;
    sum += high | low;
    while (sum >> 16 != 0) sum = (sum & 0xffffU) + (sum >> 16);
  }
  return static_cast<std::uint16_t>(~sum);
}

std::uint16_t to_host(std::uint16_t memory_order) {
  std::array<std::uint8_t, 2> bytes{};
  std::memcpy(bytes.data(), &memory_order, 2);
  return static_cast<std::uint16_t>(bytes[0] << 8 | bytes[1]);
}

std::vector<std::byte> random_bytes(Rng& rng, std::size_t count) {
  std::vector<std::byte> bytes(count);
  const bool extreme = rng.below(4) == 0;  // carries everywhere
  for (auto& byte : bytes) byte = extreme ? std::byte{0xff} : static_cast<std::byte>(rng.below(256));
  return bytes;
}

TEST(InternetSum, ExampleOfRfc1071) {
  const std::array<std::uint8_t, 8> bytes = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
  InternetSum sum;
  sum.add(std::as_bytes(std::span(bytes)));
  EXPECT_EQ(to_host(sum.folded()), 0xddf2);
  EXPECT_EQ(to_host(sum.checksum()), static_cast<std::uint16_t>(~0xddf2));
}

TEST(InternetSum, EveryLengthAndAlignmentAgreesWithTheReference) {
  Rng rng(1);
  const auto bytes = random_bytes(rng, 300);
  for (std::size_t start = 0; start < 9; ++start) {
    for (std::size_t length = 0; length <= 280; ++length) {
      InternetSum sum;
      sum.add(ByteView(bytes).subspan(start, length));
      ASSERT_EQ(to_host(sum.checksum()), reference(ByteView(bytes).subspan(start, length))) << start << ' ' << length;
    }
  }
}

TEST(InternetSum, PiecesOfOddLengthAgreeWithTheWhole) {
  Rng rng(2);
  for (int round = 0; round < 5000; ++round) {
    const auto bytes = random_bytes(rng, rng.below(3000));
    std::vector<ByteView> parts;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t length = std::min<std::size_t>(rng.below(200), bytes.size() - at);
      parts.push_back(ByteView(bytes).subspan(at, length));
      at += length;
    }
    const std::uint32_t skip = bytes.empty() ? 0 : rng.below(static_cast<std::uint32_t>(bytes.size()));
    const auto rest = static_cast<std::uint32_t>(bytes.size()) - skip;
    InternetSum sum;
    sum.add(Payload(parts, skip, rest));
    ASSERT_EQ(to_host(sum.checksum()), reference(ByteView(bytes).subspan(skip))) << "round " << round;
  }
}

TEST(InternetSum, CopyAndSumCopiesAndSums) {
  Rng rng(3);
  for (int round = 0; round < 5000; ++round) {
    const auto bytes = random_bytes(rng, rng.below(2000));
    const std::size_t cut = bytes.empty() ? 0 : rng.below(static_cast<std::uint32_t>(bytes.size()));
    std::vector<std::byte> copy(bytes.size() + 1, std::byte{0xa5});
    InternetSum sum;
    copy_and_sum(std::span(copy).first(cut), ByteView(bytes).first(cut), sum);
    copy_and_sum(std::span(copy).subspan(cut, bytes.size() - cut), ByteView(bytes).subspan(cut), sum);
    ASSERT_EQ(to_host(sum.checksum()), reference(bytes));
    ASSERT_TRUE(std::equal(bytes.begin(), bytes.end(), copy.begin()));
    ASSERT_EQ(copy.back(), std::byte{0xa5});
  }
}

TEST(InternetSum, SumsOfSumsKeepTheOffset) {
  Rng rng(4);
  for (int round = 0; round < 2000; ++round) {
    const auto bytes = random_bytes(rng, 1 + rng.below(100));
    const std::size_t cut = rng.below(static_cast<std::uint32_t>(bytes.size()));
    InternetSum first;
    InternetSum second;
    first.add(ByteView(bytes).first(cut));
    second.add(ByteView(bytes).subspan(cut));
    first.add(second);
    ASSERT_EQ(to_host(first.checksum()), reference(bytes));
  }
}

TEST(InternetSum, PseudoHeaderOfIpv4AndIpv6) {
  const FlowKey v4{IpAddress::from_v4({10, 0, 0, 1}), IpAddress::from_v4({10, 0, 0, 2}), 1, 2};
  const std::array<std::uint8_t, 12> v4_bytes = {10, 0, 0, 1, 10, 0, 0, 2, 0, 6, 0x12, 0x34};
  InternetSum sum;
  sum.add_pseudo_header(v4, 0x1234);
  EXPECT_EQ(to_host(sum.checksum()), reference(std::as_bytes(std::span(v4_bytes))));

  FlowKey v6;
  v6.local.bytes = {0xfd, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
  v6.remote.bytes = {0xfd, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9};
  std::vector<std::byte> v6_bytes;
  for (const auto* address : {&v6.remote, &v6.local}) {
    for (const auto byte : address->bytes) v6_bytes.push_back(std::byte{byte});
  }
  for (const int byte : {0, 0, 0xff, 0xfe, 0, 0, 0, 6}) v6_bytes.push_back(static_cast<std::byte>(byte));
  InternetSum sum6;
  sum6.add_pseudo_header(v6, 0xfffe);
  EXPECT_EQ(to_host(sum6.checksum()), reference(v6_bytes));
}

}  // namespace
}  // namespace twinstack::wire
