// What the commands print and return, against a service that says one line.
#include "cli/commands.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "cli/output.h"
#include "driver/control_server.h"
#include "ipc/channel.h"

namespace twinstack::cli {
namespace {

using driver::Json;
using ::testing::HasSubstr;

struct Outcome {
  int exit_code = 0;
  std::string out;
  std::string err;
};

Outcome ran(const std::function<int()>& command) {
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  Outcome outcome;
  outcome.exit_code = command();
  std::fflush(nullptr);
  outcome.out = ::testing::internal::GetCapturedStdout();
  outcome.err = ::testing::internal::GetCapturedStderr();
  return outcome;
}

class Commands : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/ts-cli-commands.XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  // As main() would, with -j.
  Outcome run(std::vector<std::string> words) const {
    words.insert(words.end(), {"-j", "--socket", directory_ + "/s"});
    return ran([&] {
      const auto invocation = parse_command_line(words);
      if (!invocation.has_value()) return stopped(invocation.error());
      switch (invocation->command) {
        case Invocation::Command::kList:
          return run_list(*invocation);
        case Invocation::Command::kStats:
          return run_stats(*invocation);
        case Invocation::Command::kChurn:
          return run_churn(*invocation);
        case Invocation::Command::kDoctor:
          return run_doctor(*invocation);
        case Invocation::Command::kSim:
          return run_sim(*invocation);
        default:
          return run_move(*invocation);
      }
    });
  }

  // The same, while a service gives `answer`.
  Outcome run_against(const std::string& answer, const std::vector<std::string>& words) const {
    const auto listening = ipc::listen_on(driver::control_path(directory_ + "/s"), SOCK_STREAM);
    EXPECT_TRUE(listening.has_value());
    std::thread service([&] {
      pollfd waiting{.fd = listening->get(), .events = POLLIN, .revents = 0};
      EXPECT_EQ(::poll(&waiting, 1, 10'000), 1);  // it does not block
      const UniqueFd client(::accept(listening->get(), nullptr, nullptr));
      std::array<char, 4096> request{};
      EXPECT_GT(::recv(client.get(), request.data(), request.size(), 0), 0);
      EXPECT_GT(::send(client.get(), (answer + '\n').c_str(), answer.size() + 1, MSG_NOSIGNAL), 0);
    });
    Outcome outcome = run(words);
    service.join();
    std::filesystem::remove(driver::control_path(directory_ + "/s"));
    return outcome;
  }

  std::string directory_;
};

void expect_failure(const Outcome& outcome, int exit_code, const std::string& what) {
  EXPECT_EQ(outcome.exit_code, exit_code);
  EXPECT_EQ(std::ranges::count(outcome.out, '\n'), 1) << outcome.out;
  const Json said = Json::parse(outcome.out, nullptr, false);
  ASSERT_TRUE(said.is_object()) << outcome.out;
  EXPECT_EQ(said.value("ok", true), false) << outcome.out;
  EXPECT_THAT(said.value("error", ""), HasSubstr(what));
  EXPECT_THAT(outcome.err, HasSubstr("twinstack: " + said.value("error", "?")));
}

TEST_F(Commands, EveryFailureIsOneObjectOfJson) {
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"ls"}, {"offload", "all"}, {"upload", "all"}, {"stats"}, {"churn"}})
    expect_failure(run(words), kFailure, "no service runs at");
  expect_failure(run({"ls", "sport", "x"}), kUsage, "x");
  expect_failure(run({"offload", ")"}), kUsage, ")");
  expect_failure(run({"offload"}), kUsage, "which connections?");
  expect_failure(run({"doctor", "-i", "@"}), kUsage, "write NAME");
  expect_failure(run({"doctor", "-i", "ts-cli-none"}), kFailure, "requires is missing");
  expect_failure(run({"churn", "--interval-ms", "0"}), kUsage, "interval-ms");
  expect_failure(run({"sim", "--faults", "loss,rain"}), kUsage, "unknown fault 'rain'");
  expect_failure(run({"sim", "--seed", "-1"}), kUsage, "whole number");
  expect_failure(run({"sim", "--seed", "99999999999999999999999"}), kUsage, "whole number");
  expect_failure(run({"sim", "--seed", "18446744073709551615", "--seeds", "2"}), kUsage, "2^64");
  expect_failure(run({"sim", "--duration-s", "nan"}), kUsage, "no number");
  expect_failure(run({"sim", "--only", "99999"}), kUsage, "events, from 0 on");
  expect_failure(run({"sim", "--only", "1", "--seeds", "2"}), kUsage, "one seed");
  expect_failure(run({"sim", "--live"}), kUsage, "without --json");
  expect_failure(run({"foo"}), kUsage, "unknown command 'foo'");
}

TEST_F(Commands, TheSimulatorNeedsNoService) {
  const Outcome outcome = run({"sim", "--seeds", "2", "--duration-s", "0.05", "--faults", "none"});
  EXPECT_EQ(outcome.exit_code, kSuccess) << outcome.err;
  const Json said = Json::parse(outcome.out, nullptr, false);
  ASSERT_TRUE(said.is_object()) << outcome.out;
  EXPECT_EQ(said.value("seeds", 0), 2);
  EXPECT_GT(said.value("moves_to_engine", 0), 0);
  EXPECT_TRUE(said.at("failures").empty());
}

TEST_F(Commands, WhatTheServiceRefusesIsAFailure) {
  expect_failure(run_against(R"({"ok":false,"error":"only root may churn"})", {"churn"}), kFailure,
                 "only root may churn");
  const Outcome nothing =
      run_against(R"({"ok":true,"matched":0,"moved":0,"already":0,"refused":[]})", {"offload", "pid", "1"});
  expect_failure(nothing, kFailure, "no connection matches 'pid 1'");
  const Outcome refused = run_against(
      R"({"ok":true,"matched":3,"moved":2,"already":0,"refused":[{"sk":"1f","reason":"no"}]})", {"offload", "all"});
  expect_failure(refused, kFailure, "1 of 3 did not move");
  EXPECT_EQ(Json::parse(refused.out)["refused"][0]["reason"], "no");
}

TEST_F(Commands, SuccessIsJsonToo) {
  const Outcome churn = run_against(R"({"ok":true})", {"churn"});
  EXPECT_EQ(churn.exit_code, kSuccess);
  EXPECT_EQ(churn.out, "{\"ok\":true}\n");
  EXPECT_EQ(churn.err, "");
  const Outcome list = run_against(R"({"ok":true,"connections":[]})", {"ls"});
  EXPECT_EQ(list.exit_code, kSuccess);
  EXPECT_EQ(Json::parse(list.out), Json::parse(R"({"ok":true,"connections":[]})"));
}

}  // namespace
}  // namespace twinstack::cli
