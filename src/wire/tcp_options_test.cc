#include "wire/tcp_options.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/rng.h"

namespace twinstack::wire {
namespace {

std::vector<std::byte> bytes_of(std::initializer_list<int> values) {
  std::vector<std::byte> out;
  for (const int value : values) out.push_back(static_cast<std::byte>(value));
  return out;
}

std::vector<std::byte> written(const TcpOptions& options) {
  std::vector<std::byte> out(options_bytes(options));
  EXPECT_EQ(write_options(out, options), out.size());
  EXPECT_EQ(out.size() % 4, 0U);
  EXPECT_LE(out.size(), kMaxOptionBytes);
  return out;
}

TEST(WriteOptions, TimestampsOfAnEstablishedConnectionAsLinux) {
  TcpOptions options;
  options.has_timestamps = true;
  options.ts_val = 0x01020304;
  options.ts_ecr = 0xa0b0c0d0;
  EXPECT_EQ(written(options), bytes_of({1, 1, 8, 10, 1, 2, 3, 4, 0xa0, 0xb0, 0xc0, 0xd0}));
}

TEST(WriteOptions, SynOfLinux) {
  TcpOptions options;
  options.has_mss = options.sack_permitted = options.has_timestamps = options.has_window_scale = true;
  options.mss = 1460;
  options.ts_val = 1;
  options.window_scale = 7;
  EXPECT_EQ(written(options), bytes_of({2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7}));
}

TEST(WriteOptions, SynOfLinuxWithoutTimestamps) {
  TcpOptions options;
  options.has_mss = options.sack_permitted = options.has_window_scale = true;
  options.mss = 1460;
  options.window_scale = 8;
  EXPECT_EQ(written(options), bytes_of({2, 4, 0x05, 0xb4, 1, 1, 4, 2, 1, 3, 3, 8}));
}

// RFC 7413 4.1.1, and the experimental form.
TEST(WriteOptions, FastOpenCookieStandsLastAndIsPadded) {
  TcpOptions options;
  options.has_mss = true;
  options.mss = 1460;
  options.fast_open = {.cookie = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}},
                       .cookie_bytes = 4,
                       .present = true,
                       .experimental = false};
  EXPECT_EQ(written(options), bytes_of({2, 4, 0x05, 0xb4, 34, 6, 1, 2, 3, 4, 1, 1}));
  options.fast_open.experimental = true;
  EXPECT_EQ(written(options), bytes_of({2, 4, 0x05, 0xb4, 254, 8, 0xf9, 0x89, 1, 2, 3, 4}));
  options.fast_open = {.cookie = {}, .cookie_bytes = 0, .present = true, .experimental = false};
  EXPECT_EQ(written(options), bytes_of({2, 4, 0x05, 0xb4, 34, 2, 1, 1}));
}

TEST(ParseOptions, FastOpenCookiesOfLengthsThatNoneHasAreIgnored) {
  for (const auto& list : {bytes_of({34, 3, 1}), bytes_of({34, 4, 1, 2}), bytes_of({34, 7, 1, 2, 3, 4, 5}),
                           bytes_of({254, 4, 0xf9, 0x88}), bytes_of({254, 3, 0xf9})}) {
    TcpOptions options;
    EXPECT_TRUE(parse_options(list, options));
    EXPECT_FALSE(options.fast_open.present);
  }
  TcpOptions options;
  EXPECT_TRUE(parse_options(bytes_of({254, 4, 0xf9, 0x89, 1, 1}), options));
  EXPECT_TRUE(options.fast_open.present && options.fast_open.experimental);
  EXPECT_EQ(options.fast_open.cookie_bytes, 0);
}

TEST(WriteOptions, ThreeSackBlocksFitBesideTimestamps) {
  TcpOptions options;
  options.sack_count = 4;
  for (std::uint32_t i = 0; i < 4; ++i) options.sack[i] = {Seq(i * 16), Seq(i * 16 + 8)};
  EXPECT_EQ(sack_blocks_that_fit(options), 4U);
  EXPECT_EQ(options_bytes(options), 36U);
  options.has_timestamps = true;
  EXPECT_EQ(sack_blocks_that_fit(options), 3U);
  const auto bytes = written(options);
  EXPECT_EQ(bytes.size(), 40U);
  EXPECT_EQ(bytes[12], std::byte{1});
  EXPECT_EQ(bytes[14], std::byte{5});
  EXPECT_EQ(bytes[15], std::byte{26});
}

