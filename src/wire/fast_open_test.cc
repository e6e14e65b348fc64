// The option of TCP Fast Open: bytes and back.
#include "wire/fast_open.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <vector>

namespace twinstack::wire {
namespace {

std::vector<std::byte> bytes(std::initializer_list<int> values) {
  std::vector<std::byte> out;
  for (const int value : values) out.push_back(static_cast<std::byte>(value));
  return out;
}

std::vector<std::byte> written(const FastOpenOption& option) {
  std::vector<std::byte> out(fast_open_bytes(option));
  write_fast_open(out, option);
  return out;
}

FastOpenOption with_cookie(std::uint8_t size, bool experimental = false) {
  FastOpenOption option{.present = true, .experimental = experimental, .cookie_bytes = size, .cookie = {}};
  for (std::uint8_t i = 0; i < size; ++i) option.cookie[i] = std::byte{static_cast<std::uint8_t>(0xa0 + i)};
  return option;
}

TEST(FastOpen, ARequestIsTwoBytesAndPadding) {
  EXPECT_EQ(written(with_cookie(0)), bytes({34, 2, 1, 1}));
  EXPECT_EQ(written(with_cookie(0, true)), bytes({254, 4, 0xf9, 0x89}));
  EXPECT_EQ(fast_open_bytes({}), 0U);
}

TEST(FastOpen, EveryCookieSurvivesItsBytes) {
  for (const bool experimental : {false, true}) {
    for (std::uint8_t size = 4; size <= kLargestCookie; size += 2) {
      const FastOpenOption option = with_cookie(size, experimental);
      EXPECT_EQ(parse_fast_open(written(option)), option) << int{size};
    }
  }
}

TEST(FastOpen, AnEightByteCookieTakesTwelve) {
  EXPECT_EQ(written(with_cookie(8)), bytes({34, 10, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 1, 1}));
}

TEST(FastOpen, IsFoundBehindOthers) { EXPECT_TRUE(parse_fast_open(bytes({2, 4, 5, 0xb4, 1, 3, 3, 8, 34, 2})).present); }

TEST(FastOpen, CookiesOfAnImpossibleLengthAreNone) {
  EXPECT_FALSE(parse_fast_open(bytes({34, 4, 1, 2})).present) << "2 bytes";
  EXPECT_FALSE(parse_fast_open(bytes({34, 7, 1, 2, 3, 4, 5})).present) << "odd";
  std::vector<std::byte> long_one(20, std::byte{7});
  long_one[0] = std::byte{34};
  long_one[1] = std::byte{20};
  EXPECT_FALSE(parse_fast_open(long_one).present) << "18 bytes";
}

TEST(FastOpen, DamagedOptionsEndTheList) {
  EXPECT_FALSE(parse_fast_open(bytes({34})).present);
  EXPECT_FALSE(parse_fast_open(bytes({34, 10, 1, 2})).present) << "leads out of the header";
  EXPECT_FALSE(parse_fast_open(bytes({8, 1, 34, 2})).present) << "a length under 2";
  EXPECT_FALSE(parse_fast_open(bytes({0, 34, 2})).present) << "behind the end";
  EXPECT_FALSE(parse_fast_open(bytes({254, 4, 0xf9, 0x88})).present) << "another experiment";
}

}  // namespace
}  // namespace twinstack::wire
