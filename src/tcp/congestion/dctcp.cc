#include "tcp/congestion/dctcp.h"

#include <algorithm>

#include "tcp/congestion/new_reno.h"
#include "tcp/min_tcp.h"
#include "tcp/split_ack.h"

namespace twinstack::tcp {

namespace {

constexpr int kGainShift = 4;  // g = 1/16 (RFC 8257 3.3)

void start_window(ControlBlock& cb) noexcept {
  DctcpState& state = cb.congestion.dctcp;
  state.window_end = cb.snd_nxt;
  state.prior_delivered = cb.delivered;
  state.prior_delivered_ce = cb.delivered_ce;
}

void init(ControlBlock& cb, Time now) {
  if ((cb.options & kOptEcn) == 0) {
    cb.congestion_kind = CongestionKind::kNewReno;
    congestion_ops(cb).init(cb, now);
    return;
  }
  cb.congestion.dctcp = DctcpState{};
  cb.congestion.dctcp.alpha = kDctcpAlphaOne;  // RFC 8257 3.3: the first mark counts like a loss
  start_window(cb);
}

// RFC 8257 3.3 (9).
std::uint32_t ssthresh(ControlBlock& cb) {
  DctcpState& state = cb.congestion.dctcp;
  state.loss_cwnd = cb.cwnd;
  const std::uint64_t less = std::uint64_t{cb.cwnd} * state.alpha / (2 * kDctcpAlphaOne);
  return std::max(cb.cwnd - static_cast<std::uint32_t>(less), 2U);
}

void grow(ControlBlock& cb, std::uint32_t acked, Time /*now*/) { grow_as_reno(cb, acked); }

// RFC 8257 3.5: half, whatever alpha says.
void react_to_loss(ControlBlock& cb) noexcept {
  cb.congestion.dctcp.loss_cwnd = cb.cwnd;
  cb.ssthresh = std::max(cb.cwnd / 2, 2U);
}

std::uint32_t undo_cwnd(ControlBlock& cb) { return std::max(cb.cwnd, cb.congestion.dctcp.loss_cwnd); }

// RFC 8257 3.3 (1) to (8): alpha = (1 - g) alpha + g M, once a window.
void on_ack(ControlBlock& cb, bool /*ecn_echo*/) {
  DctcpState& state = cb.congestion.dctcp;
  if (cb.snd_una < state.window_end) return;
  const std::uint32_t all = std::max(cb.delivered - state.prior_delivered, 1U);
  const std::uint64_t marked = cb.delivered_ce - state.prior_delivered_ce;
  const std::uint32_t alpha = state.alpha;
  const std::uint32_t share = alpha >> kGainShift;
  const std::uint32_t decay = share != 0 ? share : alpha;  // what is too little to be shared goes at once, as Linux
  const std::uint64_t rise = (marked * kDctcpAlphaOne >> kGainShift) / all;
  state.alpha = static_cast<std::uint16_t>(std::min<std::uint64_t>(alpha - decay + rise, kDctcpAlphaOne));
  start_window(cb);
}

void on_recovery(ControlBlock& cb, RecoveryState next) {
  if (next == RecoveryState::kRecovery && cb.recovery != next) react_to_loss(cb);
}

// RFC 8257 3.2, figure 1. `ce`: of the segment that is about to be taken.
void take_ce(ControlBlock& cb, bool ce) {
  DctcpState& state = cb.congestion.dctcp;
  if (state.ce != ce) split_ack_here(cb);
  state.ce = ce;
  cb.clear(kEcnEcho);
  if (ce) cb.set(kEcnEcho);
}

void on_event(ControlBlock& cb, CongestionEvent event, Time /*now*/) {
  if (event == CongestionEvent::kTimeout) react_to_loss(cb);
  if (event == CongestionEvent::kMarkSeen) take_ce(cb, true);
  if (event == CongestionEvent::kNoMarkSeen) take_ce(cb, false);
}

void tell(const ControlBlock& cb, MeasuredPath& measured) {
  const DctcpInfo info = dctcp_info(cb);
  measured.dctcp_known = 1;
  measured.dctcp_ce_state = info.ce_state ? 1 : 0;
  measured.dctcp_alpha = info.alpha;
}

void take(ControlBlock& cb, const MeasuredPath& measured) {
  if (measured.dctcp_known != 0) dctcp_seed(cb, measured.dctcp_ce_state != 0, measured.dctcp_alpha);
}

}  // namespace

DctcpInfo dctcp_info(const ControlBlock& cb) noexcept {
  const DctcpState& state = cb.congestion.dctcp;
  return {.ce_state = state.ce,
          .alpha = state.alpha,
          .ecn_bytes = std::uint64_t{cb.delivered_ce - state.prior_delivered_ce} * cb.mss,
          .acked_bytes = std::uint64_t{cb.delivered - state.prior_delivered} * cb.mss};
}

void dctcp_seed(ControlBlock& cb, bool ce_state, std::uint32_t alpha) noexcept {
  DctcpState& state = cb.congestion.dctcp;
  state.ce = ce_state;
  if (ce_state) cb.set(kEcnEcho);
  state.alpha = static_cast<std::uint16_t>(std::min(alpha, kDctcpAlphaOne));
}

const CongestionOps kDctcpOps = {.name = "dctcp",
                                 .wants_ecn = true,
                                 .init = init,
                                 .ssthresh = ssthresh,
                                 .grow = grow,
                                 .undo_cwnd = undo_cwnd,
                                 .on_ack = on_ack,
                                 .on_recovery = on_recovery,
                                 .on_event = on_event,
                                 .tell = tell,
                                 .take = take};

}  // namespace twinstack::tcp
