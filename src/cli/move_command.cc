// twinstack offload, twinstack upload: moves what a filter takes.
#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/table.h"
#include "driver/filter.h"

namespace twinstack::cli {
namespace {

void print_outcome(const driver::MoveOutcome& outcome, bool to_engine) {
  const char* where = to_engine ? "engine" : "kernel";
  print_text(fmt::format("{} matched: {} moved to the {}, {} there already, {} refused\n", outcome.matched,
                         outcome.moved, where, outcome.already, outcome.refused.size()));
  for (const auto& [cookie, reason] : outcome.refused)
    complain(fmt::format("sk:{} stays where it is: {}", driver::hex(cookie), printable(reason)));
}

}  // namespace

int run_move(const Invocation& invocation) {
  const bool to_engine = invocation.command == Invocation::Command::kOffload;
  const auto filter = driver::parse_filter(invocation.filter);
  if (!filter.has_value()) return failure(invocation, filter.error().message(), kUsage);
  const Result<driver::Json> reply =
      ask_service(invocation, {{"cmd", to_engine ? "offload" : "upload"}, {"filter", invocation.filter}});
  if (!reply.has_value()) return failure(invocation, reply.error());
  const Result<driver::MoveOutcome> outcome = driver::outcome_from_json(*reply);
  if (!outcome.has_value()) return failure(invocation, outcome.error());
  if (!invocation.json) print_outcome(*outcome, to_engine);
  if (outcome->matched == 0)
    return failure(invocation, fmt::format("no connection matches '{}'", invocation.filter), kFailure, *reply);
  if (outcome->refused.empty()) return success(invocation, *reply);
  if (!invocation.json) return kFailure;  // each has been told
  const std::string what = fmt::format("{} of {} did not move", outcome->refused.size(), outcome->matched);
  return failure(invocation, what, kFailure, *reply);
}

}  // namespace twinstack::cli
