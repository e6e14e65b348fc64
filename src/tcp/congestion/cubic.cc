#include "tcp/congestion/cubic.h"

#include <algorithm>
#include <cmath>

#include "tcp/congestion/hystart.h"
#include "tcp/cwnd_use.h"

namespace twinstack::tcp {

namespace {

constexpr float kBeta = 0.7F;  // RFC 9438 4.6
constexpr float kC = 0.4F;     // RFC 9438 5.1
// RFC 9438 4.3: alpha_cubic = 3 (1 - beta) / (1 + beta) = 9 / 17.
constexpr std::uint64_t kAlphaNumerator = 9;
constexpr std::uint64_t kAlphaDenominator = 17;

constexpr std::uint32_t kFewestForOne = 2;           // acknowledged segments for one more: RFC 9438 4.2's 1.5 cwnd
constexpr std::uint32_t kMostForOneUnknownTop = 20;  // as Linux, while no loss has told the top
constexpr std::uint32_t kStandstillWindows = 100;    // as Linux: where the curve is below cwnd

constexpr std::uint32_t kCwndPriorMask = (1U << 22) - 1;  // for the compiler: it does not know set_cwnd()'s bound

CubicState& cubic(ControlBlock& cb) noexcept { return cb.congestion.window.cubic; }

float seconds(Duration duration) { return std::chrono::duration<float>(duration).count(); }

// RFC 9438 4.2, figure 1.
float w_cubic(const CubicState& state, float t) {
  const float distance = t - state.k_seconds;
  return kC * distance * distance * distance + state.w_max;
}

// A tick counts 39 hours: an epoch that went on for longer begins anew.
bool epoch_runs(const CubicState& state, Tick now) noexcept {
  return state.epoch_start != 0 && ticks_between(state.epoch_start, now) >= Duration::zero();
}

void set_epoch_start(CubicState& state, Tick tick) noexcept { state.epoch_start = tick == 0 ? 1 : tick; }

// The first ACK of a congestion avoidance stage.
void start_epoch(ControlBlock& cb, Tick now) {
  CubicState& state = cubic(cb);
  set_epoch_start(state, now);
  state.w_est = cb.cwnd;
  state.est_acked = 0;
  const auto cwnd = static_cast<float>(cb.cwnd);
  if (cwnd < state.w_max) {
    state.k_seconds = std::cbrt((state.w_max - cwnd) / kC);  // figure 2
  } else {
    state.k_seconds = 0;  // also after a timeout (RFC 9438 4.8) and at the end of slow start without a loss (4.10)
    state.w_max = cwnd;
  }
}

// RFC 9438 4.2, 5.8: time in which the program, not cwnd, held data back does not count.
void hold_epoch(ControlBlock& cb, Tick now) noexcept {
  CubicState& state = cubic(cb);
  if (cb.congestion.window.epoch_held != 0 || !epoch_runs(state, now)) return;
  set_epoch_start(state, now - state.epoch_start);
  cb.congestion.window.epoch_held = 1;
}

void release_epoch(ControlBlock& cb, Tick now) noexcept {
  if (cb.congestion.window.epoch_held == 0) return;
  set_epoch_start(cubic(cb), now - cubic(cb).epoch_start);
  cb.congestion.window.epoch_held = 0;
}

// `idle` does not count. The epoch does not begin in the future.
void move_epoch(ControlBlock& cb, Duration idle, Tick now) noexcept {
  CubicState& state = cubic(cb);
  if (cb.congestion.window.epoch_held != 0 || !epoch_runs(state, now) || idle <= Duration::zero()) return;
  const Duration most = ticks_between(state.epoch_start, now);
  set_epoch_start(state, state.epoch_start + static_cast<Tick>(std::min(idle, most).count() / kTickNs));
}

// RFC 9438 4.3, figure 4, in whole segments: w_est grows by alpha for each cwnd acknowledged.
void update_reno_estimate(ControlBlock& cb, std::uint32_t acked) noexcept {
  CubicState& state = cubic(cb);
  const bool caught_up = state.w_est >= cb.congestion.window.cwnd_prior;  // then alpha = 1
  const std::uint64_t for_one =
      caught_up ? cb.cwnd : std::max<std::uint64_t>(cb.cwnd * kAlphaDenominator / kAlphaNumerator, 1);
  const std::uint64_t count = std::uint64_t{state.est_acked} + acked;
  state.w_est += static_cast<std::uint32_t>(count / for_one);
  state.est_acked = static_cast<std::uint32_t>(count % for_one);
}

// How many segments are to be acknowledged for one more, as the curve wants it (RFC 9438 4.4, 4.5).
std::uint32_t for_one_on_curve(const ControlBlock& cb, Tick now) {
  const CubicState& state = cb.congestion.window.cubic;
  const float t = seconds(ticks_between(state.epoch_start, now));
  const float rtt = static_cast<float>(smoothed_rtt_us(cb)) * 1e-6F;
  const auto cwnd = static_cast<float>(cb.cwnd);
  const float more = w_cubic(state, t + rtt) - cwnd;
  const std::uint32_t longest = kStandstillWindows * cb.cwnd;
  if (more * kStandstillWindows <= 1.0F) return longest;
  return std::min(static_cast<std::uint32_t>(cwnd / more), longest);
}

// ... as Reno would have it, where that is faster.
std::uint32_t for_one_as_reno(const ControlBlock& cb) noexcept {
  const CubicState& state = cb.congestion.window.cubic;
  return state.w_est > cb.cwnd ? cb.cwnd / (state.w_est - cb.cwnd) : UINT32_MAX;
}

void avoid_congestion(ControlBlock& cb, std::uint32_t acked, Time now) {
  const Tick tick = to_tick(now);
  release_epoch(cb, tick);
  if (!epoch_runs(cubic(cb), tick)) start_epoch(cb, tick);
  update_reno_estimate(cb, acked);
  std::uint32_t for_one = std::min(for_one_on_curve(cb, tick), for_one_as_reno(cb));
  if (cb.congestion.window.w_max_of_loss == 0) for_one = std::min(for_one, kMostForOneUnknownTop);
  grow_additively(cb, std::max(for_one, kFewestForOne), acked);
}

void init(ControlBlock& cb, Time /*now*/) { hystart_init(cb); }

void grow(ControlBlock& cb, std::uint32_t acked, Time now) {
  if (hystart_running(cb)) {
    hystart_grow(cb, acked);
    return;
  }
  acked = slow_start(cb, acked);
  if (acked > 0) avoid_congestion(cb, acked, now);
}

// What the reduction that begins leaves.
void remember(WindowState& state, std::uint32_t cwnd) noexcept {
  state.cwnd_prior = cwnd & kCwndPriorMask;
  state.w_max_of_loss = 1;
  state.epoch_held = 0;
}

std::uint32_t ssthresh(ControlBlock& cb) {
  if (hystart_running(cb)) hystart_stop(cb);
  CubicState& state = cubic(cb);
  const auto cwnd = static_cast<float>(cb.cwnd);
  // Fast convergence (RFC 9438 4.7): a window that did not come back to the old maximum leaves room for others.
  state.w_max = cwnd < state.w_max ? cwnd * (1 + kBeta) / 2 : cwnd;
  state.epoch_start = 0;
  remember(cb.congestion.window, cb.cwnd);
  return std::max(static_cast<std::uint32_t>(cwnd * kBeta), 2U);
}

void on_delivered(ControlBlock& cb, std::uint32_t /*acked*/, std::uint32_t rtt_us, Time now) {
  if (hystart_running(cb)) {
    hystart_on_ack(cb, rtt_us);
  } else if (!cwnd_was_limit(cb)) {
    hold_epoch(cb, to_tick(now));
  }
}

// RFC 9438 4.8: after a timeout the curve begins where slow start ends, not at what was learnt before.
void on_recovery(ControlBlock& cb, RecoveryState next) {
  if (next != RecoveryState::kLoss) return;
  const std::uint32_t before = cb.congestion.window.cwnd_prior;
  hystart_stop(cb);
  cb.congestion.window.cwnd_prior = before & kCwndPriorMask;
}

void on_event(ControlBlock& cb, CongestionEvent event, Time now) {
  if (event != CongestionEvent::kSendStart || hystart_running(cb)) return;
  const Tick tick = to_tick(now);
  move_epoch(cb, age(cb.last_send, now), tick);
}

}  // namespace

const CongestionOps kCubicOps = {.name = "cubic",
                                 .init = init,
                                 .ssthresh = ssthresh,
                                 .grow = grow,
                                 .undo_cwnd = hystart_undo_cwnd,
                                 .on_delivered = on_delivered,
                                 .on_recovery = on_recovery,
                                 .on_event = on_event};

}  // namespace twinstack::tcp
