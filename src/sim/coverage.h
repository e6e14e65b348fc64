// Coverage: how often each kind of fault met a connection in each state or step of a move. Empty cells are what the
// seeds have not tried. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "sim/event.h"

namespace twinstack::sim {

enum class Situation : std::uint8_t {
  kInKernel,
  // Before each step of a move out, a move back.
  kOutReserve,
  kOutOwn,
  kOutCheck,
  kOutFilter,
  kOutSteer,
  kOutFreeze,
  kOutInstall,
  kOutCommit,
  kUnparked,  // in the engine, the kernel's socket frozen
  kParked,
  kDraining,
  kBackOwn,
  kBackPark,
  kBackHold,
  kBackExtract,
  kBackRestore,
  kBackRelease,
  kClosing,  // the program has ended its stream or closed
};
inline constexpr std::size_t kSituations = 19;

class Coverage {
 public:
  void hit(Situation situation, EventKind kind) noexcept {
    ++cells_[static_cast<std::size_t>(situation)][static_cast<std::size_t>(kind)];
  }
  void add(const Coverage& other) noexcept;
  [[nodiscard]] std::uint64_t at(std::size_t situation, std::size_t kind) const noexcept {
    return cells_[situation][kind];
  }
  // A table for people: a row for each kind of fault, a column for each situation; `.` where nothing was.
  [[nodiscard]] std::string table() const;
  [[nodiscard]] std::size_t empty_cells() const noexcept;

 private:
  std::array<std::array<std::uint64_t, kEventKinds>, kSituations> cells_{};
};

[[nodiscard]] const char* name(Situation situation) noexcept;

}  // namespace twinstack::sim
