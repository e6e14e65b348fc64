#include "cli/command_line.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "cli/version.h"
#include "ipc/messages.h"
#include "sim/event.h"
#include "sim/run.h"

namespace twinstack::cli {
namespace {

using Command = Invocation::Command;

constexpr const char* kDescription =
    "Moves live TCP connections between the Linux kernel and a user-space engine on AF_XDP, and back.";

constexpr const char* kExamples = R"(Examples:
  twinstack doctor                                   what this machine lacks, and how to mend it
  twinstack service --interface eth0                 serve applications on eth0
  twinstack service -i veth0@blue --policy manual    in network namespace blue; connections move by command only
  twinstack run -- redis-server --port 7000          start a program under the socket layer
  twinstack ls 'sport = :7000'                       its connections, as ss would show them
  twinstack offload 'program redis-server and dst 10.0.0.0/8'
  twinstack upload all                               bring every connection back to the kernel
  twinstack churn --interval-ms 100 --duration-s 10 --wait
  twinstack sim --seeds 100                          moves by the thousand in a simulated network; needs nothing

Every command takes --help.)";

constexpr const char* kFilterHelp = R"(FILTER (as ss takes it; the words may be one argument or several):
  all   sk:HEX   hw:HEX   pid N   program GLOB   stack kernel|engine   state STATE
  src|dst ADDR[/PREFIX][:PORT]          10.0.0.0/8   [fd00::1]:80   fd00::/16   :443
  sport|dport [= != < <= > >=] [:]PORT
  not (!), and, or, parentheses; `and` may be left out. Quote what the shell would take: < > ! ( ) *

Examples:
  twinstack {0} sport 7000
  twinstack {0} 'program redis* and not dst 10.0.0.0/8'
  twinstack {0} sk:1f)";

// A word that a filter cannot hold and that is no option of ours.
std::optional<std::string> stray_option(const std::vector<std::string>& words) {
  const auto found = std::ranges::find_if(words, [](const std::string& word) { return word.starts_with('-'); });
  return found == words.end() ? std::nullopt : std::optional(*found);
}

bool is_json_flag(std::string_view word) { return word == "-j" || word == "--json"; }

// CLI11 2.1 cannot be told a usage line.
class OwnUsage : public CLI::Formatter {
 public:
  explicit OwnUsage(std::string usage) : usage_(std::move(usage)) {}
  std::string make_usage(const CLI::App* /*app*/, std::string /*name*/) const override { return usage_ + '\n'; }

 private:
  std::string usage_;
};

// What stands behind `--`; nothing: there was none.
using Tail = std::optional<std::vector<std::string>>;

// Declares the commands to CLI11, which writes what it reads into `invocation_`.
class Declaration {
 public:
  Declaration();
  [[nodiscard]] std::expected<Invocation, Stop> parse(std::vector<std::string> head, const Tail& tail);

 private:
  CLI::App* add(Command command, const char* name, const char* description);
  void add_json(CLI::App* app) { app->add_flag("-j,--json", invocation_.json, "print JSON"); }
  void add_socket(CLI::App* app) {
    app->add_option("--socket", invocation_.socket,
                    "the service's socket (else $TWINSTACK_SOCKET, else the default path)")
        ->type_name("PATH");
  }
  [[nodiscard]] std::string names() const;
  void add_filter_command(Command command, const char* name, const char* description, const char* usage);
  void add_service();
  void add_run();
  void add_churn();
  void add_doctor();
  void add_sim();
  [[nodiscard]] std::expected<Invocation, Stop> finish(const Tail& tail);
  [[nodiscard]] std::expected<Invocation, Stop> take_filter(std::vector<std::string> words, bool needed) const;
  [[nodiscard]] std::expected<Invocation, Stop> take_program(std::vector<std::string> words, const Tail& tail);
  [[nodiscard]] std::unexpected<Stop> no_command() const;
  [[nodiscard]] std::unexpected<Stop> stray(const std::string& word) const;

  CLI::App app_{kDescription, "twinstack"};
  Invocation invocation_;
  CLI::App* chosen_ = nullptr;
};

std::unexpected<Stop> usage_error(const CLI::App* app, std::string_view what) {
  const std::string name = app->get_parent() == nullptr ? "twinstack" : "twinstack " + app->get_name();
  return std::unexpected(Stop{.exit_code = kUsage,
                              .text = fmt::format("twinstack: {}\nTry: {} --help\n", what, name),
                              .json = false,
                              .error = std::string(what)});
}

