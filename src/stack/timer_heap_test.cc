#include "stack/timer_heap.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/rng.h"

namespace twinstack::stack {
namespace {

TEST(TimerHeap, TheEarliestIsFirstWhateverHappens) {
  Rng rng(5);
  TimerHeap heap;
  std::vector<Timer> timers(100);
  for (int round = 0; round < 50000; ++round) {
    Timer& timer = timers[rng.below(100)];
    heap.set(timer, rng.below(3) == 0 ? kNever : Time(Duration(rng.below(1000))));
    Time earliest = kNever;
    std::size_t set = 0;
    for (const Timer& t : timers) {
      if (!t.is_set()) continue;
      ++set;
      earliest = std::min(earliest, t.deadline);
    }
    ASSERT_EQ(heap.size(), set);
    if (set == 0) {
      ASSERT_EQ(heap.earliest(), nullptr);
    } else {
      ASSERT_EQ(heap.earliest()->deadline, earliest);
    }
  }
}

TEST(TimerHeap, TiesGoInTheOrderInWhichTheyWereSet) {
  TimerHeap heap;
  std::vector<Timer> timers(50);
  for (Timer& timer : timers) heap.set(timer, Time(Duration(7)));
  for (Timer& timer : timers) {
    ASSERT_EQ(heap.earliest(), &timer);
    heap.cancel(timer);
  }
}

}  // namespace
}  // namespace twinstack::stack
