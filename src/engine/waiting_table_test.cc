#include "engine/waiting_table.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace twinstack::engine {
namespace {

TEST(WaitingTable, GivesEachEntryOnceAndThenNone) {
  std::vector<Waiting> entries(3);
  WaitingTable table(entries);
  EXPECT_EQ(table.available(), 3U);
  std::set<std::uint16_t> taken;
  for (int i = 0; i < 3; ++i) taken.insert(table.take());
  EXPECT_EQ(taken, (std::set<std::uint16_t>{0, 1, 2}));
  EXPECT_EQ(table.available(), 0U);
  EXPECT_EQ(table.take(), kNoWaiting);
}

TEST(WaitingTable, WhatComesBackIsEmptyAgain) {
  std::vector<Waiting> entries(2);
  WaitingTable table(entries);
  const std::uint16_t at = table.take();
  table.at(at).held_bytes = 77;
  table.put_back(at);
  EXPECT_EQ(table.available(), 2U);
  EXPECT_EQ(table.at(table.take()).held_bytes, 0U);
  EXPECT_EQ(table.at(table.take()).held_bytes, 0U);
}

}  // namespace
}  // namespace twinstack::engine
