#include "engine/piece_pool.h"

#include <gtest/gtest.h>

#include <deque>
#include <vector>

#include "base/rng.h"

namespace twinstack::engine {
namespace {

TEST(PiecePool, KeepsListsInOrderAndTheirNodesApart) {
  std::vector<Piece> nodes(8);
  PiecePool pool(nodes);
  PieceList one;
  PieceList two;
  for (std::uint32_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(pool.append(one, Piece{.chunk = i}));
    EXPECT_TRUE(pool.append(two, Piece{.chunk = 100 + i}));
  }
  EXPECT_EQ(pool.available(), 0U);
  EXPECT_FALSE(pool.append(one, Piece{}));
  for (std::uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(pool.at(one.head).chunk, i);
    pool.pop_front(one);
    EXPECT_EQ(pool.at(two.head).chunk, 100 + i);
    pool.pop_front(two);
  }
  EXPECT_TRUE(one.empty());
  EXPECT_EQ(one.tail, kNone);
  EXPECT_EQ(pool.available(), 8U);
}

TEST(PiecePool, RandomListsAgreeWithDeques) {
  Rng rng(5);
  std::vector<Piece> nodes(64);
  PiecePool pool(nodes);
  std::vector<PieceList> lists(5);
  std::vector<std::deque<std::uint32_t>> expected(5);
  std::size_t used = 0;
  for (std::uint32_t i = 0; i < 100'000; ++i) {
    const std::uint32_t which = rng.below(5);
    if (rng.below(2) == 0) {
      ASSERT_EQ(pool.append(lists[which], Piece{.chunk = i, .length = 1}), used < 64);
      if (used == 64) continue;
      expected[which].push_back(i);
      ++used;
    } else if (!expected[which].empty()) {
      ASSERT_EQ(pool.at(lists[which].head).chunk, expected[which].front());
      pool.pop_front(lists[which]);
      expected[which].pop_front();
      --used;
    }
    ASSERT_EQ(lists[which].empty(), expected[which].empty());
    ASSERT_EQ(pool.available(), 64 - used);
  }
  for (std::size_t which = 0; which < lists.size(); ++which) {
    std::uint32_t at = lists[which].head;
    for (const std::uint32_t chunk : expected[which]) {
      ASSERT_EQ(pool.at(at).chunk, chunk);
      at = pool.at(at).next;
    }
    EXPECT_EQ(at, kNone);
  }
}

}  // namespace
}  // namespace twinstack::engine
