// Timers: retransmission and its back-off, giving up, persist, keepalive.
#include "tcp/timers.h"

#include <gtest/gtest.h>

#include "tcp/rtt.h"
#include "tcp/test_support.h"
#include "tcp/timestamps.h"

namespace twinstack::tcp::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

MinTcp state_with_rtt() {
  MinTcp state = idle_state();
  state.srtt_us = 1000;
  state.rttvar_us = 100;
  return state;
}

struct Timed {
  explicit Timed(const MinTcp& state = state_with_rtt()) : end(state, at_ms(0)) { end.poll(at_ms(0)); }
  TestEnd end;
};

void expect_about(Time got, Time wanted) {
  EXPECT_GE(got, wanted);
  EXPECT_LE(got, wanted + std::chrono::microseconds(66)) << "one tick";
}

// Quiet since a stamp, which is cut to a tick: one tick early or late.
void expect_near(Time got, Time wanted) {
  EXPECT_GE(got, wanted - std::chrono::microseconds(66));
  EXPECT_LE(got, wanted + std::chrono::microseconds(66));
}

TEST(Timers, IdleConnectionHasNone) {
  Timed t;
  EXPECT_EQ(next_deadline(t.end.cb, at_ms(1)), kNever);
  EXPECT_EQ(on_timer(t.end.cb, t.end, at_ms(1)), TimerVerdict::kNothing);
}

TEST(Timers, RetransmissionBacksOffAndSaysWhenItIsOver) {
  Timed t;
  t.end.write(100, at_ms(0));
  t.end.poll(at_ms(0));
  Time last = at_ms(0);
  Duration interval = milliseconds(201);  // srtt + 200 ms
  for (int i = 0; i < kMaxRetries; ++i) {
    TimerVerdict verdict{};
    const Time at = t.end.fire(last, &verdict);
    ASSERT_EQ(verdict, TimerVerdict::kFired);
    expect_about(at, last + std::min<Duration>(interval, seconds(120)));
    const SegmentPlan plan = t.end.poll_one(at);
    EXPECT_TRUE(plan.retransmission);
    EXPECT_EQ(plan.segment.seq, Seq(kOurSeq));
    EXPECT_EQ(plan.payload_bytes, 100U);
    EXPECT_EQ(t.end.cb.cwnd, 1U);
    last = at;
    interval *= 2;
  }
  TimerVerdict verdict{};
  t.end.fire(last, &verdict);
  EXPECT_EQ(verdict, TimerVerdict::kToSoftware);
  EXPECT_GT(next_deadline(t.end.cb, last), last) << "no spinning while the upload goes on";
  EXPECT_EQ(t.end.counters.timeouts, kMaxRetries);
}

TEST(Timers, AnAckRestartsTheTimerAndEndsTheBackOff) {
  Timed t;
  t.end.write(2 * kMss, at_ms(0));
  t.end.poll(at_ms(0));
  t.end.receive(from_peer(kPeerSeq, kOurSeq + kMss), "", at_ms(100));
  expect_about(next_deadline(t.end.cb, at_ms(100)), at_ms(100) + backed_off_rto(t.end.cb));
  const Time at = t.end.fire(at_ms(100));
  t.end.poll(at);
  EXPECT_EQ(t.end.cb.backoff, 1);
  t.end.receive(from_peer(kPeerSeq, kOurSeq + 2 * kMss), "", at + milliseconds(1));
  EXPECT_EQ(next_deadline(t.end.cb, at), kNever);
  EXPECT_EQ(t.end.cb.retries, 0);
  EXPECT_EQ(t.end.cb.backoff, 1) << "Karn: no valid sample yet";
  t.end.write(10, at + milliseconds(2));
  t.end.poll(at + milliseconds(2));
  t.end.receive(from_peer(kPeerSeq, kOurSeq + 2 * kMss + 10), "", at + milliseconds(3));
  EXPECT_EQ(t.end.cb.backoff, 0);
}

// When the timers have given up.
Time given_up_at(Timed& t, Time now) {
  for (TimerVerdict verdict = TimerVerdict::kFired; verdict != TimerVerdict::kToSoftware;) {
    now = t.end.fire(now, &verdict);
    t.end.poll(now);
  }
  return now;
}

Time first_timeout(Timed& t, Time now) {
  while (t.end.cb.retries == 0) {
    now = t.end.fire(now);
    t.end.poll(now);
  }
  return now;
}

