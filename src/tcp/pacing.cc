#include "tcp/pacing.h"

#include <algorithm>

#include "tcp/congestion/congestion.h"
#include "tcp/flight.h"

namespace twinstack::tcp {

namespace {
constexpr Duration kBurst = std::chrono::milliseconds(1);
// Of one segment (as Linux's fq). The rate that was measured over an outage of minutes is some bytes a second.
constexpr Duration kLongestWait = std::chrono::seconds(1);
}  // namespace

bool pacing_holds(ControlBlock& cb, Time now) {
  if (!cb.flight || congestion_ops(cb).pacing_rate == nullptr) return false;
  if (cb.flight->next_send <= now + kBurst) return false;
  cb.set(kPacingHolds);
  return true;
}

Time pacing_release(const ControlBlock& cb) noexcept { return cb.flight->next_send - kBurst; }

void pace_after(ControlBlock& cb, std::uint32_t bytes, Time now) {
  const auto rate_of = congestion_ops(cb).pacing_rate;
  if (rate_of == nullptr) return;
  const std::uint64_t rate = std::max<std::uint64_t>(rate_of(cb), 1);
  const Duration length(static_cast<std::int64_t>(std::uint64_t{bytes} * 1'000'000'000U / rate));
  Flight& f = *cb.flight;
  f.next_send = std::max(f.next_send, now) + std::min(length, kLongestWait);
}

}  // namespace twinstack::tcp
