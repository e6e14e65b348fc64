// What a run of the simulator is told. Everything else comes from the seed.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "sim/event.h"

namespace twinstack::sim {

struct Options {
  std::uint64_t seed = 1;
  Duration duration = std::chrono::seconds(1);  // of the part with faults and moves; what is under way then ends after
  std::uint32_t connections = 8;
  std::uint32_t moves_per_s = 1000;  // of virtual time, both directions
  FaultSet faults = FaultSet::all();
  // Each host has one of these. Empty: CUBIC or NewReno, as at the time of the first seeds.
  std::vector<std::string> congestion_controls = {"cubic", "reno", "dctcp", "bbr"};
  std::optional<std::set<std::uint32_t>> only;  // numbers of the events that happen; the others do not
  std::uint32_t check_every = 1;                // instants between two full checks
  std::string trace;                            // pcap file of the moving host's wire; empty: none

  // Tests of the simulator itself: what is to go wrong with the product from this many moves on.
  enum class Sabotage : std::uint8_t {
    kNone,
    kLoseByte,      // of the unsent bytes that go back to the kernel
    kTurnByte,      // a bit of what goes to the engine
    kLoseReceived,  // of the unread bytes that go to the engine
    kGrowWindow,    // the congestion window, by much
    kKeepFlow,      // steered after the return
    kLeakChunk,
    kForgetWakeup,
    kAbort,
    kResetMove,  // a return is given up for nothing
    kHidePurge,  // a park that has lost bytes is a failure like others
  };
  Sabotage sabotage = Sabotage::kNone;
  std::uint32_t sabotage_after_moves = 0;
};

}  // namespace twinstack::sim
