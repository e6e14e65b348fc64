#include "tcp/congestion/cubic.h"

#include <algorithm>
#include <cmath>

namespace twinstack::tcp {

namespace {

constexpr float kBeta = 0.7F;                                // RFC 9438 4.6
constexpr float kC = 0.4F;                                   // RFC 9438 5.1
constexpr float kRenoAlpha = 3 * (1 - kBeta) / (1 + kBeta);  // RFC 9438 4.3

float seconds(Duration duration) { return std::chrono::duration<float>(duration).count(); }

// RFC 9438 4.2, figure 1.
float w_cubic(const CubicState& state, float t) {
  const float distance = t - state.k_seconds;
  return kC * distance * distance * distance + state.w_max;
}

// The first ACK of a congestion avoidance stage.
void start_epoch(ControlBlock& cb, Time now) {
  CubicState& state = cb.congestion.cubic;
  const Tick tick = to_tick(now);
  state.epoch_start = tick == 0 ? 1 : tick;  // 0 says that none runs
  const auto cwnd = static_cast<float>(cb.cwnd);
  state.w_est = cwnd;
  if (cwnd < state.w_max) {
    state.k_seconds = std::cbrt((state.w_max - cwnd) / kC);  // figure 2
  } else {
    state.k_seconds = 0;  // also after a timeout (RFC 9438 4.8)
    state.w_max = cwnd;
  }
}

// RFC 9438 4.3, figure 4.
void update_reno_estimate(CubicState& state, float cwnd, float acked) {
  const float alpha = state.w_est < state.cwnd_prior ? kRenoAlpha : 1.0F;
  state.w_est += alpha * acked / cwnd;
}

// Growth in segments for `acked` segments acknowledged.
float growth(ControlBlock& cb, float cwnd, float acked, Time now) {
  CubicState& state = cb.congestion.cubic;
  const float t = seconds(ticks_between(state.epoch_start, to_tick(now)));
  update_reno_estimate(state, cwnd, acked);
  if (w_cubic(state, t) < state.w_est) return std::max(state.w_est - cwnd, 0.0F);
  const float rtt = static_cast<float>(smoothed_rtt_us(cb)) * 1e-6F;
  const float target = std::clamp(w_cubic(state, t + rtt), cwnd, 1.5F * cwnd);  // RFC 9438 4.2
  return (target - cwnd) / cwnd * acked;                                        // RFC 9438 4.4, 4.5
}

void init(ControlBlock& cb, Time /*now*/) { cb.congestion.cubic = {}; }

void grow(ControlBlock& cb, std::uint32_t acked, Time now) {
  acked = slow_start(cb, acked);
  if (acked == 0) return;
  CubicState& state = cb.congestion.cubic;
  // A tick counts 39 hours: an epoch that went on for longer begins anew.
  const bool running = state.epoch_start != 0 && ticks_between(state.epoch_start, to_tick(now)) >= Duration::zero();
  if (!running) start_epoch(cb, now);
  state.carry += growth(cb, static_cast<float>(cb.cwnd), static_cast<float>(acked), now);
  const float whole = std::floor(std::min(state.carry, 1e6F));
  state.carry -= whole;
  set_cwnd(cb, cb.cwnd + static_cast<std::uint32_t>(whole));
}

std::uint32_t ssthresh(ControlBlock& cb) {
  CubicState& state = cb.congestion.cubic;
  const auto cwnd = static_cast<float>(cb.cwnd);
  // Fast convergence (RFC 9438 4.7): a window that did not come back to the old maximum leaves room for others.
  state.w_max = cwnd < state.w_max ? cwnd * (1 + kBeta) / 2 : cwnd;
  state.cwnd_prior = cwnd;
  state.epoch_start = 0;
  state.carry = 0;
  return std::max(static_cast<std::uint32_t>(cwnd * kBeta), 2U);
}

void on_event(ControlBlock& cb, CongestionEvent event, Time now) {
  CubicState& state = cb.congestion.cubic;
  if (event == CongestionEvent::kTimeout) state.w_max = 0;
  if (event != CongestionEvent::kSendStart || state.epoch_start == 0) return;
  // Time in which nothing was in flight does not count for the curve (RFC 9438 4.2 leaves it open; as Linux does).
  const Duration idle = ticks_between(cb.last_send, to_tick(now));
  if (idle <= Duration::zero()) return;
  state.epoch_start += static_cast<Tick>(idle.count() / kTickNs);
  if (state.epoch_start == 0) state.epoch_start = 1;
}

constexpr CongestionOps kOps = {
    .name = "cubic", .init = init, .ssthresh = ssthresh, .grow = grow, .undo_cwnd = prior_cwnd, .on_event = on_event};

}  // namespace

const CongestionOps& cubic_ops() noexcept { return kOps; }

}  // namespace twinstack::tcp
