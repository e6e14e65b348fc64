#include "tcp/cold_state.h"

namespace twinstack::tcp {

void ColdStateDeleter::operator()(ColdState* cold) const noexcept { delete cold; }

ColdState& cold_state(ControlBlock& cb) {
  if (!cb.cold) cb.cold.reset(new ColdState);
  return *cb.cold;
}

void release_cold_state(ControlBlock& cb) {
  if (!cb.cold) return;
  const ColdState& cold = *cb.cold;
  const bool owes = cold.dsack_due || !cold.split_acks.empty();
  if (!cold.out_of_order.empty() || owes || cold.fin_known || cold.path_mtu.in_use()) return;
  cb.cold.reset();
}

}  // namespace twinstack::tcp
