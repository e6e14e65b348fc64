#include "driver/policy_traffic.h"

#include <gtest/gtest.h>

namespace twinstack::driver {
namespace {

constexpr std::uint32_t kMss = 1448;

Traffic exchanges(std::uint64_t count, std::uint64_t request_bytes, std::uint64_t answer_bytes) {
  const auto segments = [](std::uint64_t bytes) { return (bytes + kMss - 1) / kMss; };
  return {.bytes_out = count * answer_bytes,
          .bytes_in = count * request_bytes,
          .data_segments_out = count * segments(answer_bytes),
          .data_segments_in = count * segments(request_bytes),
          .segments_in = count * (segments(request_bytes) + segments(answer_bytes) / 2),
          .mss = kMss};
}

TEST(PolicyTraffic, IsEnoughAfterSomeBytesOrSomeSegments) {
  EXPECT_FALSE(Traffic{}.is_enough());
  EXPECT_FALSE(exchanges(15, 64, 64).is_enough());
  EXPECT_TRUE(exchanges(16, 64, 64).is_enough());
  EXPECT_TRUE(exchanges(1, 200, 17'000).is_enough());
}

TEST(PolicyTraffic, ShortAnswersAreNotBulk) {
  EXPECT_FALSE(Traffic{}.is_bulk());
  for (const std::uint64_t answer : {64U, 1448U, 4096U, 5U * kMss}) EXPECT_FALSE(exchanges(100, 64, answer).is_bulk());
  EXPECT_FALSE(exchanges(100, 65536, 65536).is_bulk()) << "as much both ways may be anything";
}

TEST(PolicyTraffic, LongTransfersAreBulkInEitherDirection) {
  EXPECT_TRUE(exchanges(100, 64, 16384).is_bulk());
  EXPECT_TRUE(exchanges(100, 16384, 64).is_bulk());
  EXPECT_TRUE(exchanges(1, 37, 1 << 30).is_bulk());
}

TEST(PolicyTraffic, ManySmallMessagesOneWayAreNotBulk) {
  const Traffic published = exchanges(10'000, 0, 100);
  EXPECT_EQ(published.data_segments_in, 0U);
  EXPECT_FALSE(published.is_bulk());
}

}  // namespace
}  // namespace twinstack::driver
