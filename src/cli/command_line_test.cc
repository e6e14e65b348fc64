#include "cli/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "ipc/messages.h"
#include "sim/event.h"

namespace twinstack::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Command = Invocation::Command;
using Words = std::vector<std::string>;

Invocation parsed(const Words& words) {
  const auto invocation = parse_command_line(words);
  if (invocation.has_value()) return *invocation;
  ADD_FAILURE() << "refused: " << invocation.error().text;
  return {};
}

Stop stopped(const Words& words) {
  const auto invocation = parse_command_line(words);
  if (!invocation.has_value()) return invocation.error();
  ADD_FAILURE() << "accepted";
  return {};
}

TEST(CommandLine, FilterWordsAreJoinedWhateverTheyAre) {
  EXPECT_EQ(parsed({"ls", "sport", "=", ":80"}).filter, "sport = :80");
  EXPECT_EQ(parsed({"ls", "(", "src", "[fd00::1]", "or", "!", "pid", "3", ")"}).filter, "( src [fd00::1] or ! pid 3 )");
  EXPECT_EQ(parsed({"ls", "sport >= 1024 and dst 10.0.0.0/8"}).filter, "sport >= 1024 and dst 10.0.0.0/8");
  // Words that are names of commands, too.
  EXPECT_EQ(parsed({"offload", "program", "run"}).filter, "program run");
  EXPECT_EQ(parsed({"upload", "--", "program", "-bash"}).filter, "program -bash");
  EXPECT_EQ(parsed({"ls"}).filter, "");
}

TEST(CommandLine, OptionsStandBeforeBehindAndBetweenWords) {
  for (const Words& words : {Words{"--socket", "/s", "offload", "-j", "sk:1", "all"},
                             Words{"offload", "sk:1", "--socket", "/s", "all", "-j"},
                             Words{"offload", "--json", "sk:1", "all", "--socket=/s"}}) {
    const Invocation invocation = parsed(words);
    EXPECT_EQ(invocation.command, Command::kOffload);
    EXPECT_EQ(invocation.socket, "/s");
    EXPECT_TRUE(invocation.json);
    EXPECT_EQ(invocation.filter, "sk:1 all");
  }
}

TEST(CommandLine, RunTakesEverythingBehindTheMarkAsItStands) {
  const Invocation invocation =
      parsed({"run", "--socket", "/s", "--", "redis-server", "--port", "7", "--", "-j", "[x]"});
  EXPECT_EQ(invocation.command, Command::kRun);
  EXPECT_EQ(invocation.socket, "/s");
  EXPECT_FALSE(invocation.json);
  EXPECT_THAT(invocation.program, ElementsAre("redis-server", "--port", "7", "--", "-j", "[x]"));
}

TEST(CommandLine, RunTakesTheProgramWithoutTheMarkToo) {
  const Invocation invocation = parsed({"run", "iperf3", "-s", "--socket", "x", "run"});
  EXPECT_THAT(invocation.program, ElementsAre("iperf3", "-s", "--socket", "x", "run"));
  EXPECT_FALSE(invocation.socket.has_value());
}

TEST(CommandLine, ServiceOptions) {
  const ServiceArguments service =
      parsed({"service", "--interface", "a@n",    "-i",         "b",       "--socket",
              "/s",      "--policy",    "manual", "--xdp-mode", "generic", "--max-connections",
              "7",       "--spin-us",   "9",      "--cpu",      "1,2",     "--log-level",
              "warn",    "--config",    "f"})
          .service;
  EXPECT_THAT(service.interfaces, ElementsAre("a@n", "b"));
  EXPECT_EQ(service.socket, "/s");
  EXPECT_EQ(service.policy, "manual");
  EXPECT_EQ(service.xdp_mode, "generic");
  EXPECT_EQ(service.max_connections, 7U);
  EXPECT_EQ(service.spin_us, 9U);
  EXPECT_EQ(service.cpu, "1,2");
  EXPECT_EQ(service.log_level, "warn");
  EXPECT_EQ(service.config, "f");
  const ServiceArguments none = parsed({"service"}).service;
  EXPECT_TRUE(none.interfaces.empty());
  EXPECT_FALSE(none.socket || none.policy || none.xdp_mode || none.max_connections || none.spin_us || none.cpu ||
               none.log_level || none.config);
  EXPECT_EQ(parsed({"--socket", "/t", "service"}).service.socket, "/t");
}

