#include "tcp/congestion/bbr_model.h"

#include <algorithm>

#include "tcp/congestion/congestion.h"
#include "tcp/flight.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint64_t kUsPerSecond = 1'000'000;

// Draft 4.3.2.2.
constexpr std::uint64_t kFullPipeGrowth = kBbrUnit * 5 / 4;
constexpr std::uint8_t kFullPipeRounds = 3;

// As Linux.
constexpr std::uint8_t kAggregationRounds = 5;
constexpr std::uint32_t kLongestAggregationEpoch = 1U << 20;  // segments
constexpr Duration kMostAggregation = std::chrono::milliseconds(100);

// As Linux; the reasons are in "An Internet-Wide Analysis of Traffic Policing", SIGCOMM 2016.
constexpr std::uint8_t kPolicerRounds = 4;  // of an interval, at least
constexpr std::uint8_t kPolicerMostRounds = 16;
constexpr std::uint64_t kPolicerLossShare = 50;   // of 256: a fifth lost
constexpr std::uint64_t kPolicerRateShare = 8;    // two intervals agree when they differ by an eighth ...
constexpr std::uint64_t kPolicerRateBytes = 500;  // ... or by so little
constexpr std::uint8_t kPolicerUseRounds = 48;

std::uint64_t rate_of(const ControlBlock& cb, std::uint64_t segments, std::uint64_t us) noexcept {
  return std::min(segments * cb.mss * kUsPerSecond / us, kBbrHighestRate);
}

std::uint64_t us(Duration d) noexcept {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(d).count());
}

// The interval's length in segments lost and delivered is taken from here on.
void start_policer_interval(ControlBlock& cb) noexcept {
  BbrPolicer& policer = cb.bbr->policer;
  policer.since = cb.flight->delivered_at;
  policer.since_delivered = cb.delivered;
  policer.since_lost = cb.lost;
  policer.rounds = 0;
}

bool rates_agree(std::uint64_t a, std::uint64_t b) noexcept {
  const std::uint64_t apart = a > b ? a - b : b - a;
  return apart * kPolicerRateShare <= b || apart <= kPolicerRateBytes;
}

// An interval that lost much is over: two in a row at the same rate are a policer's work.
void end_policer_interval(ControlBlock& cb, std::uint64_t rate) noexcept {
  BbrPolicer& policer = cb.bbr->policer;
  if (policer.rate != 0 && rates_agree(rate, policer.rate)) {
    policer.rate = (rate + policer.rate) / 2;
    policer.in_use = true;
    policer.rounds = 0;
    return;
  }
  policer.rate = rate;
  start_policer_interval(cb);
}

// The interval is long enough and a loss has just ended it.
void judge_policer_interval(ControlBlock& cb) noexcept {
  const BbrPolicer& policer = cb.bbr->policer;
  const std::uint64_t lost = cb.lost - policer.since_lost;
  const std::uint64_t delivered = cb.delivered - policer.since_delivered;
  if (delivered == 0 || lost * kBbrUnit < kPolicerLossShare * delivered) return;
  const Duration took = cb.flight->delivered_at - policer.since;
  if (took < std::chrono::milliseconds(1)) return;
  end_policer_interval(cb, rate_of(cb, delivered, us(took)));
}

void sample_policer(ControlBlock& cb, bool any_lost, bool app_limited) noexcept {
  BbrPolicer& policer = cb.bbr->policer;
  // From the first loss on: before it the bucket's tokens let more through than its rate.
  if (!policer.sampling) {
    if (!any_lost) return;
    start_policer_interval(cb);
    policer.sampling = true;
  }
  if (app_limited) {
    bbr_forget_policer(cb);
    return;
  }
  if (cb.bbr->round_start) ++policer.rounds;
  if (policer.rounds < kPolicerRounds) return;
  if (policer.rounds > kPolicerMostRounds) {
    bbr_forget_policer(cb);
    return;
  }
  if (any_lost) judge_policer_interval(cb);
}

// True when its rate has been used long enough: what the path carries now is to be found out anew.
bool let_policer_go(ControlBlock& cb) noexcept {
  BbrState& bbr = *cb.bbr;
  if (bbr.mode != BbrMode::kProbeBandwidth || !bbr.round_start) return false;
  if (++bbr.policer.rounds < kPolicerUseRounds) return false;
  bbr_forget_policer(cb);
  return true;
}

bool watch_policer(ControlBlock& cb, bool any_lost, bool app_limited) noexcept {
  if (cb.bbr->policer.in_use) return let_policer_go(cb);
  sample_policer(cb, any_lost, app_limited);
  return false;
}

void count_round(ControlBlock& cb, const RateSample& sample) noexcept {
  BbrState& bbr = *cb.bbr;
  if (static_cast<std::int32_t>(sample.prior_delivered - bbr.round_end) < 0) return;
  bbr.round_end = cb.delivered;
  ++bbr.rounds;
  bbr.round_start = true;
  bbr.conserving = false;
}

