// Seeds that once failed, with what they have found, and a few that never did. The seeds lead where they led as long as
// src/sim/plan.cc stands as it is; a bug of the product has a test of its own beside the source as well, which stays.
#include <gtest/gtest.h>

#include <ostream>

#include "base/log.h"
#include "sim/run.h"

namespace twinstack::sim {
namespace {

struct Found {
  std::uint64_t seed;
  std::uint32_t moves_per_s;
  const char* faults;
  const char* what;
  std::uint32_t connections = Options{}.connections;
  bool every_congestion_control = false;
  const char* congestion = nullptr;  // this one only
};

std::ostream& operator<<(std::ostream& out, const Found& found) { return out << "seed " << found.seed; }

// Of the time when they were found (plan.cc).
#define NOT_LATEST ",-purge,-lose-ack,-part-release,-fail-thaw,-fail-detach,-no-hook,-quick-close,-at-step,-no-memory"
constexpr const char* kAllThen = "all,-too-big,-forged-too-big,-prune" NOT_LATEST;
constexpr const char* kNoDeathsThen = "all,-program-death,-driver-death,-too-big,-forged-too-big,-prune" NOT_LATEST;
constexpr const char* kAllWithRouters = "all" NOT_LATEST;
#undef NOT_LATEST

class FoundSeed : public testing::TestWithParam<Found> {};

TEST_P(FoundSeed, PassesNow) {
  spdlog::set_level(spdlog::level::off);
  Options options;
  options.seed = GetParam().seed;
  options.moves_per_s = GetParam().moves_per_s;
  options.connections = GetParam().connections;
  if (!GetParam().every_congestion_control) options.congestion_controls.clear();
  if (GetParam().congestion != nullptr) options.congestion_controls = {GetParam().congestion};
  std::string wrong;
  const auto faults = parse_faults(GetParam().faults, wrong);
  ASSERT_TRUE(faults) << wrong;
  options.faults = *faults;
  const Outcome outcome = run_guarded(options);
  EXPECT_TRUE(outcome.ok()) << GetParam().what << ": " << outcome.failure << "\n" << command_for(options);
  EXPECT_GT(outcome.totals.instants, 0U);
}

INSTANTIATE_TEST_SUITE_P(
    , FoundSeed,
    testing::Values(
        // src/stack/receive_buffer.cc: a connection that came back with a closed window never opened it again.
        Found{137, 1000, kAllThen, "the window stays closed"}, Found{363, 1000, kAllThen, "the window stays closed"},
        Found{112, 200, "black-hole,clock-jump,link-down,slow,no-read", "the window stays closed"},
        // src/driver/mover.cc: a park that failed, was tried again by the upload and lost bytes there (kBroken) was
        // taken for a failure like others; the next try went on without the bytes that the kernel had acknowledged.
        Found{456, 1000, kAllThen, "acknowledged bytes are lost when the upload parks"},
        // Checker: what a frozen socket has taken in is not lost when the park fails; the upload hands it over.
        Found{65, 1000, kAllThen, "acknowledged bytes of a socket that could not be parked"},
        // Checker: the flight from which a reduction begins may count bytes as sent that never were (A3).
        Found{100664, 10'000, kAllThen, "cwnd after unsent bytes were marked as sent"},
        // Checker: a service that has died wakes nobody for what it posted last.
        Found{5029, 10'000, kAllThen, "nobody is woken by the dead"},
        // src/tcp/path_mtu.cc (a probe behind the FIN) and a black hole under jumps of the clock; at the time of an
        // earlier plan.cc these were seeds 8 and 21.
        Found{8, 1000, kNoDeathsThen, "a size probe behind the FIN"},
        Found{21, 1000, kNoDeathsThen, "an orphan and a clock that jumps"},
        // Checker: a listener whose clock jumps gives up what is half open, and the client never hears of it.
        Found{.seed = 169032,
              .moves_per_s = 200,
              .faults = "too-big,forged-too-big,prune,loss,reorder,duplicate,black-hole,link-down,clock-jump,"
                        "refuse-upload,fail-park,fail-restore,late-full",
              .what = "a handshake whose last ACK is lost",
              .connections = 16},
        // src/tcp/loss_marks.cc: without SACK, more segments counted as arrived or lost than there were.
        Found{102929, 40'000, kAllWithRouters, "more is gone than was sent"},
        // src/stack/soft_kernel_conn.cc: a reset that left what was unread to be read again.
        Found{.seed = 300618,
              .moves_per_s = 40'000,
              .faults = kAllWithRouters,
              .what = "a wrong byte after a reset",
              .every_congestion_control = true},
        // src/handoff/lesson.cc: the ACK that teaches the kernel let the window of bbr grow with every return.
        Found{.seed = 1,
              .moves_per_s = 1000,
              .faults = "none",
              .what = "a window that moves make grow",
              .congestion = "bbr"},
        // Checker: without SACK PRR counts an arrival again with each ACK that moves SND.UNA.
        Found{.seed = 21071,
              .moves_per_s = 40'000,
              .faults = kAllWithRouters,
              .what = "the window of the peer grows in CWR",
              .every_congestion_control = true},
        // Checker: a loss in CWR that is found and undone between two looks leaves the window where PRR was.
        Found{.seed = 700665,
              .moves_per_s = 40'000,
              .faults = "all,-no-memory",
              .what = "the window of the peer after CWR",
              .every_congestion_control = true},
        // Checker: a loss in CWR lowers DCTCP's threshold, and PRR has not let out what arrived before it.
        Found{.seed = 5002191,
              .moves_per_s = 40'000,
              .faults = "all",
              .what = "the window of the engine after CWR",
              .every_congestion_control = true},
        // Checker: a recovery that D-SACKs have undone lasts until its data is acknowledged, with the window from
        // before.
        Found{.seed = 5004078,
              .moves_per_s = 40'000,
              .faults = "all",
              .what = "the window of the peer after a recovery that was undone",
              .every_congestion_control = true},
        // Checker: a SYN that comes again when all is over begins a handshake that ends by a RST.
        Found{.seed = 5000260,
              .moves_per_s = 40'000,
              .faults = "all",
              .what = "a duplicate of the SYN",
              .every_congestion_control = true},
        // Checker: a late duplicate of the last ACK is answered by a RST, which harms nobody.
        Found{102858, 40'000, kAllWithRouters, "a duplicate of the last ACK"}));

// Debug and sanitized builds are tens of times slower.
#ifdef NDEBUG
constexpr std::uint64_t kSeeds = 12;
#else
constexpr std::uint64_t kSeeds = 3;
#endif

// All faults, deaths included.
class AnySeed : public testing::TestWithParam<std::uint32_t> {};

TEST_P(AnySeed, IsWithoutFailure) {
  spdlog::set_level(spdlog::level::off);
  std::uint64_t moves = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Options options;
    options.seed = seed;
    options.moves_per_s = GetParam();
    const Outcome outcome = run_guarded(options);
    EXPECT_TRUE(outcome.ok()) << outcome.failure << "\n" << command_for(options);
    EXPECT_GE(outcome.totals.checks + outcome.totals.spins, outcome.totals.instants)
        << "all is checked at each instant";
    moves += outcome.totals.moves_out + outcome.totals.moves_back;
  }
  EXPECT_GT(moves, 15 * kSeeds);
}

INSTANTIATE_TEST_SUITE_P(MovesPerSecond, AnySeed, testing::Values(1000U, 20'000U));

}  // namespace
}  // namespace twinstack::sim
