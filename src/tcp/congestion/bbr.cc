#include "tcp/congestion/bbr.h"

#include <algorithm>
#include <array>

#include "base/assert.h"
#include "base/rng.h"
#include "tcp/congestion/bbr_model.h"
#include "tcp/congestion/bbr_state.h"
#include "tcp/flight.h"
#include "tcp/min_tcp.h"
#include "tcp/pacing.h"

namespace twinstack::tcp {

namespace {

// Draft 4.1.2.2, 4.3.5.
constexpr Duration kMinRttWindow = std::chrono::seconds(10);
constexpr Duration kProbeRttTime = std::chrono::milliseconds(200);
// Draft 4.2.1: sends a little less than the bandwidth, so that queues drain.
constexpr std::uint64_t kPacingMarginPercent = 1;
// Draft 4.3.2: 2/ln 2 is the smallest gain that doubles the rate every round. Rounded as Linux does.
constexpr std::uint32_t kStartupGain = kBbrUnit * 2885 / 1000 + 1;
constexpr std::uint32_t kDrainGain = kBbrUnit * 1000 / 2885;
constexpr std::uint32_t kCwndGain = kBbrUnit * 2;
constexpr std::uint32_t kSmallestCwnd = 4;
// Draft 4.3.4.3: look for more, give back what that has queued, cruise.
constexpr std::array<std::uint32_t, 8> kCycle = {kBbrUnit * 5 / 4, kBbrUnit * 3 / 4, kBbrUnit, kBbrUnit,
                                                 kBbrUnit,         kBbrUnit,         kBbrUnit, kBbrUnit};
constexpr std::uint8_t kProbingPhase = 0;
constexpr std::uint32_t kFirstPhases = 7;  // the cycle begins anywhere but in the phase that gives back

constexpr std::uint32_t kGuessedRttUs = 1000;  // before the first sample
// What leaves in one go: a millisecond's worth (pacing.cc), and no more than Linux's largest super-packet.
constexpr std::uint64_t kBurstsPerSecond = 1024;
constexpr std::uint64_t kLargestBurstBytes = 65'536 - 1 - 320;
constexpr std::uint64_t kSingleSegmentRate = 1'200'000 / 8;
constexpr std::uint32_t kLargestBurst = 127;

BbrState& state_of(ControlBlock& cb) noexcept {
  ASSERT(cb.bbr != nullptr);
  return *cb.bbr;
}

// ---- Rate.

std::uint64_t with_gain(std::uint64_t bandwidth, std::uint32_t gain) noexcept {
  return bandwidth * gain / kBbrUnit * (100 - kPacingMarginPercent) / 100;
}

// The initial window, or what there is, in a round trip.
std::uint64_t guessed_rate(const ControlBlock& cb) noexcept {
  const std::uint64_t rtt_us = cb.srtt_us8 != 0 ? std::max(smoothed_rtt_us(cb), 1U) : kGuessedRttUs;
  const std::uint64_t bandwidth = std::uint64_t{cb.cwnd} * cb.mss * 1'000'000 / rtt_us;
  return with_gain(std::min(bandwidth, kBbrHighestRate), kStartupGain);
}

// Draft 4.2.1: until the pipe is full the rate does not fall.
void set_pacing_rate(ControlBlock& cb, std::uint32_t gain) noexcept {
  BbrState& bbr = state_of(cb);
  if (!bbr.rtt_seen && cb.srtt_us8 != 0) {
    bbr.rtt_seen = true;
    bbr.pacing_rate = guessed_rate(cb);
  }
  const std::uint64_t rate = with_gain(bbr_bandwidth(bbr), gain);
  if (bbr.full_pipe.reached || rate > bbr.pacing_rate) bbr.pacing_rate = rate;
}

// ---- Window.

std::uint32_t burst_segments(const ControlBlock& cb) noexcept {
  const std::uint64_t rate = cb.bbr->pacing_rate;
  const std::uint64_t bytes = std::min(rate / kBurstsPerSecond, kLargestBurstBytes);
  const std::uint64_t least = rate < kSingleSegmentRate ? 1 : 2;
  return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(bytes / cb.mss, least, kLargestBurst));
}

// Room for bursts on their way through both hosts, for delayed ACKs, and for the probe of a very short path (draft
// 4.2.3.2, as Linux).
std::uint32_t with_slack(const ControlBlock& cb, std::uint32_t cwnd) noexcept {
  cwnd += 3 * burst_segments(cb);
  cwnd = (cwnd + 1) & ~1U;
  const bool probing = cb.bbr->mode == BbrMode::kProbeBandwidth && cb.bbr->phase == kProbingPhase;
  return probing ? cwnd + 2 : cwnd;
}

std::uint32_t inflight_goal(const ControlBlock& cb, std::uint32_t gain) noexcept {
  return with_slack(cb, bbr_bdp(cb, cb.bbr->bandwidth.value(), gain));
}

// Draft 4.2.3.4: remembers a good window before recovery or kProbeRtt lowers it.
void save_cwnd(ControlBlock& cb) noexcept {
  BbrState& bbr = state_of(cb);
  const bool lowered = bbr.prior_recovery >= RecoveryState::kRecovery || bbr.mode == BbrMode::kProbeRtt;
  bbr.prior_cwnd = lowered ? std::max(bbr.prior_cwnd, cb.cwnd) : cb.cwnd;
}

// Draft 4.2.3.4. The window that recovery leaves, and whether it is all there is to say.
struct RecoveryWindow {
  std::uint32_t cwnd = 0;
  bool conserving = false;
};

RecoveryWindow modulate_for_recovery(ControlBlock& cb, const RateSample& sample) noexcept {
  BbrState& bbr = state_of(cb);
  const std::uint32_t for_a_packet = packets_in_flight(cb) + sample.newly_delivered;
  const bool was_in = bbr.prior_recovery >= RecoveryState::kRecovery;
  std::uint32_t cwnd = cb.cwnd > sample.newly_lost ? cb.cwnd - sample.newly_lost : 1;
  if (cb.recovery == RecoveryState::kRecovery && bbr.prior_recovery != RecoveryState::kRecovery) {
    bbr.conserving = true;
    bbr.round_end = cb.delivered;
    cwnd = for_a_packet;
  } else if (was_in && cb.recovery < RecoveryState::kRecovery) {
    cwnd = std::max(cwnd, bbr.prior_cwnd);
    bbr.conserving = false;
  }
  bbr.prior_recovery = cb.recovery;
  if (bbr.conserving) cwnd = std::max(cwnd, for_a_packet);
  return {cwnd, bbr.conserving};
}

// Draft 4.2.3.6: towards the target, by what was delivered; only a full pipe cuts it down.
std::uint32_t grow_to_target(const ControlBlock& cb, std::uint32_t cwnd, std::uint32_t delivered) noexcept {
  const BbrState& bbr = *cb.bbr;
  const std::uint32_t product = bbr_bdp(cb, bbr_bandwidth(bbr), bbr.cwnd_gain);
  const std::uint32_t target = with_slack(cb, product + bbr_aggregation_allowance(cb));
  if (bbr.full_pipe.reached) {
    cwnd = std::min(cwnd + delivered, target);
  } else if (cwnd < target || cb.delivered < kInitialWindow) {
    cwnd += delivered;
  }
  return std::max(cwnd, kSmallestCwnd);
}

void set_window(ControlBlock& cb, const RateSample& sample) noexcept {
  std::uint32_t cwnd = cb.cwnd;
  if (sample.newly_delivered > 0) {
    const RecoveryWindow window = modulate_for_recovery(cb, sample);
    cwnd = window.conserving ? window.cwnd : grow_to_target(cb, window.cwnd, sample.newly_delivered);
  }
  if (cb.bbr->mode == BbrMode::kProbeRtt) cwnd = std::min(cwnd, kSmallestCwnd);
  set_cwnd(cb, cwnd);
}

// ---- Modes.

Time delivered_at(const ControlBlock& cb) noexcept { return cb.flight ? cb.flight->delivered_at : Time{}; }

void next_phase(ControlBlock& cb) noexcept {
  BbrState& bbr = state_of(cb);
  bbr.phase = static_cast<std::uint8_t>((bbr.phase + 1) % kCycle.size());
  bbr.phase_start = delivered_at(cb);
}

// Flows that share a path should not probe in step.
std::uint32_t random_phase(const ControlBlock& cb) noexcept {
  const std::uint64_t where = (std::uint64_t{cb.snd_nxt.raw()} << 32) | cb.rcv_nxt.raw();
  const std::uint64_t when = (std::uint64_t{cb.delivered} << 32) | cb.bbr->min_rtt_us;
  return Rng(where ^ (when * 0x9e3779b97f4a7c15U)).below(kFirstPhases);
}

void enter_probe_bandwidth(ControlBlock& cb) noexcept {
  BbrState& bbr = state_of(cb);
  bbr.mode = BbrMode::kProbeBandwidth;
  bbr.phase = static_cast<std::uint8_t>(kCycle.size() - 1 - random_phase(cb));
  next_phase(cb);
}

void leave_probe_rtt(ControlBlock& cb) noexcept {
  if (cb.bbr->full_pipe.reached) {
    enter_probe_bandwidth(cb);
  } else {
    cb.bbr->mode = BbrMode::kStartup;
  }
}

// What of the flight will be in the network when pacing lets the next segment go.
std::uint32_t in_network_at_departure(const ControlBlock& cb, std::uint32_t in_flight, Time now) noexcept {
  const BbrState& bbr = *cb.bbr;
  const Duration wait = pacing_release(cb) - now;
  if (bbr.pacing_gain > kBbrUnit) in_flight += burst_segments(cb);  // with the segment that departs
  const std::uint32_t gone = bbr_delivered_in(cb, bbr_bandwidth(bbr), wait);
  return in_flight > gone ? in_flight - gone : 0;
}

// Draft 4.3.4.3: a phase lasts a round trip; one that probes until its queue is there, one that drains until it is
// gone.
bool phase_is_over(const ControlBlock& cb, const RateSample& sample, Time now) noexcept {
  const BbrState& bbr = *cb.bbr;
  const Duration length = cb.flight->delivered_at - bbr.phase_start;
  const bool full_length = length > std::chrono::microseconds(bbr.min_rtt_us);
  if (bbr.pacing_gain == kBbrUnit) return full_length;
  const std::uint32_t in_flight = in_network_at_departure(cb, sample.prior_in_flight, now);
  if (bbr.pacing_gain < kBbrUnit) return full_length || in_flight <= inflight_goal(cb, kBbrUnit);
  // Losses: the buffer does not hold so much.
  return full_length && (sample.newly_lost > 0 || in_flight >= inflight_goal(cb, bbr.pacing_gain));
}

void check_drain(ControlBlock& cb, Time now) noexcept {
  BbrState& bbr = state_of(cb);
  if (bbr.mode == BbrMode::kStartup && bbr.full_pipe.reached) {
    bbr.mode = BbrMode::kDrain;
    cb.ssthresh = inflight_goal(cb, kBbrUnit);  // for tcp_info, as Linux; nothing here reads it
  }
  if (bbr.mode != BbrMode::kDrain) return;
  if (in_network_at_departure(cb, packets_in_flight(cb), now) <= inflight_goal(cb, kBbrUnit)) enter_probe_bandwidth(cb);
}

void end_probe_rtt_if_done(ControlBlock& cb, Time now) noexcept {
  BbrState& bbr = state_of(cb);
  if (bbr.probe_rtt_done == kNever || now <= bbr.probe_rtt_done) return;
  bbr.min_rtt_at = now;
  set_cwnd(cb, std::max(cb.cwnd, bbr.prior_cwnd));
  leave_probe_rtt(cb);
}

// Draft 4.3.5: 200 ms and a round with a small flight.
void probe_rtt(ControlBlock& cb, Time now) noexcept {
  BbrState& bbr = state_of(cb);
  // What this measures is not the path's bandwidth.
  cb.app_limited = std::max(cb.delivered + packets_in_flight(cb), 1U);
  if (bbr.probe_rtt_done == kNever) {
    if (packets_in_flight(cb) > kSmallestCwnd) return;
    bbr.probe_rtt_done = now + kProbeRttTime;
    bbr.probe_rtt_round_done = false;
    bbr.round_end = cb.delivered;
    return;
  }
  if (bbr.round_start) bbr.probe_rtt_round_done = true;
  if (bbr.probe_rtt_round_done) end_probe_rtt_if_done(cb, now);
}

// Draft 4.1.2.3.
void update_min_rtt(ControlBlock& cb, const RateSample& sample, Time now) noexcept {
  BbrState& bbr = state_of(cb);
  const bool expired = now > bbr.min_rtt_at + kMinRttWindow;
  // Equal ones do not put the next probe off: round trips in whole milliseconds would do so for ever (as Linux).
  const bool shorter = bbr.min_rtt_us == 0 || sample.rtt_us < bbr.min_rtt_us;
  if (sample.rtt_us != 0 && (shorter || (expired && !sample.ack_delayed))) {
    bbr.min_rtt_us = sample.rtt_us;
    bbr.min_rtt_at = now;
  }
  if (expired && !bbr.idle_restart && bbr.mode != BbrMode::kProbeRtt) {
    bbr.mode = BbrMode::kProbeRtt;
    save_cwnd(cb);
    bbr.probe_rtt_done = kNever;
  }
  if (bbr.mode == BbrMode::kProbeRtt) probe_rtt(cb, now);
  if (sample.known && cb.delivered != sample.prior_delivered) bbr.idle_restart = false;
}

void update_gains(BbrState& bbr) noexcept {
  switch (bbr.mode) {
    case BbrMode::kStartup:
      bbr.pacing_gain = kStartupGain;
      bbr.cwnd_gain = kStartupGain;
      break;
    case BbrMode::kDrain:
      bbr.pacing_gain = kDrainGain;
      bbr.cwnd_gain = kStartupGain;
      break;
    case BbrMode::kProbeBandwidth:
      bbr.pacing_gain = bbr.policer.in_use ? kBbrUnit : kCycle[bbr.phase];
      bbr.cwnd_gain = kCwndGain;
      break;
    case BbrMode::kProbeRtt:
      bbr.pacing_gain = kBbrUnit;
      bbr.cwnd_gain = kBbrUnit;
  }
}

void update_model(ControlBlock& cb, const RateSample& sample, Time now) noexcept {
  BbrState& bbr = state_of(cb);
  if (bbr_update_bandwidth(cb, sample)) enter_probe_bandwidth(cb);
  bbr_update_aggregation(cb, sample);
  if (bbr.mode == BbrMode::kProbeBandwidth && phase_is_over(cb, sample, now)) next_phase(cb);
  bbr_update_full_pipe(bbr, sample.app_limited);
  check_drain(cb, now);
  update_min_rtt(cb, sample, now);
  update_gains(bbr);
}

// ---- The table.

void init(ControlBlock& cb, Time now) {
  cb.bbr.reset(new BbrState);
  cb.ssthresh = kInfiniteSsthresh;
  BbrState& bbr = *cb.bbr;
  bbr.min_rtt_us = cb.min_rtt_us;
  bbr.min_rtt_at = now;
  bbr.round_end = cb.delivered;
  bbr.aggregation.epoch = now;
  bbr.rtt_seen = cb.srtt_us8 != 0;
  bbr.pacing_rate = guessed_rate(cb);
  update_gains(bbr);
}

void control(ControlBlock& cb, const RateSample& sample, Time now) {
  update_model(cb, sample, now);
  set_pacing_rate(cb, cb.bbr->pacing_gain);
  set_window(cb, sample);
}

// A loss lowers nothing by itself.
std::uint32_t ssthresh(ControlBlock& cb) {
  save_cwnd(cb);
  return cb.ssthresh;
}

// The slow-down that was for nothing may have looked like a full pipe or a policer.
std::uint32_t undo_cwnd(ControlBlock& cb) {
  cb.bbr->full_pipe.bandwidth = 0;
  cb.bbr->full_pipe.rounds = 0;
  bbr_forget_policer(cb);
  return cb.cwnd;
}

void on_recovery(ControlBlock& cb, RecoveryState next) {
  if (next != RecoveryState::kLoss) return;
  state_of(cb).prior_recovery = RecoveryState::kLoss;
  bbr_model_on_timeout(cb);
}

// Draft 4.3.4.4: after idleness no burst at more than the bandwidth.
void on_event(ControlBlock& cb, CongestionEvent event, Time now) {
  if (event != CongestionEvent::kSendStart || cb.app_limited == 0) return;
  BbrState& bbr = state_of(cb);
  bbr.idle_restart = true;
  bbr.aggregation.epoch = now;
  bbr.aggregation.acked = 0;
  if (bbr.mode == BbrMode::kProbeBandwidth) set_pacing_rate(cb, kBbrUnit);
  if (bbr.mode == BbrMode::kProbeRtt) end_probe_rtt_if_done(cb, now);
}

std::uint64_t pacing_rate(const ControlBlock& cb) { return cb.bbr->pacing_rate; }

void tell(const ControlBlock& cb, MeasuredPath& measured) {
  const BbrInfo info = bbr_info(cb);
  measured.bbr_bandwidth = info.bandwidth;
  measured.bbr_min_rtt_us = info.min_rtt_us;
  measured.bbr_pacing_gain = static_cast<std::uint16_t>(info.pacing_gain);
  measured.bbr_cwnd_gain = static_cast<std::uint16_t>(info.cwnd_gain);
}

void take(ControlBlock& cb, const MeasuredPath& measured) {
  bbr_seed(cb, {.bandwidth = measured.bbr_bandwidth,
                .min_rtt_us = measured.bbr_min_rtt_us,
                .pacing_gain = measured.bbr_pacing_gain,
                .cwnd_gain = measured.bbr_cwnd_gain});
}

}  // namespace

