#include "sim/run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <csignal>
#include <cstring>
#include <type_traits>

#include "base/unique_fd.h"

namespace twinstack::sim {
namespace {

constexpr unsigned kMostWallSeconds = 20;  // of one run: more is a hang

struct Pipes {
  UniqueFd read;
  UniqueFd write;

  static Pipes make() {
    int ends[2] = {-1, -1};
    if (::pipe(ends) != 0) return {};
    return {.read = UniqueFd(ends[0]), .write = UniqueFd(ends[1])};
  }
};

void write_all(int fd, const void* data, std::size_t size) {
  const auto* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(fd, at, size);
    if (written <= 0) return;
    at += written;
    size -= static_cast<std::size_t>(written);
  }
}

std::string read_all(int fd) {
  std::string all;
  char buffer[4096];
  for (ssize_t got = ::read(fd, buffer, sizeof buffer); got > 0; got = ::read(fd, buffer, sizeof buffer))
    all.append(buffer, static_cast<std::size_t>(got));
  return all;
}

// What a child tells its parent, before the text of the failure.
struct Wire {
  Totals totals;
  Coverage coverage;
  Time failed_at{};
};
static_assert(std::is_trivially_copyable_v<Wire>);

[[noreturn]] void be_child(const Options& options, const Pipes& answer, const Pipes& words) {
  ::dup2(words.write.get(), STDERR_FILENO);
  ::alarm(kMostWallSeconds);
  const Outcome outcome = run_here(options);
  const Wire wire{.totals = outcome.totals, .coverage = outcome.coverage, .failed_at = outcome.failed_at};
  write_all(answer.write.get(), &wire, sizeof wire);
  write_all(answer.write.get(), outcome.failure.data(), outcome.failure.size());
  ::_exit(0);
}

std::string last_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

}  // namespace

Outcome run_here(const Options& options) {
  const Shape shape = make_shape(options);
  World world(options, shape, make_events(options, shape));
  return world.run();
}

Outcome run_guarded(const Options& options) {
  Pipes answer = Pipes::make();
  Pipes words = Pipes::make();
  Outcome outcome;
  prepare_streams();
  const pid_t child = ::fork();
  if (child == 0) be_child(options, answer, words);
  answer.write.reset();
  words.write.reset();
  if (child < 0) {
    outcome.failure = "no child process could be made";
    return outcome;
  }
  const std::string told = read_all(answer.read.get());
  const std::string said = read_all(words.read.get());
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) {
    const int number = WTERMSIG(status);
    outcome.failure = number == SIGALRM ? fmt::format("no end after {} s", kMostWallSeconds)
                                        : fmt::format("{}: {}", ::strsignal(number), last_line(said));
    return outcome;
  }
  Wire wire;
  if (told.size() < sizeof wire) {
    outcome.failure = "the run told nothing: " + last_line(said);
    return outcome;
  }
  std::memcpy(static_cast<void*>(&wire), told.data(), sizeof wire);
  outcome.totals = wire.totals;
  outcome.coverage = wire.coverage;
  outcome.failed_at = wire.failed_at;
  outcome.failure = told.substr(sizeof wire);
  return outcome;
}

std::string command_for(const Options& options) {
  const Options usual;
  std::string command = fmt::format("twinstack sim --seed {}", options.seed);
  if (options.duration != usual.duration)
    command += fmt::format(" --duration-s {}", std::chrono::duration<double>(options.duration).count());
  if (options.connections != usual.connections) command += fmt::format(" --connections {}", options.connections);
  if (options.moves_per_s != usual.moves_per_s) command += fmt::format(" --moves-per-s {}", options.moves_per_s);
  if (options.faults.on != usual.faults.on) command += fmt::format(" --faults {}", to_list(options.faults));
  if (options.only) command += fmt::format(" --only {}", fmt::join(*options.only, ","));
  return command;
}

std::string failure_name(const std::string& failure) {
  std::string name;
  for (const char c : failure.substr(0, failure.find('\n'))) {
    if (std::isdigit(static_cast<unsigned char>(c)) != 0) continue;
    name += c;
  }
  // Which connection, doing what, is not part of it.
  if (const std::size_t from = name.find("connection "), to = name.find("): "); from == 0 && to != std::string::npos)
    name.erase(0, to + 3);
  return name;
}

namespace {

class Shrinker {
 public:
  Shrinker(const Options& options, std::string name, std::uint32_t most_runs,
           const std::function<Outcome(const Options&)>& run)
      : options_(options), name_(std::move(name)), most_runs_(most_runs), run_(run) {}

  // Zeller's ddmin: halves, then ever smaller parts are left out.
  std::vector<std::uint32_t> minimize(std::vector<std::uint32_t> numbers) {
    std::size_t parts = 2;
    while (numbers.size() > 1 && runs_ < most_runs_) {
      if (cut_one_part(numbers, parts)) {
        parts = std::max<std::size_t>(parts - 1, 2);
        continue;
      }
      if (parts >= numbers.size()) break;
      parts = std::min(parts * 2, numbers.size());
    }
    return numbers;
  }

  [[nodiscard]] bool still_fails(const std::vector<std::uint32_t>& numbers) {
    if (runs_ >= most_runs_) return false;
    ++runs_;
    Options options = options_;
    options.only.emplace(numbers.begin(), numbers.end());
    const Outcome outcome = run_(options);
    return !outcome.ok() && failure_name(outcome.failure) == name_;
  }
  [[nodiscard]] std::uint32_t runs() const noexcept { return runs_; }

 private:
  bool cut_one_part(std::vector<std::uint32_t>& numbers, std::size_t parts) {
    const std::size_t size = (numbers.size() + parts - 1) / parts;
    for (std::size_t from = 0; from < numbers.size(); from += size) {
      std::vector<std::uint32_t> rest(numbers.begin(), numbers.begin() + static_cast<std::ptrdiff_t>(from));
      rest.insert(rest.end(), numbers.begin() + static_cast<std::ptrdiff_t>(std::min(from + size, numbers.size())),
                  numbers.end());
      if (!still_fails(rest)) continue;
      numbers = std::move(rest);
      return true;
    }
    return false;
  }

  const Options& options_;
  std::string name_;
  std::uint32_t most_runs_;
  const std::function<Outcome(const Options&)>& run_;
  std::uint32_t runs_ = 0;
};

}  // namespace

Shrunk shrink(const Options& options, const Outcome& failed, std::uint32_t most_runs,
              const std::function<Outcome(const Options&)>& runs) {
  const std::vector<Event> events = make_events(options, make_shape(options));
  Shrinker shrinker(options, failure_name(failed.failure), most_runs, runs);
  std::vector<std::uint32_t> all;
  std::vector<std::uint32_t> before;  // what had happened by then
  for (const Event& event : events) {
    all.push_back(event.number);
    if (failed.failed_at == Time{} || kBeginning + event.at <= failed.failed_at) before.push_back(event.number);
  }
  const bool early = before.size() < all.size() && shrinker.still_fails(before);
  const std::vector<std::uint32_t> kept = shrinker.minimize(early ? before : all);
  Shrunk shrunk{.events = {}, .options = options, .runs = shrinker.runs()};
  shrunk.options.only.emplace(kept.begin(), kept.end());
  for (const Event& event : events)
    if (shrunk.options.only->contains(event.number)) shrunk.events.push_back(event);
  return shrunk;
}

}  // namespace twinstack::sim
