// Path MTU: ICMP errors with the checks of RFC 5927, black holes and probes (RFC 4821).
#include "tcp/path_mtu.h"

#include <gtest/gtest.h>

#include "tcp/cold_state.h"
#include "tcp/sender_fixture.h"

namespace twinstack::tcp::test {
namespace {

TEST(PacketTooBig, WhatIsOutGoesAgainInSmallerSegments) {
  Sender f(kOptSack, 10, 10);
  ASSERT_TRUE(on_packet_too_big(f.end.cb, Seq(kOurSeq), 1000, at_ms(0)));
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
  EXPECT_FALSE(on_packet_too_big(f.end.cb, Seq(kOurSeq), 1000, at_ms(0))) << "acknowledged";
  EXPECT_FALSE(on_packet_too_big(f.end.cb, f.end.cb.snd_nxt, 1000, at_ms(0))) << "never sent";
  EXPECT_FALSE(on_packet_too_big(f.end.cb, f.end.cb.snd_una, kMss, at_ms(0))) << "no smaller than now";
  EXPECT_EQ(f.end.cb.mss, kMss);
}

TEST(PacketTooBig, NoneMakesSegmentsTiny) {
  Sender f(kOptSack | kOptTimestamps, 10, 10);
  ASSERT_TRUE(on_packet_too_big(f.end.cb, Seq(kOurSeq), 1, at_ms(0)));
  EXPECT_GE(f.end.cb.mss, 36) << "Linux TCP_MIN_SND_MSS less the timestamps";
}

TEST(PacketTooBig, AllThatIsOutIsSplitAtOnce) {
  Sender f(kOptSack, 10, 10);
  f.ack(1, {{3, 4}});
  ASSERT_TRUE(on_packet_too_big(f.end.cb, Seq(kOurSeq + kMss), 1000, at_ms(20)));
  const SentQueue& sent = f.flight().sent;
  ASSERT_EQ(sent.size(), 17U) << "eight in two pieces each, one has arrived as it was";
  Seq next = f.end.cb.snd_una;
  for (auto p = sent.first(); p != sent.end(); ++p) {
    EXPECT_EQ(sent.at(p).seq, next);
    EXPECT_EQ(sent.at(p).has(kLost), !sent.at(p).has(kSacked));
    EXPECT_LE(sent.at(p).length, sent.at(p).has(kSacked) ? kMss : 1000U);
    next = sent.at(p).end();
  }
  EXPECT_EQ(next, f.end.cb.snd_nxt);
  EXPECT_EQ(f.flight().lost, 16U);
  EXPECT_EQ(f.flight().sacked, 1U);
}

TEST(PacketTooBig, CountsOnceInARoundTrip) {
  Sender f(kOptSack, 10, 10);
  ASSERT_TRUE(on_packet_too_big(f.end.cb, Seq(kOurSeq), 1200, at_ms(20)));
  EXPECT_FALSE(on_packet_too_big(f.end.cb, Seq(kOurSeq), 1100, at_ms(25)));
  EXPECT_EQ(f.end.cb.mss, 1200);
  EXPECT_TRUE(on_packet_too_big(f.end.cb, Seq(kOurSeq), 1100, at_ms(31)));
  EXPECT_EQ(f.end.cb.mss, 1100);
}

TEST(PacketTooBig, HoldsForTenMinutes) {
  Sender f(kOptSack, 10, 10);
  ASSERT_TRUE(on_packet_too_big(f.end.cb, Seq(kOurSeq), 1000, at_ms(0)));
  EXPECT_TRUE(is_path_told(f.end.cb));
  f.ack(10);
  f.end.write(2 * kMss, at_ms(599'000));
  EXPECT_EQ(f.end.poll(at_ms(599'000)).at(0).payload_bytes, 1000U);
  f.ack(12, {}, at_ms(599'010));
  f.end.write(2 * kMss, at_ms(601'000));
  EXPECT_EQ(f.end.poll(at_ms(601'000)).at(0).payload_bytes, kMss);
  EXPECT_FALSE(is_path_told(f.end.cb));
}

TEST(PacketTooBig, ASmallMssThatComesWithAConnectionIsARoutersWordToo) {
  MinTcp state = Sender::state(kOptSack);
  state.mss = 900;
  TestEnd end(state, at_ms(0));
  install_path(end.cb, kMss, 0, at_ms(0));
  EXPECT_EQ(end.cb.mss, 900);
  end.write(kMss, at_ms(601'000));
  EXPECT_EQ(end.poll(at_ms(601'000)).back().payload_bytes, kMss);
}

TEST(PathLimit, ALowerOneRepeatsWhatIsOutAndAHigherOneCountsAtOnce) {
  Sender f(kOptSack, 10, 10);
  set_path_limit(f.end.cb, 1000);
  EXPECT_EQ(f.end.cb.mss, 1000);
  EXPECT_EQ(f.flight().lost, 20U);
  EXPECT_EQ(f.end.cb.cwnd, 10U);
  set_path_limit(f.end.cb, 1300);
  EXPECT_EQ(f.end.cb.mss, 1300);
}

TEST(PathLimit, AHigherOneDoesNotOverruleARouter) {
  Sender f(kOptSack, 10, 10);
  ASSERT_TRUE(on_packet_too_big(f.end.cb, Seq(kOurSeq), 1000, at_ms(0)));
  set_path_limit(f.end.cb, 4000);
  EXPECT_EQ(f.end.cb.mss, 1000);
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
    a.write(bytes, net.now);
    wait_for(b.received + bytes, limit);
  }
  void wait_for(std::uint64_t wanted, Duration limit) {
    const Time end = net.now + limit;
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

TEST(BlackHole, WhatWasFoundGoesWithTheConnection) {
  BlackHole hole(1300);
  hole.transfer(50'000, std::chrono::seconds(30));
  MinTcp out{};
  extract(hole.a.cb, hole.net.now, out);
  EXPECT_EQ(out.mss, kMss);
  EXPECT_EQ(out.mss_found, 1024);
  out.rcv_wup = out.rcv_nxt;
  TestEnd again(out, hole.net.now);
  install_path(again.cb, kMss, out.mss_found, hole.net.now);
  EXPECT_EQ(again.cb.mss, 1024);
  EXPECT_TRUE(is_searching_path(again.cb));
}

TEST(BlackHole, WhereNothingArrivesNothingIsFound) {
  BlackHole hole(100);
  hole.a.write(50'000, hole.net.now);
  const Time end = hole.net.now + std::chrono::seconds(10);
  while (hole.net.now < end) hole.net.step(end);
  ASSERT_LT(hole.a.cb.mss, kMss);
  MinTcp out{};
  extract(hole.a.cb, hole.net.now, out);
  EXPECT_EQ(out.mss, kMss);
  EXPECT_EQ(out.mss_found, 0);
}

TEST(BlackHole, LargerSegmentsAreTriedAgainAfterTenMinutes) {
  BlackHole hole(1300);
  hole.transfer(50'000, std::chrono::seconds(30));
  for (int i = 0; i < 20; ++i) hole.transfer(300'000, std::chrono::seconds(30));
  ASSERT_LE(hole.a.cb.mss, 1300);
  hole.net.faults.largest_payload = UINT32_MAX;
  for (int i = 0; i < 5; ++i) hole.transfer(300'000, std::chrono::seconds(30));
  ASSERT_LE(hole.a.cb.mss, 1300) << "the search has ended";
  hole.net.now += std::chrono::minutes(10);
  for (int i = 0; i < 20; ++i) hole.transfer(300'000, std::chrono::seconds(30));
  EXPECT_GT(hole.a.cb.mss, kMss - 8);
}

TEST(BlackHole, TheLimitMayChangeDuringTheSearch) {
  BlackHole hole(1300);
  hole.transfer(50'000, std::chrono::seconds(30));
  ASSERT_EQ(hole.a.cb.mss, 1024);
  set_path_limit(hole.a.cb, kMss - 100);
  EXPECT_EQ(hole.a.cb.mss, 1024) << "a limit is no proof";
  EXPECT_EQ(hole.a.cb.cold->path_mtu.high, kMss - 100);
  set_path_limit(hole.a.cb, 900);
  EXPECT_EQ(hole.a.cb.mss, 900);
  EXPECT_EQ(hole.a.cb.cold->path_mtu.low, 900);
}

TEST(BlackHole, IsNotLookedForWhereTheHostSaysSo) {
  BlackHole hole(1300);
  set_size_search(hole.a.cb, false);
  hole.a.write(50'000, hole.net.now);
  const Time end = hole.net.now + std::chrono::seconds(30);
  while (hole.net.now < end) hole.net.step(end);
  EXPECT_EQ(hole.a.cb.mss, kMss);
  EXPECT_EQ(hole.b.received, 0U);
}

// Linux tcp_mtu_probing = 2.
TEST(ProbePath, SmallSegmentsGrowWithoutALoss) {
  BlackHole hole(UINT32_MAX);
  probe_path(hole.a.cb, hole.net.now);
  EXPECT_EQ(hole.a.cb.mss, 1024);
  hole.transfer(200'000, std::chrono::seconds(30));
  for (int i = 0; i < 10; ++i) hole.transfer(300'000, std::chrono::seconds(30));
  EXPECT_GT(hole.a.cb.mss, kMss - 8);
  EXPECT_EQ(hole.a.counters.segs_retransmitted, 0U);
}

TEST(ProbePath, LargerSegmentsDoNotMakeTheWindowLarger) {
  TestEnd end(Sender::state(kOptSack), at_ms(0));
  probe_path(end.cb, at_ms(0));
  end.poll(at_ms(0));
  end.cb.cwnd = 20;
  end.cb.ssthresh = 2;
  end.write(100'000, at_ms(0));
  const auto plans = end.poll(at_ms(0));
  ASSERT_EQ(plans.size(), 20U);
  const std::uint32_t size = (1024U + kMss) / 2;
  ASSERT_EQ(plans[0].payload_bytes, size);
  EXPECT_EQ(plans[1].payload_bytes, 1024U);
  end.receive(from_peer(kPeerSeq, kOurSeq + size), "", at_ms(10));
  EXPECT_EQ(end.cb.mss, size);
  EXPECT_EQ(end.cb.cwnd, 20U * 1024 / size + 1) << "which the ACK has let grow by one";
}

// A probe of which size and number are known: `before` bytes were sent before it, twenty segments are out in all.
struct Probed {
  explicit Probed(std::uint32_t before = 0) : end(Sender::state(kOptSack), at_ms(0)), seq(kOurSeq + before) {
    probe_path(end.cb, at_ms(0));
    end.poll(at_ms(0));
    end.cb.cwnd = 20;
    end.cb.ssthresh = 2;
    if (before > 0) {
      end.write(before, at_ms(0));
      end.poll(at_ms(0));
    }
    end.write(100'000, at_ms(0));
    const auto plans = end.poll(at_ms(0));
    EXPECT_EQ(plans.at(0).segment.seq, Seq(seq));
    EXPECT_EQ(plans.at(0).payload_bytes, kSize);
  }
  std::vector<SegmentPlan> receive(std::uint32_t ack, Time now, bool all_behind_the_probe = false) {
    wire::Segment segment = from_peer(kPeerSeq, ack);
    if (all_behind_the_probe) {
      segment.options.sack[0] = {Seq(seq + kSize), end.cb.snd_nxt};
      segment.options.sack_count = 1;
    }
    end.receive(segment, "", now);
    return end.poll(now);
  }

  static constexpr std::uint32_t kSize = (1024U + kMss) / 2;
  TestEnd end;
  std::uint32_t seq;
};

// The ACK that passes it acknowledges the pieces in which it went again.
TEST(SizeProbe, ProvesNothingWhenSomethingBeforeItIsLostAsWell) {
  Probed f(500);
  f.receive(kOurSeq, at_ms(20), true);
  ASSERT_EQ(f.end.cb.recovery, RecoveryState::kRecovery);
  f.receive(f.end.cb.snd_nxt.raw(), at_ms(30));
  EXPECT_EQ(f.end.cb.mss, 1024);
}

// It may be the first segment after a pause, and is treated as any that is.
std::vector<SegmentPlan> after_a_minute(TestEnd& end) {
  probe_path(end.cb, at_ms(0));
  end.cb.cwnd = 40;
  end.cb.ssthresh = 2;
  end.write(100, at_ms(0));
  end.poll(at_ms(0));
  end.receive(from_peer(kPeerSeq, kOurSeq + 100), "", at_ms(10));
  end.write(100'000, at_ms(60'000));
  return end.poll(at_ms(60'000));
}

TEST(SizeProbe, AfterAPauseTheWindowIsTooSmall) {
  TestEnd end(Sender::state(kOptSack), at_ms(0));
  const auto plans = after_a_minute(end);
  ASSERT_EQ(plans.size(), 10U) << "RFC 5681 4.1";
  EXPECT_EQ(plans[0].payload_bytes, 1024U);
}

TEST(SizeProbe, BeginsAFlightAsAnySegmentDoes) {
  TestEnd end(Sender::state(kOptSack), at_ms(0));
  set_restart_after_idle(end.cb, false);
  EXPECT_EQ(after_a_minute(end).at(0).payload_bytes, (1024U + kMss) / 2) << "the probe";
  EXPECT_LT(stalled_for(end.cb, at_ms(60'000)), std::chrono::milliseconds(1));
}

TEST(SizeProbe, EndsAWaitAsAnySegmentDoes) {
  TestEnd end(Sender::state(0), at_ms(0));
  probe_path(end.cb, at_ms(0));
  end.poll(at_ms(0));
  end.cb.cwnd = 40;
  end.cb.flags |= kFlagCork;
  end.write(100, at_ms(0));
  EXPECT_TRUE(end.poll(at_ms(0)).empty());
  ASSERT_EQ(end.cb.sender_timer, SenderTimer::kPersist);
  end.write(100'000, at_ms(10));
  EXPECT_EQ(end.poll(at_ms(10)).at(0).payload_bytes, (1024U + kMss) / 2) << "the probe";
  EXPECT_EQ(end.cb.sender_timer, SenderTimer::kRetransmit);
}

TEST(SizeProbe, ProvesNothingAfterATimeout) {
  Probed f;
  on_timer(f.end.cb, f.end, at_ms(20'000));
  f.end.poll(at_ms(20'000));
  on_timer(f.end.cb, f.end, at_ms(40'000));
  f.end.poll(at_ms(40'000));
  f.receive(f.end.cb.snd_nxt.raw(), at_ms(40'010));
  EXPECT_EQ(f.end.cb.mss, 1024);
}

TEST(SizeProbe, ARoutersAnswerToItCostsNoWindow) {
  Probed f;
  ASSERT_TRUE(on_packet_too_big(f.end.cb, Seq(f.seq), Probed::kSize - 50, at_ms(5)));
  EXPECT_EQ(f.end.cb.mss, 1024);
  EXPECT_GE(f.end.cb.flight->lost, 1U) << "its bytes go again";
  f.receive(kOurSeq, at_ms(20), true);
  EXPECT_EQ(f.end.cb.cwnd, 20U);
  EXPECT_EQ(f.end.counters.fast_recoveries, 0U);
}

TEST(SizeProbe, WhatHasArrivedIsToldToTheOtherStack) {
  Probed f;
  MinTcp out{};
  f.receive(kOurSeq + Probed::kSize, at_ms(10));
  extract(f.end.cb, at_ms(10), out);
  EXPECT_EQ(out.mss_found, Probed::kSize);
}

TEST(SizeProbe, ARoutersWordIsCarriedOnDuringASearch) {
  Probed f;
  ASSERT_TRUE(on_packet_too_big(f.end.cb, Seq(f.seq), 1200, at_ms(5)));
  MinTcp out{};
  extract(f.end.cb, at_ms(10), out);
  EXPECT_EQ(out.mss, 1200);
}

TEST(BlackHole, AnOutageIsForgottenAfterTenMinutes) {
  BlackHole outage(100);
  outage.a.write(5000, outage.net.now);
  const Time end = outage.net.now + std::chrono::seconds(10);
  while (outage.net.now < end) outage.net.step(end);
  ASSERT_LT(outage.a.cb.mss, kMss);
  outage.net.faults.largest_payload = UINT32_MAX;
  outage.wait_for(5000, std::chrono::seconds(30));
  ASSERT_LT(outage.a.cb.mss, kMss);
  outage.net.now += std::chrono::minutes(10);
  outage.transfer(5000, std::chrono::seconds(30));
  EXPECT_EQ(outage.a.cb.mss, kMss) << "although nothing was ever long enough for a probe";
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
