#include "stack/timer_heap.h"

#include <utility>

namespace twinstack::stack {

namespace {

bool before(const Timer& a, const Timer& b) noexcept {
  return a.deadline != b.deadline ? a.deadline < b.deadline : a.order < b.order;
}

}  // namespace

void TimerHeap::put(std::size_t at, Timer* timer) noexcept {
  heap_[at] = timer;
  timer->place = static_cast<std::uint32_t>(at);
}

void TimerHeap::rise(std::size_t at) noexcept {
  Timer* const timer = heap_[at];
  while (at > 0) {
    const std::size_t parent = (at - 1) / 2;
    if (!before(*timer, *heap_[parent])) break;
    put(at, heap_[parent]);
    at = parent;
  }
  put(at, timer);
}

void TimerHeap::sink(std::size_t at) noexcept {
  Timer* const timer = heap_[at];
  for (std::size_t child = 2 * at + 1; child < heap_.size(); child = 2 * at + 1) {
    if (child + 1 < heap_.size() && before(*heap_[child + 1], *heap_[child])) ++child;
    if (!before(*heap_[child], *timer)) break;
    put(at, heap_[child]);
    at = child;
  }
  put(at, timer);
}

void TimerHeap::remove(Timer& timer) noexcept {
  const std::size_t at = timer.place;
  Timer* const last = heap_.back();
  heap_.pop_back();
  timer.place = Timer::kNowhere;
  if (last == &timer) return;
  put(at, last);
  rise(at);
  sink(last->place);
}

void TimerHeap::set(Timer& timer, Time deadline) {
  if (timer.is_set() && timer.deadline == deadline) return;
  if (timer.is_set()) remove(timer);
  timer.deadline = deadline;
  if (deadline == kNever) return;
  timer.order = next_order_++;
  heap_.push_back(&timer);
  timer.place = static_cast<std::uint32_t>(heap_.size() - 1);
  rise(heap_.size() - 1);
}

}  // namespace twinstack::stack
