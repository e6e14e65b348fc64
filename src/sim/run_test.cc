// Whole runs: that nothing is found where nothing is wrong, that what is wrong is found, told and cut down.
#include "sim/run.h"

#include <gtest/gtest.h>

#include "base/log.h"

namespace twinstack::sim {
namespace {

class RunTest : public testing::Test {
 protected:
  void SetUp() override { spdlog::set_level(spdlog::level::off); }

  static Options quiet(std::uint64_t seed) {
    Options options;
    options.seed = seed;
    options.duration = std::chrono::milliseconds(300);
    options.faults = FaultSet::none();
    return options;
  }
};

TEST_F(RunTest, MovesUnderTrafficAreWithoutFault) {
  std::uint64_t moves = 0;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    const Outcome outcome = run_here(quiet(seed));
    ASSERT_TRUE(outcome.ok()) << "seed " << seed << ": " << outcome.failure;
    moves += outcome.totals.moves_out + outcome.totals.moves_back;
    EXPECT_GT(outcome.totals.bytes, 10'000U);
    EXPECT_EQ(outcome.totals.broken, 0U);
  }
  EXPECT_GT(moves, 200U);
}

FaultSet only(EventKind kind) {
  FaultSet faults;
  faults.on[static_cast<std::size_t>(kind)] = true;
  return faults;
}

TEST_F(RunTest, RoutersAreHeardByWhoeverHasTheConnection) {
  for (const EventKind kind : {EventKind::kTooBig, EventKind::kForgedTooBig}) {
    Totals totals;
    for (std::uint64_t seed = 1; seed <= 12; ++seed) {
      Options options = quiet(seed);
      options.faults = only(kind);
      options.duration = std::chrono::seconds(1);
      options.moves_per_s = 100;
      const Outcome outcome = run_here(options);
      ASSERT_TRUE(outcome.ok()) << "seed " << seed << ": " << outcome.failure;
      totals.add(outcome.totals);
    }
    EXPECT_GT(totals.told_kernel, 20U) << name(kind);
    EXPECT_GT(totals.told_engine, 2U) << name(kind) << ": whoever was told remembers it";
  }
}

TEST_F(RunTest, LanesGiveUpWhatIsOutOfOrder) {
  std::uint64_t pruned = 0;
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    Options options = quiet(seed);
    options.faults = only(EventKind::kPrune);
    options.faults.on[static_cast<std::size_t>(EventKind::kLoss)] = true;
    const Outcome outcome = run_here(options);
    ASSERT_TRUE(outcome.ok()) << "seed " << seed << ": " << outcome.failure;
    pruned += outcome.totals.pruned;
  }
  EXPECT_GT(pruned, 20U);
}

// The kernel acknowledges bytes and throws them away (F2): a reset, and for no other cause.
TEST_F(RunTest, APurgeIsAReset) {
  Totals totals;
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    Options options = quiet(seed);
    options.faults = only(EventKind::kPurge);
    const Outcome outcome = run_here(options);
    ASSERT_TRUE(outcome.ok()) << "seed " << seed << ": " << outcome.failure;
    totals.add(outcome.totals);
  }
  EXPECT_GT(totals.resets[static_cast<std::size_t>(ResetCause::kPurged)], 0U);
  EXPECT_EQ(totals.resets[static_cast<std::size_t>(ResetCause::kPurged)], totals.broken);
}

TEST_F(RunTest, TheSameSeedGivesTheSameRun) {
  Options options = quiet(5);
  options.faults = FaultSet::all();
  const Outcome one = run_here(options);
  const Outcome two = run_here(options);
  EXPECT_EQ(one.failure, two.failure);
  EXPECT_EQ(one.totals.frames, two.totals.frames);
  EXPECT_EQ(one.totals.bytes, two.totals.bytes);
  EXPECT_EQ(one.totals.instants, two.totals.instants);
  EXPECT_EQ(one.totals.virtual_time, two.totals.virtual_time);
}

struct Bug {
  const char* name;
  Options::Sabotage sabotage;
  const char* told;
};

class BugIsFound : public RunTest, public testing::WithParamInterface<Bug> {};

// The checkers see what they are there for.
TEST_P(BugIsFound, AndTold) {
  Outcome outcome;
  const auto is_told = [&outcome] { return outcome.failure.find(GetParam().told) != std::string::npos; };
  for (std::uint64_t seed = 1; seed <= 40 && !is_told(); ++seed) {
    Options options = quiet(seed);
    options.sabotage = GetParam().sabotage;
    options.sabotage_after_moves = 20;
    if (options.sabotage == Options::Sabotage::kHidePurge) {  // seldom: a packet must come at the wrong instant
      options.faults = only(EventKind::kPurge);
      options.duration = std::chrono::seconds(2);
    }
    outcome = run_guarded(options);
  }
  EXPECT_TRUE(is_told()) << outcome.failure;
}

