#include "ipc/owner_gate.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

#include "base/monotonic.h"

namespace twinstack::ipc {
namespace {

// Shared (not FUTEX_PRIVATE): the words lie in memory of two processes. Returns false on timeout or signal.
bool futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected, Duration timeout) noexcept {
  const auto count = timeout.count();
  timespec limit{.tv_sec = count / 1'000'000'000, .tv_nsec = count % 1'000'000'000};
  const long result = ::syscall(SYS_futex, &word, FUTEX_WAIT, expected, &limit, nullptr, 0);
  return result == 0 || errno == EAGAIN;
}

void futex_wake_all(std::atomic<std::uint32_t>& word) noexcept {
  ::syscall(SYS_futex, &word, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

std::uint32_t next_word(std::uint32_t word, Owner owner) noexcept {
  return ((word & ~0xffU) + 0x100U) | static_cast<std::uint32_t>(owner);
}

bool is_stable(Owner owner) noexcept {
  return owner == Owner::kKernel || owner == Owner::kEngine || owner == Owner::kFree;
}

// Waits until pred(owner) holds.
template <typename Predicate>
bool wait_until(ConnSlot& slot, Predicate pred, Duration timeout) noexcept {
  const Time deadline = monotonic_now() + timeout;
  slot.sleepers.fetch_add(1, std::memory_order_seq_cst);
  bool held = false;
  for (;;) {
    const std::uint32_t word = slot.owner.load(std::memory_order_seq_cst);
    held = pred(OwnerGate::owner_of(word));
    if (held) break;
    const Duration left = deadline - monotonic_now();
    if (left <= Duration::zero() || !futex_wait(slot.owner, word, left)) break;
  }
  slot.sleepers.fetch_sub(1, std::memory_order_relaxed);
  return held || pred(OwnerGate(slot).owner());
}

// Waits until no call is inside.
bool wait_empty(ConnSlot& slot, Duration timeout) noexcept {
  bool empty = slot.calls_inside.load(std::memory_order_seq_cst) == 0;
  if (empty) return true;
  const Time deadline = monotonic_now() + timeout;
  slot.mover_waits.store(1, std::memory_order_seq_cst);
  for (;;) {
    const std::uint32_t inside = slot.calls_inside.load(std::memory_order_seq_cst);
    empty = inside == 0;
    if (empty) break;
    const Duration left = deadline - monotonic_now();
    if (left <= Duration::zero()) break;
    futex_wait(slot.calls_inside, inside, left);
  }
  slot.mover_waits.store(0, std::memory_order_relaxed);
  return empty;
}

}  // namespace

bool OwnerGate::enter(Owner& owner) noexcept {
  // seq_cst on both sides: either the mover sees this call inside, or this call sees the mover's word.
  slot_.calls_inside.fetch_add(1, std::memory_order_seq_cst);
  owner = owner_of(slot_.owner.load(std::memory_order_seq_cst));
  if (owner == Owner::kKernel || owner == Owner::kEngine) [[likely]]
    return true;
  leave();
  return false;
}

void OwnerGate::leave() noexcept {
  slot_.calls_inside.fetch_sub(1, std::memory_order_seq_cst);
  if (slot_.mover_waits.load(std::memory_order_seq_cst) != 0) [[unlikely]]
    futex_wake_all(slot_.calls_inside);
}

bool OwnerGate::wait_stable(Duration timeout) noexcept { return wait_until(slot_, is_stable, timeout); }

bool OwnerGate::wait_owner(Owner wanted, Duration timeout) noexcept {
  return wait_until(slot_, [wanted](Owner owner) { return owner == wanted || owner == Owner::kFree; }, timeout);
}

bool OwnerGate::wait_idle(Duration timeout) noexcept { return wait_empty(slot_, timeout); }

bool OwnerGate::begin_move(Owner from, Owner moving, Duration timeout) noexcept {
  std::uint32_t word = slot_.owner.load(std::memory_order_seq_cst);
  if (owner_of(word) != from) return false;
  if (!slot_.owner.compare_exchange_strong(word, next_word(word, moving), std::memory_order_seq_cst)) return false;
  const bool empty = wait_empty(slot_, timeout);
  if (!empty) set_owner(from);
  return empty;
}

void OwnerGate::set_owner(Owner owner) noexcept {
  const std::uint32_t word = slot_.owner.load(std::memory_order_relaxed);
  slot_.owner.store(next_word(word, owner), std::memory_order_seq_cst);
  if (slot_.sleepers.load(std::memory_order_seq_cst) != 0) futex_wake_all(slot_.owner);
}

}  // namespace twinstack::ipc
