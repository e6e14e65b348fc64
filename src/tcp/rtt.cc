#include "tcp/rtt.h"

#include <algorithm>

namespace twinstack::tcp {

namespace {

constexpr std::uint32_t kNotTimed = 0;  // as rtt_start_us

std::uint32_t now_us(Time now) noexcept { return static_cast<std::uint32_t>(now.time_since_epoch().count() / 1000); }

}  // namespace

void add_rtt_sample(ControlBlock& cb, std::uint32_t sample_us) noexcept {
  const std::uint32_t sample = std::clamp<std::uint32_t>(sample_us, 1, kMaxRtoUs);
  if (cb.srtt_us == 0) {
    cb.srtt_us = sample;
    cb.rttvar_us = sample / 2;
  } else {
    const std::uint32_t deviation = cb.srtt_us > sample ? cb.srtt_us - sample : sample - cb.srtt_us;
    cb.rttvar_us = (3 * cb.rttvar_us + deviation + 2) / 4;
    cb.srtt_us = static_cast<std::uint32_t>((7 * std::uint64_t{cb.srtt_us} + sample + 4) / 8);
  }
  if (cb.min_rtt_us == 0 || sample < cb.min_rtt_us) cb.min_rtt_us = sample;
  cb.rto_us = rto_from_estimates_us(cb);
  cb.backoff = 0;
}

std::uint32_t rto_from_estimates_us(const ControlBlock& cb) noexcept {
  if (cb.srtt_us == 0) return kInitialRtoUs;
  const std::uint64_t rto =
      std::uint64_t{cb.srtt_us} + std::max(4 * std::uint64_t{cb.rttvar_us}, std::uint64_t{kMinVarianceUs});
  return static_cast<std::uint32_t>(std::min(rto, std::uint64_t{kMaxRtoUs}));
}

Duration backed_off_rto(const ControlBlock& cb) noexcept {
  const std::uint64_t rto = std::uint64_t{cb.rto_us} << std::min<int>(cb.backoff, 16);
  return std::chrono::microseconds(std::min(rto, std::uint64_t{kMaxRtoUs}));
}

void start_rtt_timing(ControlBlock& cb, Seq end, Time now) noexcept {
  if (cb.has(kRttTiming)) return;
  cb.rtt_seq = end;
  cb.rtt_start_us = std::max(now_us(now), kNotTimed + 1);
  cb.set(kRttTiming);
}

void skip_rtt_timing(ControlBlock& cb, Seq end) noexcept {
  cb.rtt_seq = end;
  cb.rtt_start_us = kNotTimed;
  cb.set(kRttTiming);
}

bool take_timed_sample(ControlBlock& cb, Time now) noexcept {
  if (!cb.has(kRttTiming) || cb.snd_una < cb.rtt_seq) return false;
  cb.clear(kRttTiming);
  if (cb.rtt_start_us != kNotTimed) add_rtt_sample(cb, now_us(now) - cb.rtt_start_us);
  return true;
}

}  // namespace twinstack::tcp