INSTANTIATE_TEST_SUITE_P(Bugs, BugIsFound,
                         testing::Values(Bug{"lost_byte", Options::Sabotage::kLoseByte, "by sequence numbers"},
                                         Bug{"turned_byte", Options::Sabotage::kTurnByte, "wrong byte"},
                                         Bug{"lost_received_byte", Options::Sabotage::kLoseReceived,
                                             "are read or can be"},
                                         Bug{"grown_window", Options::Sabotage::kGrowWindow, "congestion window"},
                                         Bug{"flow_left_behind", Options::Sabotage::kKeepFlow, "steered"},
                                         Bug{"leaked_chunk", Options::Sabotage::kLeakChunk, "chunks"},
                                         Bug{"forgotten_wakeup", Options::Sabotage::kForgetWakeup, "sleeps"},
                                         Bug{"reset_move", Options::Sabotage::kResetMove, "nothing was done"},
                                         Bug{"hidden_purge", Options::Sabotage::kHidePurge, "acknowledged"},
                                         Bug{"abort", Options::Sabotage::kAbort, "Aborted"}),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST_F(RunTest, AFailureIsCutDownToWhatItTakes) {
  Options options = quiet(3);
  options.sabotage = Options::Sabotage::kTurnByte;
  options.sabotage_after_moves = 1;
  Outcome failed;
  for (options.seed = 0; failed.ok() && ++options.seed < 30;) failed = run_here(options);
  ASSERT_FALSE(failed.ok());
  const Shrunk shrunk = shrink(options, failed, 150, [](const Options& tried) { return run_here(tried); });
  EXPECT_LE(shrunk.events.size(), 8U);
  EXPECT_GE(shrunk.events.size(), 2U) << "a connection and a move at least";
  EXPECT_LE(shrunk.runs, 150U);
  const Outcome again = run_here(shrunk.options);
  EXPECT_EQ(failure_name(again.failure), failure_name(failed.failure));
  EXPECT_NE(command_for(shrunk.options).find("--only "), std::string::npos);
}

TEST(Shrink, FindsThePairThatItTakes) {
  Options options;
  options.faults = FaultSet::none();
  options.duration = std::chrono::milliseconds(100);
  Outcome failed;
  failed.failure = "too bad";
  const Shrunk shrunk = shrink(options, failed, 1000, [&](const Options& tried) {
    Outcome outcome;
    if (tried.only->contains(17) && tried.only->contains(31)) outcome.failure = "too bad";
    return outcome;
  });
  ASSERT_EQ(shrunk.events.size(), 2U);
  EXPECT_EQ(shrunk.events[0].number, 17U);
  EXPECT_EQ(shrunk.events[1].number, 31U);
}

TEST(Shrink, EndsWithItsTime) {
  Options options;
  options.faults = FaultSet::none();
  Outcome failed;
  failed.failure = "too bad";
  const Shrunk shrunk = shrink(options, failed, 1000, [&](const Options&) { return failed; }, std::chrono::seconds(0));
  EXPECT_EQ(shrunk.runs, 0U);
  EXPECT_FALSE(shrunk.events.empty()) << "as they were";
}

TEST(FailureName, LeavesNumbersAndConnectionsOut) {
  EXPECT_EQ(failure_name("connection 3 (bulk, close): side 1 read a wrong byte at position 4711\n  more"),
            failure_name("connection 12 (idle, abort): side 0 read a wrong byte at position 5"));
  EXPECT_NE(failure_name("connection 3 (bulk, close): side 1 read a wrong byte"), failure_name("2 pieces are lost"));
}

TEST(Command, RepeatsWhatIsNotUsual) {
  Options options;
  options.seed = 9;
  EXPECT_EQ(command_for(options), "twinstack sim --seed 9");
  options.connections = 3;
  options.faults = FaultSet::none();
  options.only = std::set<std::uint32_t>{1, 2};
  EXPECT_EQ(command_for(options), "twinstack sim --seed 9 --connections 3 --faults none --only 1,2");
  options = Options();
  options.congestion_controls.clear();
  EXPECT_EQ(command_for(options), "twinstack sim --seed 1 --congestion first");
}

}  // namespace
}  // namespace twinstack::sim
