#include "sim/coverage.h"

#include <fmt/format.h>

namespace twinstack::sim {
namespace {

constexpr std::array<const char*, kSituations> kSituationNames = {
    "kernel",    "o:reserve", "o:own",     "o:check",   "o:filter", "o:steer", "o:freeze",
    "o:install", "o:commit",  "unparked",  "parked",    "draining", "b:own",   "b:park",
    "b:hold",    "b:extract", "b:restore", "b:release", "closing"};

constexpr std::array<const char*, kTcpStates> kStateNames = {"open",     "disorder", "cwr",      "recovery", "loss",
                                                             "fin-sent", "fin-got",  "fin-both", "gone"};

std::string short_count(std::uint64_t count) {
  if (count == 0) return ".";
  if (count < 10'000) return fmt::format("{}", count);
  if (count < 10'000'000) return fmt::format("{}k", count / 1000);
  return fmt::format("{}M", count / 1'000'000);
}

}  // namespace

const char* name(Situation situation) noexcept { return kSituationNames[static_cast<std::size_t>(situation)]; }

void Coverage::add(const Coverage& other) noexcept {
  for (std::size_t k = 0; k < kEventKinds; ++k) {
    for (std::size_t s = 0; s < kSituations; ++s) cells_[s][k] += other.cells_[s][k];
    for (std::size_t s = 0; s < kTcpStates; ++s) states_[s][k] += other.states_[s][k];
  }
}

bool Coverage::can_meet(EventKind kind, Situation situation) noexcept {
  const bool out = situation >= Situation::kOutReserve && situation <= Situation::kOutCommit;
  const bool back = situation >= Situation::kBackOwn && situation <= Situation::kBackRelease;
  const bool own =
      situation == Situation::kOutReserve || situation == Situation::kOutOwn || situation == Situation::kBackOwn;
  switch (kind) {
    case EventKind::kRefuseOffload:
      return out;
    case EventKind::kRefuseUpload:
      return back;
    case EventKind::kFailCheck:
      return situation == Situation::kInKernel || situation == Situation::kClosing;
    case EventKind::kFailAttach:
      return situation == Situation::kOutFilter;
    case EventKind::kFailFreeze:
    case EventKind::kLoseAck:
      return situation == Situation::kOutFreeze;
    case EventKind::kFailPark:
    case EventKind::kFailParkGap:
    case EventKind::kPurge:
      return situation == Situation::kUnparked || situation == Situation::kBackPark || situation == Situation::kClosing;
    case EventKind::kFailRestore:
      return situation == Situation::kBackRestore;
    case EventKind::kFailRelease:
    case EventKind::kPartRelease:
      return situation == Situation::kBackRelease;
    case EventKind::kFailThaw:
      return situation == Situation::kOutInstall || situation == Situation::kOutCommit;
    case EventKind::kFailDetach:
      return situation >= Situation::kOutSteer && situation <= Situation::kOutCommit;
    case EventKind::kAtStep:
      return out || back;
    case EventKind::kFailInject:  // packets that are the kernel's: when a move out is undone, at the end of one back
      return situation == Situation::kInKernel ||
             (situation >= Situation::kOutSteer && situation <= Situation::kOutCommit) ||
             situation == Situation::kBackRelease || situation == Situation::kClosing;
    case EventKind::kOptionSet:
      return situation == Situation::kOutReserve || situation == Situation::kOutOwn;
    case EventKind::kCallInside:  // no move goes on with a call inside
      return own || (!out && !back);
    default:
      return true;
  }
}

std::size_t Coverage::empty_cells() const noexcept {
  std::size_t empty = 0;
  for (std::size_t kind = kFirstFault; kind < kEventKinds; ++kind)
    for (std::size_t s = 0; s < kSituations; ++s)
      if (cells_[s][kind] == 0 && can_meet(static_cast<EventKind>(kind), static_cast<Situation>(s))) ++empty;
  return empty;
}

std::string Coverage::table() const {
  std::string text = fmt::format("{:<15}", "fault");
  for (const char* column : kSituationNames) text += fmt::format(" {:>9}", column);
  text += '\n';
  for (std::size_t kind = kFirstFault; kind < kEventKinds; ++kind) {
    text += fmt::format("{:<15}", name(static_cast<EventKind>(kind)));
    for (std::size_t s = 0; s < kSituations; ++s) {
      const bool never = cells_[s][kind] == 0 && !can_meet(static_cast<EventKind>(kind), static_cast<Situation>(s));
      text += fmt::format(" {:>9}", never ? "-" : short_count(cells_[s][kind]));
    }
    text += '\n';
  }
  return text;
}

std::string Coverage::state_table() const {
  std::string text = fmt::format("{:<15}", "fault");
  for (const char* column : kStateNames) text += fmt::format(" {:>9}", column);
  text += '\n';
  for (std::size_t kind = kFirstFault; kind < kEventKinds; ++kind) {
    text += fmt::format("{:<15}", name(static_cast<EventKind>(kind)));
    for (const auto& column : states_) text += fmt::format(" {:>9}", short_count(column[kind]));
    text += '\n';
  }
  return text;
}

}  // namespace twinstack::sim
