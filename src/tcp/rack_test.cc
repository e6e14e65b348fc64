// RACK-TLP (RFC 8985): losses found by time, the reordering window, tail loss probes.
#include "tcp/rack.h"

#include <gtest/gtest.h>

#include "tcp/sender_fixture.h"

namespace twinstack::tcp::test {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// One segment, a millisecond later the next, and so on.
struct Spread {
  explicit Spread(std::uint32_t segments) : f(kOptSack, 1, 1) {
    f.end.cb.cwnd = 100;
    for (std::uint32_t i = 1; i < segments; ++i) {
      f.end.write(f.mss, at_ms(i));
      EXPECT_EQ(f.end.poll(at_ms(i)).size(), 1U);
    }
  }
  Sender f;
};

TEST(Rack, ALateSegmentIsWaitedForAQuarterOfARoundTrip) {
  Spread s(4);
  EXPECT_TRUE(s.f.ack(0, {{1, 2}}, at_ms(11)).empty()) << "0 was sent 1 ms before 1: it may only be late";
  EXPECT_EQ(s.f.end.cb.sender_timer, SenderTimer::kReorder);
  const Time due = next_deadline(s.f.end.cb, at_ms(11));
  EXPECT_GE(due, at_ms(11) + microseconds(1500)) << "10 ms + min_rtt/4 after its transmission";
  EXPECT_LE(due, at_ms(11) + microseconds(4000));
  on_timer(s.f.end.cb, s.f.end, due);
  EXPECT_EQ(s.f.what(s.f.end.poll(due)), Sent{-1000});
  EXPECT_EQ(s.f.recovery(), RecoveryState::kRecovery);
}

TEST(Rack, ALateSegmentThatComesInTimeIsNotRepeated) {
  Spread s(4);
  s.f.ack(0, {{1, 2}}, at_ms(11));
  EXPECT_TRUE(s.f.ack(2, {}, at_ms(12)).empty());
  EXPECT_EQ(s.f.recovery(), RecoveryState::kOpen);
  EXPECT_TRUE(s.f.end.cb.has(kReorderingSeen));
  EXPECT_EQ(s.f.end.counters.segs_retransmitted, 0U);
  EXPECT_EQ(s.f.end.cb.reord_seen, 1U);
}

TEST(Rack, ThreeReportsAreEnoughAsLongAsThePathKeptItsOrder) {
  Spread s(5);
  const auto sent = s.f.what(s.f.ack(0, {{1, 4}}, at_ms(13)));
  ASSERT_FALSE(sent.empty());
  EXPECT_EQ(sent[0], -1000);
}

TEST(Rack, AfterReorderingTheNumberOfReportsDoesNotCount) {
  Sender f(kOptSack, 10, 10);
  f.ack(0, {{1, 2}});
  f.ack(2);
  EXPECT_TRUE(f.ack(2, {{3, 7}}).empty()) << "segment 2 was sent 10 ms ago, as those that have arrived";
  EXPECT_EQ(f.end.cb.sender_timer, SenderTimer::kReorder);
}

TEST(Rack, ALostRetransmissionIsSentAgainWithoutATimeout) {
  Sender f(kOptSack, 20);
  f.ack(0, {{1, 4}});
  ASSERT_EQ(f.flight().retransmitted, 1U);
  // What was sent after the retransmission (at 10 ms) has arrived, a round trip and more ago.
  const std::uint32_t later = f.sent_segments();
  Sent all;
  for (std::uint32_t edge = 5; edge < 20; ++edge) {
    for (const int i : f.what(f.ack(0, {{1, edge}}, at_ms(12)))) all.push_back(i);
  }
  ASSERT_GT(f.sent_segments(), later) << "new data went out at 12 ms";
  all.clear();
  for (const int i : f.what(f.ack(0, {{1, 20}, {later, later + 1}}, at_ms(25)))) all.push_back(i);
  EXPECT_NE(std::find(all.begin(), all.end(), -1000), all.end());
  EXPECT_EQ(f.end.counters.timeouts, 0U);
}

// They are not all looked at, but the timer that is armed finds each of them overdue.
TEST(Rack, OfManyThatMayOnlyBeLateAllAreRepeatedInTime) {
  constexpr std::uint32_t kSegments = 300;
  Sender f(kOptSack, 1, 1);
  f.end.cb.cwnd = kSegments;
  f.end.cb.min_rtt_us = 100'000;
  f.end.cb.srtt_us8 = 8 * 100'000;
  for (std::uint32_t i = 1; i < kSegments; ++i) {
    const Time at = at_ms(0) + microseconds(20 * i);
    f.end.write(f.mss, at);
    f.end.poll(at);
  }
  f.end.cb.set(kReorderingSeen);
  EXPECT_TRUE(f.ack(0, {{kSegments - 1, kSegments}}, at_ms(100)).empty());
  ASSERT_EQ(f.end.cb.sender_timer, SenderTimer::kReorder);
  const Time due = next_deadline(f.end.cb, at_ms(100));
  EXPECT_LE(due, at_ms(100) + milliseconds(28)) << "a quarter of a round trip, and the timer's slack";
  on_timer(f.end.cb, f.end, due);
  EXPECT_EQ(f.flight().lost, kSegments - 1);
}

TEST(Rack, ADsackWidensTheWindowForSixteenRecoveries) {
  ControlBlock cb;
  cb.delivered = 100;
  flight_of(cb).rack_last_delivered = 0;
  RateSample sample;
  sample.known = true;
  sample.prior_delivered = 90;
  cb.set(kDsackSeen);
  rack_adapt_window(cb, sample);
  EXPECT_EQ(cb.reo_wnd_steps, 2);
  EXPECT_EQ(cb.reo_wnd_persist, 16);
  cb.set(kDsackSeen);  // within the same round trip
  rack_adapt_window(cb, sample);
  EXPECT_EQ(cb.reo_wnd_steps, 2);
  sample.prior_delivered = 101;
  cb.set(kDsackSeen);
  rack_adapt_window(cb, sample);
  EXPECT_EQ(cb.reo_wnd_steps, 3);
  cb.reo_wnd_persist = 0;
  rack_adapt_window(cb, sample);
  EXPECT_EQ(cb.reo_wnd_steps, 1);
}

TEST(LossProbe, TwoRoundTripsAfterTheLastSegmentOneGoesAgain) {
  Sender f(kOptSack, 4, 4);
  EXPECT_EQ(f.end.cb.sender_timer, SenderTimer::kLossProbe);
  const Time at = f.end.fire(at_ms(0));
  EXPECT_GE(at, at_ms(20));
  EXPECT_LE(at, at_ms(23));
  EXPECT_EQ(f.what(f.end.poll(at)), Sent{-3});
  EXPECT_EQ(f.end.cb.sender_timer, SenderTimer::kRetransmit) << "one probe only (RFC 8985 7.3)";
  EXPECT_GE(next_deadline(f.end.cb, at), at + milliseconds(210));
  EXPECT_EQ(f.recovery(), RecoveryState::kOpen);
}

TEST(LossProbe, NewDataIsThePreferredProbe) {
  Sender f(kOptSack, 4, 10);
  const Time at = f.end.fire(at_ms(0));
  EXPECT_EQ(f.what(f.end.poll(at)), Sent{4}) << "whatever cwnd says";
}

TEST(LossProbe, ALoneSegmentIsGivenTheTimeOfADelayedAck) {
  Sender f(kOptSack, 1, 1);
  const Time at = f.end.fire(at_ms(0));
  EXPECT_GE(at, at_ms(210)) << "the timeout would come sooner than two round trips and 200 ms";
  EXPECT_LE(at, at_ms(221));
}

TEST(LossProbe, TheReportThatItDrawsRepairsATailLossWithoutATimeout) {
  Sender f(kOptSack, 6, 6);
  const Time at = f.end.fire(at_ms(0));
  ASSERT_EQ(f.what(f.end.poll(at)), Sent{-5});
  const Time then = at + milliseconds(10);
  Sent sent = f.what(f.ack(2, {{5, 6}}, then));
  for (Time now = then; sent.empty();) {
    now = f.end.fire(now);
    sent = f.what(f.end.poll(now));
  }
  EXPECT_EQ(sent[0], -2);
  EXPECT_EQ(f.end.counters.timeouts, 0U);
}

TEST(LossProbe, ALossThatItRepairedCostsOneReduction) {
  Sender f(kOptSack, 10, 10);
  const Time at = f.end.fire(at_ms(0));
  ASSERT_EQ(f.what(f.end.poll(at)), Sent{-9});
  f.ack(10, {}, at + milliseconds(10));
  EXPECT_TRUE(f.flight().probe_out) << "the original or the probe? the next ACK tells";
  const std::uint32_t before = f.end.cb.cwnd;
  f.end.write(f.mss, at + milliseconds(11));
  f.end.poll(at + milliseconds(11));
  f.ack(11, {}, at + milliseconds(21));
  EXPECT_EQ(f.end.cb.cwnd, before / 2);
  EXPECT_EQ(f.recovery(), RecoveryState::kOpen);
}

TEST(LossProbe, ADsackSaysThatNothingWasLost) {
  Sender f(kOptSack, 10, 10);
  const Time at = f.end.fire(at_ms(0));
  f.end.poll(at);
  f.ack(10, {}, at + milliseconds(1));
  f.ack(10, {{9, 10}}, at + milliseconds(10));
  EXPECT_FALSE(f.end.cb.flight) << "nothing is remembered";
  f.end.write(f.mss, at + milliseconds(11));
  f.end.poll(at + milliseconds(11));
  f.ack(11, {}, at + milliseconds(21));
  EXPECT_GE(f.end.cb.cwnd, 10U);
}

TEST(LossProbe, NoneWithoutSack) {
  Sender f(0, 4, 4);
  EXPECT_EQ(f.end.cb.sender_timer, SenderTimer::kRetransmit);
}

TEST(LossProbe, NoneOfItInRecovery) {
  Sender f(kSackAndStamps, 10, 10);
  f.ack(0, {{1, 4}});
  EXPECT_EQ(f.recovery(), RecoveryState::kRecovery);
  EXPECT_NE(f.end.cb.sender_timer, SenderTimer::kLossProbe);
}

// The peer took its window back: it would drop a probe beyond it.
// Of a segment that crosses the edge what fits (Linux __tcp_retransmit_skb()).
TEST(LossProbe, NoneBeyondAWindowThatHasShrunk) {
  for (const auto& [segments_less, probes] : {std::pair{2.9, 0U}, {0.5, 1U}, {0.0, 1U}}) {
    Sender f(kOptSack, 4, 4);
    wire::Segment shrunk = from_peer(kPeerSeq, kOurSeq + f.mss);
    shrunk.window = static_cast<std::uint16_t>(((3 - segments_less) * f.mss + 127) / 128);
    f.end.receive(shrunk, "", at_ms(10));
    f.end.poll(at_ms(10));
    ASSERT_EQ(f.end.cb.sender_timer, SenderTimer::kLossProbe);
    const Time due = next_deadline(f.end.cb, at_ms(10));
    on_timer(f.end.cb, f.end, due);
    const auto plans = f.end.poll(due);
    ASSERT_EQ(plans.size(), probes) << segments_less;
    if (probes > 0) {
      EXPECT_LE(plans[0].segment.seq + plans[0].payload_bytes, f.end.cb.snd_una + f.end.cb.snd_wnd);
    }
    EXPECT_EQ(f.end.cb.sender_timer, SenderTimer::kRetransmit);
  }
}

}  // namespace
}  // namespace twinstack::tcp::test
