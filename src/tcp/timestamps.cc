#include "tcp/timestamps.h"

#include "tcp/min_tcp.h"

namespace twinstack::tcp {

namespace {

constexpr int kStampShift = 30;  // stamps of ts_recent: 2^30 ns
constexpr auto kOutdatedAfter = static_cast<std::uint32_t>(Duration(kTsRecentLasts).count() >> kStampShift);
constexpr std::uint32_t kLongestRttUs = 120'000'000;
constexpr std::int64_t kLongestLeadNs = 60'000'000'000;  // beyond that it is no echo of ours

std::uint32_t stamp(Time now) noexcept {
  return static_cast<std::uint32_t>(now.time_since_epoch().count() >> kStampShift);
}

std::int64_t unit_ns(const ControlBlock& cb) noexcept {
  return (cb.options & kOptTsMicroseconds) != 0 ? 1'000 : 1'000'000;
}

std::uint32_t clock_units(const ControlBlock& cb, Time now) noexcept {
  const std::int64_t ns = now.time_since_epoch().count();
  // By constants: a division proper takes as long as all the rest that is done with a timestamp.
  return static_cast<std::uint32_t>((cb.options & kOptTsMicroseconds) != 0 ? ns / 1'000 : ns / 1'000'000);
}

bool outdated(const ControlBlock& cb, Time now) noexcept { return stamp(now) - cb.ts_recent_stamp_s > kOutdatedAfter; }

bool older_than_recent(const ControlBlock& cb, const wire::Segment& segment) noexcept {
  return is_older_stamp(segment.options.ts_val, cb.ts_recent);
}

}  // namespace

std::uint32_t ts_clock(const ControlBlock& cb, Time now) noexcept { return cb.ts_offset + clock_units(cb, now); }

void set_ts_clock(ControlBlock& cb, std::uint32_t ts_val, Time now) noexcept {
  cb.ts_offset = ts_val - clock_units(cb, now);
}

void catch_up_with_echo(ControlBlock& cb, const wire::Segment& segment, Time now) noexcept {
  if ((cb.options & kOptTimestamps) == 0 || !segment.options.has_timestamps || segment.options.ts_ecr == 0) return;
  const auto lead = static_cast<std::int32_t>(segment.options.ts_ecr - ts_clock(cb, now));
  if (lead > 0 && lead <= kLongestLeadNs / unit_ns(cb)) set_ts_clock(cb, segment.options.ts_ecr, now);
}

bool paws_accepts(const ControlBlock& cb, const wire::Segment& segment, Time now) noexcept {
  if (!segment.options.has_timestamps || !cb.has(kTsRecentValid)) return true;
  // One tick older may pass: of two segments that have overtaken each other (Linux TCP_PAWS_WINDOW).
  return !is_older_stamp(segment.options.ts_val + 1, cb.ts_recent) || outdated(cb, now);
}

std::uint32_t known_ts_recent(const ControlBlock& cb, Time now) noexcept {
  return cb.has(kTsRecentValid) && !outdated(cb, now) ? cb.ts_recent : 0;
}

void update_ts_recent(ControlBlock& cb, const wire::Segment& segment, Time now) noexcept {
  if ((cb.options & kOptTimestamps) == 0 || !segment.options.has_timestamps) return;
  if (segment.seq > cb.rcv_wup) return;  // Last.ACK.sent: echo the segment that advanced the ACK
  // After a move Linux cannot say what ts_recent was: the first that comes is taken.
  if (cb.has(kTsRecentValid) && older_than_recent(cb, segment) && !outdated(cb, now)) return;
  cb.ts_recent = segment.options.ts_val;
  cb.ts_recent_stamp_s = stamp(now);
  cb.set(kTsRecentValid);
}

std::uint32_t rtt_from_echo_us(const ControlBlock& cb, const wire::Segment& segment, Time now) noexcept {
  if ((cb.options & kOptTimestamps) == 0 || !segment.options.has_timestamps || segment.options.ts_ecr == 0) return 0;
  const std::uint32_t units = ts_clock(cb, now) - segment.options.ts_ecr;
  const auto unit_us = static_cast<std::uint32_t>(unit_ns(cb) / 1000);
  if (units > kLongestRttUs / unit_us) return 0;  // not an echo of ours
  return (units == 0 ? 1 : units) * unit_us;
}

}  // namespace twinstack::tcp
