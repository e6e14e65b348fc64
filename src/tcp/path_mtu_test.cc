// Path MTU: ICMP errors with the checks of RFC 5927, black holes and probes (RFC 4821).
#include "tcp/path_mtu.h"

#include <gtest/gtest.h>

#include "tcp/cold_state.h"
#include "tcp/sender_fixture.h"

namespace twinstack::tcp::test {
namespace {

TEST(PacketTooBig, WhatIsOutGoesAgainInSmallerSegments) {
  Sender f(kOptSack, 10, 10);
  ASSERT_TRUE(on_packet_too_big(f.end.cb, Seq(kOurSeq), 1000));
  EXPECT_EQ(f.end.cb.mss, 1000);
  const auto plans = f.end.poll(at_ms(1));
  ASSERT_GE(plans.size(), 3U);
  EXPECT_TRUE(plans[0].retransmission);
  EXPECT_EQ(plans[0].payload_bytes, 1000U);
  EXPECT_EQ(plans[1].payload_bytes, kMss - 1000U);
  EXPECT_EQ(plans[2].segment.seq, Seq(kOurSeq + kMss));
  EXPECT_EQ(f.end.cb.cwnd, 10U) << "no sign of congestion";
}

TEST(PacketTooBig, IsIgnoredWhenItQuotesNothingThatIsOut) {
  Sender f(kOptSack, 10, 10);
  f.ack(2);
  EXPECT_FALSE(on_packet_too_big(f.end.cb, Seq(kOurSeq), 1000)) << "acknowledged";
  EXPECT_FALSE(on_packet_too_big(f.end.cb, f.end.cb.snd_nxt, 1000)) << "never sent";
  EXPECT_FALSE(on_packet_too_big(f.end.cb, f.end.cb.snd_una, kMss)) << "no smaller than now";
  EXPECT_EQ(f.end.cb.mss, kMss);
}

TEST(PacketTooBig, NoneMakesSegmentsTiny) {
  Sender f(kOptSack | kOptTimestamps, 10, 10);
  ASSERT_TRUE(on_packet_too_big(f.end.cb, Seq(kOurSeq), 1));
  EXPECT_GE(f.end.cb.mss, 36) << "Linux TCP_MIN_SND_MSS less the timestamps";
}

struct BlackHole {
  explicit BlackHole(std::uint32_t largest)
      : a(state(), at_ms(0), 1U << 20), b(other(), at_ms(0), 1U << 20), net(7, a, b, at_ms(0)) {
    b.send_key = 2;
    b.receive_key = 1;
    a.keep_text = b.keep_text = false;
    net.faults.largest_payload = largest;
    net.faults.delay = std::chrono::milliseconds(5);
  }
  static MinTcp state() {
    MinTcp out = Sender::state(kOptSack);
    out.options |= kOptWindowScale;
    out.rcv_wscale = 7;
    out.rcv_wnd = 65535 << 4;
    return out;
  }
  static MinTcp other() {
    MinTcp out = state();
    std::swap(out.snd_una, out.rcv_nxt);
    out.snd_nxt = out.write_seq = out.snd_una;
    out.rcv_wup = out.copied_seq = out.snd_wl1 = out.rcv_nxt;
    return out;
  }
  void transfer(std::uint32_t bytes, Duration limit) {
    const std::uint64_t wanted = b.received + bytes;
    const Time end = net.now + limit;
    a.write(bytes, net.now);
    while (b.received < wanted && net.now < end) {
      b.read_all(net.now);
      net.step(end);
      if (::testing::Test::HasFatalFailure()) return;
    }
    EXPECT_EQ(b.received, wanted);
  }
  TestEnd a;
  TestEnd b;
  TestNetwork net;
};

TEST(BlackHole, IsLeftByTheThirdTimeoutAndTheRightSizeIsFound) {
  BlackHole hole(1300);
  hole.transfer(50'000, std::chrono::seconds(30));
  EXPECT_EQ(hole.a.cb.mss, 1024);
  for (int i = 0; i < 20; ++i) hole.transfer(300'000, std::chrono::seconds(30));
  EXPECT_GE(hole.a.cb.mss, 1300 - 10) << "probes find what the path carries";
  EXPECT_LE(hole.a.cb.mss, 1300);
  EXPECT_EQ(hole.b.wrong_bytes, 0U);
}

TEST(BlackHole, AVerySmallPathIsFoundInTwoSteps) {
  BlackHole hole(600);
  hole.transfer(50'000, std::chrono::seconds(60));
  EXPECT_LE(hole.a.cb.mss, 600);
}

TEST(BlackHole, ALostProbeCostsNoWindow) {
  BlackHole hole(1030);
  hole.transfer(50'000, std::chrono::seconds(30));
  ASSERT_EQ(hole.a.cb.mss, 1024);
  hole.transfer(200'000, std::chrono::seconds(30));
  const auto recoveries = hole.a.counters.fast_recoveries;
  const auto timeouts = hole.a.counters.timeouts;
  for (int i = 0; i < 10; ++i) hole.transfer(300'000, std::chrono::seconds(30));
  EXPECT_EQ(hole.a.counters.fast_recoveries, recoveries);
  EXPECT_EQ(hole.a.counters.timeouts, timeouts);
  EXPECT_FALSE(hole.a.cb.cold->path_mtu.probe != 0);
}

// Found by twinstack sim, seed 8.
TEST(BlackHole, NothingIsProbedBehindTheFin) {
  BlackHole hole(1300);
  run_whole_machine(hole.a.cb);
  hole.transfer(40'000, std::chrono::seconds(60));
  ASSERT_TRUE(hole.a.cb.cold && hole.a.cb.cold->path_mtu.searching);
  hole.a.cb.cwnd = 20;
  on_close(hole.a.cb);
  const auto plans = hole.a.poll(hole.net.now);
  ASSERT_EQ(plans.size(), 1U);
  EXPECT_EQ(plans[0].payload_bytes, 0U);
  EXPECT_EQ(hole.a.cb.snd_nxt, hole.a.cb.write_seq);
}

TEST(BlackHole, WithoutOneNothingIsSuspected) {
  BlackHole hole(UINT32_MAX);
  hole.net.faults.loss_ppm = 100'000;
  hole.transfer(500'000, std::chrono::seconds(120));
  EXPECT_EQ(hole.a.cb.mss, kMss);
}

}  // namespace
}  // namespace twinstack::tcp::test