TEST(CommandLine, ChurnStatsAndDoctor) {
  const Invocation churn = parsed({"churn", "--interval-ms", "20", "--duration-s", "1.5", "--wait"});
  EXPECT_EQ(churn.command, Command::kChurn);
  EXPECT_EQ(churn.churn_interval_ms, 20U);
  EXPECT_EQ(churn.churn_duration_s, 1.5);
  EXPECT_TRUE(churn.churn_wait);
  EXPECT_EQ(parsed({"stats", "-j"}).command, Command::kStats);
  EXPECT_TRUE(parsed({"stats", "-j"}).json);
  const Invocation doctor = parsed({"doctor", "-i", "a", "--interface", "b@c", "-j"});
  EXPECT_EQ(doctor.command, Command::kDoctor);
  EXPECT_THAT(doctor.interfaces, ElementsAre("a", "b@c"));
}

TEST(CommandLine, MistakesAreUsageErrorsThatSayWhereHelpIs) {
  for (const Words& words : {Words{},
                             Words{"fly"},
                             Words{"offload"},
                             Words{"upload", "-j"},
                             Words{"ls", "--jsn"},
                             Words{"ls", "-x", "all"},
                             Words{"run"},
                             Words{"run", "--"},
                             Words{"run", "--frobnicate"},
                             Words{"stats", "all"},
                             Words{"stats", "--", "x"},
                             Words{"churn", "--interval-ms", "0"},
                             Words{"churn", "--interval-ms", "x"},
                             Words{"churn", "--duration-s", "-1"},
                             Words{"service", "--max-connections", "many"},
                             Words{"service", "--spin-us", "-1"},
                             Words{"service", "eth0"},
                             Words{"-x", "ls"},
                             Words{"stats", "-x"},
                             Words{"churn", "-x"},
                             Words{"ls", "--socket"},
                             Words{"service", "--interface"}}) {
    const Stop stop = stopped(words);
    EXPECT_EQ(stop.exit_code, kUsage) << ::testing::PrintToString(words);
    EXPECT_THAT(stop.text, HasSubstr("--help")) << ::testing::PrintToString(words);
  }
  EXPECT_EQ(stopped({"ls", "--jsn"}).text, "twinstack: unknown option '--jsn'\nTry: twinstack ls --help\n");
}

std::string first_line(const Stop& stop) { return stop.text.substr(0, stop.text.find('\n')); }

TEST(CommandLine, WordsThatAreNotKnownAreNamed) {
  const std::string names = "one of service, run, ls, offload, upload, stats, churn, doctor, sim";
  EXPECT_EQ(first_line(stopped({"foo"})), "twinstack: unknown command 'foo': " + names);
  EXPECT_EQ(first_line(stopped({"--socket", "/s", "foo", "bar"})), "twinstack: unknown command 'foo': " + names);
  EXPECT_EQ(first_line(stopped({"-j", "foo"})), "twinstack: unknown command 'foo': " + names);
  EXPECT_EQ(first_line(stopped({"--foo"})), "twinstack: unknown option '--foo'");
  EXPECT_EQ(first_line(stopped({"-x", "ls"})), "twinstack: unknown option '-x'");
  EXPECT_EQ(first_line(stopped({"churn", "-x"})), "twinstack: unknown option '-x'");
  EXPECT_EQ(first_line(stopped({"stats", "all"})), "twinstack: 'all' is not expected here");
}

TEST(CommandLine, WhatTheSimulatorIsTold) {
  const SimArguments sim =
      parsed({"sim", "--seed", "7", "--seeds", "3", "--duration-s", "0.5", "--connections", "2", "--moves-per-s", "10",
              "--faults", "loss", "--only", "1,5", "--live", "--congestion", "bbr,dctcp"})
          .sim;
  EXPECT_EQ(sim.seed, 7U);
  EXPECT_EQ(sim.seeds, 3U);
  EXPECT_EQ(sim.duration_s, 0.5);
  EXPECT_EQ(sim.connections, 2U);
  EXPECT_EQ(sim.moves_per_s, 10U);
  EXPECT_EQ(sim.faults, "loss");
  EXPECT_THAT(sim.congestion, ElementsAre("bbr", "dctcp"));
  EXPECT_THAT(sim.only, ElementsAre(1U, 5U));
  EXPECT_TRUE(sim.live);
  EXPECT_EQ(parsed({"sim"}).sim.faults, "all");
  EXPECT_EQ(stopped({"sim", "--connections", "0"}).exit_code, kUsage);
  EXPECT_THAT(parsed({"sim", "--congestion", "first"}).sim.congestion, ElementsAre("first"));
}

TEST(CommandLine, TheHelpOfTheSimulatorNamesEveryFault) {
  const std::string help = stopped({"sim", "--help"}).text;
  for (std::size_t kind = sim::kFirstFault; kind < sim::kEventKinds; ++kind)
    EXPECT_THAT(help, HasSubstr(" " + std::string(sim::name(static_cast<sim::EventKind>(kind)))));
}

