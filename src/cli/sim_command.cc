// twinstack sim: a whole network in one thread, in virtual time, from a seed. Needs neither privilege nor service.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "base/log.h"
#include "base/unique_fd.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/sim_report.h"
#include "sim/run.h"

namespace twinstack::cli {
namespace {

using sim::Outcome;
using sim::Totals;

// nullopt: `wrong` says which word is not known.
std::optional<sim::Options> options_of(const SimArguments& arguments, std::string& wrong) {
  sim::Options options;
  options.seed = arguments.seed;
  options.duration = std::chrono::duration_cast<Duration>(Seconds(arguments.duration_s));
  options.connections = arguments.connections;
  options.moves_per_s = arguments.moves_per_s;
  if (!arguments.congestion.empty()) options.congestion_controls = arguments.congestion;
  if (arguments.congestion == std::vector<std::string>{sim::kFirstCongestion}) options.congestion_controls.clear();
  options.trace = arguments.trace;
  const auto faults = sim::parse_faults(arguments.faults, wrong);
  if (!faults) return std::nullopt;
  options.faults = *faults;
  if (!arguments.only.empty()) options.only.emplace(arguments.only.begin(), arguments.only.end());
  return options;
}

// ---- The live view: a line for each 100 ms of virtual time.

constexpr Duration kLiveInterval = std::chrono::milliseconds(100);
constexpr int kBarColumns = 40;

class Live {
 public:
  explicit Live(bool colours) : colours_(colours) {}

  void show(Duration at, const Totals& totals) {
    const double mbit = static_cast<double>(totals.bytes - last_.bytes) * 8 / 1e6 / Seconds(kLiveInterval).count();
    most_mbit_ = std::max(most_mbit_, mbit);
    const int filled = most_mbit_ > 0 ? static_cast<int>(std::lround(mbit / most_mbit_ * kBarColumns)) : 0;
    const std::uint64_t out = totals.moves_out - last_.moves_out;
    const std::uint64_t back = totals.moves_back - last_.moves_back;
    std::printf("%s", fmt::format("{:6.1f} s |{}{:<{}}{}| {:8.1f} Mbit/s  {}{:>3} > {:>3} <{}\n", Seconds(at).count(),
                                  code("\033[32m"), std::string(static_cast<std::size_t>(filled), '#'), kBarColumns,
                                  code("\033[0m"), mbit, code("\033[36m"), out, back, code("\033[0m"))
                          .c_str());
    std::fflush(stdout);
    last_ = totals;
  }

 private:
  [[nodiscard]] const char* code(const char* escape) const { return colours_ ? escape : ""; }