std::unexpected<Stop> answer(std::string text) {
  return std::unexpected(Stop{.exit_code = kSuccess, .text = std::move(text) + '\n', .json = false, .error = {}});
}

CLI::App* Declaration::add(Command command, const char* name, const char* description) {
  CLI::App* app = app_.add_subcommand(name, description);
  app->final_callback([this, app, command] {
    chosen_ = app;
    invocation_.command = command;
  });
  app->formatter(std::make_shared<OwnUsage>(fmt::format("Usage: twinstack {} [OPTIONS]", name)));
  app->allow_extras();  // stray() has better words for them
  add_socket(app);
  return app;
}

Declaration::Declaration() {
  app_.set_version_flag("--version", std::string("twinstack ") + kVersion);
  app_.footer(kExamples);
  app_.formatter(std::make_shared<OwnUsage>("Usage: twinstack [OPTIONS] COMMAND [OPTIONS] [WORDS]"));
  app_.require_subcommand(1);
  app_.allow_extras();
  add_socket(&app_);
  add_json(&app_);
  add_service();
  add_run();
  add_filter_command(Command::kList, "ls", "Lists the connections that the service knows", "[FILTER...]");
  add_filter_command(Command::kOffload, "offload", "Moves connections to the engine", "FILTER...");
  add_filter_command(Command::kUpload, "upload", "Moves connections back to the kernel", "FILTER...");
  add_json(add(Command::kStats, "stats", "Counters of the service, and how long moves paused connections"));
  add_churn();
  add_doctor();
  add_sim();
}

void Declaration::add_filter_command(Command command, const char* name, const char* description, const char* usage) {
  CLI::App* app = add(command, name, description);
  add_json(app);
  // No positional option for the words: CLI11 would take the brackets off [fd00::1].
  app->formatter(std::make_shared<OwnUsage>(fmt::format("Usage: twinstack {} [OPTIONS] {}", name, usage)));
  app->footer(fmt::format(fmt::runtime(kFilterHelp), name));
}

void Declaration::add_service() {
  CLI::App* app = add(Command::kService, "service", "Runs the service: the driver and the engine's lanes (root)");
  ServiceArguments& service = invocation_.service;
  app->add_option("-i,--interface", service.interfaces, "interface to attach to; may be given several times")
      ->type_name("IF[@NETNS]")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  app->add_option("--policy", service.policy,
                  "what moves to the engine: auto (default), all, or manual: by command only")
      ->type_name("POLICY");
  app->add_option("--xdp-mode", service.xdp_mode, "auto (default), native, generic or zerocopy")->type_name("MODE");
  app->add_option("--max-connections", service.max_connections, "of the engine, per queue (default 16384)")
      ->type_name("N");
  app->add_option("--spin-us", service.spin_us, "how long an idle lane polls before it sleeps (default 0)")
      ->type_name("N");
  app->add_option("--cpu", service.cpu, "CPUs that the lanes are pinned to, in turn, as 2,4-6 (default: not pinned)")
      ->type_name("LIST");
  app->add_option("--log-level", service.log_level, "trace, debug, info (default), warn, error or off")
      ->type_name("LEVEL");
  app->add_option("--config", service.config, "TOML file with the same keys; the command line wins")->type_name("FILE");
  app->footer(
      R"(Prints "ready" when programs may connect; has no -j (stats -j tells how it does). SIGTERM or SIGINT: every connection goes back to the kernel first.

Examples:
  twinstack service --interface eth0
  twinstack service -i veth0@blue -i veth1@blue --policy manual --socket /tmp/ts.sock
  twinstack service --config /etc/twinstack.toml --log-level debug)");
}

void Declaration::add_run() {
  CLI::App* app = add(Command::kRun, "run", "Runs a program whose TCP connections the service may move");
  app->formatter(std::make_shared<OwnUsage>("Usage: twinstack run [OPTIONS] -- PROGRAM [ARGS...]"));
  app->prefix_command();
  app->footer(R"(Without a service, and for static or setuid programs, the connections stay in the kernel.
Becomes the program, whose output is its own: has no -j.

Examples:
  twinstack run -- redis-server --port 7000
  twinstack run --socket /tmp/ts.sock -- python3 server.py)");
}

