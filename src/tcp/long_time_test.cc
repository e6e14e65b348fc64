// Clocks of weeks and waits of days: stamps have 32 bits (tick.h).
#include <gtest/gtest.h>

#include "tcp/cwnd_use.h"
#include "tcp/receive_tuning.h"
#include "tcp/tcp_info.h"
#include "tcp/test_support.h"
#include "tcp/timers.h"

namespace twinstack::tcp::test {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

// Before and after each wrap of a tick's 32 bits, and of its sign.
const std::vector<Time> kClocks = {Time(seconds(1)),  Time(hours(39)),   Time(hours(40)),  Time(hours(78)),
                                   Time(hours(1199)), Time(hours(1201)), Time(hours(2500))};

// An end that owes nothing and has had a round trip of 1 ms.
struct Since {
  explicit Since(Time start, const MinTcp& state = idle()) : end(state, start) { end.poll(start); }
  static MinTcp idle() {
    MinTcp state = idle_state();
    state.srtt_us = 1000;
    state.rttvar_us = 100;
    return state;
  }
  TestEnd end;
};

// Until the connection is given up; the instant.
Time give_up(TestEnd& end, Time now) {
  for (TimerVerdict verdict{}; verdict != TimerVerdict::kToSoftware;) {
    now = end.fire(now, &verdict);
    end.poll(now);
    if (next_deadline(end.cb, now) == kNever) return kNever;
  }
  return now;
}

TEST(LongTime, AgesAreRightForThreeDaysAndForDaysOfTimeouts) {
  for (const Time start : kClocks) {
    for (const int h : {0, 1, 38, 39, 40, 76}) {
      const Duration got = age(to_tick(start), start + hours(h));
      EXPECT_GE(got, hours(h) - Duration(kTickNs));
      EXPECT_LE(got, hours(h) + Duration(kTickNs));
      EXPECT_EQ(age(to_tick(start + seconds(h)), start), Duration::zero()) << "ahead";
    }
    for (const int h : {0, 1, 40, 78, 80, 600}) {
      const Duration got = age(to_coarse_tick(start), start + hours(h));
      EXPECT_LE(got, hours(h));
      EXPECT_GE(got, hours(h) - kCoarseTick);
      EXPECT_EQ(age(to_coarse_tick(start + seconds(h)), start), Duration::zero()) << "ahead";
    }
  }
}

// However often a connection moves, and however soon again: what one move lost, thousands would lose for good.
TEST(LongTime, AStallAddsUpOverMoves) {
  for (const auto step : {std::chrono::microseconds(40), std::chrono::microseconds(700)}) {
    Since since(Time(hours(1)) + std::chrono::microseconds(7));
    since.end.write(5000, Time(hours(1)));
    Time now = Time(hours(1)) + std::chrono::microseconds(7);
    since.end.poll(now);
    const Time begin = now;
    MinTcp state = Since::idle();
    for (int moves = 0; moves < 2500; ++moves) {
      now += step;
      extract(since.end.cb, now, state);
      ASSERT_TRUE(install(since.end.cb, state, now).has_value());
      const Duration stalled = std::chrono::microseconds(state.stalled_us);
      // Whole microseconds are carried: now and then that is a tick more or less.
      ASSERT_LE(stalled, now - begin + (now - begin) / 100 + kCoarseTick) << moves;
      ASSERT_GE(stalled, now - begin - (now - begin) / 100 - 2 * kCoarseTick) << moves;
    }
  }
}

TEST(LongTime, AUserTimeoutOfDaysIsMetOnTime) {
  for (const Time start : kClocks) {
    for (const int h : {30, 50, 100, 590}) {
      MinTcp state = Since::idle();
      state.user_timeout_ms = static_cast<std::uint32_t>(h) * 3'600'000;
      Since s(start, state);
      s.end.write(100, start);
      s.end.poll(start);
      const Time timeout = next_deadline(s.end.cb, start);  // it counts from the first one on
      const Time over = give_up(s.end, start);
      EXPECT_GE(over, timeout + hours(h));
      EXPECT_LE(over, timeout + hours(h) + milliseconds(10));
    }
  }
}

TEST(LongTime, AUserTimeoutOfDaysEndsKeepalive) {
  MinTcp state = Since::idle();
  state.user_timeout_ms = 100 * 3'600'000;
  state.flags = kFlagKeepalive;
  state.keepalive_idle_s = 7200;
  state.keepalive_interval_s = 75;
  state.keepalive_probes = 9;
  Since s(Time(hours(60)), state);
  s.end.poll(Time(hours(60)));
  const Time over = give_up(s.end, Time(hours(60)));
  EXPECT_GE(over, Time(hours(160)));
  EXPECT_LE(over, Time(hours(160)) + seconds(75));
}

// Of a peer that answers each probe. (One that answers none is given up with the fifteenth.)
TEST(LongTime, AUserTimeoutOfDaysEndsPersist) {
  MinTcp state = Since::idle();
  state.user_timeout_ms = 100 * 3'600'000;
  state.snd_wnd = 0;
  Since s(Time(hours(60)), state);
  s.end.write(100, Time(hours(60)));
  s.end.poll(Time(hours(60)));
  Time now = Time(hours(60));
  for (TimerVerdict verdict{}; verdict != TimerVerdict::kToSoftware;) {
    now = s.end.fire(now, &verdict);
    s.end.poll(now);
    wire::Segment closed = from_peer();
    closed.window = 0;
    if (verdict != TimerVerdict::kToSoftware) s.end.receive(closed, "", now);
  }
  EXPECT_GE(now, Time(hours(160)));
  EXPECT_LE(now, Time(hours(160)) + seconds(121));
}

TEST(LongTime, KeepaliveThatIsSwitchedOnAfterDaysProbesAtOnce) {
  for (const Time start : kClocks) {
    for (const int h : {30, 50, 70}) {
      Since s(start);
      const Time then = start + hours(h);
      set_keepalive(s.end.cb, 7200, 75, 9, then);
      set_flags(s.end.cb, kFlagKeepalive, then);
      TimerVerdict verdict{};
      const Time at = s.end.fire(then, &verdict);
      EXPECT_EQ(verdict, TimerVerdict::kFired);
      EXPECT_LE(at, then + seconds(7201));
    }
  }
}

TEST(LongTime, AStallOfHoursTravelsAsTheLongestThereIs) {
  MinTcp state = Since::idle();
  state.user_timeout_ms = 20 * 3'600'000;
  const Time start(hours(1));
  Since s(start, state);
  s.end.write(100, start);
  s.end.poll(start);
  MinTcp out;
  extract(s.end.cb, start + hours(1), out);
  EXPECT_NEAR(out.stalled_us, 3600e6, 1e6);
  extract(s.end.cb, start + hours(2), out);
  EXPECT_EQ(out.stalled_us, UINT32_MAX);
}

TEST(LongTime, IdleForDays) {
  for (const Time start : kClocks) {
    for (const int h : {30, 50, 70}) {
      Since s(start);
      s.end.cb.cwnd = 100;
      const Time then = start + hours(h);
      TcpInfo info;
      fill_tcp_info(s.end.cb, s.end.counters, s.end.delivery_rate, then, info);
      EXPECT_NEAR(info.last_data_sent_ms, h * 3'600'000.0, 1);
      EXPECT_NEAR(info.last_data_recv_ms, h * 3'600'000.0, 1);
      restart_after_idle(s.end.cb, then);
      EXPECT_EQ(s.end.cb.cwnd, 10U) << "RFC 2861";
    }
  }
}

TEST(LongTime, ReceiveBuffersGrowAfterDays) {
  for (const Time start : kClocks) {
    for (const int h : {30, 50, 70}) {
      Since s(start);
      ReceiveTuning tuning;
      begin_receive_tuning(tuning, s.end.cb, kWindow, kMss, start);
      const Seq copied = s.end.cb.rcv_nxt + 50'000;
      EXPECT_GT(tune_receive_window(tuning, s.end.cb, copied, 1000, start + hours(h)), kWindow) << h;
    }
  }
}

TEST(LongTime, AnAckThatIsLimitedInRateIsNotHeldBackByOneOfDaysAgo) {
  for (const Time start : kClocks) {
    for (const auto gap : {seconds(1), seconds(3600), seconds(281'000), seconds(600'000)}) {
      EXPECT_FALSE(within(to_tick(start), milliseconds(500), start + gap)) << gap.count();
    }
    EXPECT_TRUE(within(to_tick(start), milliseconds(500), start + milliseconds(499)));
  }
}

}  // namespace
}  // namespace twinstack::tcp::test
