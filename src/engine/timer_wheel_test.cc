#include "engine/timer_wheel.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "base/rng.h"

namespace twinstack::engine {
namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Time kBegin = Time(hours(5));

struct Wheel {
  explicit Wheel(std::size_t count, Time start = kBegin) : conns(count), wheel(conns, start) {}

  std::vector<std::uint32_t> advance(Time now) {
    std::vector<std::uint32_t> fired;
    wheel.advance(now, [&](std::uint32_t index) { fired.push_back(index); });
    return fired;
  }

  std::vector<HwConn> conns;
  TimerWheel wheel;
};

using Fired = std::vector<std::uint32_t>;

TEST(TimerWheel, FiresAtItsTickAndOnce) {
  Wheel w(1);
  w.wheel.schedule(0, kBegin + microseconds(1500));
  EXPECT_EQ(w.advance(kBegin + microseconds(1999)), Fired{});
  EXPECT_EQ(w.advance(kBegin + milliseconds(2)), Fired{0});
  EXPECT_EQ(w.advance(kBegin + hours(1)), Fired{});
  EXPECT_EQ(w.wheel.next(), kNever);
}

TEST(TimerWheel, AWholeMillisecondIsNotRoundedUp) {
  Wheel w(1);
  w.wheel.schedule(0, kBegin + milliseconds(7));
  EXPECT_EQ(w.wheel.next(), kBegin + milliseconds(7));
  EXPECT_EQ(w.advance(kBegin + milliseconds(7)), Fired{0});
}

TEST(TimerWheel, ADeadlineThatHasPassedFiresAtTheNextTick) {
  Wheel w(1);
  w.wheel.schedule(0, kBegin - seconds(3));
  EXPECT_EQ(w.advance(kBegin), Fired{});
  EXPECT_EQ(w.advance(kBegin + milliseconds(1)), Fired{0});
}

TEST(TimerWheel, NeverIsNoDeadline) {
  Wheel w(1);
  w.wheel.schedule(0, kNever);
  EXPECT_EQ(w.wheel.next(), kNever);
}

TEST(TimerWheel, AnEarlierDeadlineReplacesALaterOne) {
  Wheel w(1);
  w.wheel.schedule(0, kBegin + seconds(10));
  w.wheel.schedule(0, kBegin + milliseconds(3));
  EXPECT_EQ(w.advance(kBegin + milliseconds(3)), Fired{0});
  EXPECT_EQ(w.advance(kBegin + seconds(20)), Fired{});
}

TEST(TimerWheel, ALaterDeadlineLeavesTheEarlierFiring) {
  Wheel w(1);
  w.wheel.schedule(0, kBegin + milliseconds(3));
  w.wheel.schedule(0, kBegin + seconds(10));
  EXPECT_EQ(w.advance(kBegin + milliseconds(3)), Fired{0});
}

TEST(TimerWheel, ACancelledOneDoesNotFire) {
  Wheel w(2);
  w.wheel.schedule(0, kBegin + milliseconds(3));
  w.wheel.schedule(1, kBegin + milliseconds(3));
  w.wheel.cancel(0);
  w.wheel.cancel(0);
  EXPECT_EQ(w.advance(kBegin + seconds(1)), Fired{1});
}

TEST(TimerWheel, AFiringMayScheduleAgainAndCancelItsNeighbours) {
  Wheel w(3);
  for (std::uint32_t i = 0; i < 3; ++i) w.wheel.schedule(i, kBegin + milliseconds(5));
  std::vector<std::uint32_t> fired;
  w.wheel.advance(kBegin + milliseconds(5), [&](std::uint32_t index) {
    fired.push_back(index);
    for (std::uint32_t other = 0; other < 3; ++other) w.wheel.cancel(other);
    w.wheel.schedule(index, kBegin + milliseconds(6));
  });
  ASSERT_EQ(fired.size(), 1U);
  EXPECT_EQ(w.advance(kBegin + milliseconds(6)), fired);
}

// Far ones wait in the last level and are sorted in again; farther than entries can tell they fire early, never late.
TEST(TimerWheel, FarDeadlinesFireInTimeHoweverLongTheSleeps) {
  for (const Duration far :
       {Duration(seconds(60)), Duration(hours(2)), Duration(hours(5)), Duration(hours(48)), Duration(hours(24 * 11))}) {
    Wheel w(1);
    w.wheel.schedule(0, kBegin + far);
    EXPECT_LE(w.wheel.next(), kBegin + far);
    EXPECT_EQ(w.advance(kBegin + far - milliseconds(1)), Fired{});
    EXPECT_EQ(w.advance(kBegin + far), Fired{0});
  }
  Wheel w(1);
  w.wheel.schedule(0, kBegin + hours(24 * 60));
  EXPECT_EQ(w.advance(kBegin + hours(24 * 60)), Fired{0});
}

TEST(TimerWheel, SleepingForYearsIsOneStep) {
  Wheel w(1);
  EXPECT_EQ(w.advance(kBegin + hours(24 * 365 * 20)), Fired{});
  w.wheel.schedule(0, kBegin + hours(24 * 365 * 20) + milliseconds(2));
  EXPECT_EQ(w.advance(kBegin + hours(24 * 365 * 20) + milliseconds(2)), Fired{0});
}

// Against a reference that knows each deadline: what is due has fired, in time; next() is never too late.
class RandomTimers : public testing::TestWithParam<int> {
 protected:
  static constexpr std::uint32_t kEntries = 40;

