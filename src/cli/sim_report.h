// What `twinstack sim` says of its runs, for people and as JSON.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "sim/run.h"

namespace twinstack::cli {

using Seconds = std::chrono::duration<double>;

struct SimFailure {
  std::uint64_t seed = 0;
  std::string what;
  double at_s = 0;  // of virtual time
  sim::Shrunk shrunk;
};

struct SimTally {
  std::uint64_t seeds = 0;
  std::vector<SimFailure> failures;
  sim::Totals totals;
  sim::Coverage coverage;
  double wall_s = 0;

  [[nodiscard]] double moves_per_s() const {
    return wall_s > 0 ? static_cast<double>(totals.moves_out + totals.moves_back) / wall_s : 0;
  }
};

// The failure with its events cut down in at most `most_runs`; 0: not at all. `runs` makes them.
[[nodiscard]] SimFailure explain(const sim::Options& options, const sim::Failed& failed, std::uint32_t most_runs,
                                 const std::function<sim::Outcome(const sim::Options&)>& runs = sim::run_guarded);

// Seed, time, what is wrong, the commands that repeat it, whole and shrunk, and the events that it takes.
[[nodiscard]] std::string text_of(const SimFailure& failure);
[[nodiscard]] std::string text_of(const sim::Totals& totals);
[[nodiscard]] nlohmann::json json_of(const SimTally& tally);

}  // namespace twinstack::cli
