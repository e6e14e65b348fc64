// install() and extract(): what crosses between the stacks comes back as it went.
#include "tcp/connection.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "tcp/test_support.h"

namespace twinstack::tcp::test {
namespace {

MinTcp full_state() {
  MinTcp state = idle_state();
  state.flow = {IpAddress::from_v4({10, 0, 0, 1}), IpAddress::from_v4({10, 0, 0, 2}), 80, 51000};
  state.snd_una = 0xfffffff0;
  state.snd_nxt = 0x100;
  state.write_seq = 0x500;
  state.snd_wl1 = 0x7fffffff;
  state.snd_wnd = 500'000;
  state.max_window = 600'000;
  state.rcv_nxt = state.copied_seq = 0x80000010;
  state.rcv_wup = 0x7fffff00;
  state.snd_wl1 = state.rcv_nxt - 5;
  state.rcv_wnd = 120'000;
  state.options = kOptTimestamps | kOptSack | kOptWindowScale | kOptEcn | kOptTsMicroseconds;
  state.snd_wscale = 9;
  state.rcv_wscale = 7;
  state.flags = kFlagNoDelay | kFlagKeepalive;
  state.ts_val = 0xfffffffe;
  state.ts_recent = 77;
  state.srtt_us = 1234;
  state.rttvar_us = 567;
  state.rto_us = 201'234;
  state.rto_us = 1234 + 200'000;
  state.min_rtt_us = 900;
  state.cwnd_segments = 33;
  state.ssthresh_segments = 21;
  state.congestion = {'c', 'u', 'b', 'i', 'c'};
  state.snd_buf_bytes = 1;
  state.rcv_buf_bytes = 2;
  state.user_timeout_ms = 30'000;
  state.keepalive_idle_s = 7200;
  state.keepalive_interval_s = 75;
  state.keepalive_probes = 9;
  state.ttl = 63;
  state.flow_label = 5;
  return state;
}

TEST(Install, ExtractAtTheSameInstantGivesTheSameState) {
  const MinTcp state = full_state();
  ControlBlock cb;
  ASSERT_TRUE(install(cb, state, at_ms(0)).has_value());
  MinTcp back = state;
  extract(cb, at_ms(0), back);
  EXPECT_EQ(std::memcmp(&state, &back, sizeof state), 0);
}

TEST(Install, AFlightOfTooManySegmentsIsRefused) {
  MinTcp state = idle_state();
  state.mss = 100;
  state.snd_nxt = state.write_seq = kOurSeq + 100U * 140'000;
  ControlBlock cb;
  EXPECT_FALSE(install(cb, state, at_ms(0)).has_value());
  state.mss = 1460;
  EXPECT_TRUE(install(cb, state, at_ms(0)).has_value());
}

TEST(Install, TimestampClockGoesOn) {
  ControlBlock cb;
  ASSERT_TRUE(install(cb, full_state(), at_ms(0)).has_value());
  MinTcp back;
  extract(cb, at_ms(5), back);
  EXPECT_EQ(back.ts_val, 4998U);
}

TEST(Install, InfiniteThresholdStaysInfinite) {
  MinTcp state = full_state();
  for (const std::uint32_t infinite : {0x7fffffffU, 0xffffffffU, 0U}) {
    state.ssthresh_segments = infinite;
    ControlBlock cb;
    ASSERT_TRUE(install(cb, state, at_ms(0)).has_value());
    MinTcp back;
    extract(cb, at_ms(0), back);
    EXPECT_EQ(back.ssthresh_segments, 0x7fffffffU);
  }
}

TEST(Install, WhatTheCongestionControlHasMeasuredGoesOn) {
  MinTcp state = full_state();
  state.congestion = {'b', 'b', 'r'};
  state.measured = {
      .bbr_bandwidth = 12'500'000, .bbr_min_rtt_us = 40'000, .bbr_pacing_gain = 256, .bbr_cwnd_gain = 512};
  ControlBlock cb;
  ASSERT_TRUE(install(cb, state, at_ms(0)).has_value());
  MinTcp back;
  extract(cb, at_ms(0), back);
  EXPECT_NEAR(static_cast<double>(back.measured.bbr_bandwidth), 12'500'000, 1000);
  EXPECT_EQ(back.measured.bbr_min_rtt_us, 40'000U);
  EXPECT_EQ(back.measured.bbr_cwnd_gain, 512);
  EXPECT_EQ(back.measured.dctcp_known, 0);

  state.congestion = {'d', 'c', 't', 'c', 'p'};
  state.options |= kOptEcn;
  state.measured = {.dctcp_known = 1, .dctcp_ce_state = 1, .dctcp_alpha = 77};
  ASSERT_TRUE(install(cb, state, at_ms(0)).has_value());
  back = {};
  extract(cb, at_ms(0), back);
  EXPECT_EQ(back.measured.dctcp_alpha, 77U);
  EXPECT_EQ(back.measured.dctcp_ce_state, 1);
  EXPECT_EQ(back.measured.bbr_bandwidth, 0U);
}

TEST(Install, OwesAnAckAndWatchesWhatIsInFlight) {
  ControlBlock cb;
  ASSERT_TRUE(install(cb, full_state(), at_ms(0)).has_value());
  EXPECT_TRUE(owes_ack(cb));
  EXPECT_FALSE(is_drained(cb));
  EXPECT_EQ(in_flight_bytes(cb), 0x110U);
  EXPECT_NE(next_deadline(cb, at_ms(0)), kNever);
}

TEST(Install, TheRetransmissionTimerRunsOn) {
  MinTcp state = full_state();
  ControlBlock cb;
  ASSERT_TRUE(install(cb, state, at_ms(10'000)).has_value());
  const Duration fresh = next_deadline(cb, at_ms(10'000)) - at_ms(10'000);
  state.stalled_us = 40'000;
  ASSERT_TRUE(install(cb, state, at_ms(10'000)).has_value());
  const Duration left = next_deadline(cb, at_ms(10'000)) - at_ms(10'000);
  EXPECT_NEAR(static_cast<double>((fresh - left).count()), 40e6, 3e6);
  MinTcp again;
  extract(cb, at_ms(10'100), again);
  EXPECT_NEAR(again.stalled_us, 140'000, 3000) << "nothing has been acknowledged meanwhile";
  state.stalled_us = 0xffffffff;
  ASSERT_TRUE(install(cb, state, at_ms(10'000)).has_value());
  EXPECT_LE(next_deadline(cb, at_ms(10'000)), at_ms(10'000));
}

TEST(Install, ContradictionsAreRefused) {
  const std::vector<std::pair<const char*, std::function<void(MinTcp&)>>> corpus = {
      {"version", [](MinTcp& s) { s.version = kMinTcpVersion + 1; }},
      {"size", [](MinTcp& s) { s.size_bytes = 8; }},
      {"mss 0", [](MinTcp& s) { s.mss = 0; }},
      {"scale", [](MinTcp& s) { s.snd_wscale = 15; }},
      {"scale", [](MinTcp& s) { s.rcv_wscale = 200; }},
      {"options", [](MinTcp& s) { s.options = 0x8000; }},
      {"una beyond nxt", [](MinTcp& s) { s.snd_una = s.snd_nxt + 1; }},
      {"nxt beyond write", [](MinTcp& s) { s.write_seq = s.snd_nxt - 1; }},
      {"queue of 1.5 GiB", [](MinTcp& s) { s.write_seq = s.snd_una + 0x60000000; }},
      {"wup beyond nxt", [](MinTcp& s) { s.rcv_wup = s.rcv_nxt + 1; }},
      {"window", [](MinTcp& s) { s.rcv_wnd = 0xffffffff; }},
  };
  for (const auto& [why, change] : corpus) {
    MinTcp state = full_state();
    change(state);
    ControlBlock cb;
    const auto result = install(cb, state, at_ms(0));
    ASSERT_FALSE(result.has_value()) << why;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  }
}

TEST(Install, AnyBytesAreRefusedOrSafe) {
  Rng rng(1);
  for (int round = 0; round < 20'000; ++round) {
    MinTcp state = full_state();
    auto* bytes = reinterpret_cast<std::uint8_t*>(&state);
    for (std::uint32_t i = 0; i <= rng.below(20); ++i)
      bytes[8 + rng.below(sizeof state - 8)] = static_cast<std::uint8_t>(rng.next());
    ControlBlock cb;
    if (!install(cb, state, at_ms(0)).has_value()) continue;
    Counters counters;
    DeliveryRate rate;
    struct Sink final : Host {
      using Host::Host;
      std::uint32_t deliver(const Payload& payload) override { return payload.size(); }
      std::uint32_t receive_space() override { return 100'000; }
    } sink(counters, rate);
    SegmentPlan plan;
    for (int i = 0; i < 20 && poll_transmit(cb, sink, at_ms(1), plan); ++i) ASSERT_LE(plan.payload_bytes, cb.mss);
    on_timer(cb, sink, at_ms(100'000));
    for (int i = 0; i < 20 && poll_transmit(cb, sink, at_ms(100'000), plan); ++i) ASSERT_LE(plan.payload_bytes, cb.mss);
  }
}

// A window that was full when the connection moved grows by what is acknowledged of it (as when Linux takes over a
// queue).
TEST(Install, AWindowThatWasUsedGoesOnGrowing) {
  for (const std::uint32_t out : {10U, 4U}) {
    MinTcp state = idle_state();
    state.cwnd_segments = 10;
    state.snd_nxt = state.write_seq = state.snd_una + out * state.mss;
    TestEnd end(state, at_ms(0));
    end.receive(from_peer(kPeerSeq, state.snd_nxt), "", at_ms(20));
    EXPECT_EQ(end.cb.cwnd, out == 10 ? 20U : 10U);
  }
}

TEST(Block, FitsAndIsNamed) {
  EXPECT_LE(sizeof(ControlBlock), 248U);
  EXPECT_LE(sizeof(Counters), 64U);
}

// An end in the hands of the network says what any bytes do to it: nothing bad.
TEST(Robustness, RandomSegmentsNeverBreakTheInvariants) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    MinTcp state = idle_state();
    state.options = static_cast<std::uint16_t>(rng.below(16));
    TestEnd end(state, at_ms(0));
    Time now = at_ms(0);
    const std::string text(3000, 'x');
    for (int step = 0; step < 500; ++step) {
      wire::Segment segment =
          from_peer(end.cb.rcv_nxt.raw() + rng.below(4000) - 1000, end.cb.snd_una.raw() + rng.below(3000) - 500);
      segment.flags = rng.below(4) == 0 ? static_cast<std::uint8_t>(rng.next()) : static_cast<std::uint8_t>(wire::kAck);
      segment.window = static_cast<std::uint16_t>(rng.below(3) == 0 ? rng.below(2000) : rng.next());
      segment.options.has_timestamps = rng.below(2) == 0;
      segment.options.ts_val = static_cast<std::uint32_t>(rng.below(100));
      segment.options.sack_count = static_cast<std::uint8_t>(rng.below(5));
      for (auto& block : segment.options.sack) {
        block.left = end.cb.snd_una + rng.below(4000) - 500;
        block.right = block.left + rng.below(3000);
      }
      end.receive(segment, std::string_view(text).substr(0, rng.below(3000)), now);
      if (rng.below(3) == 0) end.write(rng.below(5000), now);
      if (rng.below(3) == 0) end.read(rng.below(5000), now);
      now += std::chrono::microseconds(rng.below(100'000));
      on_timer(end.cb, end, now);
      for (const SegmentPlan& plan : end.poll(now)) {
        if (plan.payload_bytes == 0) continue;
        ASSERT_TRUE(plan.segment.seq >= end.cb.snd_una && plan.segment.seq + plan.payload_bytes <= end.cb.snd_nxt);
      }
      ASSERT_TRUE(end.cb.snd_una <= end.cb.snd_nxt && end.cb.snd_nxt <= end.cb.write_seq);
      ASSERT_GE(end.cb.cwnd, 1U);
      ASSERT_GE(end.cb.ssthresh, 2U);
      if (bytes_between(end.cb.snd_una, end.cb.write_seq) > 1'000'000) break;
    }
  }
}

}  // namespace
}  // namespace twinstack::tcp::test
