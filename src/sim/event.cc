#include "sim/event.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "sim/coverage.h"

namespace twinstack::sim {
namespace {

constexpr std::array<std::string_view, kEventKinds> kEventNames = {
    "open",        "move-out",     "move-back",     "loss",           "burst",         "duplicate",      "reorder",
    "corrupt",     "jitter",       "black-hole",    "link-down",      "slow",          "short-queue",    "clock-jump",
    "stall-lane",  "stall-driver", "stall-program", "no-read",        "map-full",      "no-chunks",      "no-slots",
    "late-full",   "nic-full",     "other-queue",   "refuse-offload", "refuse-upload", "fail-check",     "fail-attach",
    "fail-freeze", "fail-park",    "fail-park-gap", "fail-restore",   "fail-release",  "fail-inject",    "option-set",
    "storm",       "call-inside",  "program-death", "driver-death",   "too-big",       "forged-too-big", "prune",
    "purge",       "lose-ack",     "part-release",  "fail-thaw",      "fail-detach",   "no-hook",        "quick-close",
    "at-step",     "no-memory",
};

std::string time_text(Duration time) { return fmt::format("{:.3f} ms", static_cast<double>(time.count()) / 1e6); }

std::string what(const Event& event) {
  switch (target_of(event.kind)) {
    case Target::kAll:
      if (event.kind != EventKind::kAtStep) return "";
      return fmt::format("{}: {}", name(static_cast<Situation>(event.detail)),
                         name(static_cast<EventKind>(event.amount)));
    case Target::kProgram:
      return fmt::format("program {}", event.target);
    case Target::kLane:
      return fmt::format("lane {}", event.target);
    case Target::kLink:
      return fmt::format("on link {} {} the peer", event.target, event.detail == 0 ? "to" : "from");
    case Target::kConnection:
      break;
  }
  std::string text = fmt::format("connection {}", event.target);
  if (event.kind == EventKind::kRefuseOffload || event.kind == EventKind::kRefuseUpload ||
      event.kind == EventKind::kFailThaw || event.kind == EventKind::kFailDetach)
    text += fmt::format(" at step {}", event.detail);
  if (event.kind == EventKind::kNoRead || event.kind == EventKind::kForgedTooBig ||
      event.kind == EventKind::kQuickClose)
    text += event.detail == 0 ? " at the moving host" : " at the peer";
  return text;
}

// A line, or several, of those that `belongs` names.
std::string list_of(std::string_view title, const std::function<bool(EventKind)>& belongs) {
  constexpr std::size_t kColumns = 118;
  std::string text;
  std::string line = fmt::format("  {}:", title);
  for (std::size_t number = kFirstFault; number < kEventKinds; ++number) {
    const auto kind = static_cast<EventKind>(number);
    if (!belongs(kind)) continue;
    if (line.size() + 1 + name(kind).size() > kColumns) text += std::exchange(line, "   ") + '\n';
    line += fmt::format(" {}", name(kind));
  }
  return text + line + '\n';
}

}  // namespace

std::string_view name(EventKind kind) noexcept { return kEventNames[static_cast<std::size_t>(kind)]; }

std::optional<EventKind> event_kind(std::string_view word) noexcept {
  const auto found = std::ranges::find(kEventNames, word);
  if (found == kEventNames.end() || word.empty()) return std::nullopt;
  return static_cast<EventKind>(found - kEventNames.begin());
}

Target target_of(EventKind kind) noexcept {
  if (is_link_fault(kind)) return Target::kLink;
  if (is_move_fault(kind)) return kind == EventKind::kFailInject ? Target::kAll : Target::kConnection;
  switch (kind) {
    case EventKind::kStallLane:
    case EventKind::kNoSlots:
    case EventKind::kNicFull:
    case EventKind::kPrune:
      return Target::kLane;
    case EventKind::kStallProgram:
    case EventKind::kNoChunks:
    case EventKind::kProgramDeath:
      return Target::kProgram;
    case EventKind::kOpen:
    case EventKind::kMoveOut:
    case EventKind::kMoveBack:
    case EventKind::kNoRead:
    case EventKind::kCallInside:
    case EventKind::kForgedTooBig:
    case EventKind::kQuickClose:
    case EventKind::kNoMemory:
      return Target::kConnection;
    default:
      return Target::kAll;
  }
}

std::string fault_names() {
  return list_of("of links", is_link_fault) + list_of("of moves", is_move_fault) +
         list_of("of hosts and programs", [](EventKind kind) { return !is_link_fault(kind) && !is_move_fault(kind); });
}

std::string describe(const Event& event) {
  std::string text =
      fmt::format("#{:<5} {:>12}  {} {}", event.number, time_text(event.at), name(event.kind), what(event));
  if (event.amount != 0 && event.kind != EventKind::kAtStep) text += fmt::format(" amount {}", event.amount);
  if (event.span != Duration::zero()) text += fmt::format(" for {}", time_text(event.span));
  return text;
}

FaultSet FaultSet::all() noexcept {
  FaultSet set;
  for (std::size_t kind = kFirstFault; kind < kEventKinds; ++kind) set.on[kind] = true;
  return set;
}

std::string to_list(const FaultSet& faults) {
  const FaultSet all = FaultSet::all();
  const auto on = static_cast<std::size_t>(std::ranges::count(faults.on, true));
  if (on == 0) return "none";
  const bool most = on * 2 > kEventKinds;
  std::string list = most ? "all" : "";
  for (std::size_t kind = kFirstFault; kind < kEventKinds; ++kind) {
    if (faults.on[kind] == (most && all.on[kind])) continue;
    list += fmt::format("{}{}{}", list.empty() ? "" : ",", most ? "-" : "", name(static_cast<EventKind>(kind)));
  }
  return list;
}

std::optional<FaultSet> parse_faults(std::string_view list, std::string& wrong) {
  if (list == "none") return FaultSet::none();
  FaultSet set;
  for (bool first = true;; first = false) {
    const std::size_t comma = list.find(',');
    const std::string_view word = list.substr(0, comma);
    const bool off = !first && word.starts_with('-');  // from what stands before it
    const auto kind = event_kind(off ? word.substr(1) : word);
    if (first && word == "all") {
      set = FaultSet::all();
    } else if (kind && is_fault(*kind)) {
      set.on[static_cast<std::size_t>(*kind)] = !off;
    } else {
      wrong = word;
      return std::nullopt;
    }
    if (comma == std::string_view::npos) return set;
    list.remove_prefix(comma + 1);
  }
}

}  // namespace twinstack::sim
