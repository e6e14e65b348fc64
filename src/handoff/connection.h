// What a move works on: one connection with its three identities and the means of both stacks. The driver owns it; the
// hand-off changes it. The driver's thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/clock.h"
#include "engine/hw_conn.h"
#include "handoff/engine_port.h"
#include "handoff/packet_path.h"
#include "ipc/arena.h"
#include "ipc/owner_gate.h"
#include "kernel/kernel_conn.h"
#include "wire/seq.h"

namespace twinstack::handoff {

struct Connection {
  // Software side: the application's slot (its Sonode) and the kernel's state.
  const ipc::Arena* arena = nullptr;
  std::uint32_t session = 0;
  std::uint32_t slot = 0;
  std::uint32_t tag = 0;
  std::unique_ptr<kernel::KernelConn> kernel;
  bool program_gone = false;                 // nobody makes data calls any more, whatever the owner record says
  std::uint32_t checked_option_changes = 0;  // ConnSlot::option_changes before the last check()

  // Hardware side: meaningful while `hw` is not 0.
  engine::HwConnId hw;
  EnginePort* port = nullptr;
  PacketPath* path = nullptr;
  std::uint32_t ring = 0;
  std::uint32_t hop_index = 0;
  // Packets that had waited and were none of this connection when they were to be injected; whoever counts takes them.
  std::uint64_t held_dropped = 0;
  // Sequence number of a FIN that the kernel has acknowledged after its snapshot: nobody sends it again. The engine
  // carries no FIN; upload() gives it back.
  std::optional<Seq> acknowledged_fin;
  tcp::InfoCounters engine_counters{};  // of the stays in the engine that have ended

  [[nodiscard]] ipc::ConnSlot& shared() const { return arena->slot(slot); }
  [[nodiscard]] ipc::OwnerGate gate() const { return ipc::OwnerGate(shared()); }
  // The program has set an option since check() began to read them. With the gate closed, and no system call past the
  // socket layer, that cannot change any more.
  [[nodiscard]] bool options_changed() const {
    return shared().option_changes.load(std::memory_order_acquire) != checked_option_changes;
  }
};

// The ordered steps, by name; failures are injected and reported by these.
enum class OffloadStep : std::uint8_t { kReserve, kOwn, kCheck, kFilter, kSteer, kFreeze, kInstall, kCommit };
enum class UploadStep : std::uint8_t { kOwn, kPark, kHold, kExtract, kRestore, kRelease, kCommit };
[[nodiscard]] const char* to_string(OffloadStep step) noexcept;
[[nodiscard]] const char* to_string(UploadStep step) noexcept;

// How long a data call of the program may stay inside before the move is given up. Calls inside never sleep; only a
// thread that was stopped or preempted takes longer.
inline constexpr Duration kCallDeadline = std::chrono::milliseconds(20);

// How long a move puts off its beginning for a moment when no call is inside. Threads that take turns leave none.
inline constexpr Duration kIdleWait = std::chrono::microseconds(500);

// What the hand-off needs besides the connection.
struct MoveTools {
  Duration call_deadline = kCallDeadline;
  kernel::Limits limits;
  std::span<std::byte> receive_room;  // at least limits.receive_queue_bytes
  std::span<std::byte> send_room;     // more than limits.send_queue_bytes
  // Delivers packets that the late filter caught to their connections (the engine or the kernel, by its state).
  std::function<void()> deliver_late;
  std::function<Time()> now;
  // Tests only: called before each step of the move of `moving`; an error makes the step fail there. The commit of an
  // upload cannot fail, its release is tried again.
  Connection* moving = nullptr;
  std::function<Result<>(OffloadStep)> before_offload_step;
  std::function<Result<>(UploadStep)> before_upload_step;
};

struct MoveReport {
  Duration pause{};  // from the freeze (data calls wait) to the first call served again
  std::uint32_t unread_bytes = 0;
  std::uint32_t unacked_bytes = 0;
  std::uint32_t unsent_bytes = 0;
  std::uint32_t held_frames = 0;  // packets that waited and were injected (upload)
  bool congestion_restored = true;
  int socket_error = 0;  // errno that the return took off the kernel socket: the program must be told, once (upload)
};

// Has all who wait for the connection look again. After every change of the owner, also one that was undone: whoever
// looked in between took the stack that he saw for silent, and sleeps.
void notify_owner_changed(Connection& conn);

// Puts what both stacks have counted in past stays into the slot. REQUIRES: the owner record is that of a move.
void publish_counters(const Connection& conn) noexcept;

}  // namespace twinstack::handoff
