#include "tcp/burst.h"

#include <algorithm>

#include "tcp/connection.h"
#include "tcp/plan.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint32_t kLargestBurst = 65536;  // bytes: the largest GSO packet
constexpr int kRttShift = 9;                    // Linux tcp_tso_rtt_log: short round trips allow larger bursts

// Segments of a millisecond at the rate that the window and the round trip make (Linux tcp_tso_autosize()).
std::uint32_t burst_segments(const ControlBlock& cb, std::uint32_t limit) noexcept {
  const std::uint64_t srtt_us = std::max<std::uint64_t>(smoothed_rtt_us(cb), 1);
  const std::uint32_t percent = cb.cwnd < cb.ssthresh / 2 ? 200 : 120;
  std::uint64_t bytes = std::uint64_t{std::max(cb.cwnd, packets_out(cb))} * cb.mss * 10 * percent / srtt_us;
  const std::uint32_t shift = cb.min_rtt_us >> kRttShift;
  if (shift < 17) bytes += kLargestBurst >> shift;
  return std::max(static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes, kLargestBurst) / limit),
                  std::uint32_t{cb.smallest_burst});
}

// By cwnd: at most half of it at a time (Linux tcp_cwnd_test()).
std::uint32_t cwnd_quota(const ControlBlock& cb) noexcept {
  const std::uint32_t in_flight = packets_in_flight(cb);
  return cb.cwnd > in_flight ? std::min(cb.cwnd - in_flight, std::max(cb.cwnd / 2, 1U)) : 1;
}

// Of a burst that begins at snd_nxt: how many segments, as far as cwnd, window and data go.
std::uint32_t new_burst(const ControlBlock& cb, std::uint32_t limit) noexcept {
  const Seq end = min(text_end(cb), send_edge(cb));
  std::uint32_t bytes = end > cb.snd_nxt ? bytes_between(cb.snd_nxt, end) : 0;
  if (bytes <= limit) return 1;
  // What Nagle or a cork will hold back is no part of it.
  if (end == data_end(cb) && !partial_may_go(cb)) bytes -= bytes % limit;
  const std::uint32_t most = std::min(burst_segments(cb, limit), cwnd_quota(cb));
  return std::clamp((bytes + limit - 1) / limit, 1U, std::max(most, 1U));
}

// How many segments from `position` on are what is left of one burst: up to its end, or to where they differ.
std::uint32_t run_of(const SentQueue& sent, SentQueue::Position position) noexcept {
  const auto state = [](const SentSegment& s) { return s.flags & (kSacked | kLost | kRetransmitted); };
  std::uint32_t run = 0;
  for (auto p = position; p != sent.end() && state(sent.at(p)) == state(sent.at(position)); ++p) {
    ++run;
    if (sent.at(p).burst > 0) break;
  }
  return run;
}

// As much of the run at `position` as cwnd allows is a burst of its own now, and so is the rest (Linux tcp_fragment()).
void begin_repeat(ControlBlock& cb, SentQueue::Position position) noexcept {
  Flight& f = *cb.flight;
  const std::uint32_t run = run_of(f.sent, position);
  const std::uint32_t in_flight = packets_in_flight(cb);
  const std::uint32_t room = cb.cwnd > in_flight ? cb.cwnd - in_flight : 1;
  const std::uint32_t now = std::min({run, room, burst_segments(cb, std::max<std::uint32_t>(cb.mss, 1))});
  const auto as_burst = [](std::uint32_t segments) { return static_cast<std::uint16_t>(std::min(segments, 0xffffU)); };
  if (now < run) f.sent.at(position + run - 1).burst = as_burst(run - now);
  f.sent.at(position + now - 1).burst = as_burst(now);
  f.repeat_left = now;
}

// A program may ask for one with each byte, and the memory is ours.
constexpr std::size_t kMaxMarks = 1024;

void mark(SeqMarks& marks, Seq end) {
  if (marks.size() < kMaxMarks) marks.push_back(end);
}

}  // namespace

void note_push(ControlBlock& cb, bool more_follows) {
  const bool much = bytes_between(cb.push_seq, cb.write_seq) > cb.max_window / 2;
  if (!more_follows || much) cb.push_seq = cb.write_seq;
  if (more_follows && much) mark(flight_of(cb).push_marks, cb.write_seq);
}

void move_push(ControlBlock& cb, std::uint32_t bytes) noexcept {
  if (cb.push_seq != cb.write_seq || cb.snd_nxt == cb.write_seq) return;
  cb.push_seq += bytes;
  SeqMarks& marks = flight_of(cb).push_marks;
  if (!marks.empty() && marks.back() == cb.write_seq) marks.back() = cb.push_seq;
}

void push_next(ControlBlock& cb, std::uint32_t length) noexcept {
  cb.push_seq = max(cb.push_seq, min(cb.snd_nxt + length, data_end(cb)));
}

void end_record(ControlBlock& cb) {
  if (cb.snd_nxt != cb.write_seq) mark(flight_of(cb).record_ends, cb.write_seq);
}

void leave_records(Flight& flight, Seq snd_nxt) noexcept {
  while (!flight.push_marks.empty() && flight.push_marks.front() <= snd_nxt) flight.push_marks.pop_front();
  while (!flight.record_ends.empty() && flight.record_ends.front() <= snd_nxt) flight.record_ends.pop_front();
}

void begin_burst_if_due(ControlBlock& cb, std::uint32_t limit) {
  Flight& f = flight_of(cb);
  if (f.burst_left == 0) f.burst_size = f.burst_left = new_burst(cb, limit);
}

bool pushes_new(ControlBlock& cb, std::uint32_t length, std::uint32_t limit) {
  Flight& f = *cb.flight;
  SentSegment& s = f.sent.back();
  --f.burst_left;
  if (length < limit) f.burst_left = 0;
  if (f.burst_left == 0) s.burst = static_cast<std::uint16_t>(std::min(f.burst_size, 0xffffU));
  const bool ends_record = !f.record_ends.empty() && s.end() == f.record_ends.front();
  const bool marked = !f.push_marks.empty() && s.end() == f.push_marks.front();
  if (s.seq + length == cb.push_seq || marked || ends_record) s.set(kPushed);  // a FIN may follow
  return s.burst > 1 || s.has(kPushed);
}

bool pushes_again(ControlBlock& cb, SentQueue::Position position) {
  Flight& f = *cb.flight;
  if (f.repeat_left == 0 || position != f.repeat_next) begin_repeat(cb, position);
  f.repeat_next = position + 1;
  --f.repeat_left;
  const SentSegment& s = f.sent.at(position);
  return s.has(kPushed) || (f.repeat_left == 0 && s.burst > 1);
}

}  // namespace twinstack::tcp
