// BbrState: BBR's model of the path and where it stands in its state machine. Owned by ControlBlock::bbr from init()
// on, for as long as BBR is in charge; too large for CongestionState. Plain data; bbr_model.cc and bbr.cc act on it.
//
// Rates in bytes a second, gains in 1/256 (as tcp_bbr_info has them), windows and counts in segments.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "base/clock.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

inline constexpr std::uint32_t kBbrUnit = 256;  // gain 1

// The largest value of the last `kRounds` rounds, looked at when a value comes: without new ones nothing is forgotten.
class RoundMax {
 public:
  static constexpr std::uint32_t kRounds = 10;

  [[nodiscard]] std::uint64_t value() const noexcept { return max_; }

  // REQUIRES: `round` is not before that of the last call.
  void take(std::uint32_t round, std::uint64_t value) noexcept {
    if (round - newest_ >= kRounds) {
      best_.fill(0);
    } else {
      for (std::uint32_t r = newest_ + 1; r != round + 1; ++r) best_[r % kRounds] = 0;
    }
    newest_ = round;
    std::uint64_t& best = best_[round % kRounds];
    best = std::max(best, value);
    max_ = *std::max_element(best_.begin(), best_.end());
  }

 private:
  std::array<std::uint64_t, kRounds> best_{};  // of round r at r % kRounds
  std::uint64_t max_ = 0;
  std::uint32_t newest_ = 0;
};

enum class BbrMode : std::uint8_t {
  kStartup,         // doubles the rate every round until the pipe is full
  kDrain,           // takes the queue away that this has made
  kProbeBandwidth,  // cycles around the bandwidth found
  kProbeRtt,        // next to nothing in flight, for a look at the empty path
};

// How full the pipe is (draft-cardwell-iccrg-bbr-congestion-control-00 4.3.2.2).
struct BbrFullPipe {
  std::uint64_t bandwidth = 0;  // when it last grew by a quarter
  std::uint8_t rounds = 0;      // since
  bool reached = false;
};

// How much more is acknowledged at once than the bandwidth explains.
struct BbrAggregation {
  Time epoch{};
  std::uint32_t acked = 0;               // in the epoch
  std::array<std::uint32_t, 2> extra{};  // largest excess: of these rounds, and of those before
  std::uint8_t current = 0;              // which of the two
  std::uint8_t rounds = 0;               // age of extra[current]
};

// A token bucket in the path: the long-term rate that it lets through.
struct BbrPolicer {
  Time since{};  // start of the interval
  std::uint64_t rate = 0;
  std::uint32_t since_delivered = 0;
  std::uint32_t since_lost = 0;
  std::uint8_t rounds = 0;  // in the interval, or of use
  bool sampling = false;
  bool in_use = false;
};

struct BbrState {
  // The model.
  RoundMax bandwidth;
  std::uint32_t min_rtt_us = 0;  // 0 = no sample yet
  Time min_rtt_at{};
  BbrAggregation aggregation;
  BbrPolicer policer;
  BbrFullPipe full_pipe;

  // Rounds: a round trip, counted by what is delivered.
  std::uint32_t rounds = 0;
  std::uint32_t round_end = 0;  // ControlBlock::delivered at which the next one begins
  bool round_start = false;     // this ACK began one

  BbrMode mode = BbrMode::kStartup;
  RecoveryState prior_recovery = RecoveryState::kOpen;  // at the last ACK
  bool conserving = false;                              // a packet for a packet: the first round of recovery
  bool idle_restart = false;                            // sending began anew, no ACK has come since
  bool rtt_seen = false;                                // pacing_rate no longer rests on a guess
  bool probe_rtt_round_done = false;
  std::uint8_t phase = 0;  // of kProbeBandwidth's cycle
  Time phase_start{};
  Time probe_rtt_done = kNever;  // when kProbeRtt may end; kNever = the flight is not small yet
  std::uint32_t prior_cwnd = 0;  // before recovery or kProbeRtt lowered it
  std::uint32_t pacing_gain = kBbrUnit;
  std::uint32_t cwnd_gain = kBbrUnit;
  std::uint64_t pacing_rate = 0;
};

}  // namespace twinstack::tcp