  bool colours_;
  Totals last_;
  double most_mbit_ = 0;
};

Outcome run_live(const sim::Options& options) {
  print_text(
      "Throughput of all programs for each 100 ms of virtual time; > moves to the engine, < back to the kernel.\n\n");
  const sim::Shape shape = sim::make_shape(options);
  sim::World world(options, shape, sim::make_events(options, shape));
  Live live(::isatty(STDOUT_FILENO) != 0);
  world.every(kLiveInterval, [&live](Duration at, const Totals& totals) { live.show(at, totals); });
  return world.run();
}

// ---- Seeds

void note(SimTally& tally, const Outcome& outcome) {
  ++tally.seeds;
  tally.totals.add(outcome.totals);
  tally.coverage.add(outcome.coverage);
}

void tell_progress(const SimTally& tally, std::uint64_t seeds) {
  if (::isatty(STDERR_FILENO) == 0 || tally.seeds % 10 != 0) return;
  std::fprintf(
      stderr, "\r%s",
      fmt::format("{} of {} seeds, {} moves ", tally.seeds, seeds, tally.totals.moves_out + tally.totals.moves_back)
          .c_str());
}

// At once: the run may be long, and what it takes is found at its end.
void tell_failure(std::uint64_t seed, const Outcome& outcome) {
  const std::string line = outcome.failure.substr(0, outcome.failure.find('\n'));
  std::fprintf(stderr, "%s", fmt::format("seed {} fails: {}\n", seed, line).c_str());
}

std::vector<sim::Failed> run_live_seeds(SimTally& tally, sim::Options options, const SimArguments& arguments) {
  std::vector<sim::Failed> failures;
  for (std::uint64_t i = 0; i < arguments.seeds; ++i, ++options.seed) {
    Outcome outcome = run_live(options);
    note(tally, outcome);
    if (outcome.ok()) continue;
    failures.push_back({.seed = options.seed, .outcome = std::move(outcome)});
    if (!arguments.keep_going) break;
  }
  return failures;
}

void run_all(SimTally& tally, const sim::Options& options, const SimArguments& arguments, bool json) {
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<sim::Failed> failures =
      arguments.live ? run_live_seeds(tally, options, arguments)
                     : sim::run_seeds(options, arguments.seeds, arguments.jobs, arguments.keep_going,
                                      [&](std::uint64_t seed, const Outcome& outcome) {
                                        note(tally, outcome);
                                        if (!outcome.ok()) tell_failure(seed, outcome);
                                        tell_progress(tally, arguments.seeds);
                                      });
  tally.wall_s = Seconds(std::chrono::steady_clock::now() - begin).count();
  for (const sim::Failed& failed : failures) {
    tally.failures.push_back(explain(options, failed, arguments.shrink));
    if (!json) print_text(text_of(tally.failures.back()));
  }
}

// Empty: nothing is wrong with it.
std::string cannot_congest(const SimArguments& arguments) {
  const bool has_first = std::ranges::count(arguments.congestion, sim::kFirstCongestion) > 0;
  return has_first && arguments.congestion.size() > 1 ? "--congestion first stands alone" : "";
}

std::string cannot_trace(const SimArguments& arguments) {
  if (arguments.trace.empty()) return "";
  if (arguments.seeds > 1) return "--trace is of one seed";
  const UniqueFd file(::open(arguments.trace.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  return file ? "" : fmt::format("{}: {}", arguments.trace, std::strerror(errno));
}

std::string cannot_select(const SimArguments& arguments, const sim::Options& options) {
  if (arguments.only.empty()) return "";
  if (arguments.seeds > 1) return "--only is of one seed: the numbers mean other events in each";
  sim::Options whole = options;
  whole.only.reset();
  const std::size_t events = sim::make_events(whole, sim::make_shape(whole)).size();
  const std::uint32_t last = *options.only->rbegin();
  return last < events ? "" : fmt::format("--only {}: the seed has {} events, from 0 on", last, events);
}

// Empty: the words go together.
std::string cannot_run(const SimArguments& arguments, const sim::Options& options, bool json) {
  if (arguments.seed > UINT64_MAX - (arguments.seeds - 1)) return "--seed and --seeds go beyond 2^64 - 1";
  if (arguments.live && json) return "--live draws for people: without --json";
  if (arguments.live && arguments.jobs > 1) return "--live shows one seed at a time: without --jobs";
  for (const std::string& why : {cannot_congest(arguments), cannot_trace(arguments), cannot_select(arguments, options)})
    if (!why.empty()) return why;
  return "";
}

}  // namespace

int run_sim(const Invocation& invocation) {
  const SimArguments& arguments = invocation.sim;
  std::string wrong;
  const auto options = options_of(arguments, wrong);
  if (!options)
    return failure(invocation, fmt::format("unknown fault '{}': `twinstack sim --help` has the names", wrong), kUsage);
  if (const std::string why = cannot_run(arguments, *options, invocation.json); !why.empty())
    return failure(invocation, why, kUsage);
  spdlog::set_level(spdlog::level::off);
  SimTally tally;
  run_all(tally, *options, arguments, invocation.json);
  const bool ok = tally.failures.empty();
  const std::string verdict = fmt::format("{} of {} seeds failed", tally.failures.size(), tally.seeds);
  if (::isatty(STDERR_FILENO) != 0 && tally.seeds >= 10) std::fputs("\r\033[K", stderr);
  if (invocation.json)
    return ok ? success(invocation, json_of(tally)) : failure(invocation, verdict, kFailure, json_of(tally));
  if (tally.seeds > 1)
    print_text(fmt::format(
        "\nfaults by the situation that they met (o: step of a move out, b: back; . never, - cannot be)\n{}\n"
        "faults by the TCP state that they met\n{}\n",
        tally.coverage.table(), tally.coverage.state_table()));
  print_text(fmt::format("\n{}{}; {:.0f} moves per second of wall time\n", text_of(tally.totals), verdict,
                         tally.moves_per_s()));
  if (arguments.live)
    print_text(
        "\nMoves, engine and socket layer are the product's; links, hosts and the kernel's part were played. The same "
        "over\n"
        "Linux, with AF_XDP and TCP_REPAIR, takes root: `twinstack doctor` says what this machine lacks for it.\n");
  return ok ? kSuccess : kFailure;
}

}  // namespace twinstack::cli
