#include "virtual_time_conn.h"

#include <algorithm>

namespace twinstack::packetdrill {

namespace {

constexpr std::uint32_t kShortestRtoUs = 200'000;  // Linux TCP_RTO_MIN

std::uint32_t us(Duration duration) noexcept {
  return static_cast<std::uint32_t>(std::chrono::duration_cast<std::chrono::microseconds>(duration).count());
}

// RFC 6298 2.2, as Linux's first sample makes it.
void put_round_trip(tcp::MinTcp& min, std::uint32_t rtt_us) noexcept {
  rtt_us = std::max(rtt_us, 1U);
  min.srtt_us = rtt_us;
  min.rttvar_us = rtt_us / 2;
  min.rto_us = rtt_us + std::max(2 * rtt_us, kShortestRtoUs);
  min.min_rtt_us = rtt_us;
}

}  // namespace

Result<kernel::Snapshot> VirtualTimeConn::freeze(const kernel::QueueRoom& room) {
  auto snapshot = real_->freeze(room);
  if (!snapshot) return snapshot;
  snapshot->stamped_at = clock_.now();
  if (times_.round_trip) put_round_trip(snapshot->min, us(*times_.round_trip));
  if (times_.last_ts_val) {
    const auto since = std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - times_.last_sent);
    snapshot->min.ts_val = *times_.last_ts_val + static_cast<std::uint32_t>(since.count());
  }
  times_ = {};  // what comes back is told by the engine, in virtual time
  return snapshot;
}

}  // namespace twinstack::packetdrill
