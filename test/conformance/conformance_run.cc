// conformance_run: runs the scripts of a folder on a backend: a line for each, a table of known differences, and
// "N passed, N failed" at the end. Exit status 0 when none failed, 77 when the backend cannot be had here.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "collection.h"
#include "core_endpoint.h"
#include "linux_endpoint.h"

namespace twinstack::conformance {
namespace {

constexpr int kExitSkipped = 77;

struct Arguments {
  std::string backend = "core";
  std::string folder = TWINSTACK_SCRIPTS;
  std::string filter;
  bool trace = false;
  bool quiet = false;
  CollectionOptions options;
  double longest_s = 12;
};

std::string_view word_of(const Report& report) {
  if (report.differs) return "differs";
  switch (report.outcome.verdict) {
    case Verdict::kPassed:
      return "ok";
    case Verdict::kFailed:
      return "FAILED";
    case Verdict::kSkipped:
      return "skipped";
  }
  return "?";
}

void print_trace(const Outcome& outcome) {
  for (const std::string& line : outcome.trace) fmt::print("    {}\n", line);
}

void print_report(const Report& report, const Arguments& arguments) {
  const Outcome& outcome = report.outcome;
  const bool failed = outcome.verdict == Verdict::kFailed;
  if (arguments.quiet && !failed) return;
  fmt::print("{:<8} {}{}", word_of(report), report.script->name, report.repeated ? " (tried again)" : "");
  if (failed && outcome.line > 0) fmt::print(":{}", outcome.line);
  if (!outcome.reason.empty()) fmt::print(": {}", outcome.reason);
  fmt::print("\n");
  if (failed || arguments.trace) print_trace(outcome);
}

void print_table(std::string_view title, const std::vector<Script>& scripts, std::string_view (*text)(const Script&)) {
  bool any = false;
  for (const Script& script : scripts) {
    const std::string_view reason = text(script);
    if (reason.empty()) continue;
    if (!any) fmt::print("\n{}\n", title);
    any = true;
    fmt::print("  {:<62} {}\n", script.name, reason);
  }
}

std::string_view reason_if(const Mark& mark, Applies applies) {
  return mark.applies == applies ? std::string_view(mark.reason) : std::string_view();
}

void print_differences(const std::vector<Script>& scripts) {
  print_table("Linux differs from what the script wants:", scripts,
              [](const Script& script) { return reason_if(script.on_linux, Applies::kDiffers); });
  print_table("The core differs from what the script wants:", scripts,
              [](const Script& script) { return reason_if(script.core, Applies::kDiffers); });
  print_table("Not run on Linux:", scripts,
              [](const Script& script) { return reason_if(script.on_linux, Applies::kNo); });
  print_table("Not run on the core:", scripts,
              [](const Script& script) { return reason_if(script.core, Applies::kNo); });
  print_table("What is expected departs from the letter of the clause:", scripts,
              [](const Script& script) { return std::string_view(script.departs); });
}

int summarize(const std::vector<Report>& reports) {
  std::size_t passed = 0;
  std::size_t failed = 0;
  std::size_t skipped = 0;
  for (const Report& report : reports) {
    passed += report.outcome.verdict == Verdict::kPassed ? 1 : 0;
    failed += report.outcome.verdict == Verdict::kFailed ? 1 : 0;
    skipped += report.outcome.verdict == Verdict::kSkipped ? 1 : 0;
  }
  fmt::print("\n{} passed, {} failed, {} skipped\n", passed, failed, skipped);
  return failed == 0 ? 0 : 1;
}

int complain(const Error& problem) {
  fmt::print(stderr, "conformance_run: {}\n", problem.message());
  return 2;
}

MakeEndpoint maker(const Arguments& arguments) {
  return [v6 = arguments.options.v6, core = arguments.backend == "core"]() -> Result<std::unique_ptr<Endpoint>> {
    if (core) return std::make_unique<CoreEndpoint>(v6);
    ASSIGN_OR_RETURN(std::unique_ptr<Endpoint> made, LinuxEndpoint::create(v6));
    return made;
  };
}

int run(Arguments& arguments) {
  const auto scripts = load_scripts(arguments.folder, arguments.filter);
  if (!scripts.has_value()) return complain(scripts.error());
  arguments.options.backend = arguments.backend == "linux" ? Backend::kLinux : Backend::kCore;
  if (arguments.options.backend == Backend::kLinux) {
    if (const std::string why = LinuxEndpoint::why_unavailable(); !why.empty()) {
      fmt::print("skipped: {}\n", why);
      return kExitSkipped;
    }
    arguments.options.longest = Duration(static_cast<std::int64_t>(arguments.longest_s * 1e9));
  }
  const auto reports = run_collection(*scripts, maker(arguments), arguments.options);
  if (!reports.has_value()) return complain(reports.error());
  for (const Report& report : *reports) print_report(report, arguments);
  print_differences(*scripts);
  return summarize(*reports);
}

}  // namespace
}  // namespace twinstack::conformance

int main(int argc, char** argv) {
  using namespace twinstack::conformance;
  Arguments arguments;
  CLI::App app("Runs conformance scripts on a backend.");
  app.add_option("--backend", arguments.backend, "core or linux")->check(CLI::IsMember({"core", "linux"}));
  app.add_option("--scripts", arguments.folder, "folder of the scripts");
  app.add_option("filter", arguments.filter, "only scripts whose name contains this");
  app.add_flag("--ipv6", arguments.options.v6, "over IPv6");
  app.add_flag("--trace", arguments.trace, "what happened, also when it passed");
  app.add_flag("--quiet", arguments.quiet, "only what failed");
  app.add_option("--workers", arguments.options.workers, "scripts at a time");
  app.add_option("--tries", arguments.options.tries, "tries before a failure counts");
  app.add_option("--longest", arguments.longest_s, "skip what takes longer in real time, seconds");
  CLI11_PARSE(app, argc, argv);
  return run(arguments);
}