void BbrStateDeleter::operator()(BbrState* bbr) const noexcept { delete bbr; }

BbrInfo bbr_info(const ControlBlock& cb) noexcept {
  const BbrState& bbr = *cb.bbr;
  return {.bandwidth = bbr_bandwidth(bbr),
          .min_rtt_us = bbr.min_rtt_us != 0 ? bbr.min_rtt_us : UINT32_MAX,
          .pacing_gain = bbr.pacing_gain,
          .cwnd_gain = bbr.cwnd_gain};
}

void bbr_seed(ControlBlock& cb, const BbrInfo& measured) {
  if (measured.bandwidth == 0) return;
  BbrState& bbr = state_of(cb);
  bbr.bandwidth.take(bbr.rounds, std::min(measured.bandwidth, kBbrHighestRate));
  const bool any_rtt = measured.min_rtt_us != 0 && measured.min_rtt_us != UINT32_MAX;
  if (any_rtt) bbr.min_rtt_us = std::min(measured.min_rtt_us, kBbrLongestRttUs);
  const bool starting = measured.cwnd_gain > kCwndGain;
  bbr.full_pipe.reached = !starting || measured.pacing_gain < kBbrUnit;
  if (!starting) {
    enter_probe_bandwidth(cb);
  } else if (bbr.full_pipe.reached) {
    bbr.mode = BbrMode::kDrain;
  }
  update_gains(bbr);
  set_pacing_rate(cb, bbr.pacing_gain);
}

void bbr_seed(ControlBlock& cb, std::uint64_t bandwidth, std::uint32_t min_rtt_us) {
  bbr_seed(cb, {.bandwidth = bandwidth, .min_rtt_us = min_rtt_us, .pacing_gain = kBbrUnit, .cwnd_gain = kCwndGain});
}

const CongestionOps kBbrOps = {.name = "bbr",
                               .init = init,
                               .ssthresh = ssthresh,
                               .grow = nullptr,
                               .undo_cwnd = undo_cwnd,
                               .on_recovery = on_recovery,
                               .on_event = on_event,
                               .control = control,
                               .tell = tell,
                               .take = take,
                               .pacing_rate = pacing_rate};

}  // namespace twinstack::tcp
