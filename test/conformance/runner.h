// runner: carries a script out on an endpoint and says whether the host did what it wants. The order is strict: every
// segment that the host sends is to be expected, in its order and at its time. Single thread.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "endpoint.h"
#include "script.h"

namespace twinstack::conformance {

// Moves that the runner makes between the steps of a script, where the backend has two stacks.
enum class MovePlan : std::uint8_t {
  kNone,
  kAfterHandshake,  // to the engine as soon as the program has the connection
  kRoundTrip,       // ... and back to the kernel in the middle of what follows
  kAnywhere,        // a round trip between any two events; only what it must not change is looked at
};

struct RunOptions {
  MovePlan moves = MovePlan::kNone;
};

enum class Verdict : std::uint8_t { kPassed, kFailed, kSkipped };

struct Outcome {
  Verdict verdict = Verdict::kPassed;
  std::size_t line = 0;              // of the event that failed
  std::string reason{};              // why it failed or was skipped
  std::vector<std::string> trace{};  // what happened, a line each
  unsigned moves = 0;                // that the runner asked for, and that were made
  // What a move, or the stream, has suffered, whatever the script expects. With it the verdict is kFailed.
  std::string damage{};
};

[[nodiscard]] Outcome run_script(const Script& script, Endpoint& endpoint, const RunOptions& options = {});

}  // namespace twinstack::conformance
