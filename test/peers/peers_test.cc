// Unit tests of what the peers judge by: the pattern, the digest and the histogram.
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "base/rng.h"
#include "histogram.h"
#include "pattern.h"

namespace twinstack::peers {
namespace {

std::vector<std::byte> stream(std::uint64_t seed, std::size_t size) {
  std::vector<std::byte> bytes(size);
  Pattern(seed).fill(0, bytes);
  return bytes;
}

TEST(PatternTest, AnyPieceIsTheSameAsTheWhole) {
  const auto whole = stream(7, 4096);
  Rng rng(1);
  for (int i = 0; i < 1000; ++i) {
    const std::uint32_t from = rng.below(4000);
    const std::uint32_t size = rng.below(96) + 1;
    std::vector<std::byte> piece(size);
    Pattern(7).fill(from, piece);
    ASSERT_TRUE(std::equal(piece.begin(), piece.end(), whole.begin() + from)) << from << "+" << size;
    ASSERT_EQ(Pattern(7).first_mismatch(from, piece), std::nullopt);
  }
}

TEST(PatternTest, EveryWrongByteIsFoundWhereItIs) {
  for (std::size_t at = 0; at < 100; ++at) {
    auto bytes = stream(9, 100);
    bytes[at] ^= std::byte{1};
    EXPECT_EQ(Pattern(9).first_mismatch(0, bytes), at);
  }
}

TEST(PatternTest, ALostByteAndAnotherSeedAreFound) {
  const auto bytes = stream(9, 100);
  EXPECT_TRUE(Pattern(9).first_mismatch(1, bytes).has_value());
  EXPECT_TRUE(Pattern(10).first_mismatch(0, bytes).has_value());
}

TEST(StreamDigestTest, DoesNotDependOnTheCuts) {
  const auto bytes = stream(3, 10'001);
  StreamDigest whole;
  whole.update(bytes);
  Rng rng(5);
  StreamDigest cut;
  for (std::span<const std::byte> rest = bytes; !rest.empty();) {
    const std::size_t take = std::min<std::size_t>(rng.below(40), rest.size());
    cut.update(rest.first(take));
    rest = rest.subspan(take);
  }
  EXPECT_EQ(whole.value(), cut.value());
}

TEST(StreamDigestTest, SeesOrderLengthAndContent) {
  const auto digest = [](std::span<const std::byte> bytes) {
    StreamDigest d;
    d.update(bytes);
    return d.value();
  };
  auto bytes = stream(3, 64);
  const auto original = digest(bytes);
  EXPECT_NE(original, digest(std::span(bytes).first(63)));
  std::swap_ranges(bytes.begin(), bytes.begin() + 8, bytes.begin() + 8);
  EXPECT_NE(original, digest(bytes));
  const std::array<std::byte, 3> zeros{};
  EXPECT_NE(digest(zeros), digest(std::span(zeros).first(2)));
}

TEST(HistogramTest, QuantilesAreWithinABucket) {
  Histogram histogram;
  for (std::uint64_t i = 1; i <= 100'000; ++i) histogram.record(i);
  EXPECT_EQ(histogram.count(), 100'000U);
  EXPECT_EQ(histogram.max_ns(), 100'000U);
  EXPECT_NEAR(static_cast<double>(histogram.quantile_ns(0.5)), 50'000.0, 50'000.0 / 60);
  EXPECT_NEAR(static_cast<double>(histogram.quantile_ns(0.99)), 99'000.0, 99'000.0 / 60);
  EXPECT_EQ(histogram.quantile_ns(1.0), 100'000U);
}

TEST(HistogramTest, EndsOfTheRange) {
  Histogram histogram;
  EXPECT_EQ(histogram.quantile_ns(0.5), 0U);
  histogram.record(0);
  histogram.record(~std::uint64_t{0});
  EXPECT_EQ(histogram.quantile_ns(0.0), 0U);
  EXPECT_EQ(histogram.quantile_ns(1.0), ~std::uint64_t{0});
}

}  // namespace
}  // namespace twinstack::peers
