#include "sockets/sonode.h"

#include <poll.h>

#include <chrono>

#include "sockets/process.h"
#include "sockets/real_calls.h"
#include "sockets/session.h"

namespace twinstack::sockets {
namespace {

// A move takes well under a millisecond; each wait is bounded so that the end of the service is seen.
constexpr Duration kMoveWait = std::chrono::milliseconds(5);

std::uint64_t unacknowledged_bytes(const ipc::ConnSlot& slot) noexcept {
  // Acknowledged first: read the other way round, the difference could come out negative.
  const std::uint64_t acked = slot.tx_acked_bytes.load(std::memory_order_seq_cst);
  return slot.tx_submitted_bytes.load(std::memory_order_acquire) - acked;
}

}  // namespace

void Sonode::notify_locked() noexcept {
  for (Watch* watch = watches; watch != nullptr; watch = watch->next_watch) watch->on_change();
}

void Sonode::add_watch(Watch& watch) noexcept {
  const MutexLock lock(rx_mutex);
  watch.previous_watch = nullptr;
  watch.next_watch = watches;
  if (watches != nullptr) watches->previous_watch = &watch;
  watches = &watch;
}

void Sonode::remove_watch(Watch& watch) noexcept {
  const MutexLock lock(rx_mutex);
  if (watch.previous_watch != nullptr)
    watch.previous_watch->next_watch = watch.next_watch;
  else if (watches == &watch)
    watches = watch.next_watch;
  if (watch.next_watch != nullptr) watch.next_watch->previous_watch = watch.previous_watch;
  watch.next_watch = nullptr;
  watch.previous_watch = nullptr;
}

RingPort& ring_of(Sonode& sonode) noexcept {
  const std::span<RingPort> rings = sonode.session->rings();
  return rings[sonode.slot->ring.load(std::memory_order_relaxed) % rings.size()];
}

bool has_engine_room(Sonode& sonode) noexcept {
  ipc::ConnSlot& slot = *sonode.slot;
  const auto is_half_free = [&slot] {
    return unacknowledged_bytes(slot) * 2 <= slot.tx_limit_bytes.load(std::memory_order_relaxed);
  };
  if (!is_half_free()) {
    // Ask, then look again: either the engine sees the wish, or we see its counter.
    slot.want_tx_space.store(1, std::memory_order_seq_cst);
    if (!is_half_free()) return false;
  }
  if (!sonode.session->has_ring_room(ring_of(sonode))) return false;
  if (!sonode.session->tx_chunks().is_empty()) return true;
  sonode.session->mark_starved(sonode);
  return !sonode.session->tx_chunks().is_empty();
}

std::uint32_t engine_readiness(Sonode& sonode, std::uint32_t interest) noexcept {
  if (sonode.aborted.load(std::memory_order_acquire))
    return (POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLRDHUP | POLLERR | POLLHUP) &
           (interest | POLLERR | POLLHUP);
  std::uint32_t ready = 0;
  if (sonode.rx_queued_bytes.load(std::memory_order_acquire) > 0) ready |= POLLIN | POLLRDNORM;
  if ((interest & (POLLOUT | POLLWRNORM)) != 0 && sonode.owner() == ipc::Owner::kEngine && has_engine_room(sonode))
    ready |= POLLOUT | POLLWRNORM;
  return ready & (interest | POLLERR | POLLHUP);
}

void wait_for_lesson(Sonode& sonode) noexcept {
  constexpr auto kLongest = std::chrono::milliseconds(5);
  auto& due = sonode.slot->lesson_due;
  // In a forked child the slot may serve another connection of the parent's.
  const auto is_due = [&] {
    return due.load(std::memory_order_acquire) != 0 &&
           sonode.slot->tag.load(std::memory_order_acquire) == sonode.tag.load(std::memory_order_relaxed);
  };
  if (!is_due() || sonode.lesson_missed.load(std::memory_order_relaxed)) [[likely]]
    return;
  const auto deadline = std::chrono::steady_clock::now() + kLongest;
  while (is_due() && std::chrono::steady_clock::now() < deadline) static_cast<void>(real().sched_yield());
  // Who should teach may be gone.
  Session& session = *sonode.session;
  if (!is_due()) return;
  if (session.is_inherited())
    sonode.lesson_missed.store(true, std::memory_order_relaxed);
  else if (!session.check_alive())
    due.store(0, std::memory_order_relaxed);
}

SonodeRef::~SonodeRef() {
  if (sonode_ != nullptr) sonode_->session->unref(*sonode_);
}

GateScope::GateScope(Sonode& sonode) noexcept : sonode_(sonode) {
  for (;;) {
    if (sonode_.is_closing()) [[unlikely]] {
      access_ = Access::kClosed;
      return;
    }
    if (sonode_.aborted.load(std::memory_order_relaxed)) {
      access_ = Access::kAborted;
      return;
    }
    if (sonode_.plain.load(std::memory_order_relaxed)) return;
    ipc::Owner owner{};
    if (sonode_.gate().enter(owner)) {
      inside_ = true;
      if (sonode_.session->is_inherited() && is_other_life()) [[unlikely]] {
        leave();
        sonode_.plain.store(true, std::memory_order_release);
        return;
      }
      if (owner == ipc::Owner::kKernel) {
        access_ = Access::kKernel;
        return;
      }
      if (sonode_.session->state() == SessionState::kLive) [[likely]] {
        access_ = Access::kEngine;
        return;
      }
      leave();
      owner = ipc::Owner::kEngine;
    }
    if (settle(owner)) return;
  }
}

// In a forked child: the parent has closed the connection, its slot may serve another.
bool GateScope::is_other_life() const noexcept {
  return sonode_.slot->tag.load(std::memory_order_acquire) != sonode_.tag.load(std::memory_order_relaxed);
}

// The owner is on the move, the slot is free, or the service is gone. True: access_ says how the call ends.
bool GateScope::settle(ipc::Owner owner) noexcept {
  if (owner == ipc::Owner::kFree) {
    // The service has let go of the connection; it brought it home before.
    sonode_.plain.store(true, std::memory_order_release);
    return true;
  }
  if (owner != ipc::Owner::kEngine && sonode_.gate().wait_stable(kMoveWait)) return false;
  // A forked child has no rings: the connection goes to the kernel for it.
  if (sonode_.session->is_inherited()) {
    static_cast<void>(bring_back(sonode_, true, "fork"));
    return false;
  }
  sonode_.session->check_alive();
  return false;
}

}  // namespace twinstack::sockets
