// LookList: connections whose deadline is so far away that it need not stand in the timer wheel yet. Most such
// deadlines are void soon after they were set: a delayed ACK rides on the answer, the answer is acknowledged, the next
// segment moves the retransmission timer on. So the connection is noted here, once whatever happens to it, and looked
// at after kLookAfter. All wait equally long, so a queue keeps them in order; and who comes next is known, so that what
// is looked at can be sent for ahead, which the links of a wheel do not allow. One thread at a time.
#pragma once

#include <cstdint>
#include <deque>

#include "base/clock.h"

namespace twinstack::engine {

class LookList {
 public:
  // Under the delay of a delayed ACK (40 ms), the shortest of the timers that are void so often.
  static constexpr Duration kLookAfter = std::chrono::milliseconds(32);

  // REQUIRES: the connection is not in the list (HwConnFlag kLookDue).
  void add(std::uint32_t index, Time now) { entries_.push_back({.index = index, .at = now + kLookAfter}); }

  // Calls look(index) for each that has waited long enough, and before that ahead(index) for one that comes soon.
  template <typename Ahead, typename Look>
  void advance(Time now, Ahead&& ahead, Look&& look) {
    while (!entries_.empty() && entries_.front().at <= now) {
      if (entries_.size() > kAhead) ahead(entries_[kAhead].index);
      const std::uint32_t index = entries_.front().index;
      entries_.pop_front();
      look(index);
    }
  }

  [[nodiscard]] Time next() const noexcept { return entries_.empty() ? kNever : entries_.front().at; }

 private:
  static constexpr std::size_t kAhead = 8;

  struct Entry {
    std::uint32_t index;
    Time at;
  };

  std::deque<Entry> entries_;  // never more than the lane has connections
};

}  // namespace twinstack::engine
