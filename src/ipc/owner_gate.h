// OwnerGate: the owner record of one connection, in its ConnSlot. Data calls of the socket layer enter as readers, a
// move is the writer: block new calls, wait for the calls inside, move, release. A call that finds the owner changed
// goes again through the new one. (The shape of Solaris' so_tpi_fallback.)
//
// INVARIANT: between enter() and leave() the owner does not change. Calls inside never sleep.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "ipc/layout.h"

namespace twinstack::ipc {

class OwnerGate {
 public:
  explicit OwnerGate(ConnSlot& slot) noexcept : slot_(slot) {}

  [[nodiscard]] static Owner owner_of(std::uint32_t word) noexcept { return static_cast<Owner>(word & 0xff); }
  [[nodiscard]] Owner owner() const noexcept { return owner_of(slot_.owner.load(std::memory_order_acquire)); }

  // Reader side (the socket layer). True: inside, `owner` says whose call it is (kKernel or kEngine), leave() is due.
  // False: a move is under way; wait_stable() and try again.
  [[nodiscard]] bool enter(Owner& owner) noexcept;
  void leave() noexcept;
  // Sleeps (futex) until the owner is kKernel, kEngine or kFree, or `timeout` passed, or a signal came; false then.
  bool wait_stable(Duration timeout) noexcept;
  // Sleeps until the owner is `wanted` or kFree; false when `timeout` passed first.
  bool wait_owner(Owner wanted, Duration timeout) noexcept;

  // Writer side (the driver). Waits until no call is inside, with the gate open: a move that begins then holds nobody
  // for as long as a call lasts. A hint; false when `timeout` passed.
  bool wait_idle(Duration timeout) noexcept;
  // Puts the owner to `moving` and waits until no call is inside; false when `timeout` passed
  // (the owner is then `from` again: undone).
  [[nodiscard]] bool begin_move(Owner from, Owner moving, Duration timeout) noexcept;
  // Ends a move, or sets the owner outside of one, and wakes those who wait.
  void set_owner(Owner owner) noexcept;

 private:
  ConnSlot& slot_;
};

}  // namespace twinstack::ipc
