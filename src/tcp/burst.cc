#include "tcp/burst.h"

#include <algorithm>

#include "tcp/plan.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint32_t kSmallestBurst = 2;     // Linux tcp_min_tso_segs
constexpr std::uint32_t kLargestBurst = 65536;  // bytes: the largest GSO packet
constexpr int kRttShift = 9;                    // Linux tcp_tso_rtt_log: short round trips allow larger bursts

// Segments of a millisecond at the rate that the window and the round trip make (Linux tcp_tso_autosize()).
std::uint32_t burst_segments(const ControlBlock& cb, std::uint32_t limit) noexcept {
  const std::uint64_t srtt_us = std::max<std::uint64_t>(smoothed_rtt_us(cb), 1);
  const std::uint32_t percent = cb.cwnd < cb.ssthresh / 2 ? 200 : 120;
  std::uint64_t bytes = std::uint64_t{std::max(cb.cwnd, packets_out(cb))} * cb.mss * 10 * percent / srtt_us;
  const std::uint32_t shift = cb.min_rtt_us >> kRttShift;
  if (shift < 17) bytes += kLargestBurst >> shift;
  return std::max(static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes, kLargestBurst) / limit), kSmallestBurst);
}

// Of a burst that begins at snd_nxt: how many segments, as far as cwnd, window and data go.
std::uint32_t begin_burst(const ControlBlock& cb, std::uint32_t limit) noexcept {
  const std::uint32_t in_flight = packets_in_flight(cb);
  const std::uint32_t quota = cb.cwnd > in_flight ? std::min(cb.cwnd - in_flight, std::max(cb.cwnd / 2, 1U)) : 1;
  const std::uint32_t most = std::min(burst_segments(cb, limit), quota);
  const Seq end = min(data_end(cb), send_edge(cb));
  const std::uint32_t bytes = end > cb.snd_nxt ? bytes_between(cb.snd_nxt, end) : 0;
  return std::clamp((bytes + limit - 1) / limit, 1U, std::max(most, 1U));
}

}  // namespace

void note_push(ControlBlock& cb, bool more_follows) noexcept {
  const bool much = bytes_between(cb.push_seq, cb.write_seq) > cb.max_window / 2;
  if (!more_follows || much) cb.push_seq = cb.write_seq;
}

bool pushes_new(ControlBlock& cb, std::uint32_t length, std::uint32_t limit) {
  Flight& f = flight_of(cb);
  if (f.burst_left == 0) f.burst_size = f.burst_left = begin_burst(cb, limit);
  --f.burst_left;
  if (length < limit) f.burst_left = 0;
  const bool whole = f.burst_left == 0 && f.burst_size > 1;
  return whole || cb.snd_nxt + length == cb.push_seq;
}

void keep_push(ControlBlock& cb, bool pushes) noexcept {
  Flight& f = *cb.flight;
  SentSegment& s = f.sent.back();
  if (pushes) s.flags |= kPushed;
  if (f.burst_left == 0) s.burst = static_cast<std::uint16_t>(std::min(f.burst_size, 0xffffU));
  if (s.end() == cb.push_seq) s.burst = 1;  // whatever becomes of the others
}

bool pushes_again(const Flight& flight, SentQueue::Position position) noexcept {
  const SentSegment& s = flight.sent.at(position);
  if (!s.has(kPushed)) return false;
  if (position - flight.sent.first() + 1 < s.burst) return false;
  for (std::uint32_t i = 1; i < s.burst; ++i) {
    if (flight.sent.at(position - i).has(kSacked)) return false;
  }
  return true;
}

}  // namespace twinstack::tcp
