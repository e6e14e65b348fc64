#include "collection.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>

#include "parser.h"

namespace twinstack::conformance {
namespace {

namespace fs = std::filesystem;

Result<std::string> read_file(const fs::path& path) {
  std::ifstream file(path);
  if (!file) return system_error("open " + path.string());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// What is known of a script where it is to run.
struct Known {
  Mark mark;
  bool may_pass = false;  // though it is marked as differing
  bool damages = false;   // the mark means that
};

Mark forgotten(const std::string& what) { return {.applies = Applies::kDiffers, .reason = "forgotten: " + what}; }

Known known_anywhere(const Script& script, const CollectionOptions& options) {
  if (script.moves.applies == Applies::kNo) return {script.moves};
  if (script.forgotten_anywhere.empty() || !options.forgets) return {};
  return {.mark = forgotten(script.forgotten_anywhere), .damages = true};
}

Known known_of(const Script& script, const CollectionOptions& options) {
  if (options.backend == Backend::kLinux) return {script.on_linux, true};  // kernels of other versions may do better
  if (options.moves == MovePlan::kNone) return {script.core, false};
  const bool round_trip = options.moves == MovePlan::kRoundTrip;
  if (options.moves == MovePlan::kAnywhere) return known_anywhere(script, options);
  for (const Mark* mark : {round_trip ? &script.round_trip : &script.after_handshake, &script.moves, &script.core}) {
    if (mark->applies != Applies::kYes) return {*mark, false};
  }
  const bool sees_it = !script.forgotten.empty() && !(script.forgotten_there_only && round_trip);
  if (!sees_it || !options.forgets) return {};
  // It need not come back when it is only moved there.
  const bool may_pass = !round_trip && !script.forgotten_there_only;
  return {forgotten(script.forgotten), may_pass};
}

// What the mark makes of what happened. Damage is nothing that any other mark can mean.
Report judge(const Script& script, const Known& known, Outcome outcome) {
  Report report{.script = &script, .outcome = std::move(outcome)};
  const bool excused = known.damages || report.outcome.damage.empty();
  const bool marked = known.mark.applies == Applies::kDiffers && excused;
  if (!marked || report.outcome.verdict == Verdict::kSkipped) return report;
  report.differs = report.outcome.verdict == Verdict::kFailed;
  if (!report.differs && known.may_pass) return report;
  report.outcome.verdict = report.differs ? Verdict::kPassed : Verdict::kFailed;
  if (!report.differs) report.outcome.reason = "passes, though it is marked as differing";
  return report;
}

std::optional<Outcome> why_not_run(const Script& script, const Mark& mark, const CollectionOptions& options) {
  if (mark.applies == Applies::kNo) return Outcome{.verdict = Verdict::kSkipped, .reason = mark.reason};
  if (script.only_ip == (options.v6 ? 4 : 6)) {
    return Outcome{.verdict = Verdict::kSkipped, .reason = fmt::format("is about IPv{}", script.only_ip)};
  }
  if (length_of(script) <= options.longest) return std::nullopt;
  return Outcome{.verdict = Verdict::kSkipped, .reason = "takes longer in real time than scripts may"};
}

Report run_one(const Script& script, Endpoint& endpoint, const CollectionOptions& options) {
  const Known known = known_of(script, options);
  const Mark& mark = known.mark;
  if (auto skipped = why_not_run(script, mark, options)) return judge(script, known, std::move(*skipped));
  Outcome outcome = run_script(script, endpoint, {.moves = options.moves});
  unsigned tries = 1;
  // What must fail is not tried until it does.
  while (outcome.verdict == Verdict::kFailed && mark.applies == Applies::kYes && tries < options.tries) {
    outcome = run_script(script, endpoint, {.moves = options.moves});
    ++tries;
  }
  Report report = judge(script, known, std::move(outcome));
  report.repeated = tries > 1;
  return report;
}

// The longest first, so that no worker is left with one at the end.
std::vector<std::size_t> order_of(const std::vector<Script>& scripts) {
  std::vector<std::size_t> order(scripts.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::sort(order, [&](std::size_t a, std::size_t b) {
    const Duration first = length_of(scripts[a]);
    const Duration second = length_of(scripts[b]);
    return first != second ? first > second : a < b;
  });
  return order;
}

Duration length_of(const Event& event) {
  if (const auto* nothing = std::get_if<ExpectNothing>(&event.what)) return event.when.earliest + nothing->lasting;
  if (const auto* open = std::get_if<Open>(&event.what)) return event.when.earliest + open->round_trip;
  return event.when.earliest;
}

}  // namespace

Duration length_of(const Script& script) {
  Duration at{};
  for (const Event& event : script.events) {
    at = event.when.absolute ? std::max(at, event.when.earliest) : at + length_of(event);
  }
  return at;
}

Result<std::vector<Script>> load_scripts(const std::string& folder, const std::string& filter) {
  std::vector<std::string> names;
  std::error_code code;
  for (const auto& entry : fs::recursive_directory_iterator(folder, code)) {
    if (entry.path().extension() != ".tcp") continue;
    std::string name = fs::relative(entry.path(), folder).replace_extension().string();
    if (name.find(filter) != std::string::npos) names.push_back(std::move(name));
  }
  if (code) return error(ErrorCode::kNotFound, "no folder of scripts: " + folder);
  std::ranges::sort(names);
  std::vector<Script> scripts;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const std::string text, read_file(fs::path(folder) / (name + ".tcp")));
    ASSIGN_OR_RETURN(Script script, parse_script(name, text));
    scripts.push_back(std::move(script));
  }
  return scripts;
}

Result<std::vector<Report>> run_collection(const std::vector<Script>& scripts, const MakeEndpoint& make,
                                           const CollectionOptions& options) {
  std::vector<Report> reports(scripts.size());
  const std::vector<std::size_t> order = order_of(scripts);
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  std::optional<Error> problem;
  const auto work = [&] {
    auto endpoint = make();
    if (!endpoint.has_value()) {
      const std::lock_guard lock(mutex);
      problem = endpoint.error();
      return;
    }
    for (std::size_t i = next++; i < order.size(); i = next++) {
      reports[order[i]] = run_one(scripts[order[i]], **endpoint, options);
    }
  };
  std::vector<std::thread> workers;
  for (unsigned i = 0; i < options.workers; ++i) workers.emplace_back(work);
  for (std::thread& worker : workers) worker.join();
  if (problem.has_value()) return std::unexpected(*problem);
  return reports;
}

}  // namespace twinstack::conformance
