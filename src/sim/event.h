// Event: one entry of a scenario: something that happens at an instant of virtual time, whatever else happens. The
// events of a run are made up front from its seed, so that the list can be cut: a run with fewer of them is a run as
// well, and chance inside of an event (which packet is lost) comes from the event's own seed. Plain data.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace twinstack::sim {

enum class EventKind : std::uint8_t {
  // Not faults: what programs and the driver do.
  kOpen,      // a connection begins
  kMoveOut,   // the driver is told to offload it
  kMoveBack,  // ... to bring it back
  // Faults of a link: from then on for `span`. `amount` is parts per million where it is a rate.
  kLoss,
  kBurst,      // Gilbert-Elliott: `amount` of packets begin a burst, in which most are lost
  kDuplicate,  // a copy comes a little later
  kReorder,    // held back while others overtake
  kCorrupt,    // a bit is turned
  kJitter,     // up to `amount` microseconds more, order kept
  kBlackHole,  // packets above `amount` bytes vanish
  kLinkDown,
  kSlow,        // `amount` kbit/s
  kShortQueue,  // `amount` frames
  // Faults of the moving host.
  kClockJump,     // its clock jumps forward by `span`
  kStallLane,     // the lane's thread does not run for `span`
  kStallDriver,   // the driver's
  kStallProgram,  // the program's
  kNoRead,        // a program does not read from its connection for `span`: the window closes; `detail`: which end
  kMapFull,       // the steering map takes no flow for `span`
  kNoChunks,      // nearly all of the session's chunks are gone for `span`
  kNoSlots,       // the lane's table is full for `span`
  kLateFull,      // the ring of the late filter takes nothing for `span`
  kNicFull,       // the lane's receive queue takes nothing for `span`
  kOtherQueue,    // packets come by another queue from now on
  // Faults of the next move of a connection; `amount` says how often.
  kRefuseOffload,  // at the step of number `target2`
  kRefuseUpload,
  kFailCheck,
  kFailAttach,
  kFailFreeze,
  kFailPark,     // nothing done
  kFailParkGap,  // closed silently, not established again
  kFailRestore,
  kFailRelease,
  kFailInject,
  kOptionSet,   // the program sets an option while it is looked at
  kStorm,       // all connections are told to move at once, each to where it is not
  kCallInside,  // the program's thread stands inside a data call for `span`
  // Ends.
  kProgramDeath,
  kDriverDeath,
  // What came later (see plan.cc).
  kTooBig,        // of a link: a router before it has an MTU of `amount` bytes, and answers what is larger
  kForgedTooBig,  // such an answer of MTU `amount` that no router has sent, to the end `detail` of a connection
  kPrune,         // a lane keeps no more than `amount` bytes out of order for `span`
  // And later still. First faults of the next move of a connection.
  kPurge,        // packets come in between the last look of the park and the disconnect (F2)
  kLoseAck,      // the freeze loses the ACK that waits (F5)
  kPartRelease,  // the kernel takes a part of the unsent bytes (R7)
  kFailThaw,     // of one that is refused at the step `detail`
  kFailDetach,   // `amount` times, of one that is refused at the step `detail`
  kNoHook,       // the congestion hook is not there for `span`
  kQuickClose,   // the program `detail` of a connection closes as soon as it may, with what it has sent still queued
  kAtStep,       // a fault of kind `amount` begins when next a move stands before a step, Situation `detail`
  // The latest.
  kNoMemory,  // the peer's kernel has no memory for what comes to a connection: its window closes at once
};
inline constexpr std::size_t kEventKinds = 51;
inline constexpr std::size_t kFirstFault = 3;

[[nodiscard]] std::string_view name(EventKind kind) noexcept;
[[nodiscard]] std::optional<EventKind> event_kind(std::string_view word) noexcept;
[[nodiscard]] constexpr bool is_fault(EventKind kind) noexcept { return static_cast<std::size_t>(kind) >= kFirstFault; }
[[nodiscard]] constexpr bool is_link_fault(EventKind kind) noexcept {
  return (kind >= EventKind::kLoss && kind <= EventKind::kShortQueue) || kind == EventKind::kTooBig;
}
// 0: of the first time; those that came later have chance of their own (plan.cc).
[[nodiscard]] constexpr unsigned generation(EventKind kind) noexcept {
  return kind < EventKind::kTooBig ? 0 : kind < EventKind::kPurge ? 1 : kind < EventKind::kNoMemory ? 2 : 3;
}

// The next moves of a connection meet them; only then have they begun.
[[nodiscard]] constexpr bool is_move_fault(EventKind kind) noexcept {
  return (kind >= EventKind::kRefuseOffload && kind <= EventKind::kOptionSet) ||
         (kind >= EventKind::kPurge && kind <= EventKind::kFailDetach);
}

// What `target` numbers.
enum class Target : std::uint8_t { kAll, kConnection, kProgram, kLane, kLink };
[[nodiscard]] Target target_of(EventKind kind) noexcept;

struct Event {
  Duration at{};  // since the beginning
  EventKind kind = EventKind::kOpen;
  std::uint8_t detail = 0;   // direction of a link (0 to the peer, 1 from it); step of a move
  std::uint32_t target = 0;  // connection, link, lane or session, by kind
  std::uint32_t amount = 0;  // by kind
  Duration span{};           // by kind
  std::uint64_t seed = 0;    // of the chance inside
  std::uint32_t number = 0;  // in the whole list: what --only takes
};

// "#17    12.345 ms  loss on link 1 to the peer, 3.2 %, for 40 ms"
[[nodiscard]] std::string describe(const Event& event);

// Which faults are in a run.
struct FaultSet {
  std::array<bool, kEventKinds> on{};

  [[nodiscard]] bool has(EventKind kind) const noexcept { return on[static_cast<std::size_t>(kind)]; }
  [[nodiscard]] static FaultSet all() noexcept;
  [[nodiscard]] static FaultSet none() noexcept { return {}; }
};
// "all", "none", "loss,reorder", "all,-driver-death"; nullopt with what is not known in `wrong`.
[[nodiscard]] std::optional<FaultSet> parse_faults(std::string_view list, std::string& wrong);
// The names of all, by what they hit, for people.
[[nodiscard]] std::string fault_names();
// What parse_faults() takes for the same set.
[[nodiscard]] std::string to_list(const FaultSet& faults);

}  // namespace twinstack::sim
