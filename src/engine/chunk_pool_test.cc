#include "engine/chunk_pool.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/rng.h"
#include "engine/hw_conn.h"

namespace twinstack::engine {
namespace {

TEST(ChunkPool, LendsEveryChunkOnce) {
  ChunkPool pool(10, 4);
  std::set<std::uint32_t> taken;
  for (int i = 0; i < 4; ++i) taken.insert(pool.take());
  EXPECT_EQ(taken, (std::set<std::uint32_t>{10, 11, 12, 13}));
  EXPECT_EQ(pool.take(), kNone);
  EXPECT_EQ(pool.available(), 0U);
  for (const std::uint32_t chunk : taken) pool.drop(chunk);
  EXPECT_EQ(pool.available(), 4U);
}

TEST(ChunkPool, IsFreeOnlyWhenBothSidesHaveLetGo) {
  ChunkPool pool(0, 1);
  bool drained = false;
  const std::uint32_t chunk = pool.take();
  pool.post(chunk, 100);
  pool.drop(chunk);
  EXPECT_EQ(pool.take(), kNone);
  EXPECT_TRUE(pool.give_back(chunk, 40, &drained));
  EXPECT_FALSE(drained);
  EXPECT_EQ(pool.take(), kNone);
  EXPECT_TRUE(pool.give_back(chunk, 60, &drained));
  EXPECT_TRUE(drained);
  EXPECT_EQ(pool.take(), chunk);
}

TEST(ChunkPool, StaysWithTheEngineThatStillFillsIt) {
  ChunkPool pool(0, 1);
  bool drained = false;
  const std::uint32_t chunk = pool.take();
  pool.post(chunk, 100);
  EXPECT_TRUE(pool.give_back(chunk, 100, &drained));
  EXPECT_TRUE(drained);
  EXPECT_EQ(pool.available(), 0U);
  pool.drop(chunk);
  EXPECT_EQ(pool.available(), 1U);
}

TEST(ChunkPool, RefusesWhatWasNeverPosted) {
  ChunkPool pool(5, 3);
  bool drained = false;
  EXPECT_FALSE(pool.give_back(4, 1, &drained));
  EXPECT_FALSE(pool.give_back(8, 1, &drained));
  EXPECT_FALSE(pool.give_back(0xffffffffU, 1, &drained));
  EXPECT_FALSE(pool.give_back(5, 1, &drained));
  const std::uint32_t chunk = pool.take();
  pool.post(chunk, 10);
  EXPECT_FALSE(pool.give_back(chunk, 0, &drained));
  EXPECT_FALSE(pool.give_back(chunk, 11, &drained));
  EXPECT_FALSE(pool.give_back(chunk, 0xffffffffU, &drained));
  EXPECT_TRUE(pool.give_back(chunk, 10, &drained));
  EXPECT_FALSE(pool.give_back(chunk, 10, &drained));
}

TEST(ChunkPool, RandomLendingAgreesWithAMap) {
  struct Lent {
    std::uint32_t posted = 0;
    bool held = true;
  };
  Rng rng(11);
  ChunkPool pool(100, 16);
  std::map<std::uint32_t, Lent> lent;
  const auto settle = [&](std::uint32_t chunk) {
    if (lent[chunk].posted == 0 && !lent[chunk].held) lent.erase(chunk);
  };
  for (int i = 0; i < 100'000; ++i) {
    const std::uint32_t chunk = 100 + rng.below(16);
    const auto known = lent.find(chunk);
    switch (rng.below(4)) {
      case 0:
        if (const std::uint32_t got = pool.take(); got != kNone) {
          ASSERT_TRUE(lent.emplace(got, Lent{}).second) << "lent twice";
        } else {
          ASSERT_EQ(lent.size(), 16U);
        }
        break;
      case 1:
        if (known == lent.end() || !known->second.held) break;
        pool.post(chunk, 7);
        known->second.posted += 7;
        break;
      case 2:
        if (known == lent.end() || !known->second.held) break;
        pool.drop(chunk);
        known->second.held = false;
        settle(chunk);
        break;
      default: {
        const std::uint32_t bytes = rng.below(10);
        bool drained = false;
        const bool owed = known != lent.end() && bytes > 0 && bytes <= known->second.posted;
        ASSERT_EQ(pool.give_back(chunk, bytes, &drained), owed);
        if (!owed) break;
        known->second.posted -= bytes;
        ASSERT_EQ(drained, known->second.posted == 0);
        settle(chunk);
      }
    }
    ASSERT_EQ(pool.available(), 16 - lent.size());
  }
}

}  // namespace
}  // namespace twinstack::engine
