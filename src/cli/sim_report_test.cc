// What is said of a run that fails: who has only that must be able to repeat it.
#include "cli/sim_report.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "base/log.h"

namespace twinstack::cli {
namespace {

// The product turns a byte with its first move: no fault is needed for it, but a connection and that move are.
class SimReport : public testing::Test {
 protected:
  void SetUp() override {
    spdlog::set_level(spdlog::level::off);
    options.duration = std::chrono::milliseconds(20);  // few events: sanitized builds are slow
    options.connections = 2;
    options.faults = sim::FaultSet::none();
    options.sabotage = sim::Options::Sabotage::kTurnByte;
    options.sabotage_after_moves = 1;
    for (options.seed = 1; failed.outcome.ok() && options.seed < 100; ++options.seed)
      failed = {.seed = options.seed, .outcome = sim::run_guarded(options)};
    ASSERT_FALSE(failed.outcome.ok());
    seed = std::to_string(failed.seed);
  }

  sim::Options options;
  sim::Failed failed;
  std::string seed;
};

TEST_F(SimReport, AFailureIsToldWithSeedCommandsAndEvents) {
  const SimFailure failure = explain(options, failed, 300);
  const std::string text = text_of(failure);
  EXPECT_TRUE(text.starts_with("seed " + seed + " fails at 0.0")) << text;
  EXPECT_NE(text.find("wrong byte"), std::string::npos) << text;
  const std::string command = "twinstack sim --seed " + seed + " --duration-s 0.02 --connections 2 --faults none";
  EXPECT_NE(text.find("again, everything:  " + command + "\n"), std::string::npos) << text;
  EXPECT_NE(text.find("again, shrunk:      " + command + " --only "), std::string::npos) << text;
  ASSERT_FALSE(failure.shrunk.events.empty());
  EXPECT_LT(failure.shrunk.events.size(), 10U) << text;
  for (const sim::Event& event : failure.shrunk.events)
    EXPECT_NE(text.find("\n  " + sim::describe(event)), std::string::npos) << text;
  // The command means the very events.
  const sim::Outcome again = sim::run_guarded(failure.shrunk.options);
  EXPECT_EQ(sim::failure_name(again.failure), sim::failure_name(failed.outcome.failure));
}

TEST_F(SimReport, UncutItHasOneCommand) {
  const std::string text = text_of(explain(options, failed, 0));
  EXPECT_NE(text.find("again, everything:"), std::string::npos);
  EXPECT_EQ(text.find("again, shrunk:"), std::string::npos);
}

TEST_F(SimReport, JsonHasTheSame) {
  SimTally tally;
  tally.seeds = 1;
  tally.totals = failed.outcome.totals;
  tally.failures.push_back(explain(options, failed, 300));
  const nlohmann::json said = json_of(tally);
  ASSERT_EQ(said.at("failures").size(), 1U);
  const nlohmann::json& failure = said.at("failures")[0];
  EXPECT_EQ(failure.at("seed"), failed.seed);
  EXPECT_EQ(failure.at("command"), command_for(tally.failures[0].shrunk.options));
  EXPECT_EQ(failure.at("events").size(), tally.failures[0].shrunk.events.size());
}

}  // namespace
}  // namespace twinstack::cli
