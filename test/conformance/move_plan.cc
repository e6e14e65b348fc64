// Where the moves of a script are: run_script() for each MovePlan.
#include <algorithm>

#include "run_once.h"
#include "runner.h"

namespace twinstack::conformance {
namespace {

// The driver drains before a return: the nearest to the middle of what follows the handshake where all that was sent is
// acknowledged. Where that is, a run without the return tells.
std::size_t find_way_back(const Script& script, Endpoint& endpoint) {
  const RunResult there = run_once(script, endpoint, {.moves = MovePlan::kAfterHandshake}, {});
  const std::size_t middle = (there.first_event + script.events.size()) / 2;
  std::size_t best = middle;
  std::size_t best_distance = kNoEvent;
  for (const std::size_t event : there.drained_events) {
    const std::size_t distance = event > middle ? event - middle : middle - event;
    if (distance <= best_distance) best = event;
    best_distance = std::min(best_distance, distance);
  }
  return best;
}

// What is missing behind the script is damage, unless it is missing as well when nothing moves and the script ends at
// the same event: a RST of the peer, say, has ended the connection.
void look_at_ending(const Script& script, Endpoint& endpoint, const RunOptions& options, RunResult& run) {
  if (run.outcome.damage.empty() && run.ending.has_value() && !run.ending->is_whole()) {
    const RunResult unmoved = run_once(script, endpoint, options, {.there = kNoEvent, .end = run.ended_at});
    if (unmoved.ending.has_value()) run.outcome.damage = run.ending->worse_than(*unmoved.ending);
  }
  if (run.outcome.damage.empty() || run.outcome.verdict == Verdict::kFailed) return;
  run.outcome.verdict = Verdict::kFailed;
  run.outcome.line = script.events.back().line;
  run.outcome.reason = "a move has broken the connection: " + run.outcome.damage;
}

// A round trip between any two events, one at a time. What the script expects need not hold with it; what is damaged
// fails.
Outcome move_anywhere(const Script& script, Endpoint& endpoint) {
  const RunOptions options{.moves = MovePlan::kAnywhere};
  RunResult unmoved = run_once(script, endpoint, options, {.there = kNoEvent});
  Outcome& outcome = unmoved.outcome;
  if (outcome.verdict == Verdict::kSkipped || unmoved.first_event == 0) return outcome;
  for (std::size_t event = unmoved.first_event; event < script.events.size(); ++event) {
    RunResult run = run_once(script, endpoint, options, {.there = event, .back = event + 1});
    outcome.moves += run.outcome.moves;
    look_at_ending(script, endpoint, options, run);
    if (run.outcome.damage.empty()) continue;
    run.outcome.verdict = Verdict::kFailed;
    run.outcome.line = script.events[event].line;
    run.outcome.reason = "moved before this line: " + run.outcome.damage;
    return std::move(run.outcome);
  }
  outcome.verdict = Verdict::kPassed;
  return outcome;
}

}  // namespace

Outcome run_script(const Script& script, Endpoint& endpoint, const RunOptions& options) {
  if (options.moves == MovePlan::kAnywhere) return move_anywhere(script, endpoint);
  Itinerary itinerary;
  if (options.moves == MovePlan::kRoundTrip) itinerary.back = find_way_back(script, endpoint);
  RunResult run = run_once(script, endpoint, options, itinerary);
  look_at_ending(script, endpoint, options, run);
  return std::move(run.outcome);
}

}  // namespace twinstack::conformance
