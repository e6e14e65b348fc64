// Reassembly against a plain model that keeps one flag for each byte.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tcp/min_tcp.h"
#include "tcp/reassembly.h"
#include "tcp/test_support.h"

namespace twinstack::tcp::test {
namespace {

constexpr std::uint32_t kBase = 0xffffff00;  // wraps within the test

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
