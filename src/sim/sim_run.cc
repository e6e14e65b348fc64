#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "base/log.h"
#include "sim/run.h"

using namespace twinstack;
using namespace twinstack::sim;

int main(int count, char** words) {
  spdlog::set_level(std::getenv("SIMLOG") != nullptr ? spdlog::level::debug : spdlog::level::off);
  Options options;
  std::uint64_t seeds = 1;
  bool do_shrink = false;
  for (int i = 1; i + 1 < count; i += 2) {
    const char* value = words[i + 1];
    const auto number = static_cast<unsigned>(std::atoi(value));
    if (std::strcmp(words[i], "--seed") == 0) options.seed = std::strtoull(value, nullptr, 10);
    if (std::strcmp(words[i], "--seeds") == 0) seeds = std::strtoull(value, nullptr, 10);
    if (std::strcmp(words[i], "--connections") == 0) options.connections = number;
    if (std::strcmp(words[i], "--moves") == 0) options.moves_per_s = number;
    if (std::strcmp(words[i], "--trace") == 0) options.trace = value;
    if (std::strcmp(words[i], "--shrink") == 0) do_shrink = number != 0;
    if (std::strcmp(words[i], "--only") == 0) {
      options.only.emplace();
      for (const char* at = value; *at != 0;) {
        char* end = nullptr;
        options.only->insert(static_cast<unsigned>(std::strtoul(at, &end, 10)));
        at = *end == ',' ? end + 1 : end;
      }
    }
    if (std::strcmp(words[i], "--faults") == 0) {
      std::string wrong;
      auto set = parse_faults(value, wrong);
      if (!set) return std::printf("unknown fault %s\n", wrong.c_str()), 2;
      options.faults = *set;
    }
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  Totals totals;
  Coverage coverage;
  int failed = 0;
  const bool guarded = seeds > 1;
  for (std::uint64_t i = 0; i < seeds; ++i, ++options.seed) {
    const Outcome outcome = guarded ? run_guarded(options) : run_here(options);
    totals.add(outcome.totals);
    coverage.add(outcome.coverage);
    if (outcome.ok()) continue;
    ++failed;
    std::printf("seed %lu FAILED at %.6f s: %s\n", options.seed,
                std::chrono::duration<double>(outcome.failed_at - kBeginning).count(), outcome.failure.c_str());
    if (!do_shrink) continue;
    const Shrunk shrunk = shrink(options, outcome);
    for (const Event& event : shrunk.events) std::printf("  %s\n", describe(event).c_str());
    std::printf("%s\n", command_for(shrunk.options).c_str());
  }
  timespec cpu{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
  const double wall = static_cast<double>(cpu.tv_sec) + static_cast<double>(cpu.tv_nsec) / 1e9;
  if (seeds > 1) std::printf("%s\n", coverage.table().c_str());
  std::printf(
      "%d failed; out %lu back %lu refused %lu failed %lu broken %lu frames %lu MB %lu instants %lu checks %lu spins "
      "%lu "
      "virtual %.1f s cpu %.2f s: %.0f moves/s\n",
      failed, totals.moves_out, totals.moves_back, totals.refused, totals.failed, totals.broken, totals.frames,
      totals.bytes >> 20, totals.instants, totals.checks, totals.spins,
      std::chrono::duration<double>(totals.virtual_time).count(), wall,
      double(totals.moves_out + totals.moves_back) / wall);
  return failed != 0;
}
