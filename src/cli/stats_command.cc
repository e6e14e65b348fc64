// twinstack stats: the service's counters.
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/table.h"

namespace twinstack::cli {

int run_stats(const Invocation& invocation) {
  const Result<driver::Json> reply = ask_service(invocation, {{"cmd", "stats"}});
  if (!reply.has_value()) return failure(invocation, reply.error());
  if (invocation.json) return success(invocation, *reply);
  const Result<driver::ServiceStats> stats = driver::stats_from_json(*reply);
  if (!stats.has_value()) return failure(invocation, stats.error());
  print_text(stats_text(*stats));
  return kSuccess;
}

}  // namespace twinstack::cli