  Duration random_span() {
    const Duration unit[] = {microseconds(300), milliseconds(40), seconds(3), seconds(250), hours(4), hours(30)};
    return Duration(static_cast<std::int64_t>(static_cast<double>(unit[rng.below(6)].count()) *
                                              (static_cast<double>(rng.below(1'000'000)) / 400'000.0)));
  }
  static Time tick_of(Time deadline) {
    const auto ns = deadline.time_since_epoch().count();
    return Time(Duration((ns + 999'999) / 1'000'000 * 1'000'000));
  }
  Time earliest() const {
    Time first = kNever;
    for (const auto& [index, at] : due) first = std::min(first, at);
    return first;
  }
  void go(Time to) {
    now = to;
    w.wheel.advance(now, [&](std::uint32_t index) {
      ASSERT_TRUE(due.contains(index)) << "fired twice, or after it was cancelled";
      EXPECT_LE(due[index], now) << "too early";
      due.erase(index);
      if (rng.below(4) == 0) schedule(index);
    });
    for (const auto& [index, at] : due) ASSERT_GT(at, now) << "entry " << index << " is late";
    ASSERT_LE(w.wheel.next(), earliest());
    ASSERT_GT(w.wheel.next(), now);
  }
  void schedule(std::uint32_t index) {
    // Never in the tick that is over.
    const Time at = std::max(tick_of(now + random_span()), tick_of(now + Duration(1)));
    w.wheel.schedule(index, at);
    const auto known = due.find(index);
    due[index] = known == due.end() ? at : std::min(at, known->second);
  }

  Rng rng{static_cast<std::uint64_t>(GetParam())};
  Wheel w{kEntries};
  Time now = kBegin;
  std::map<std::uint32_t, Time> due;
};

TEST_P(RandomTimers, AgreeWithAReference) {
  for (int i = 0; i < 5'000; ++i) {
    const std::uint32_t index = rng.below(kEntries);
    if (rng.below(5) == 0) {
      w.wheel.cancel(index);
      due.erase(index);
    } else {
      schedule(index);
    }
    if (rng.below(3) == 0) go(now + random_span() / 16);
    if (rng.below(8) == 0 && w.wheel.next() != kNever) go(w.wheel.next());
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomTimers, testing::Range(1, 21));

}  // namespace
}  // namespace twinstack::engine
