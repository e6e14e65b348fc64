// What counts as changed by a move.
#include "move_check.h"

#include <gtest/gtest.h>

#include "whole_info.h"

namespace twinstack::conformance {
namespace {

std::string with(const char* field, std::int64_t was, std::int64_t is, Stack to = Stack::kEngine) {
  Info before = whole_info();
  Info after = whole_info();
  before[field] = was;
  after[field] = is;
  return changed_by_move(before, after, to);
}

TEST(MoveCheck, WhatIsTheSameHasNotChanged) {
  EXPECT_EQ(changed_by_move(whole_info(), whole_info(), Stack::kEngine), "");
  EXPECT_EQ(changed_by_move({{"state", 7}}, {{"state", 7}}, Stack::kKernel), "");
  EXPECT_NE(changed_by_move({{"state", 1}}, {{"state", 7}}, Stack::kKernel), "");
}

TEST(MoveCheck, EachFieldHasItsRule) {
  EXPECT_NE(with("snd_mss", 1448, 1400), "");
  EXPECT_EQ(with("segs_out", 10, 11), "");
  EXPECT_NE(with("segs_out", 10, 9), "");
  EXPECT_EQ(with("snd_cwnd", 20, 21), "") << "the lesson's ACK";
  EXPECT_NE(with("snd_cwnd", 20, 22), "");
  EXPECT_NE(with("options", 15, 7), "") << "ECN";
  EXPECT_NE(with("options", 15 | 64, 15), "") << "timestamps in microseconds";
  EXPECT_EQ(with("options", 15 | 16, 15), "") << "that the peer sends ECT is seen again";
}

TEST(MoveCheck, WhatBeginsAnewBeginsAsAConnectionDoes) {
  EXPECT_NE(with("reordering", 8, 3), "") << "the engine is told";
  EXPECT_EQ(with("reordering", 8, 3, Stack::kKernel), "");
  EXPECT_NE(with("reordering", 8, 4, Stack::kKernel), "");
  EXPECT_EQ(with("rcv_mss", 1448, 536), "");
  EXPECT_NE(with("rcv_mss", 1448, 88), "");
  EXPECT_EQ(with("ca_state", 3, 0, Stack::kKernel), "");
  EXPECT_NE(with("ca_state", 0, 3), "") << "no move begins a recovery";
}

TEST(MoveCheck, AFieldThatIsMissingHasChanged) {
  for (const auto& [field, value] : whole_info()) {
    Info less = whole_info();
    less.erase(field);
    EXPECT_NE(changed_by_move(whole_info(), less, Stack::kEngine), "") << field;
    EXPECT_NE(changed_by_move(less, whole_info(), Stack::kEngine), "") << field;
  }
  EXPECT_NE(changed_by_move(whole_info(), {{"state", 1}}, Stack::kKernel), "");
}

}  // namespace
}  // namespace twinstack::conformance
