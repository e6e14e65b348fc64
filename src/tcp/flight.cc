#include "tcp/flight.h"

#include <algorithm>
#include <utility>

#include "tcp/plan.h"
#include "tcp/rack.h"
#include "tcp/sack.h"
#include "tcp/timestamps.h"

namespace twinstack::tcp {

namespace {

// What a delivery-rate sample wants to know of this transmission.
void stamp(const ControlBlock& cb, SentSegment& segment, Time now) noexcept {
  segment.sent = now;
  segment.first_sent = cb.flight->first_sent;
  segment.delivered_at = cb.flight->delivered_at;
  segment.delivered = cb.delivered;
  if (cb.app_limited != 0) segment.set(kSentAppLimited);
}

// How many segments of the MSS it makes. A FIN goes with the last; what has arrived stays as it is.
std::uint32_t pieces_of(const ControlBlock& cb, const SentSegment& s) noexcept {
  if (s.has(kSacked) || s.length <= cb.mss || s.seq >= data_end(cb)) return 1;
  const std::uint32_t text = bytes_between(s.seq, min(s.end(), data_end(cb)));
  return (text + cb.mss - 1) / cb.mss;
}

// How many more segments there will be before `position`.
std::uint32_t added_before(const ControlBlock& cb, SentQueue::Position position) noexcept {
  const SentQueue& sent = cb.flight->sent;
  std::uint32_t added = 0;
  for (auto p = sent.first(); p != sent.end() && p != position; ++p) added += pieces_of(cb, sent.at(p)) - 1;
  return added;
}

// Also what they took of memory, unless it is little.
void forget_repeats(Flight& f) noexcept {
  constexpr std::size_t kFewRepeats = 16;
  f.repeats.clear();
  if (f.repeats.capacity() > kFewRepeats) f.repeats.shrink_to_fit();
  f.repeats_first = 0;
}

void lay_pieces(Flight& f, const SentSegment whole, std::uint32_t count, std::uint32_t mss, SentQueue::Position to) {
  for (std::uint32_t i = 0; i < count; ++i) {
    const bool last = i + 1 == count;
    SentSegment& piece = f.sent.at(to + i);
    piece = whole;
    piece.seq = whole.seq + i * mss;
    piece.length = last ? whole.length - i * mss : mss;
    if (last) continue;
    piece.clear(kPushed);
    piece.burst = 0;
  }
  if (whole.has(kLost)) f.lost += count - 1;
  if (whole.has(kRetransmitted)) f.retransmitted += count - 1;
}

}  // namespace

void FlightDeleter::operator()(Flight* flight) const noexcept {
  if (flight->home != nullptr) {
    flight->home->put(flight);
  } else {
    delete flight;
  }
}

FlightPool::~FlightPool() {
  for (std::size_t i = 0; i < count_; ++i) delete kept_[i];
}

FlightPtr FlightPool::make() {
  FlightPtr flight(new Flight);
  flight->home = this;
  return flight;
}

void FlightPool::put(Flight* flight) noexcept {
  if (count_ == kept_.size()) {
    delete flight;
    return;
  }
  static_cast<FlightRepair&>(*flight) = FlightRepair{};
  forget_repeats(*flight);
  flight->push_marks.clear();
  flight->record_ends.clear();
  keep(flight);
}

void FlightPool::put_lone(Flight* flight) noexcept {
  if (count_ == kept_.size()) {
    delete flight;
  } else {
    keep(flight);
  }
}

void FlightPool::keep(Flight* flight) noexcept {
  static_cast<FlightState&>(*flight) = FlightState{};
  flight->sent.clear();
  kept_[count_++] = flight;
}

void SeqMarks::push_back(Seq end) {
  if (first_ > 64 && first_ * 2 > ends_.size()) {
    ends_.erase(ends_.begin(), ends_.begin() + static_cast<std::ptrdiff_t>(first_));
    first_ = 0;
  }
  ends_.push_back(end);
}

void SentQueue::grow() {
  const std::uint32_t mask = mask_ * 2 + 1;
  auto larger = std::make_unique<SentSegment[]>(std::size_t{mask} + 1);
  for (Position p = first_; p != end(); ++p) larger[p & mask] = at(p);
  many_ = std::move(larger);
  ring_ = many_.get();
  mask_ = mask;
}

void SentQueue::clear() noexcept {
  first_ = 0;
  count_ = 0;
  shrink();
}

void SentQueue::shrink() noexcept {
  ASSERT(count_ == 0);
  if (ring_ == few_.data()) return;
  many_.reset();
  ring_ = few_.data();
  mask_ = kFew - 1;
}

void SentQueue::split(Position position, std::uint32_t length) {
  push_back();  // room for one more
  for (Position p = end() - 1; p != position; --p) at(p) = at(p - 1);
  SentSegment& head = at(position);
  SentSegment& tail = at(position + 1);
  ASSERT(length > 0 && length < head.length);
  tail = head;
  tail.seq = head.seq + length;
  tail.length = head.length - length;
  head.length = length;
}

SentQueue::Position SentQueue::find(Seq seq) const noexcept {
  Position low = first_;
  std::uint32_t left = count_;
  while (left > 0) {
    const std::uint32_t half = left / 2;
    if (at(low + half).end() <= seq) {
      low += half + 1;
      left -= half + 1;
    } else {
      left = half;
    }
  }
  return low;
}

Flight& flight_of(ControlBlock& cb, FlightPool* pool) {
  if (cb.flight) return *cb.flight;
  cb.flight = pool != nullptr ? pool->take() : FlightPtr(new Flight);
  cb.flight->cwnd_usage_seq = cb.snd_una;
  cb.flight->rack_last_delivered = cb.delivered;
  return *cb.flight;
}

void release_empty_flight(ControlBlock& cb) {
  Flight& f = *cb.flight;
  const bool settled = cb.recovery == RecoveryState::kOpen && !f.undo_possible && !f.probe_out &&
                       f.push_marks.empty() && f.record_ends.empty() && !cb.has(kPacingHolds);
  if (settled) {
    cb.flight.reset();
  } else if (f.undo_possible) {  // a D-SACK may still tell; until then it shall not hold what a long flight took
    f.sent.shrink();
    forget_repeats(f);
  }
}

void expire_undo(ControlBlock& cb, Time now) noexcept {
  if (!cb.flight || !cb.flight->undo_possible || cb.recovery != RecoveryState::kOpen) return;
  if (uses_sack(cb) && within(cb.flight->last_repeat, std::chrono::microseconds(2 * std::uint64_t{cb.rto_us}), now))
    return;
  cb.flight->undo_possible = false;
}

void end_lone_flight(ControlBlock& cb) noexcept {
  Flight* const flight = cb.flight.release();
  if (flight->home != nullptr) {
    flight->home->put_lone(flight);
  } else {
    delete flight;
  }
}

void add_sent(ControlBlock& cb, Seq seq, std::uint32_t length, Time now) {
  Flight& f = flight_of(cb);
  f.lone = false;
  if (f.sent.empty()) {
    f.first_sent = f.delivered_at = now;
    f.repeats.clear();
    f.repeats_first = 0;
  }
  SentSegment& segment = f.sent.push_back();
  segment.seq = seq;
  segment.length = length;
  segment.flags = 0;
  segment.burst = 0;
  stamp(cb, segment, now);
  if (reducing_window(cb)) ++f.prr_out;
}

void note_probe_again(ControlBlock& cb, SentQueue::Position position, Time now) {
  Flight& f = *cb.flight;
  SentSegment& s = f.sent.at(position);
  s.clear(kRateTaken | kSentAppLimited | kForeign);
  s.set(kEverRetransmitted);
  stamp(cb, s, now);
  if (uses_sack(cb)) rack_on_repeat(f, s.seq, now);
  f.last_repeat = to_tick(now);
}

void note_repeat(ControlBlock& cb, SentQueue::Position position, Time now) {
  note_probe_again(cb, position, now);
  Flight& f = *cb.flight;
  SentSegment& s = f.sent.at(position);
  if (!s.has(kRetransmitted)) ++f.retransmitted;
  s.set(kRetransmitted);
  f.undo_repeats = std::max(f.undo_repeats, 0) + 1;
  if (!f.repeat_stamped) f.repeat_ts = ts_clock(cb, now);
  f.repeat_stamped = true;
  if (reducing_window(cb)) ++f.prr_out;
}

namespace {

// RACK finds what was sent again by these: the end that is cut off is another such.
void split_repeat(Flight& flight, const SentSegment& head, Seq tail) {
  auto at = flight.repeats.end();
  while (at != flight.repeats.begin() + flight.repeats_first) {
    const Repeat& repeat = *--at;
    if (repeat.sent < head.sent) return;
    if (repeat.seq == head.seq && repeat.sent == head.sent) {
      flight.repeats.insert(at + 1, {tail, head.sent});
      return;
    }
  }
}

}  // namespace

void split_sent(Flight& flight, SentQueue::Position position, std::uint32_t length) {
  flight.lone = false;
  SentQueue& sent = flight.sent;
  const auto behind = [&](SentQueue::Position hint) { return hint - sent.first() > position - sent.first(); };
  if (behind(flight.next_retransmit)) ++flight.next_retransmit;
  if (behind(flight.rack_first)) ++flight.rack_first;
  sent.split(position, length);
  SentSegment& s = sent.at(position);
  s.clear(kPushed);  // that is its end
  s.burst = 0;
  if (s.has(kSacked)) ++flight.sacked;
  if (s.has(kLost)) ++flight.lost;
  if (s.has(kRetransmitted)) ++flight.retransmitted;
  if (s.has(kEverRetransmitted)) split_repeat(flight, s, s.end());
}

void split_long(ControlBlock& cb) {
  Flight& f = *cb.flight;
  SentQueue::Position from = f.sent.end();
  const std::uint32_t added = added_before(cb, from);
  if (added == 0) return;
  f.lone = false;
  if (f.sent.holds(f.next_retransmit)) f.next_retransmit += added_before(cb, f.next_retransmit);
  if (f.sent.holds(f.rack_first)) f.rack_first += added_before(cb, f.rack_first);
  f.repeat_left = 0;
  for (std::uint32_t i = 0; i < added; ++i) f.sent.push_back() = SentSegment{};
  for (SentQueue::Position to = f.sent.end(); to != from;) {  // from the last: nothing is overwritten that is wanted
    const SentSegment& whole = f.sent.at(--from);
    const std::uint32_t count = pieces_of(cb, whole);
    to -= count;
    lay_pieces(f, whole, count, cb.mss, to);
  }
}

void add_foreign(ControlBlock& cb, Seq from, Seq to, Time sent) {
  if (from >= to) return;
  while (from < to) {
    const std::uint32_t length = std::min<std::uint32_t>(cb.mss, bytes_between(from, to));
    add_sent(cb, from, length, sent);
    cb.flight->sent.back().flags = kForeign | kRateTaken;
    from += length;
  }
  // As Linux, whose send queue is written in one call when it is restored: that ends with PSH, and what is under the
  // full size holds back another such (Nagle).
  SentSegment& last = cb.flight->sent.back();
  last.set(kPushed);
  if (last.length < cb.mss) cb.snd_sml = to;
}

void measure_by_echo(ControlBlock& cb, std::uint32_t length) {
  Flight& f = *cb.flight;
  if (f.sent.front().length > length) split_sent(f, f.sent.first(), length);
  f.sent.front().clear(kForeign);
  f.sent.front().set(kEverRetransmitted);
}

}  // namespace twinstack::tcp
