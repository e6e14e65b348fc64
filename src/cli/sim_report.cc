#include "cli/sim_report.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

namespace twinstack::cli {

namespace {

// " (3 no shell, 1 no room)": what has led there.
std::string causes_of(const std::array<std::uint64_t, sim::kResetCauses>& resets) {
  std::string text;
  for (std::size_t cause = 1; cause < resets.size(); ++cause)
    if (resets[cause] > 0)
      text +=
          fmt::format("{}{} {}", text.empty() ? " (" : ", ", resets[cause], name(static_cast<sim::ResetCause>(cause)));
  return text.empty() ? "" : text + ')';
}

nlohmann::json json_of(const std::array<std::uint64_t, sim::kResetCauses>& resets) {
  nlohmann::json causes = nlohmann::json::object();
  for (std::size_t cause = 1; cause < resets.size(); ++cause)
    causes[name(static_cast<sim::ResetCause>(cause))] = resets[cause];
  return causes;
}

}  // namespace

SimFailure explain(const sim::Options& options, const sim::Failed& failed, std::uint32_t most_runs,
                   const std::function<sim::Outcome(const sim::Options&)>& runs) {
  sim::Options one = options;
  one.seed = failed.seed;
  SimFailure failure{
      .seed = failed.seed,
      .what = failed.outcome.failure,
      .at_s = failed.outcome.failed_at == Time{} ? 0 : Seconds(failed.outcome.failed_at - sim::kBeginning).count(),
      .shrunk = {.events = {}, .options = one}};
  if (most_runs > 0) failure.shrunk = sim::shrink(one, failed.outcome, most_runs, runs);
  return failure;
}

std::string text_of(const SimFailure& failure) {
  std::string text = fmt::format("seed {} fails at {:.6f} s: {}\n\n", failure.seed, failure.at_s, failure.what);
  sim::Options whole = failure.shrunk.options;
  whole.only.reset();
  text += fmt::format("again, everything:  {}\n", command_for(whole));
  if (failure.shrunk.runs == 0) return text + '\n';
  text += fmt::format("again, shrunk:      {}\n\nthe {} events that it takes (found in {} runs):\n",
                      command_for(failure.shrunk.options), failure.shrunk.events.size(), failure.shrunk.runs);
  for (const sim::Event& event : failure.shrunk.events) text += "  " + sim::describe(event) + '\n';
  return text + '\n';
}

std::string text_of(const sim::Totals& totals) {
  return fmt::format(
      "{} connections, {} moves to the engine, {} back; {} refused, {} undone, {} connections reset{}\n"
      "{} frames, {:.1f} MB read by programs, {:.1f} s of virtual time, {} instants, {} full checks\n"
      "{} ICMP errors heard by software stacks, {} path MTUs lowered in the engine; {} blocks pruned there\n",
      totals.connections, totals.moves_out, totals.moves_back, totals.refused, totals.failed, totals.broken,
      causes_of(totals.resets), totals.frames, static_cast<double>(totals.bytes) / 1e6,
      Seconds(totals.virtual_time).count(), totals.instants, totals.checks, totals.told_kernel, totals.told_engine,
      totals.pruned);
}

nlohmann::json json_of(const SimTally& tally) {
  nlohmann::json failures = nlohmann::json::array();
  for (const SimFailure& failure : tally.failures) {
    nlohmann::json events = nlohmann::json::array();
    for (const sim::Event& event : failure.shrunk.events) events.push_back(sim::describe(event));
    failures.push_back({{"seed", failure.seed},
                        {"what", failure.what},
                        {"at_s", failure.at_s},
                        {"events", events},
                        {"command", command_for(failure.shrunk.options)}});
  }
  nlohmann::json coverage = nlohmann::json::object();
  for (std::size_t kind = sim::kFirstFault; kind < sim::kEventKinds; ++kind)
    for (std::size_t situation = 0; situation < sim::kSituations; ++situation)
      coverage[std::string(name(static_cast<sim::EventKind>(kind)))][name(static_cast<sim::Situation>(situation))] =
          tally.coverage.at(situation, kind);
  const sim::Totals& totals = tally.totals;
  return {{"seeds", tally.seeds},
          {"failures", failures},
          {"connections", totals.connections},
          {"moves_to_engine", totals.moves_out},
          {"moves_to_kernel", totals.moves_back},
          {"refused", totals.refused},
          {"undone", totals.failed},
          {"reset", totals.broken},
          {"reset_causes", json_of(totals.resets)},
          {"frames", totals.frames},
          {"bytes", totals.bytes},
          {"icmp_heard_by_kernel", totals.told_kernel},
          {"icmp_heard_by_engine", totals.told_engine},
          {"pruned", totals.pruned},
          {"virtual_s", Seconds(totals.virtual_time).count()},
          {"wall_s", tally.wall_s},
          {"moves_per_s", tally.moves_per_s()},
          {"coverage", coverage}};
}

}  // namespace twinstack::cli
