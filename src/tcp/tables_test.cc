// Scoreboard and reassembly against plain models that keep one flag for each byte.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tcp/min_tcp.h"
#include "tcp/reassembly.h"
#include "tcp/scoreboard.h"
#include "tcp/test_support.h"

namespace twinstack::tcp::test {
namespace {

constexpr std::uint32_t kBase = 0xffffff00;  // wraps within the test
constexpr std::uint32_t kSpan = 600;

struct Model {
  std::vector<bool> sacked = std::vector<bool>(kSpan);

  std::uint32_t count(std::uint32_t from, std::uint32_t to) const {
    std::uint32_t out = 0;
    for (std::uint32_t i = from; i < to; ++i) out += sacked[i] ? 1 : 0;
    return out;
  }
  // IsLost() of RFC 6675 4, word for word, for every byte.
  std::vector<bool> lost(std::uint32_t threshold, std::uint32_t mss) const {
    std::vector<bool> out(kSpan);
    std::uint32_t ranges = 0;
    std::uint32_t bytes = 0;
    for (std::uint32_t i = kSpan; i-- > 0;) {
      out[i] = ranges >= threshold || bytes > (threshold - 1) * mss;
      if (!sacked[i]) continue;
      ++bytes;
      if (i + 1 == kSpan || !sacked[i + 1]) ++ranges;
    }
    return out;
  }
};

void expect_same(const Scoreboard& board, const Model& model, std::uint32_t una) {
  ASSERT_EQ(board.sacked_bytes, model.count(una, kSpan));
  for (std::uint32_t i = 1; i < board.count; ++i) ASSERT_TRUE(board.ranges[i - 1].right < board.ranges[i].left);
  for (std::uint32_t i = 0; i < board.count; ++i) ASSERT_TRUE(board.ranges[i].left < board.ranges[i].right);
}

TEST(Scoreboard, AgreesWithAModelOfSingleBytes) {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    Scoreboard board;
    Model model;
    std::uint32_t una = 0;
    for (int step = 0; step < 40; ++step) {
      const std::uint32_t left = una + rng.below(kSpan - una);
      const std::uint32_t right = std::min(left + 1 + rng.below(40), kSpan);
      const std::uint32_t before = model.count(left, right);
      const std::uint32_t added =
          add_sacked(board, {Seq(kBase + left), Seq(kBase + right)}, Seq(kBase + una), Seq(kBase + kSpan));
      ASSERT_EQ(added, right - left - before);
      std::fill(model.sacked.begin() + left, model.sacked.begin() + right, true);
      if (rng.below(6) == 0) {
        una = std::min(una + rng.below(60), kSpan - 1);
        trim_scoreboard(board, Seq(kBase + una));
      }
      expect_same(board, model, una);
      if (HasFatalFailure()) return;

      const Seq edge = lost_edge(board, 3, 20, Seq(kBase + una));
      const std::vector<bool> lost = model.lost(3, 20);
      for (std::uint32_t i = una; i < kSpan; ++i) {
        if (model.sacked[i]) continue;
        ASSERT_EQ(Seq(kBase + i) < edge, lost[i]) << i;
      }
      const std::uint32_t from = una + rng.below(kSpan - una);
      const std::uint32_t to = from + rng.below(kSpan - from);
      ASSERT_EQ(sacked_within(board, Seq(kBase + from), Seq(kBase + to)), model.count(from, to));
      const wire::SackBlock hole = first_hole(board, Seq(kBase + from), Seq(kBase + to));
      std::uint32_t first = from;
      while (first < to && model.sacked[first]) ++first;
      std::uint32_t last = first;
      while (last < to && !model.sacked[last]) ++last;
      ASSERT_EQ(hole, (wire::SackBlock{Seq(kBase + first), Seq(kBase + last)}));
    }
  }
}

TEST(Scoreboard, AFullTableForgetsWhatDoesNotFit) {
  Scoreboard board;
  for (std::uint32_t i = 0; i < 2 * kMaxSackedRanges; ++i) {
    const std::uint32_t added = add_sacked(board, {Seq(i * 10), Seq(i * 10 + 5)}, Seq(0), Seq(100'000));
    EXPECT_EQ(added, i < kMaxSackedRanges ? 5U : 0U);
  }
  EXPECT_EQ(board.count, kMaxSackedRanges);
  EXPECT_EQ(add_sacked(board, {Seq(0), Seq(15)}, Seq(0), Seq(100'000)), 5U) << "joining still works";
  EXPECT_EQ(board.count, kMaxSackedRanges - 1);
}

std::vector<std::byte> bytes_at(std::uint32_t from, std::uint32_t count) {
  std::vector<std::byte> out;
  for (std::uint32_t i = 0; i < count; ++i) out.push_back(stream_byte(2, from + i));
  return out;
}

void check_blocks(const TestEnd& end) {
  if (!end.cb.cold) return;
  const auto& blocks = end.cb.cold->out_of_order;
  ASSERT_LE(blocks.size(), kMaxOutOfOrderBlocks);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    ASSERT_FALSE(blocks[i].bytes.empty());
    ASSERT_TRUE(blocks[i].seq > end.cb.rcv_nxt);
    ASSERT_TRUE(i == 0 || blocks[i - 1].end() <= blocks[i].seq);
  }
}

// Every SACK block that is reported is held, whole, above the ACK.
void check_reports(TestEnd& end, const std::vector<bool>& held, Time now) {
  for (const SegmentPlan& plan : end.poll(now)) {
    for (std::uint32_t i = 0; i < plan.segment.options.sack_count; ++i) {
      const wire::SackBlock& block = plan.segment.options.sack[i];
      if (block.right <= plan.segment.ack) continue;  // DSACK
      for (Seq at = block.left; at < block.right; at += 1) ASSERT_TRUE(held[bytes_between(Seq(kBase), at)]);
    }
  }
}

TEST(Reassembly, AnyOrderAnyOverlapGivesTheStreamOnce) {
  constexpr std::uint32_t kLength = 3000;
  for (std::uint64_t seed = 1; seed <= 500; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    MinTcp state = idle_state();
    state.options = kOptSack;
    state.rcv_nxt = state.rcv_wup = state.snd_wl1 = kBase;
    TestEnd end(state, at_ms(0));
    std::vector<bool> held(kLength);
    const std::uint32_t piece = 1 + rng.below(300);
    for (int step = 0; step < 20'000 && end.received < kLength; ++step) {
      const auto near = static_cast<std::uint32_t>(end.received) + rng.below(4);
      const std::uint32_t from =
          rng.below(2) == 0 ? rng.below(kLength) : std::min(near > 2 ? near - 2 : 0, kLength - 1);
      const std::uint32_t count = std::min(1 + rng.below(piece), kLength - from);
      const auto payload = bytes_at(from, count);
      if (end.receive(from_peer(kBase + from), payload, at_ms(1)) == Arrival::kAccepted) {
        std::fill(held.begin() + from, held.begin() + from + count, true);
      }
      check_blocks(end);
      if (rng.below(3) == 0) check_reports(end, held, at_ms(1));
      if (HasFatalFailure()) return;
    }
    ASSERT_EQ(end.received, kLength);
    ASSERT_EQ(end.wrong_bytes, 0U);
  }
}

TEST(Reassembly, TheNumberOfBlocksIsBounded) {
  MinTcp state = idle_state();
  state.options = kOptSack;
  TestEnd end(state, at_ms(0));
  for (std::uint32_t i = 0; i < kMaxOutOfOrderBlocks; ++i) {
    EXPECT_EQ(end.receive(from_peer(kPeerSeq + 10 + i * 10), "x", at_ms(1)), Arrival::kAccepted);
  }
  EXPECT_EQ(end.receive(from_peer(kPeerSeq + 5), "x", at_ms(1)), Arrival::kDroppedNoMemory);
  EXPECT_EQ(end.receive(from_peer(kPeerSeq + 11), "y", at_ms(1)), Arrival::kAccepted) << "continues a block";
  EXPECT_EQ(end.cb.cold->out_of_order.size(), kMaxOutOfOrderBlocks);
}

}  // namespace
}  // namespace twinstack::tcp::test
