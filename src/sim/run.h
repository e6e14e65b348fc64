// Runs of the simulator: one seed, in this process or in a child that may abort or hang; and what is told of a failure:
// the command that repeats it, and the shortest list of events that still leads there.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "sim/event.h"
#include "sim/options.h"
#include "sim/world.h"

namespace twinstack::sim {

// In this process; an ASSERT of the product aborts it.
[[nodiscard]] Outcome run_here(const Options& options);
// In a child process: an abort, a fatal signal and an endless loop are failures as others are.
[[nodiscard]] Outcome run_guarded(const Options& options);

// "twinstack sim --seed 7 --connections 4"; with `only` when the options have it.
[[nodiscard]] std::string command_for(const Options& options);

// What a failure is called when its numbers are left out: two runs with the same name failed in the same way.
[[nodiscard]] std::string failure_name(const std::string& failure);

struct Shrunk {
  std::vector<Event> events;  // without any one of them it does not fail, as far as `runs` allowed to try
  Options options;            // with `only`
  std::uint32_t runs = 0;
};
// By delta debugging. `runs` in a child each; `most_runs` bounds it. REQUIRES: failed is the outcome of `options`.
[[nodiscard]] Shrunk shrink(const Options& options, const Outcome& failed, std::uint32_t most_runs = 400,
                            const std::function<Outcome(const Options&)>& runs = run_guarded);

}  // namespace twinstack::sim
