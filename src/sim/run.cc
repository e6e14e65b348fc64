#include "sim/run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <csignal>
#include <cstring>
#include <mutex>
#include <thread>
#include <type_traits>

#include "base/unique_fd.h"

namespace twinstack::sim {
namespace {

// Wall time of a run: more is a hang. (A virtual second of eight connections takes some 50 ms, of 200 some 20 s: each
// instant looks at all.)
constexpr unsigned kLeastPatience = 30;
constexpr unsigned kPatiencePerSecond = 20;
constexpr unsigned kFewConnections = 20;

unsigned patience_s(const Options& options) {
  const auto seconds = static_cast<unsigned>(options.duration / std::chrono::seconds(1));
  const unsigned crowd = 1 + options.connections / kFewConnections;
  return (kLeastPatience + seconds * kPatiencePerSecond) * crowd;
}

// Held while there are pipes of a child that others must not inherit; and by whoever prints, as a child that is forked
// in the midst of that could not.
std::mutex g_fork_mutex;

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

[[noreturn]] void be_child(const Options& options, const Pipes& answer, const Pipes& words, Time* clock) {
  ::dup2(words.write.get(), STDERR_FILENO);
  ::alarm(patience_s(options));
  const Outcome outcome = run_here(options, clock);
  const Wire wire{.totals = outcome.totals, .coverage = outcome.coverage, .failed_at = outcome.failed_at};
  write_all(answer.write.get(), &wire, sizeof wire);
  write_all(answer.write.get(), outcome.failure.data(), outcome.failure.size());
  ::_exit(0);
}

// Memory that a child shares: the time that its world has come to is known when it dies.
class SharedClock {
 public:
  SharedClock() : at_(::mmap(nullptr, sizeof(Time), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {}
  ~SharedClock() {
    if (at_ != MAP_FAILED) ::munmap(at_, sizeof(Time));
  }
  SharedClock(const SharedClock&) = delete;
  SharedClock& operator=(const SharedClock&) = delete;

  [[nodiscard]] Time* get() const noexcept { return at_ == MAP_FAILED ? nullptr : static_cast<Time*>(at_); }
  [[nodiscard]] Time now() const noexcept { return get() == nullptr ? Time{} : *get(); }

 private:
  void* at_;
};

std::string last_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

}  // namespace

Outcome run_here(const Options& options, Time* clock) {
  const Shape shape = make_shape(options);
  World world(options, shape, make_events(options, shape));
  world.show_clock(clock);
  return world.run();
}

namespace {

Outcome outcome_of(const std::string& told, const std::string& said, int status, Time died_at) {
  Outcome outcome;
  if (WIFSIGNALED(status)) {
    const int number = WTERMSIG(status);
    outcome.failure = number == SIGALRM ? "no end: what it does at one instant, or the run, takes for ever"
                                        : fmt::format("{}: {}", ::strsignal(number), last_line(said));
    outcome.failed_at = died_at;
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

}  // namespace

Outcome run_guarded(const Options& options) {
  const SharedClock clock;
  Pipes answer;
  Pipes words;
  pid_t child = -1;
  {
    const std::lock_guard lock(g_fork_mutex);
    prepare_streams();
    answer = Pipes::make();
    words = Pipes::make();
    child = ::fork();
    if (child == 0) be_child(options, answer, words, clock.get());
    answer.write.reset();
    words.write.reset();
  }
  if (child < 0) {
    Outcome outcome;
    outcome.failure = "no child process could be made";
    return outcome;
  }
  const std::string told = read_all(answer.read.get());
  const std::string said = read_all(words.read.get());
  int status = 0;
  ::waitpid(child, &status, 0);
  return outcome_of(told, said, status, clock.now());
}

std::vector<Failed> run_seeds(const Options& options, std::uint64_t count, unsigned jobs, bool keep_going,
                              const std::function<void(std::uint64_t, const Outcome&)>& note) {
  std::atomic<std::uint64_t> next = 0;
  std::atomic<bool> over = false;
  std::vector<Failed> failures;
  const auto work = [&] {
    for (std::uint64_t i = next++; i < count && !over; i = next++) {
      Options one = options;
      one.seed += i;
      Outcome outcome = run_guarded(one);
      const std::lock_guard lock(g_fork_mutex);
      note(one.seed, outcome);
      if (outcome.ok()) continue;
      failures.push_back({.seed = one.seed, .outcome = std::move(outcome)});
      over = !keep_going;
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < jobs; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  std::ranges::sort(failures, {}, &Failed::seed);
  return failures;
}

std::string command_for(const Options& options) {
  const Options usual;
  std::string command = fmt::format("twinstack sim --seed {}", options.seed);
  if (options.duration != usual.duration)
    command += fmt::format(" --duration-s {}", std::chrono::duration<double>(options.duration).count());
  if (options.connections != usual.connections) command += fmt::format(" --connections {}", options.connections);
  if (options.moves_per_s != usual.moves_per_s) command += fmt::format(" --moves-per-s {}", options.moves_per_s);
  if (options.faults.on != usual.faults.on) command += fmt::format(" --faults {}", to_list(options.faults));
  if (options.congestion_controls != usual.congestion_controls)
    command += fmt::format(" --congestion {}", options.congestion_controls.empty()
                                                   ? kFirstCongestion
                                                   : fmt::format("{}", fmt::join(options.congestion_controls, ",")));
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
  using Clock = std::chrono::steady_clock;

  Shrinker(const Options& options, std::string name, std::uint32_t most_runs, std::chrono::nanoseconds longest,
           const std::function<Outcome(const Options&)>& run)
      : options_(options), name_(std::move(name)), most_runs_(most_runs), ends_at_(Clock::now() + longest), run_(run) {}

  // Zeller's ddmin: halves, then ever smaller parts are left out.
  std::vector<std::uint32_t> minimize(std::vector<std::uint32_t> numbers) {
    std::size_t parts = 2;
    while (numbers.size() > 1 && may_run()) {
      if (cut_one_part(numbers, parts)) {
        parts = std::max<std::size_t>(parts - 1, 2);
        continue;
      }
      if (parts >= numbers.size()) break;
      parts = std::min(parts * 2, numbers.size());
    }
    return numbers;
  }

  // Leaves out all that `belongs` names, if it can.
  void drop(std::vector<std::uint32_t>& numbers, const std::vector<Event>& events,
            const std::function<bool(const Event&)>& belongs) {
    std::vector<std::uint32_t> rest;
    for (const std::uint32_t number : numbers)
      if (!belongs(events[number])) rest.push_back(number);
    if (!rest.empty() && rest.size() < numbers.size() && still_fails(rest)) numbers = std::move(rest);
  }

  [[nodiscard]] bool still_fails(const std::vector<std::uint32_t>& numbers) {
    if (!may_run()) return false;
    ++runs_;
    Options options = options_;
    options.only.emplace(numbers.begin(), numbers.end());
    const Outcome outcome = run_(options);
    return !outcome.ok() && failure_name(outcome.failure) == name_;
  }
  [[nodiscard]] std::uint32_t runs() const noexcept { return runs_; }

 private:
  [[nodiscard]] bool may_run() const { return runs_ < most_runs_ && Clock::now() < ends_at_; }
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
  Clock::time_point ends_at_;
  const std::function<Outcome(const Options&)>& run_;
  std::uint32_t runs_ = 0;
};

}  // namespace

Shrunk shrink(const Options& options, const Outcome& failed, std::uint32_t most_runs,
              const std::function<Outcome(const Options&)>& runs, std::chrono::nanoseconds longest) {
  const std::vector<Event> events = make_events(options, make_shape(options));
  Options whole = options;
  whole.only.reset();
  const std::vector<Event> by_number = make_events(whole, make_shape(whole));
  Shrinker shrinker(options, failure_name(failed.failure), most_runs, longest, runs);
  std::vector<std::uint32_t> all;
  std::vector<std::uint32_t> before;  // what had happened by then
  for (const Event& event : events) {
    all.push_back(event.number);
    if (failed.failed_at == Time{} || kBeginning + event.at <= failed.failed_at) before.push_back(event.number);
  }
  const bool early = before.size() < all.size() && shrinker.still_fails(before);
  std::vector<std::uint32_t> kept = early ? before : all;
  for (std::size_t kind = kFirstFault; kind < kEventKinds; ++kind)
    shrinker.drop(kept, by_number, [kind](const Event& event) { return event.kind == static_cast<EventKind>(kind); });
  std::set<std::uint32_t> connections;
  for (const std::uint32_t number : kept)
    if (by_number[number].kind == EventKind::kOpen) connections.insert(by_number[number].target);
  for (const std::uint32_t connection : connections)
    shrinker.drop(kept, by_number, [connection](const Event& event) {
      return target_of(event.kind) == Target::kConnection && event.target == connection;
    });
  kept = shrinker.minimize(std::move(kept));
  Shrunk shrunk{.events = {}, .options = options, .runs = shrinker.runs()};
  shrunk.options.only.emplace(kept.begin(), kept.end());
  for (const Event& event : events)
    if (shrunk.options.only->contains(event.number)) shrunk.events.push_back(event);
  return shrunk;
}

}  // namespace twinstack::sim