// It counts from the first timeout on (as Linux, where 1 s takes 1.42 s: a loss probe goes before).
TEST(Timers, UserTimeoutIsMetOnTime) {
  MinTcp state = state_with_rtt();
  state.user_timeout_ms = 1000;
  Timed t(state);
  t.end.write(100, at_ms(0));
  t.end.poll(at_ms(0));
  const Time timeout = first_timeout(t, at_ms(0));
  expect_about(timeout, at_ms(201));
  const Time end = given_up_at(t, timeout);
  EXPECT_GE(end, timeout + milliseconds(1000));
  EXPECT_LE(end, timeout + milliseconds(1010));
}

// An ACK of some of it begins the count anew.
TEST(Timers, UserTimeoutBeginsAnewWithProgress) {
  MinTcp state = state_with_rtt();
  state.user_timeout_ms = 1000;
  Timed t(state);
  t.end.write(2 * kMss, at_ms(0));
  t.end.poll(at_ms(0));
  Time now = first_timeout(t, at_ms(0)) + milliseconds(100);
  t.end.receive(from_peer(kPeerSeq, kOurSeq + kMss), "", now);
  t.end.poll(now);
  now = first_timeout(t, now);
  const Time end = given_up_at(t, now);
  EXPECT_GE(end, now + milliseconds(1000));
  EXPECT_LE(end, now + milliseconds(1010));
}

// A connection that comes from another stack, where its peer has been silent, has no more time than one that stayed.
TEST(Timers, UserTimeoutCountsOnAfterAMove) {
  MinTcp state = state_with_rtt();
  state.user_timeout_ms = 1000;
  state.snd_nxt += 100;
  state.write_seq += 100;
  state.stalled_us = 700'000;
  Timed t(state);
  t.end.poll(at_ms(0));
  const Time end = given_up_at(t, at_ms(0));
  EXPECT_GE(end, at_ms(500));
  EXPECT_LE(end, at_ms(520));
}

// However short it is, what is lost is sent once more, and as late as without it (as Linux).
TEST(Timers, AUserTimeoutDoesNotHurryTheFirstRetransmission) {
  MinTcp state = state_with_rtt();
  state.user_timeout_ms = 50;
  Timed t(state);
  t.end.write(100, at_ms(0));
  t.end.poll(at_ms(0));
  TimerVerdict verdict{};
  const Time at = t.end.fire(at_ms(0), &verdict);
  expect_about(at, at_ms(201));
  EXPECT_EQ(verdict, TimerVerdict::kFired);
  EXPECT_TRUE(t.end.poll_one(at).retransmission);
  expect_about(t.end.fire(at, &verdict), at + milliseconds(50));
  EXPECT_EQ(verdict, TimerVerdict::kToSoftware);
}

// A peer without memory drops what was sent and answers with a closed window for as long as it takes; once the window
// opens it has as many timeouts before it as any.
TEST(Timers, TimeoutsBehindAClosedWindowAreNotCounted) {
  Timed t;
  t.end.write(3 * kMss, at_ms(0));
  t.end.poll(at_ms(0));
  wire::Segment closed = from_peer();
  closed.window = 0;
  Time now = at_ms(1);
  t.end.receive(closed, "", now);
  for (int i = 0; i < 2 * kMaxRetries; ++i) {
    TimerVerdict verdict{};
    now = t.end.fire(now, &verdict);
    ASSERT_EQ(verdict, TimerVerdict::kFired) << i;
    EXPECT_FALSE(t.end.poll(now).empty());
    t.end.receive(closed, "", now);
  }
  t.end.receive(from_peer(), "", now);
  t.end.poll(now);
  TimerVerdict verdict{};
  now = t.end.fire(now, &verdict);
  EXPECT_EQ(verdict, TimerVerdict::kFired);
}

