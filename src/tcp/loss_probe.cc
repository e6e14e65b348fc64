#include "tcp/loss_probe.h"

#include <algorithm>

#include "tcp/flight.h"
#include "tcp/recovery.h"
#include "tcp/reduction.h"
#include "tcp/rtt.h"
#include "tcp/sack.h"
#include "tcp/timers.h"

namespace twinstack::tcp {

namespace {

constexpr Duration kTimerSlack = std::chrono::milliseconds(2);  // Linux TCP_TIMEOUT_MIN
constexpr Duration kDelayedAckMax =
    std::chrono::milliseconds(200);  // of a peer that waits with its ACK for a lone segment

// RFC 8985 7.2: two round trips, and the peer's delayed ACK when a lone segment is out.
Duration probe_timeout(const ControlBlock& cb) noexcept {
  const std::uint32_t srtt = smoothed_rtt_us(cb);
  if (srtt == 0) return std::chrono::microseconds(kInitialRtoUs);
  const Duration slack = packets_out(cb) == 1 ? kDelayedAckMax : kTimerSlack;
  return std::chrono::microseconds(cb.srtt_us8 / 4) + slack;
}

}  // namespace

bool schedule_loss_probe(ControlBlock& cb, bool new_rto, Time now) {
  if (packets_out(cb) == 0 || !uses_sack(cb)) return false;
  if (cb.recovery != RecoveryState::kOpen && cb.recovery != RecoveryState::kReduced) return false;
  const Duration rto = std::chrono::microseconds(cb.rto_us);
  const Duration left = new_rto ? rto : time_to_rto(cb, now);
  Duration timeout = probe_timeout(cb);
  if (left > Duration::zero()) timeout = std::min(timeout, left);
  arm_sender_timer(cb, SenderTimer::kLossProbe, timeout, now);
  return true;
}

void arm_first_loss_probe(ControlBlock& cb, Time now) noexcept {
  arm_sender_timer(cb, SenderTimer::kLossProbe, std::min(probe_timeout(cb), backed_off_rto(cb)), now);
}

void probe_on_ack(ControlBlock& cb, const AckNews& news, Time now) {
  Flight& f = *cb.flight;
  if (news.ack < f.probe_end) return;
  if (!f.probe_repeats || news.has(kProbeDuplicated)) {
    f.probe_out = false;  // new data has been acknowledged; or both arrived, nothing was lost
  } else if (news.ack > f.probe_end) {
    // The probe repaired a loss that nothing else has told of: one reduction for it.
    begin_reduction(cb);
    set_recovery(cb, RecoveryState::kReduced);
    end_reduction(cb, false, now);
    try_keep_open(cb);
  } else if (!news.has(kUnaAdvanced | kCarriesData | kWindowChanged | kSegmentAcked | kNewlySacked)) {
    f.probe_out = false;  // a plain duplicate: original and probe have arrived
  }
}

}  // namespace twinstack::tcp
