// Undo: what a move has done so far, as a stack of undo actions. Leaves a move without commit(): they run, last first.
#pragma once

#include <array>
#include <cstddef>
#include <utility>

#include "base/assert.h"

namespace twinstack::handoff {

template <typename Context>
class UndoStack {
 public:
  using Action = void (*)(Context&);

  explicit UndoStack(Context& context) noexcept : context_(context) {}
  UndoStack(const UndoStack&) = delete;
  UndoStack& operator=(const UndoStack&) = delete;
  ~UndoStack() {
    while (count_ > 0) actions_[--count_](context_);
  }

  void push(Action action) noexcept {
    ASSERT(count_ < actions_.size());
    actions_[count_++] = action;
  }
  // The move has happened: nothing is undone any more.
  void commit() noexcept { count_ = 0; }

 private:
  Context& context_;
  std::array<Action, 8> actions_{};
  std::size_t count_ = 0;
};

}  // namespace twinstack::handoff
