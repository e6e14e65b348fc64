// The words of the command line as data. parse_command_line() decides nothing but what was meant; the commands
// (commands.h) act. Pure but for --help's width and nothing else: no exit, no output, no environment. Any thread.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <vector>

namespace twinstack::cli {

enum ExitCode : int {
  kSuccess = 0,
  kFailure = 1,  // nothing matched, something was refused, no service, a check failed
  kUsage = 2,    // the command line or the configuration is wrong
};

// As given; what is not given may come from --config and then from defaults (service_options.h).
struct ServiceArguments {
  std::vector<std::string> interfaces;
  std::optional<std::string> socket;
  std::optional<std::string> policy;
  std::optional<std::string> xdp_mode;
  std::optional<std::uint32_t> max_connections;
  std::optional<std::uint32_t> spin_us;
  std::optional<std::string> cpu;
  std::optional<std::string> log_level;
  std::optional<std::string> config;
};

struct SimArguments {
  std::uint64_t seed = 1;
  std::uint64_t seeds = 1;
  std::uint32_t jobs = 1;
  double duration_s = 1;
  std::uint32_t connections = 8;
  std::uint32_t moves_per_s = 1000;
  std::string faults = "all";
  std::vector<std::string> congestion;  // empty: all
  std::vector<std::uint32_t> only;
  std::string trace;
  bool live = false;
  bool keep_going = false;
  std::uint32_t shrink = 1000;  // runs
};

struct Invocation {
  enum class Command : std::uint8_t { kService, kRun, kList, kOffload, kUpload, kStats, kChurn, kDoctor, kSim };
  Command command = Command::kList;
  std::optional<std::string> socket;  // --socket, before or behind the command's name
  bool json = false;                  // -j, before or behind it
  std::string filter;                 // ls, offload, upload: the words joined by blanks
  ServiceArguments service;
  std::vector<std::string> program;     // run: PROGRAM ARGS...
  std::vector<std::string> interfaces;  // doctor
  std::uint32_t churn_interval_ms = 100;
  double churn_duration_s = 10;
  bool churn_wait = false;
  SimArguments sim;
};

// Instead of an invocation: --help, --version or a mistake.
struct Stop {
  int exit_code = kSuccess;
  std::string text;   // for standard output when exit_code is 0, else for standard error
  bool json = false;  // -j was there: `error` goes to standard output as JSON, too
  std::string error;  // the mistake alone
};

// `arguments` without the program's own name.
[[nodiscard]] std::expected<Invocation, Stop> parse_command_line(std::vector<std::string> arguments);

// --socket, else $TWINSTACK_SOCKET, else the default path. Reads the environment.
[[nodiscard]] std::string socket_path(const Invocation& invocation);

}  // namespace twinstack::cli
