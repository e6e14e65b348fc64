#include "tcp/rate.h"

#include <algorithm>

namespace twinstack::tcp {

namespace {

std::int64_t us(Duration d) noexcept { return std::chrono::duration_cast<std::chrono::microseconds>(d).count(); }

// Kept for tcp_info: the last rate that the program did not limit, or the highest that it did.
void keep_rate(Flight& f, const RateSample& sample) noexcept {
  const std::uint64_t ours = std::uint64_t{sample.delivered} * f.rate_interval_us;
  const std::uint64_t kept = std::uint64_t{f.rate_delivered} * sample.interval_us;
  if (sample.app_limited && ours < kept) return;
  f.rate_delivered = sample.delivered;
  f.rate_interval_us = sample.interval_us;
  f.rate_app_limited = sample.app_limited;
}

// Of two transmissions at the same instant the later sequence number is the later one.
bool sent_after(const SentSegment& segment, Time sent, Seq end) noexcept {
  return segment.sent > sent || (segment.sent == sent && segment.end() > end);
}

}  // namespace

void rate_on_delivered(Flight& flight, SentSegment& segment, RateSample& sample) noexcept {
  if (segment.has(kRateTaken)) return;
  if (!sample.known || sent_after(segment, flight.first_sent, sample.last_end)) {
    sample.known = true;
    sample.prior_delivered = segment.delivered;
    sample.prior_delivered_at = segment.delivered_at;
    sample.app_limited = segment.has(kSentAppLimited);
    sample.of_repeat = segment.has(kEverRetransmitted);
    sample.last_end = segment.end();
    sample.send_interval = segment.sent - segment.first_sent;
    flight.first_sent = segment.sent;
  }
  segment.flags |= kRateTaken;  // once when it is SACKed, not again when it is acknowledged
}

void rate_on_ack(ControlBlock& cb, RateSample& sample, Time now) noexcept {
  if (cb.app_limited != 0 && static_cast<std::int32_t>(cb.delivered - cb.app_limited) > 0) cb.app_limited = 0;
  Flight& flight = *cb.flight;
  if (sample.newly_delivered > 0) flight.delivered_at = now;
  if (!sample.known || flight.reneged) return;
  const std::int64_t interval = std::max(us(sample.send_interval), us(now - sample.prior_delivered_at));
  // Less than the shortest round trip: ACKs were compressed or the clock is too coarse.
  if (interval <= 0 || interval < cb.min_rtt_us || interval > UINT32_MAX) return;
  sample.delivered = cb.delivered - sample.prior_delivered;
  sample.interval_us = static_cast<std::uint32_t>(interval);
  sample.valid = true;
  keep_rate(flight, sample);
}

void rate_check_app_limited(ControlBlock& cb) noexcept {
  if (bytes_between(cb.snd_nxt, cb.write_seq) >= cb.mss) return;
  const std::uint32_t in_flight = packets_in_flight(cb);
  if (in_flight >= cb.cwnd) return;
  if (cb.flight && cb.flight->lost > cb.flight->retransmitted) return;
  const std::uint32_t mark = cb.delivered + in_flight;
  cb.app_limited = mark != 0 ? mark : 1;
}

}  // namespace twinstack::tcp
