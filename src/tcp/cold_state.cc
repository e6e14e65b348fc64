#include "tcp/cold_state.h"

namespace twinstack::tcp {

void ColdStateDeleter::operator()(ColdState* cold) const noexcept { delete cold; }

ColdState& cold_state(ControlBlock& cb) {
  if (!cb.cold) {
    cb.cold.reset(new ColdState);
    cb.cold->lost_below = cb.snd_una;
    cb.cold->high_rxt = cb.snd_una;
  }
  return *cb.cold;
}

void release_cold_state(ControlBlock& cb) {
  if (!cb.cold) return;
  const ColdState& cold = *cb.cold;
  const bool recovering = cb.recovery == RecoveryState::kRecovery || cb.recovery == RecoveryState::kLoss;
  const bool receiving = !cold.out_of_order.empty() || cold.dsack_due;
  if (recovering || receiving || cold.scoreboard.count > 0 || cold.reno_sacked_bytes > 0) return;
  cb.cold.reset();
}

}  // namespace twinstack::tcp