void age_aggregation(BbrState& bbr) noexcept {
  BbrAggregation& aggregation = bbr.aggregation;
  if (!bbr.round_start || ++aggregation.rounds < kAggregationRounds) return;
  aggregation.rounds = 0;
  aggregation.current ^= 1U;
  aggregation.extra[aggregation.current] = 0;
}

}  // namespace

std::uint64_t bbr_bandwidth(const BbrState& bbr) noexcept {
  return bbr.policer.in_use ? bbr.policer.rate : bbr.bandwidth.value();
}

std::uint32_t bbr_bdp(const ControlBlock& cb, std::uint64_t bandwidth, std::uint32_t gain) noexcept {
  const BbrState& bbr = *cb.bbr;
  if (bbr.min_rtt_us == 0) return kInitialWindow;
  const std::uint64_t bytes = bandwidth * std::min(bbr.min_rtt_us, kBbrLongestRttUs) / kUsPerSecond;
  const std::uint64_t one = std::uint64_t{cb.mss} * kBbrUnit;
  // Rounded up: a product that shrinks by rounding would be what is measured next.
  return static_cast<std::uint32_t>(std::min<std::uint64_t>((bytes * gain + one - 1) / one, UINT32_MAX / 2));
}

std::uint32_t bbr_delivered_in(const ControlBlock& cb, std::uint64_t bandwidth, Duration time) noexcept {
  const Duration bounded = std::clamp<Duration>(time, Duration::zero(), std::chrono::microseconds(kBbrLongestRttUs));
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(bandwidth * us(bounded) / kUsPerSecond / cb.mss, UINT32_MAX));
}

std::uint32_t bbr_aggregation_allowance(const ControlBlock& cb) noexcept {
  const BbrState& bbr = *cb.bbr;
  if (!bbr.full_pipe.reached) return 0;
  const std::uint32_t extra = std::max(bbr.aggregation.extra[0], bbr.aggregation.extra[1]);
  return std::min(extra, bbr_delivered_in(cb, bbr_bandwidth(bbr), kMostAggregation));
}

bool bbr_update_bandwidth(ControlBlock& cb, const RateSample& sample) noexcept {
  BbrState& bbr = *cb.bbr;
  bbr.round_start = false;
  if (!sample.valid) return false;
  count_round(cb, sample);
  const bool policer_gone = watch_policer(cb, sample.newly_lost > 0, sample.app_limited);
  const std::uint64_t rate = rate_of(cb, sample.delivered, sample.interval_us);
  // What the program limited says nothing, unless it is more than what was known (draft 4.1.1.5).
  if (!sample.app_limited || rate >= bbr.bandwidth.value()) bbr.bandwidth.take(bbr.rounds, rate);
  return policer_gone;
}

void bbr_update_aggregation(ControlBlock& cb, const RateSample& sample) noexcept {
  BbrState& bbr = *cb.bbr;
  BbrAggregation& aggregation = bbr.aggregation;
  if (sample.newly_delivered == 0 || !sample.valid) return;
  age_aggregation(bbr);
  const Time now = cb.flight->delivered_at;
  std::uint32_t expected = bbr_delivered_in(cb, bbr_bandwidth(bbr), now - aggregation.epoch);
  // Slower than expected, or an old epoch: a new one.
  if (aggregation.acked <= expected || aggregation.acked + sample.newly_delivered >= kLongestAggregationEpoch) {
    aggregation.acked = 0;
    aggregation.epoch = now;
    expected = 0;
  }
  aggregation.acked += sample.newly_delivered;
  std::uint32_t& extra = aggregation.extra[aggregation.current];
  extra = std::max(extra, std::min(aggregation.acked - expected, cb.cwnd));
}

void bbr_update_full_pipe(BbrState& bbr, bool app_limited) noexcept {
  BbrFullPipe& pipe = bbr.full_pipe;
  if (pipe.reached || !bbr.round_start || app_limited) return;
  if (bbr.bandwidth.value() >= pipe.bandwidth * kFullPipeGrowth / kBbrUnit) {
    pipe.bandwidth = bbr.bandwidth.value();
    pipe.rounds = 0;
    return;
  }
  pipe.reached = ++pipe.rounds >= kFullPipeRounds;
}

void bbr_model_on_timeout(ControlBlock& cb) noexcept {
  cb.bbr->full_pipe.bandwidth = 0;
  cb.bbr->round_start = true;
  watch_policer(cb, true, false);
}

void bbr_forget_policer(ControlBlock& cb) noexcept {
  cb.bbr->policer = BbrPolicer{};
  start_policer_interval(cb);
}

}  // namespace twinstack::tcp