void Declaration::add_churn() {
  CLI::App* app = add(Command::kChurn, "churn", "Moves all connections back and forth for a while: a test (root)");
  add_json(app);
  app->add_option("--interval-ms", invocation_.churn_interval_ms, "between two moves (default 100)")
      ->type_name("N")
      ->check(CLI::Range(1, 3'600'000));
  app->add_option("--duration-s", invocation_.churn_duration_s, "of the whole (default 10); 0 ends a churn that runs")
      ->type_name("S")
      ->check(CLI::Range(0.0, 86'400.0));
  app->add_flag("--wait", invocation_.churn_wait, "return when it is over; an interrupt ends it");
}

void Declaration::add_doctor() {
  CLI::App* app = add(Command::kDoctor, "doctor", "Examines this machine: what is missing, and how to mend it");
  add_json(app);
  app->add_option("-i,--interface", invocation_.interfaces, "look at this one only; may be given several times")
      ->type_name("IF[@NETNS]")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  app->footer("Exit status: 0 when everything that is required is there, 1 when not.");
}

// CLI11 takes -1 for 2^64 - 1, and "nan" for a number in any range.
std::string whole_number(std::string& text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_good = error == std::errc() && end == text.data() + text.size();
  return is_good ? "" : "'" + text + "' is no whole number from 0 to 2^64 - 1";
}

std::string finite_number(std::string& text) {
  double value = 0;
  return CLI::detail::lexical_cast(text, value) && std::isfinite(value) ? "" : "'" + text + "' is no number";
}

void Declaration::add_sim() {
  CLI::App* app =
      add(Command::kSim, "sim", "Moves connections in a simulated network, with faults; needs no privilege");
  SimArguments& sim = invocation_.sim;
  add_json(app);
  app->add_option("--seed", sim.seed, "what everything follows from (default 1)")
      ->type_name("N")
      ->check(CLI::Validator(whole_number, ""));
  app->add_option("--seeds", sim.seeds, "so many, from --seed on (default 1)")
      ->type_name("N")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1'000'000'000}));
  app->add_option("--jobs", sim.jobs, "so many seeds at a time, each in a process of its own (default 1)")
      ->type_name("N")
      ->check(CLI::Range(1, 256));
  app->add_option("--duration-s", sim.duration_s, "virtual time with faults and moves; then all is to end (default 1)")
      ->type_name("S")
      ->check(CLI::Range(0.001, 3600.0))
      ->check(CLI::Validator(finite_number, ""));
  app->add_option("--connections", sim.connections, "of each seed (default 8)")
      ->type_name("N")
      ->check(CLI::Range(1, 1000));
  app->add_option("--moves-per-s", sim.moves_per_s, "orders to move, of virtual time, both ways (default 1000)")
      ->type_name("N")
      ->check(CLI::Range(0, 1'000'000));
  app->add_option("--faults", sim.faults, "all (default), none, or names; a minus takes one out: all,-driver-death")
      ->type_name("LIST");
  app->add_option(
         "--congestion", sim.congestion,
         "congestion controls, one for each host (default all four); `first` alone: as the first seeds had them")
      ->type_name("LIST")
      ->delimiter(',')
      ->check(CLI::IsMember({"cubic", "reno", "dctcp", "bbr", sim::kFirstCongestion}));
  app->add_option("--only", sim.only, "of the seed's events these numbers only")->type_name("LIST")->delimiter(',');
  app->add_option("--trace", sim.trace, "write what passes the moving host's interface")->type_name("FILE.pcap");
  app->add_flag("--live", sim.live, "show throughput and moves while it runs");
  app->add_option("--shrink", sim.shrink,
                  "runs that a failure's events may be cut down in (default 1000; 0: leave them)")
      ->type_name("RUNS")
      ->check(CLI::Range(0, 1'000'000));
  app->add_flag("--keep-going", sim.keep_going, "go on after a seed that fails");
  app->footer(fmt::format(
      R"(Exit status: 0 when all seeds went well, 1 when one failed: its events are cut down to those that it takes, and the
command that repeats it is printed.

Faults
{}
Examples:
  twinstack sim --live --duration-s 10
  twinstack sim --seeds 1000 --jobs 4 --moves-per-s 10000 --faults all,-driver-death
  twinstack sim --seed 4711 --faults none --trace /tmp/4711.pcap)",
      sim::fault_names()));
}

std::expected<Invocation, Stop> Declaration::take_filter(std::vector<std::string> words, bool needed) const {
  Invocation invocation = invocation_;
  invocation.filter = fmt::format("{}", fmt::join(words, " "));
  if (needed && invocation.filter.empty())
    return usage_error(chosen_, "which connections? Give a filter; `all` is one");
  return invocation;
}

std::string Declaration::names() const {
  std::vector<std::string> names;
  for (const CLI::App* app : app_.get_subcommands({})) names.push_back(app->get_name());
  return fmt::format("{}", fmt::join(names, ", "));
}

// The words of the chosen command that it has no use for, one by one as they stand.
std::unexpected<Stop> Declaration::stray(const std::string& word) const {
  const bool starts_programs = invocation_.command == Command::kRun || invocation_.command == Command::kService;
  if (starts_programs && is_json_flag(word)) {
    const char* why = invocation_.command == Command::kRun ? "becomes the program, whose output is its own"
                                                           : "prints `ready` and runs on; ask it with `stats -j`";
    return usage_error(chosen_, fmt::format("'{}' has no {}: it {}", chosen_->get_name(), word, why));
  }
  if (word.starts_with('-')) return usage_error(chosen_, fmt::format("unknown option '{}'", word));
  return usage_error(chosen_, fmt::format("'{}' is not expected here", word));
}

std::unexpected<Stop> Declaration::no_command() const {
  const std::vector<std::string> words = app_.remaining();
  if (words.empty()) return usage_error(&app_, fmt::format("which command? One of: {}", names()));
  if (words.front().starts_with('-')) return usage_error(&app_, fmt::format("unknown option '{}'", words.front()));
  return usage_error(&app_, fmt::format("unknown command '{}': one of {}", words.front(), names()));
}

// The first word that is no option is the program, and everything behind it is the program's, `--` as well.
std::expected<Invocation, Stop> Declaration::take_program(std::vector<std::string> words, const Tail& tail) {
  if (!words.empty() && words.front().starts_with('-')) return stray(words.front());
  if (!words.empty() && tail.has_value()) words.emplace_back("--");
  if (tail.has_value()) words.insert(words.end(), tail->begin(), tail->end());
  if (words.empty()) return usage_error(chosen_, "which program? twinstack run -- PROGRAM [ARGS...]");
  invocation_.program = std::move(words);
  return invocation_;
}

std::expected<Invocation, Stop> Declaration::finish(const Tail& tail) {
  if (!app_.remaining().empty()) return no_command();
  invocation_.service.socket = invocation_.socket;
  const bool starts_programs = invocation_.command == Command::kRun || invocation_.command == Command::kService;
  if (starts_programs && invocation_.json) return stray("-j");
  std::vector<std::string> words = chosen_->remaining();
  if (invocation_.command == Command::kRun) return take_program(std::move(words), tail);
  const bool filtered = invocation_.command == Command::kList || invocation_.command == Command::kOffload ||
                        invocation_.command == Command::kUpload;
  const std::optional<std::string> option = stray_option(words);
  if (option.has_value()) return stray(*option);
  if (tail.has_value()) words.insert(words.end(), tail->begin(), tail->end());
  if (filtered) return take_filter(std::move(words), invocation_.command != Command::kList);
  if (!words.empty()) return stray(words.front());
  return invocation_;
}

std::expected<Invocation, Stop> Declaration::parse(std::vector<std::string> head, const Tail& tail) {
  std::ranges::reverse(head);  // CLI11 takes them from the back
  try {
    app_.parse(std::move(head));
  } catch (const CLI::Success&) {  // --help, --version of whichever app has seen it
    const CLI::App* app = &app_;
    if (app_.count("--version") > 0) return answer(app_.version());
    for (const CLI::App* sub : app_.get_subcommands()) app = sub;
    return answer(app->help());
  } catch (const CLI::Error& error) {
    const auto subcommands = app_.get_subcommands();
    if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && subcommands.empty()) return no_command();
    return usage_error(subcommands.empty() ? &app_ : subcommands.front(), error.what());
  }
  return finish(tail);
}

}  // namespace

std::expected<Invocation, Stop> parse_command_line(std::vector<std::string> arguments) {
  // What stands behind `--` is not ours to read: a program's options, a filter's words.
  const auto mark = std::ranges::find(arguments, "--");
  Tail tail;
  if (mark != arguments.end()) tail.emplace(mark + 1, arguments.end());
  arguments.erase(mark, arguments.end());
  // Looked for by hand: CLI11 tells nothing of options when it has found a mistake.
  const bool json = std::ranges::any_of(arguments, is_json_flag);
  auto invocation = Declaration().parse(std::move(arguments), tail);
  if (!invocation.has_value()) invocation.error().json = json && invocation.error().exit_code != kSuccess;
  return invocation;
}

std::string socket_path(const Invocation& invocation) {
  if (invocation.socket.has_value()) return *invocation.socket;
  const char* variable = std::getenv(ipc::kSocketPathVariable);
  return variable != nullptr && *variable != '\0' ? variable : ipc::kDefaultSocketPath;
}

}  // namespace twinstack::cli
