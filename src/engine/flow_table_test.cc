#include "engine/flow_table.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "base/rng.h"

namespace twinstack::engine {
namespace {

FlowKey flow(std::uint32_t number) {
  return {.local = IpAddress::from_v4({10, 0, 0, 1}),
          .remote = IpAddress::from_v4(
              {10, 2, static_cast<std::uint8_t>(number >> 24), static_cast<std::uint8_t>(number >> 16)}),
          .local_port = 80,
          .remote_port = static_cast<std::uint16_t>(number)};
}

TEST(FlowTable, FindsWhatWasInsertedAndNothingElse) {
  std::vector<HwConnRecord> records(4);
  records[2].flow = flow(7);
  std::vector<FlowTable::Cell> cells(FlowTable::cells_for(static_cast<std::uint32_t>(records.size())));
  FlowTable table(records, cells, 1);
  EXPECT_EQ(table.find(flow(7)), kNone);
  table.insert(2);
  EXPECT_EQ(table.find(flow(7)), 2U);
  EXPECT_EQ(table.find(flow(8)), kNone);
  table.erase(2);
  EXPECT_EQ(table.find(flow(7)), kNone);
}

TEST(FlowTable, EveryFieldOfTheKeyCounts) {
  std::vector<HwConnRecord> records(1);
  records[0].flow = flow(7);
  std::vector<FlowTable::Cell> cells(FlowTable::cells_for(static_cast<std::uint32_t>(records.size())));
  FlowTable table(records, cells, 1);
  table.insert(0);
  FlowKey other = flow(7);
  other.local.bytes[15] ^= 1;
  EXPECT_EQ(table.find(other), kNone);
  other = flow(7);
  other.remote.bytes[0] ^= 1;
  EXPECT_EQ(table.find(other), kNone);
  other = flow(7);
  ++other.local_port;
  EXPECT_EQ(table.find(other), kNone);
  other = flow(7);
  ++other.remote_port;
  EXPECT_EQ(table.find(other), kNone);
}

// A full table of 64 slots has 128 cells: runs of occupied cells are long, deletions move what lies behind them.
TEST(FlowTable, RandomOperationsAgreeWithAMap) {
  constexpr std::uint32_t kSlots = 64;
  for (std::uint64_t secret = 1; secret <= 20; ++secret) {
    Rng rng(secret);
    std::vector<HwConnRecord> records(kSlots);
    std::vector<FlowTable::Cell> cells(FlowTable::cells_for(static_cast<std::uint32_t>(records.size())));
    FlowTable table(records, cells, secret);
    std::map<std::uint32_t, std::uint32_t> slot_of;  // flow number -> slot
    std::vector<std::uint32_t> flow_of(kSlots, kNone);
    for (int i = 0; i < 20'000; ++i) {
      const std::uint32_t number = rng.below(200);
      const auto known = slot_of.find(number);
      ASSERT_EQ(table.find(flow(number)), known == slot_of.end() ? kNone : known->second);
      const std::uint32_t slot = rng.below(kSlots);
      if (flow_of[slot] != kNone && rng.below(2) == 0) {
        table.erase(slot);
        slot_of.erase(flow_of[slot]);
        flow_of[slot] = kNone;
      } else if (flow_of[slot] == kNone && known == slot_of.end()) {
        records[slot].flow = flow(number);
        table.insert(slot);
        slot_of[number] = slot;
        flow_of[slot] = number;
      }
    }
    for (const auto& [number, slot] : slot_of) ASSERT_EQ(table.find(flow(number)), slot);
  }
}

// Keys whose cells all begin at the end of the table wrap to its beginning; each must stay findable whatever goes.
TEST(FlowTable, AClusterAcrossTheEndSurvivesDeletionsInEveryOrder) {
  constexpr std::uint64_t kSecret = 99;
  constexpr std::uint32_t kMask = 15;  // 8 slots, 16 cells
  std::vector<FlowKey> cluster;
  for (std::uint32_t number = 0; cluster.size() < 5; ++number) {
    const auto home = static_cast<std::uint32_t>(flow(number).hash(kSecret)) & kMask;
    if (home >= 14 || (home == 0 && cluster.size() >= 3)) cluster.push_back(flow(number));
  }
  std::vector<std::uint32_t> order = {0, 1, 2, 3, 4};
  do {
    std::vector<HwConnRecord> records(8);
    std::vector<FlowTable::Cell> cells(FlowTable::cells_for(static_cast<std::uint32_t>(records.size())));
    FlowTable table(records, cells, kSecret);
    for (std::uint32_t i = 0; i < 5; ++i) {
      records[i].flow = cluster[i];
      table.insert(i);
    }
    for (std::size_t gone = 0; gone < order.size(); ++gone) {
      table.erase(order[gone]);
      for (std::size_t i = 0; i < order.size(); ++i) {
        const std::uint32_t expected = i > gone ? order[i] : kNone;
        ASSERT_EQ(table.find(cluster[order[i]]), expected);
      }
    }
  } while (std::next_permutation(order.begin(), order.end()));
}

// The step in between: right whenever no other flow in the way has the same eight bits of hash.
TEST(FlowTable, TheLikelySlotIsAsARuleTheRightOne) {
  constexpr std::uint32_t kSlots = 4096;
  std::vector<HwConnRecord> records(kSlots);
  std::vector<FlowTable::Cell> cells(FlowTable::cells_for(kSlots));
  FlowTable table(records, cells, 3);
  for (std::uint32_t i = 0; i < kSlots; ++i) {
    records[i].flow = flow(i);
    table.insert(i);
  }
  std::uint32_t right = 0;
  for (std::uint32_t i = 0; i < kSlots; ++i) {
    const std::uint32_t hash = table.hash(flow(i));
    ASSERT_EQ(table.find(flow(i), hash), i);
    if (table.likely_slot(hash) == i) ++right;
  }
  EXPECT_GT(right, kSlots * 98 / 100);
  for (std::uint32_t i = 0; i < kSlots; ++i) table.erase(i);
  EXPECT_EQ(table.likely_slot(table.hash(flow(1))), kNone);
}

// Whose hash ends in the tag that stands for empty cells.
TEST(FlowTable, AFlowWithTheLargestHashIsFound) {
  std::vector<HwConnRecord> records(4);
  std::vector<FlowTable::Cell> cells(FlowTable::cells_for(4));
  FlowTable table(records, cells, 3);
  std::uint32_t number = 0;
  while (table.hash(flow(number)) >> 24 != 0xff) ++number;
  records[3].flow = flow(number);
  table.insert(3);
  EXPECT_EQ(table.likely_slot(table.hash(flow(number))), 3U);
  EXPECT_EQ(table.find(flow(number)), 3U);
  table.erase(3);
  EXPECT_EQ(table.find(flow(number)), kNone);
}

}  // namespace
}  // namespace twinstack::engine
