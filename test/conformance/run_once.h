// run_once: one run of a script with its moves at given places (runner.cc); where they are to be is move_plan.cc's.
#pragma once

#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "endpoint.h"
#include "epilogue.h"
#include "runner.h"
#include "script.h"

namespace twinstack::conformance {

inline constexpr std::size_t kNoEvent = std::numeric_limits<std::size_t>::max();

// Events before which the first connection of the script moves.
struct Itinerary {
  std::optional<std::size_t> there{};  // not given: as soon as the program has it
  std::size_t back = kNoEvent;
  std::size_t end = kNoEvent;  // of the script: this event and what follows is left out
};

struct RunResult {
  Outcome outcome{};
  std::size_t first_event = 0;                // after the handshake; 0 when no connection was made
  std::vector<std::size_t> drained_events{};  // of those that follow: all that was sent is acknowledged before them
  std::size_t ended_at = 0;                   // the event that failed, or behind the last
  std::optional<Ending> ending{};             // where a connection was there to move
};

[[nodiscard]] RunResult run_once(const Script& script, Endpoint& endpoint, const RunOptions& options,
                                 const Itinerary& itinerary);

}  // namespace twinstack::conformance