TEST(ParseOptions, RoundTripOfEverythingThatFits) {
  Rng rng(1);
  for (int round = 0; round < 20'000; ++round) {
    TcpOptions options;
    options.has_timestamps = rng.below(2) == 0;
    if (options.has_timestamps) {
      options.ts_val = static_cast<std::uint32_t>(rng.next());
      options.ts_ecr = static_cast<std::uint32_t>(rng.next());
    }
    options.sack_permitted = rng.below(3) == 0;
    options.has_mss = rng.below(3) == 0;
    if (options.has_mss) options.mss = static_cast<std::uint16_t>(rng.next());
    options.has_window_scale = rng.below(3) == 0;
    if (options.has_window_scale) options.window_scale = static_cast<std::uint8_t>(rng.below(15));
    if (rng.below(3) == 0) {
      options.fast_open.present = true;
      options.fast_open.experimental = rng.below(2) == 0;
      options.fast_open.cookie_bytes = static_cast<std::uint8_t>(rng.below(2) == 0 ? 0 : 4 + 2 * rng.below(3));
      for (int i = 0; i < options.fast_open.cookie_bytes; ++i) {
        options.fast_open.cookie[static_cast<std::size_t>(i)] = std::byte{static_cast<unsigned char>(rng.next())};
      }
    }
    options.sack_count = static_cast<std::uint8_t>(rng.below(sack_blocks_that_fit(options) + 1));
    for (std::uint32_t i = 0; i < options.sack_count; ++i) {
      options.sack[i] = {Seq(static_cast<std::uint32_t>(rng.next())), Seq(static_cast<std::uint32_t>(rng.next()))};
    }
    TcpOptions read;
    ASSERT_TRUE(parse_options(written(options), read));
    ASSERT_EQ(read, options) << "round " << round;
  }
}

TEST(ParseOptions, UnknownKindsAreSkippedAndEndEnds) {
  TcpOptions options;
  EXPECT_TRUE(parse_options(bytes_of({254, 4, 9, 9, 1, 3, 3, 2, 0, 2, 4, 1, 1}), options));
  EXPECT_TRUE(options.has_window_scale);
  EXPECT_EQ(options.window_scale, 2);
  EXPECT_FALSE(options.has_mss);
}

TEST(ParseOptions, MalformedEndsTheListAndKeepsWhatWasRead) {
  for (const auto& tail :
       {bytes_of({8, 10, 1}), bytes_of({8, 1}), bytes_of({8, 0}), bytes_of({2}), bytes_of({5, 255})}) {
    auto bytes = bytes_of({3, 3, 5});
    bytes.insert(bytes.end(), tail.begin(), tail.end());
    TcpOptions options;
    EXPECT_FALSE(parse_options(bytes, options));
    EXPECT_EQ(options.window_scale, 5);
    EXPECT_FALSE(options.has_timestamps);
    EXPECT_FALSE(options.has_mss);
    EXPECT_EQ(options.sack_count, 0);
  }
}

TEST(ParseOptions, WrongLengthsOfKnownKindsAreIgnored) {
  TcpOptions options;
  EXPECT_TRUE(
      parse_options(bytes_of({2, 3, 1, 3, 4, 1, 1, 4, 3, 1, 8, 9, 1, 1, 1, 1, 1, 1, 1, 5, 5, 1, 2, 3, 5, 2}), options));
  EXPECT_EQ(options, TcpOptions{});
}

TEST(ParseOptions, WindowScaleIsCappedAt14) {
  TcpOptions options;
  EXPECT_TRUE(parse_options(bytes_of({3, 3, 200}), options));
  EXPECT_EQ(options.window_scale, 14);  // RFC 7323 2.3
}

TEST(ParseOptions, AnyBytesAreSafe) {
  Rng rng(9);
  for (int round = 0; round < 200'000; ++round) {
    std::vector<std::byte> bytes(rng.below(41));
    for (auto& byte : bytes) byte = static_cast<std::byte>(rng.below(rng.below(2) == 0 ? 12 : 256));
    TcpOptions options;
    parse_options(bytes, options);
    ASSERT_LE(options.sack_count, kMaxSackBlocks);
    ASSERT_LE(options.window_scale, kMaxWindowScale);
  }
}

}  // namespace
}  // namespace twinstack::wire
