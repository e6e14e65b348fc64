#include "tcp/fast_open.h"

#include <gtest/gtest.h>

#include "tcp/flight.h"
#include "tcp/test_support.h"

namespace twinstack::tcp::test {
namespace {

TEST(FastOpen, DataThatTheSynCouldNotDeliverGoesAgainAtOnce) {
  MinTcp state = idle_state();
  state.options = kOptSack;
  TestEnd end(state, at_ms(0));
  const std::uint32_t bytes = end.cb.mss + 100U;
  repeat_syn_data(end.cb, bytes, at_ms(1));
  EXPECT_EQ(end.cb.snd_nxt, Seq(kOurSeq) + bytes);
  const auto sent = end.poll(at_ms(1));
  ASSERT_EQ(sent.size(), 2U);
  EXPECT_TRUE(sent[0].retransmission && sent[1].retransmission);
  EXPECT_EQ(sent[0].segment.seq, Seq(kOurSeq));
  EXPECT_EQ(sent[0].payload_bytes + sent[1].payload_bytes, bytes);
  EXPECT_TRUE(sent[1].segment.has(wire::kPsh));
  EXPECT_EQ(end.cb.flight->retransmitted, 2U);
  EXPECT_EQ(end.receive(from_peer(kPeerSeq, kOurSeq + bytes), "", at_ms(10)), Arrival::kAccepted);
  EXPECT_EQ(end.cb.recovery, RecoveryState::kOpen);
}

TEST(FastOpen, TheAckOfTheSynAckWaitsForTheRestOfTheWrite) {
  TestEnd end(idle_state(), at_ms(0));
  hold_ack_for_data(end.cb, at_ms(0));
  EXPECT_TRUE(end.poll(at_ms(1)).empty());
  end.write(10, at_ms(2));
  const auto sent = end.poll(at_ms(2));
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].payload_bytes, 10U);
  EXPECT_TRUE(end.poll(at_ms(500)).empty()) << "it has carried the ACK";
}

}  // namespace
}  // namespace twinstack::tcp::test
