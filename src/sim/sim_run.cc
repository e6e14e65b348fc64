#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/log.h"
#include "sim/world.h"

using namespace twinstack;
using namespace twinstack::sim;

int main(int count, char** words) {
  spdlog::set_level(std::getenv("SIMLOG") != nullptr ? spdlog::level::debug : spdlog::level::off);
  Options options;
  std::uint64_t seeds = 1;
  for (int i = 1; i + 1 < count; i += 2) {
    if (std::strcmp(words[i], "--seed") == 0) options.seed = std::strtoull(words[i + 1], nullptr, 10);
    if (std::strcmp(words[i], "--seeds") == 0) seeds = std::strtoull(words[i + 1], nullptr, 10);
    if (std::strcmp(words[i], "--connections") == 0)
      options.connections = static_cast<unsigned>(std::atoi(words[i + 1]));
    if (std::strcmp(words[i], "--moves") == 0) options.moves_per_s = static_cast<unsigned>(std::atoi(words[i + 1]));
    if (std::strcmp(words[i], "--trace") == 0) options.trace = words[i + 1];
    if (std::strcmp(words[i], "--faults") == 0) {
      std::string wrong;
      auto set = parse_faults(words[i + 1], wrong);
      if (!set) return std::printf("unknown fault %s\n", wrong.c_str()), 2;
      options.faults = *set;
    }
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const auto begin = std::chrono::steady_clock::now();
  Totals totals;
  Coverage coverage;
  int failed = 0;
  for (std::uint64_t i = 0; i < seeds; ++i, ++options.seed) {
    std::fprintf(stderr, "seed %lu\r", options.seed);
    const Shape shape = make_shape(options);
    auto events = make_events(options, shape);
    World world(options, shape, std::move(events));
    const Outcome outcome = world.run();
    totals.add(outcome.totals);
    coverage.add(outcome.coverage);
    if (!outcome.ok()) {
      ++failed;
      std::printf("seed %lu FAILED at %.6f s: %s\n", options.seed,
                  std::chrono::duration<double>(outcome.failed_at - kBeginning).count(), outcome.failure.c_str());
    }
  }
  const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (seeds > 1) std::printf("%s\n", coverage.table().c_str());
  std::printf(
      "%d failed; out %lu back %lu refused %lu failed %lu broken %lu frames %lu MB %lu instants %lu checks %lu spins %lu virtual "
      "%.1f s wall %.2f s: %.0f moves/s\n",
      failed, totals.moves_out, totals.moves_back, totals.refused, totals.failed, totals.broken, totals.frames,
      totals.bytes >> 20, totals.instants, totals.checks, totals.spins, std::chrono::duration<double>(totals.virtual_time).count(),
      wall, double(totals.moves_out + totals.moves_back) / wall);
  return failed != 0;
}
