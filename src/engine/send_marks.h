// SendMarks: places in the send queues of a lane that are long, so that bytes that go again are found in a bounded
// number of steps however small the pieces are that a program queues. Marks are left by walks for such bytes, one for
// every kEvery pieces: a queue that loses nothing has none, and each piece is walked over once. A marked piece says so
// (Piece::kMarked): who pops it tells. One thread at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>

#include "base/assert.h"
#include "engine/hw_conn.h"
#include "wire/seq.h"

namespace twinstack::engine {

// A piece of a send queue, and the sequence number of its first byte.
struct SendPlace {
  std::uint32_t piece = kNone;
  Seq start;
};

class SendMarks {
 public:
  static constexpr std::uint32_t kEvery = 64;

  // The last mark of the connection that begins at or before `seq`; no piece: there is none.
  [[nodiscard]] SendPlace last_before(std::uint32_t conn, Seq seq) const {
    const auto found = marks_.find(conn);
    if (found == marks_.end()) return {};
    const Marks& marks = found->second;
    const auto behind = std::ranges::partition_point(marks, [&](const SendPlace& mark) { return mark.start <= seq; });
    return behind == marks.begin() ? SendPlace{} : *(behind - 1);
  }
  // REQUIRES: it lies behind all marks of the connection.
  void add(std::uint32_t conn, SendPlace place) { marks_[conn].push_back(place); }
  // The first one is popped from its queue.
  void pop_front(std::uint32_t conn) {
    const auto found = marks_.find(conn);
    ASSERT(found != marks_.end());
    found->second.pop_front();
    if (found->second.empty()) marks_.erase(found);
  }

 private:
  using Marks = std::deque<SendPlace>;  // in the order of the queue

  std::map<std::uint32_t, Marks> marks_;  // no list is empty
};

}  // namespace twinstack::engine
