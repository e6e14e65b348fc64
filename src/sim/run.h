// Runs of the simulator: one seed, in this process or in a child that may abort or hang; and what is told of a failure:
// the command that repeats it, and the shortest list of events that still leads there.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "sim/event.h"
#include "sim/options.h"
#include "sim/world.h"

namespace twinstack::sim {

// In this process; an ASSERT of the product aborts it. `clock`: is told the time as it goes on.
[[nodiscard]] Outcome run_here(const Options& options, Time* clock = nullptr);
// In a child process: an abort, a fatal signal and an endless loop are failures as others are. Any thread.
[[nodiscard]] Outcome run_guarded(const Options& options);

struct Failed {
  std::uint64_t seed = 0;
  Outcome outcome;
};
// `count` seeds from options.seed on, `jobs` at a time, each in a child; `note` is told of each, by one thread at a
// time. Those that failed, in order; without `keep_going` the first ends it.
[[nodiscard]] std::vector<Failed> run_seeds(const Options& options, std::uint64_t count, unsigned jobs, bool keep_going,
                                            const std::function<void(std::uint64_t, const Outcome&)>& note);

// For --congestion: as Options::congestion_controls says of none.
inline constexpr const char* kFirstCongestion = "first";
// "twinstack sim --seed 7 --connections 4"; with `only` when the options have it.
[[nodiscard]] std::string command_for(const Options& options);

// What a failure is called when its numbers are left out: two runs with the same name failed in the same way.
[[nodiscard]] std::string failure_name(const std::string& failure);

// Of a shrink, wall time: each run of a failure that is a hang lasts until its child is given up.
inline constexpr std::chrono::seconds kLongestShrink = std::chrono::minutes(10);

struct Shrunk {
  std::vector<Event> events;  // without any one of them it does not fail, as far as runs and time allowed to try
  Options options;            // with `only`
  std::uint32_t runs = 0;
};
// Whole kinds of events and whole connections first, then by delta debugging. `runs` in a child each; no run begins
// after `most_runs` of them or `longest`. REQUIRES: failed is the outcome of `options`.
[[nodiscard]] Shrunk shrink(const Options& options, const Outcome& failed, std::uint32_t most_runs = 1000,
                            const std::function<Outcome(const Options&)>& runs = run_guarded,
                            std::chrono::nanoseconds longest = kLongestShrink);

}  // namespace twinstack::sim
