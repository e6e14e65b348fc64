// conformance_run: runs the scripts of a folder on a backend: a line for each, a table of known differences, and how
// many passed, failed and were skipped at the end. Exit status 0 when none failed, 77 when the backend cannot be had
// here.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "collection.h"
#include "core_endpoint.h"
#include "linux_endpoint.h"
#include "moving_endpoint.h"
#include "report.h"

namespace twinstack::conformance {
namespace {

constexpr int kExitSkipped = 77;
constexpr unsigned kLinuxWorkers = 12;
constexpr unsigned kLinuxTries = 4;

struct Arguments {
  std::string backend = "core";
  std::string folder = TWINSTACK_SCRIPTS;
  std::string filter;
  std::string document;  // to check
  bool print_document = false;
  bool trace = false;
  bool quiet = false;
  CollectionOptions options;
  double longest_s = 12;
  std::string moves = "none";
  std::string kernel = "linux";
};

void print_report(const Report& report, const Arguments& arguments) {
  const bool failed = report.outcome.verdict == Verdict::kFailed;
  if (arguments.quiet && !failed) return;
  fmt::print("{}\n", report_line(report));
  if (!failed && !arguments.trace) return;
  for (const std::string& line : report.outcome.trace) fmt::print("    {}\n", line);
}

int summarize(const std::vector<Report>& reports) {
  std::size_t counts[3] = {};
  std::size_t differing = 0;
  std::size_t moved = 0;
  std::size_t returned = 0;
  for (const Report& report : reports) {
    ++counts[static_cast<std::size_t>(report.outcome.verdict)];
    differing += report.differs ? 1 : 0;
    moved += report.outcome.moves > 0 ? 1 : 0;
    returned += report.outcome.moves > 1 ? 1 : 0;
  }
  const auto count = [&](Verdict verdict) { return counts[static_cast<std::size_t>(verdict)]; };
  if (moved > 0) fmt::print("\n{} moved a connection to the engine, {} back as well", moved, returned);
  fmt::print("\n{} passed ({} of them by differing as they are marked), {} failed, {} skipped\n",
             count(Verdict::kPassed), differing, count(Verdict::kFailed), count(Verdict::kSkipped));
  return count(Verdict::kFailed) == 0 ? 0 : 1;
}

int complain(const Error& problem) {
  fmt::print(stderr, "conformance_run: {}\n", problem.message());
  return 2;
}

// The table in the documentation is the one of the scripts.
int check_document(const std::vector<Script>& scripts, const std::string& path) {
  const std::ifstream file(path);
  if (!file) return complain({.code = ErrorCode::kNotFound, .system_errno = 0, .what = path + " cannot be read"});
  std::ostringstream text;
  text << file.rdbuf();
  if (text.str().find(document_text(scripts)) != std::string::npos) return 0;
  fmt::print("{} does not hold what 'conformance_run --document' prints\n", path);
  return 1;
}

MakeEndpoint maker(const Arguments& arguments) {
  return [v6 = arguments.options.v6, core = arguments.backend == "core",
          moves = arguments.options.moves != MovePlan::kNone,
          forgets = arguments.options.forgets]() -> Result<std::unique_ptr<Endpoint>> {
    using Memory = MovingEndpoint::Memory;
    if (core && moves) return std::make_unique<MovingEndpoint>(v6, forgets ? Memory::kAsLinux : Memory::kWhole);
    if (core) return std::make_unique<CoreEndpoint>(v6);
    ASSIGN_OR_RETURN(std::unique_ptr<Endpoint> made, LinuxEndpoint::create(v6));
    return made;
  };
}

MovePlan plan_of(const std::string& moves) {
  if (moves == "none") return MovePlan::kNone;
  if (moves == "anywhere") return MovePlan::kAnywhere;
  return moves == "round-trip" ? MovePlan::kRoundTrip : MovePlan::kAfterHandshake;
}

int run_scripts(const std::vector<Script>& scripts, Arguments& arguments) {
  arguments.options.moves = plan_of(arguments.moves);
  arguments.options.forgets = arguments.kernel == "linux";
  arguments.options.backend = arguments.backend == "linux" ? Backend::kLinux : Backend::kCore;
  if (arguments.options.backend == Backend::kLinux) {
    if (const std::string why = LinuxEndpoint::why_unavailable(); !why.empty()) {
      fmt::print("Skipped: {}\n", why);
      return kExitSkipped;
    }
    arguments.options.longest = Duration(static_cast<std::int64_t>(arguments.longest_s * 1e9));
    // Scripts sleep most of the time; on a busy machine some wake too late.
    if (arguments.options.workers == 0) arguments.options.workers = kLinuxWorkers;
    if (arguments.options.tries == 0) arguments.options.tries = kLinuxTries;
  }
  arguments.options.workers = std::max(arguments.options.workers, 1U);
  const auto reports = run_collection(scripts, maker(arguments), arguments.options);
  if (!reports.has_value()) return complain(reports.error());
  for (const Report& report : *reports) print_report(report, arguments);
  if (!arguments.quiet) fmt::print("{}", differences_text(scripts));
  return summarize(*reports);
}

int run(Arguments& arguments) {
  const auto scripts = load_scripts(arguments.folder, arguments.filter);
  if (!scripts.has_value()) return complain(scripts.error());
  if (scripts->empty())
    return complain({.code = ErrorCode::kNotFound,
                     .system_errno = 0,
                     .what = fmt::format("no script in {} has '{}' in its name", arguments.folder, arguments.filter)});
  if (!arguments.document.empty()) return check_document(*scripts, arguments.document);
  if (!arguments.print_document) return run_scripts(*scripts, arguments);
  fmt::print("{}", document_text(*scripts));
  return 0;
}

}  // namespace
}  // namespace twinstack::conformance

int main(int argc, char** argv) {
  using namespace twinstack::conformance;
  Arguments arguments;
  CLI::App app("Runs conformance scripts on a backend.");
  app.add_option("--backend", arguments.backend, "core or linux")->check(CLI::IsMember({"core", "linux"}));
  app.add_option("--moves", arguments.moves, "of the core: to the engine, and back in the middle")
      ->check(CLI::IsMember({"none", "after-handshake", "round-trip", "anywhere"}));
  app.add_option("--kernel", arguments.kernel, "what it comes back to: forgets as Linux, or remembers everything")
      ->check(CLI::IsMember({"linux", "remembers"}));
  app.add_option("--scripts", arguments.folder, "folder of the scripts");
  app.add_option("filter", arguments.filter, "only scripts whose name contains this");
  app.add_flag("--ipv6", arguments.options.v6, "over IPv6");
  app.add_flag("--trace", arguments.trace, "what happened, also when it passed");
  app.add_flag("--quiet", arguments.quiet, "only what failed");
  app.add_option("--workers", arguments.options.workers, "scripts at a time (12 on Linux, else 1)");
  app.add_option("--tries", arguments.options.tries, "tries before a failure counts (4 on Linux, else 1)");
  app.add_option("--longest", arguments.longest_s, "skip what takes longer in real time, seconds");
  app.add_flag("--document", arguments.print_document, "print the tables for docs/conformance.md, run nothing");
  app.add_option("--check-document", arguments.document, "check that this file holds them, run nothing");
  CLI11_PARSE(app, argc, argv);
  return run(arguments);
}
