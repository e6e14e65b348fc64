#include "sim/coverage.h"

#include <fmt/format.h>

namespace twinstack::sim {
namespace {

constexpr std::array<const char*, kSituations> kNames = {"kernel",    "o:reserve", "o:own",     "o:check",  "o:filter",
                                                         "o:steer",   "o:freeze",  "o:install", "o:commit", "unparked",
                                                         "parked",    "draining",  "b:own",     "b:park",   "b:hold",
                                                         "b:extract", "b:restore", "b:release", "closing"};

std::string short_count(std::uint64_t count) {
  if (count == 0) return ".";
  if (count < 10'000) return fmt::format("{}", count);
  if (count < 10'000'000) return fmt::format("{}k", count / 1000);
  return fmt::format("{}M", count / 1'000'000);
}

}  // namespace

const char* name(Situation situation) noexcept { return kNames[static_cast<std::size_t>(situation)]; }

void Coverage::add(const Coverage& other) noexcept {
  for (std::size_t s = 0; s < kSituations; ++s)
    for (std::size_t k = 0; k < kEventKinds; ++k) cells_[s][k] += other.cells_[s][k];
}

std::size_t Coverage::empty_cells() const noexcept {
  std::size_t empty = 0;
  for (const auto& row : cells_)
    for (std::size_t kind = kFirstFault; kind < kEventKinds; ++kind) empty += row[kind] == 0 ? 1 : 0;
  return empty;
}

std::string Coverage::table() const {
  std::string text = fmt::format("{:<15}", "fault");
  for (const char* column : kNames) text += fmt::format(" {:>9}", column);
  text += '\n';
  for (std::size_t kind = kFirstFault; kind < kEventKinds; ++kind) {
    text += fmt::format("{:<15}", name(static_cast<EventKind>(kind)));
    for (const auto& row : cells_) text += fmt::format(" {:>9}", short_count(row[kind]));
    text += '\n';
  }
  return text;
}

}  // namespace twinstack::sim