TEST(CommandLine, JsonIsTakenByEveryCommandThatReports) {
  for (const char* command : {"ls", "stats", "churn", "doctor", "sim"}) {
    EXPECT_TRUE(parsed({command, "-j"}).json) << command;
    EXPECT_TRUE(parsed({command, "--json"}).json) << command;
    EXPECT_TRUE(parsed({"-j", command}).json) << command;
    EXPECT_FALSE(parsed({command}).json) << command;
  }
  for (const char* command : {"offload", "upload"}) EXPECT_TRUE(parsed({command, "all", "-j"}).json) << command;
}

TEST(CommandLine, RunAndServiceSayThatTheyHaveNoJson) {
  for (const Words& words :
       {Words{"run", "-j", "--", "true"}, Words{"run", "--json", "true"}, Words{"-j", "run", "--", "true"},
        Words{"service", "-i", "e", "-j"}, Words{"-j", "service", "-i", "e"}}) {
    const Stop stop = stopped(words);
    EXPECT_EQ(stop.exit_code, kUsage);
    EXPECT_THAT(stop.text, ::testing::ContainsRegex("'(run|service)' has no -(j|-json): it"));
  }
}

TEST(CommandLine, WordsOfRunBeforeTheProgramAreOptions) {
  EXPECT_EQ(first_line(stopped({"run", "-x", "--", "true"})), "twinstack: unknown option '-x'");
  EXPECT_EQ(first_line(stopped({"run", "--socket", "/s", "--frob", "true"})), "twinstack: unknown option '--frob'");
  EXPECT_THAT(parsed({"run", "make", "-j", "--", "all"}).program, ElementsAre("make", "-j", "--", "all"));
  EXPECT_THAT(parsed({"run", "--", "-odd", "-j"}).program, ElementsAre("-odd", "-j"));
}

TEST(CommandLine, MistakesAreJsonWhenItWasAskedFor) {
  const Stop stop = stopped({"churn", "-x", "-j"});
  EXPECT_TRUE(stop.json);
  EXPECT_EQ(stop.error, "unknown option '-x'");
  EXPECT_TRUE(stopped({"foo", "--json"}).json);
  EXPECT_TRUE(stopped({"churn", "-j", "--interval-ms", "x"}).json);
  EXPECT_FALSE(stopped({"foo"}).json);
  EXPECT_FALSE(stopped({"stats", "--", "-j"}).json);
  EXPECT_FALSE(stopped({"ls", "-j", "--help"}).json);
}

TEST(CommandLine, HelpAndVersion) {
  const Stop help = stopped({"--help"});
  EXPECT_EQ(help.exit_code, kSuccess);
  EXPECT_THAT(help.text, HasSubstr("Examples:"));
  for (const char* command : {"service", "run", "ls", "offload", "upload", "stats", "churn", "doctor", "sim"}) {
    EXPECT_THAT(help.text, HasSubstr(command));
    const Stop own = stopped({command, "--help"});
    EXPECT_EQ(own.exit_code, kSuccess);
    EXPECT_THAT(own.text, HasSubstr("--socket"));
    EXPECT_THAT(own.text, HasSubstr(std::string("Usage: twinstack ") + command + " [OPTIONS]"));
    EXPECT_EQ(own.text.back(), '\n');
  }
  EXPECT_THAT(stopped({"ls", "--help"}).text, HasSubstr("twinstack ls sport 7000"));
  EXPECT_THAT(stopped({"run", "--help"}).text, HasSubstr("Usage: twinstack run [OPTIONS] -- PROGRAM [ARGS...]"));
  const Stop version = stopped({"--version"});
  EXPECT_EQ(version.exit_code, kSuccess);
  EXPECT_THAT(version.text, ::testing::MatchesRegex("twinstack [0-9.]+\n"));
}

TEST(CommandLine, SocketPathPrefersTheOptionThenTheEnvironment) {
  ::setenv("TWINSTACK_SOCKET", "/from/environment", 1);
  EXPECT_EQ(socket_path(parsed({"ls", "--socket", "/given"})), "/given");
  EXPECT_EQ(socket_path(parsed({"ls"})), "/from/environment");
  ::setenv("TWINSTACK_SOCKET", "", 1);
  EXPECT_EQ(socket_path(parsed({"ls"})), ipc::kDefaultSocketPath);
  ::unsetenv("TWINSTACK_SOCKET");
  EXPECT_EQ(socket_path(parsed({"ls"})), ipc::kDefaultSocketPath);
}

}  // namespace
}  // namespace twinstack::cli
