#include "tcp/rtt.h"

#include <algorithm>

namespace twinstack::tcp {

namespace {

constexpr Duration kMinRttWindow = std::chrono::seconds(300);

void first_sample(ControlBlock& cb, std::uint32_t sample_us) noexcept {
  cb.srtt_us8 = sample_us * 8;
  cb.mdev_us4 = sample_us * 2;  // RFC 6298 2.2: half the sample
  cb.rttvar_us4 = std::max(cb.mdev_us4, kMinVarianceUs);
  cb.mdev_max_us4 = cb.rttvar_us4;
  cb.rtt_seq = cb.snd_nxt;
}

void smooth(ControlBlock& cb, std::uint32_t sample_us) noexcept {
  const std::int64_t error = std::int64_t{sample_us} - (cb.srtt_us8 >> 3);
  cb.srtt_us8 = static_cast<std::uint32_t>(std::max<std::int64_t>(cb.srtt_us8 + error, 1));
  std::int64_t change = (error < 0 ? -error : error) - (cb.mdev_us4 >> 2);
  if (error < 0 && change > 0) change >>= 3;  // a path that became faster is no reason to wait longer
  cb.mdev_us4 = static_cast<std::uint32_t>(cb.mdev_us4 + change);
  cb.mdev_max_us4 = std::max(cb.mdev_max_us4, cb.mdev_us4);
  cb.rttvar_us4 = std::max(cb.rttvar_us4, cb.mdev_max_us4);
  if (cb.snd_una <= cb.rtt_seq) return;
  if (cb.mdev_max_us4 < cb.rttvar_us4) cb.rttvar_us4 -= (cb.rttvar_us4 - cb.mdev_max_us4) >> 2;
  cb.rtt_seq = cb.snd_nxt;
  cb.mdev_max_us4 = kMinVarianceUs;
}

}  // namespace

void set_rtt_estimates(ControlBlock& cb, std::uint32_t srtt_us, std::uint32_t rttvar_us) noexcept {
  cb.srtt_us8 = std::min(srtt_us, kMaxRtoUs) * 8;
  cb.mdev_us4 = std::min(rttvar_us, kMaxRtoUs) * 4;
  cb.rttvar_us4 = std::max(cb.mdev_us4, kMinVarianceUs);
  cb.mdev_max_us4 = cb.rttvar_us4;
  cb.rtt_seq = cb.snd_nxt;
  cb.rto_us = rto_from_estimates_us(cb);
}

void add_rtt_sample(ControlBlock& cb, std::uint32_t sample_us) noexcept {
  const std::uint32_t sample = std::clamp<std::uint32_t>(sample_us, 1, kMaxRtoUs);
  if (cb.srtt_us8 == 0) {
    first_sample(cb, sample);
  } else {
    smooth(cb, sample);
  }
  cb.rto_us = rto_from_estimates_us(cb);
  cb.backoff = 0;
}

void note_min_rtt(ControlBlock& cb, std::uint32_t sample_us, Time now) noexcept {
  const std::uint32_t sample = std::max<std::uint32_t>(sample_us, 1);
  const bool outdated = age(cb.min_rtt_stamp, now) > kMinRttWindow;
  if (cb.min_rtt_us != 0 && sample > cb.min_rtt_us && !outdated) return;
  cb.min_rtt_us = sample;
  cb.min_rtt_stamp = to_tick(now);
}

std::uint32_t rto_from_estimates_us(const ControlBlock& cb) noexcept {
  if (cb.srtt_us8 == 0) return kInitialRtoUs;
  const std::uint64_t rto = std::uint64_t{cb.srtt_us8 >> 3} + cb.rttvar_us4;
  return static_cast<std::uint32_t>(std::min(rto, std::uint64_t{kMaxRtoUs}));
}

Duration backed_off_rto(const ControlBlock& cb) noexcept {
  const std::uint64_t rto = std::uint64_t{cb.rto_us} << std::min<int>(cb.backoff, 16);
  return std::chrono::microseconds(std::min(rto, std::uint64_t{kMaxRtoUs}));
}

}  // namespace twinstack::tcp