// One that took its window back and is silent from then on: at the first timeout after four minutes.
TEST(Timers, ASilentPeerBehindAClosedWindowIsGivenUp) {
  Timed t;
  t.end.write(kMss, at_ms(0));
  t.end.poll(at_ms(0));
  wire::Segment closed = from_peer();
  closed.window = 0;
  t.end.receive(closed, "", at_ms(1));
  const Time end = given_up_at(t, at_ms(1));
  EXPECT_GE(end, at_ms(240'000));
  EXPECT_LE(end, at_ms(240'000 + 120'000 + 1000));
}

TEST(Timers, DataOfTheOtherStackIsRetransmittedAfterAMove) {
  MinTcp state = state_with_rtt();
  state.snd_nxt = state.write_seq = kOurSeq + 300;
  Timed t(state);
  const Time at = t.end.fire(at_ms(0));
  expect_about(at, at_ms(201));
  const SegmentPlan plan = t.end.poll_one(at);
  EXPECT_EQ(plan.segment.seq, Seq(kOurSeq));
  EXPECT_EQ(plan.payload_bytes, 300U);
}

TEST(Persist, ProbesAClosedWindowWithBackOffAndGoesOnWhenItOpens) {
  MinTcp state = state_with_rtt();
  state.snd_wnd = 0;
  Timed t(state);
  t.end.write(3000, at_ms(0));
  EXPECT_TRUE(t.end.poll(at_ms(0)).empty());
  Time last = at_ms(0);
  Duration interval = milliseconds(201);
  for (int i = 0; i < 5; ++i) {
    const Time at = t.end.fire(last);
    expect_about(at, last + interval);
    const SegmentPlan probe = t.end.poll_one(at);
    EXPECT_EQ(probe.segment.seq, Seq(kOurSeq - 1));
    EXPECT_EQ(probe.payload_bytes, 0U);
    EXPECT_EQ(probe.segment.flags, wire::kAck);
    wire::Segment answer = from_peer();
    answer.window = 0;
    t.end.receive(answer, "", at);
    EXPECT_EQ(t.end.cb.probes_out, 0);
    interval *= 2;
    last = at;
  }
  t.end.receive(from_peer(), "", last);
  EXPECT_EQ(t.end.poll(last).size(), 3U);
  EXPECT_EQ(t.end.cb.backoff, 0);
  expect_about(next_deadline(t.end.cb, last), last + milliseconds(201));
}

TEST(Persist, AUserTimeoutDoesNotHurryTheFirstProbe) {
  MinTcp state = state_with_rtt();
  state.snd_wnd = 0;
  state.user_timeout_ms = 50;
  Timed t(state);
  t.end.write(10, at_ms(0));
  t.end.poll(at_ms(0));
  TimerVerdict verdict{};
  const Time at = t.end.fire(at_ms(0), &verdict);
  expect_about(at, at_ms(201));
  EXPECT_EQ(verdict, TimerVerdict::kFired);
  EXPECT_EQ(t.end.poll(at).size(), 1U);
  const Time end = given_up_at(t, at);
  EXPECT_GE(end, at + milliseconds(50)) << "it counts from the first probe on (as Linux)";
  EXPECT_LE(end, at + milliseconds(52));
}

// ... nor does it keep a peer that answers no probe (Linux tcp_probe_timer()).
TEST(Persist, AUserTimeoutDoesNotPutOffTheEnd) {
  MinTcp state = state_with_rtt();
  state.snd_wnd = 0;
  state.user_timeout_ms = 24 * 3'600'000;
  Timed t(state);
  t.end.write(10, at_ms(0));
  t.end.poll(at_ms(0));
  EXPECT_LT(given_up_at(t, at_ms(0)), at_ms(0) + std::chrono::minutes(20));
  EXPECT_EQ(t.end.cb.probes_out, kMaxRetries);
}

// The interval is one behind the answer.
TEST(Persist, AnAnswerPutsTheNextProbeOff) {
  MinTcp state = state_with_rtt();
  state.snd_wnd = 0;
  Timed t(state);
  t.end.write(10, at_ms(0));
  t.end.poll(at_ms(0));
  const Time at = t.end.fire(at_ms(0));
  t.end.poll_one(at);
  wire::Segment closed = from_peer();
  closed.window = 0;
  t.end.receive(closed, "", at + milliseconds(100));
  expect_about(t.end.fire(at), at + milliseconds(100) + milliseconds(402));
}

TEST(Persist, SendsWhatASmallWindowAdmits) {
  Timed t;
  t.end.cb.snd_wnd = 500;
  t.end.write(3000, at_ms(0));
  EXPECT_TRUE(t.end.poll(at_ms(0)).empty());
  const Time at = t.end.fire(at_ms(0));
  EXPECT_EQ(t.end.poll_one(at).payload_bytes, 500U);
}

TEST(Persist, SilentPeerIsGivenUp) {
  MinTcp state = state_with_rtt();
  state.snd_wnd = 0;
  Timed t(state);
  t.end.write(10, at_ms(0));
  t.end.poll(at_ms(0));
  Time now = at_ms(0);
  TimerVerdict verdict = TimerVerdict::kFired;
  int probes = 0;
  for (; verdict == TimerVerdict::kFired && probes < 100; ++probes) {
    now = t.end.fire(now, &verdict);
    t.end.poll(now);
  }
  EXPECT_EQ(verdict, TimerVerdict::kToSoftware);
  EXPECT_EQ(probes, kMaxRetries + 1);
}

TEST(Keepalive, ProbesAfterIdlenessAndGivesUp) {
  MinTcp state = idle_state();
  state.flags = kFlagKeepalive;
  state.keepalive_idle_s = 100;
  state.keepalive_interval_s = 10;
  state.keepalive_probes = 3;
  Timed t(state);
  t.end.receive(from_peer(), "x", at_ms(50'000));
  acknowledge_now(t.end.cb);
  t.end.poll(at_ms(50'000));
  TimerVerdict verdict{};
  Time at = t.end.fire(at_ms(50'000), &verdict);
  expect_near(at, at_ms(100'000));
  EXPECT_EQ(verdict, TimerVerdict::kNothing) << "it was not idle for so long";
  at = t.end.fire(at, &verdict);
  expect_near(at, at_ms(150'000));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(verdict, TimerVerdict::kFired);
    const SegmentPlan probe = t.end.poll_one(at);
    EXPECT_EQ(probe.segment.seq, Seq(kOurSeq - 1));
    EXPECT_EQ(probe.payload_bytes, 0U);
    const Time next = t.end.fire(at, &verdict);
    expect_near(next, at + seconds(10));
    at = next;
  }
  EXPECT_EQ(verdict, TimerVerdict::kToSoftware);
}

TEST(Keepalive, AnAnswerStartsAnew) {
  MinTcp state = idle_state();
  state.flags = kFlagKeepalive;
  state.keepalive_idle_s = 100;
  state.keepalive_interval_s = 10;
  state.keepalive_probes = 3;
  Timed t(state);
  const Time at = t.end.fire(at_ms(0));
  t.end.poll(at);
  t.end.receive(from_peer(), "", at + milliseconds(1));
  EXPECT_EQ(t.end.cb.probes_out, 0);
  TimerVerdict verdict{};
  const Time next = t.end.fire(at, &verdict);
  EXPECT_EQ(verdict, TimerVerdict::kNothing);
  expect_near(next_deadline(t.end.cb, next), at + milliseconds(1) + seconds(100));
  set_flags(t.end.cb, 0, next);
  EXPECT_EQ(next_deadline(t.end.cb, next), kNever);
}

TEST(Rtt, FirstAndLaterSamplesFollowRfc6298) {
  ControlBlock cb;
  EXPECT_EQ(rto_from_estimates_us(cb), kInitialRtoUs);
  add_rtt_sample(cb, 100'000);
  EXPECT_EQ(smoothed_rtt_us(cb), 100'000U);
  EXPECT_EQ(cb.mdev_us4 / 4, 50'000U);
  EXPECT_EQ(cb.rto_us, 300'000U);
  add_rtt_sample(cb, 200'000);
  EXPECT_EQ(smoothed_rtt_us(cb), 112'500U);
  EXPECT_EQ(cb.mdev_us4 / 4, 62'500U);
  EXPECT_EQ(cb.rto_us, 362'500U);
  for (std::uint32_t i = 1; i < 200; ++i) {
    cb.snd_una = cb.snd_nxt = Seq(i);  // a round trip each
    add_rtt_sample(cb, 20);
  }
  EXPECT_NEAR(cb.rto_us, smoothed_rtt_us(cb) + 200'000, 5) << "floor";
  EXPECT_LE(smoothed_rtt_us(cb), 24U);
  add_rtt_sample(cb, 0xffffffff);
  EXPECT_LE(cb.rto_us, kMaxRtoUs);
}

TEST(Rtt, ASmallerSampleCountsAnEighthInTheVariance) {
  ControlBlock cb;
  add_rtt_sample(cb, 800'000);
  const std::uint32_t before = cb.mdev_us4;
  add_rtt_sample(cb, 0);
  // |0 - 800| - 400 = 400 above the mean deviation, of which an eighth.
  EXPECT_NEAR(cb.mdev_us4, before + 50'000, 2);
}

TEST(Rtt, TheShortestIsForgottenAfterFiveMinutes) {
  ControlBlock cb;
  note_min_rtt(cb, 5'000, at_ms(0));
  note_min_rtt(cb, 9'000, at_ms(299'000));
  EXPECT_EQ(cb.min_rtt_us, 5'000U);
  note_min_rtt(cb, 4'000, at_ms(299'500));
  EXPECT_EQ(cb.min_rtt_us, 4'000U);
  note_min_rtt(cb, 9'000, at_ms(600'000));
  EXPECT_EQ(cb.min_rtt_us, 9'000U);
}

TEST(Rtt, OneSegmentIsTimedAndARetransmissionSpoilsIt) {
  Timed t(idle_state());
  t.end.write(2 * kMss, at_ms(0));
  t.end.poll(at_ms(0));
  t.end.receive(from_peer(kPeerSeq, kOurSeq + kMss), "", at_ms(30));
  EXPECT_EQ(smoothed_rtt_us(t.end.cb), 30'000U);
  const Time at = t.end.fire(at_ms(30));
  t.end.poll(at);
  t.end.receive(from_peer(kPeerSeq, kOurSeq + 2 * kMss), "", at + milliseconds(1));
  EXPECT_EQ(smoothed_rtt_us(t.end.cb), 30'000U) << "Karn";
}

wire::Segment echoing(std::uint32_t ack, std::uint32_t ts_ecr) {
  wire::Segment segment = from_peer(kPeerSeq, ack);
  segment.options = {.ts_val = 1, .ts_ecr = ts_ecr, .has_timestamps = true};
  return segment;
}

TEST(Rtt, TheEchoTellsWhereNothingWasTimed) {
  MinTcp state = idle_state();
  state.options = kOptTimestamps;
  state.ts_val = 1000;
  Timed t(state);
  t.end.write(1000, at_ms(0));
  t.end.poll(at_ms(0));
  const Time at = t.end.fire(at_ms(0));  // sent twice: not timed any more
  t.end.poll(at);
  const std::uint32_t sent = ts_clock(t.end.cb, at);
  t.end.receive(echoing(kOurSeq + 1000, sent), "", at + milliseconds(12));
  EXPECT_EQ(smoothed_rtt_us(t.end.cb), 12'000U);
}

// Its stamps may be ahead of our clock, or our clock was put ahead of them.
TEST(Rtt, WhatTheOtherStackSentIsNotMeasured) {
  MinTcp state = idle_state();
  state.options = kOptTimestamps;
  state.ts_val = 1000;
  state.srtt_us = 400;
  state.rttvar_us = 100;
  state.snd_nxt = state.write_seq = kOurSeq + 100;  // sent by the kernel
  state.flags = kFlagNoDelay;
  Timed t(state);
  t.end.write(50, at_ms(1));
  t.end.poll(at_ms(1));
  t.end.receive(echoing(kOurSeq + 100, 1000 - 60), "", at_ms(2));
  EXPECT_EQ(smoothed_rtt_us(t.end.cb), 400U);
  t.end.receive(echoing(kOurSeq + 150, 1001), "",
                at_ms(3));  // the first of ours: the echo's millisecond is all there is
  EXPECT_EQ(smoothed_rtt_us(t.end.cb), (7 * 400 + 2000 + 4) / 8);
}

TEST(Tick, DistancesSurviveTheWrap) {
  const Time base = Time(Duration(std::int64_t{0xfffffff0} << kTickShift));
  const Time later = base + seconds(3600);
  const Time rounded = tick_start(to_tick_ceil(later), base);
  EXPECT_GE(rounded, later);
  EXPECT_LT(rounded, later + Duration(kTickNs));
  EXPECT_NEAR(static_cast<double>(ticks_between(to_tick(base), to_tick(later)).count()), 3600e9, 70000);
}

// ... which one that others have overtaken is not: the peer may be gone since (as Linux tcp_ack()).
TEST(Keepalive, AnOvertakenAckIsNoSignOfLife) {
  TestEnd end(idle_state(), at_ms(0));
  end.poll(at_ms(0));
  end.write(100, at_ms(0));
  end.poll(at_ms(0));
  end.receive(from_peer(kPeerSeq, kOurSeq + 100), "", at_ms(1));
  const Tick heard = end.cb.last_receive;
  end.cb.probes_out = 2;
  EXPECT_EQ(end.receive(from_peer(kPeerSeq, kOurSeq), "", at_ms(100)), Arrival::kAccepted);
  EXPECT_EQ(end.cb.probes_out, 2);
  EXPECT_EQ(end.cb.last_receive, heard);
  EXPECT_EQ(end.receive(from_peer(kPeerSeq, kOurSeq + 100), "", at_ms(200)), Arrival::kAccepted);
  EXPECT_EQ(end.cb.probes_out, 0);
  EXPECT_NE(end.cb.last_receive, heard);
}

}  // namespace
}  // namespace twinstack::tcp::test
