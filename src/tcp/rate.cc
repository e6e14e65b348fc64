#include "tcp/rate.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace twinstack::tcp {

namespace {

std::int64_t us(Duration d) noexcept { return std::chrono::duration_cast<std::chrono::microseconds>(d).count(); }

// Of two transmissions at the same instant the later sequence number is the later one.
bool sent_after(const SentSegment& segment, Time sent, Seq end) noexcept {
  return segment.sent > sent || (segment.sent == sent && segment.end() > end);
}

}  // namespace

void keep_rate(DeliveryRate& rate, std::uint32_t segments, std::uint32_t interval_us, bool app_limited) noexcept {
  const float now = static_cast<float>(segments) * 1e6F / static_cast<float>(interval_us);
  if (app_limited && now < std::abs(rate.segments_per_s)) return;
  rate.segments_per_s = app_limited ? -now : now;
}

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
  segment.set(kRateTaken);  // once when it is SACKed, not again when it is acknowledged
}

void rate_on_ack(ControlBlock& cb, RateSample& sample, DeliveryRate& rate, Time now) noexcept {
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
  keep_rate(rate, sample.delivered, sample.interval_us, sample.app_limited);
}

std::uint64_t bytes_per_second(const DeliveryRate& rate, std::uint32_t mss) noexcept {
  constexpr double kRounding = 1 + std::numeric_limits<float>::epsilon();  // what the division lost
  constexpr double kMost = 0x1p63;                                         // no field holds more
  return static_cast<std::uint64_t>(std::min(std::abs(double{rate.segments_per_s}) * mss * kRounding, kMost));
}

DeliveryRate delivery_rate_of(const MinTcp& state, std::uint32_t mss) noexcept {
  if (mss == 0) return {};
  const auto rate = static_cast<float>(static_cast<double>(state.delivery_rate) / mss);
  return {state.delivery_app_limited != 0 ? -rate : rate};
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
