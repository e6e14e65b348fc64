// Coverage: how often each kind of fault met a connection that it concerns, by where a move stood, and by the state of
// its TCP. Empty cells are what the seeds have not tried. One thread.
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

// Of the moving host's end, whoever has it.
enum class TcpState : std::uint8_t {
  kOpen,
  kDisorder,
  kReduced,
  kRecovery,
  kLoss,
  kFinSent,
  kFinReceived,
  kFinBoth,
  kGone,
};
inline constexpr std::size_t kTcpStates = 9;

class Coverage {
 public:
  void hit(Situation situation, TcpState state, EventKind kind) noexcept {
    ++cells_[static_cast<std::size_t>(situation)][static_cast<std::size_t>(kind)];
    ++states_[static_cast<std::size_t>(state)][static_cast<std::size_t>(kind)];
  }
  void add(const Coverage& other) noexcept;
  [[nodiscard]] std::uint64_t at(std::size_t situation, std::size_t kind) const noexcept {
    return cells_[situation][kind];
  }
  // Tables for people: a row for each kind of fault, a column for each situation, or state; `.` where nothing was, `-`
  // where nothing can be.
  [[nodiscard]] std::string table() const;
  [[nodiscard]] std::string state_table() const;
  // Of the table of situations, those that can be met.
  [[nodiscard]] std::size_t empty_cells() const noexcept;
  // A fault of a step meets that step.
  [[nodiscard]] static bool can_meet(EventKind kind, Situation situation) noexcept;

 private:
  std::array<std::array<std::uint64_t, kEventKinds>, kSituations> cells_{};
  std::array<std::array<std::uint64_t, kEventKinds>, kTcpStates> states_{};
};

[[nodiscard]] const char* name(Situation situation) noexcept;

}  // namespace twinstack::sim
