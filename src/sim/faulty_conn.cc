#include "sim/faulty_conn.h"

namespace twinstack::sim {
namespace {

std::unexpected<Error> dead() { return error(ErrorCode::kSystem, "the service is dead"); }
std::unexpected<Error> refused(const char* what) { return error(ErrorCode::kSystem, std::string("injected: ") + what); }

}  // namespace

const char* name(ResetCause cause) noexcept {
  constexpr std::array<const char*, kResetCauses> kNames = {
      "nothing", "no shell", "no room", "not released", "released in part", "purged", "not taken back"};
  return kNames[static_cast<std::size_t>(cause)];
}

void refuse_release(MoveFaults& faults) noexcept {
  if (++faults.release_refusals > 1) faults.reset_cause = ResetCause::kNotReleased;
}

Result<> FaultyConn::check_eligible(const kernel::Limits& limits) {
  if (is_dead_) return dead();
  if (faults_.meets(faults_.check, EventKind::kFailCheck)) return error(ErrorCode::kNotEligible, "injected: check");
  return inner_->check_eligible(limits);
}

Result<> FaultyConn::attach_late_filter() {
  if (is_dead_) return dead();
  faults_.reset_cause = ResetCause::kNone;
  if (faults_.meets(faults_.attach, EventKind::kFailAttach)) return refused("attach the late filter");
  return inner_->attach_late_filter();
}

Result<> FaultyConn::detach_late_filter() {
  if (is_dead_) return dead();
  return inner_->detach_late_filter();
}

Result<kernel::Snapshot> FaultyConn::freeze(const kernel::QueueRoom& room) {
  if (is_dead_) return dead();
  if (faults_.meets(faults_.freeze, EventKind::kFailFreeze)) return refused("freeze");
  auto snapshot = inner_->freeze(room);
  if (snapshot) frozen_snd_nxt_ = snapshot->min.snd_nxt;
  if (snapshot && !snapshot->unread.empty() && take(faults_.lose_received))
    snapshot->unread = snapshot->unread.first(snapshot->unread.size() - 1);
  if (snapshot && take(faults_.grow_window)) snapshot->min.cwnd_segments += 100'000;
  if (snapshot && !snapshot->unsent.empty() && take(faults_.turn_byte)) {
    const std::size_t at = static_cast<std::size_t>(&snapshot->unsent.front() - room.send.data());
    room.send[at] ^= std::byte{1};
  }
  return snapshot;
}

Result<> FaultyConn::thaw() {
  if (is_dead_) return dead();
  return inner_->thaw();
}

// Midway: the socket is closed silently and no shell stands in its place, as when the kernel has no route (R14). What
// the kernel did last is lost then (src/kernel/park.cc).
Result<kernel::LateBytes> FaultyConn::park(std::span<std::byte> room) {
  if (is_dead_) return dead();
  if (faults_.meets(faults_.park, EventKind::kFailPark)) return refused("park");
  auto late = inner_->park(room);
  if (!late && faults_.reset_cause == ResetCause::kPurged && take(faults_.hide_purge)) return refused("park");
  if (!late || !faults_.meets(faults_.park_gap, EventKind::kFailParkGap)) return late;
  in_gap_ = true;
  const bool is_lost = !late->bytes.empty() || late->fin || late->snd_nxt != frozen_snd_nxt_;
  faults_.reset_cause = is_lost ? ResetCause::kNoShell : ResetCause::kNone;
  if (is_lost) return error(ErrorCode::kBroken, "injected: no shell, and what the kernel did last is lost");
  return refused("park, midway");
}

Result<kernel::RestoreReport> FaultyConn::restore(const tcp::MinTcp& min, const kernel::RestoreQueues& queues) {
  if (is_dead_) return dead();
  in_gap_ = false;
  faults_.reset_cause = ResetCause::kNone;
  faults_.release_refusals = 0;
  return inner_->restore(min, queues);
}

Result<kernel::ReleaseReport> FaultyConn::release(std::span<const std::byte> unsent, bool probe) {
  if (is_dead_) return dead();
  if (take(faults_.no_release)) return refused("release");
  if (faults_.meets(faults_.release, EventKind::kFailRelease)) {
    refuse_release(faults_);
    return refused("release");
  }
  if (unsent.size() < 2 || !take(faults_.lose_byte)) return inner_->release(unsent, probe);
  auto released = inner_->release(unsent.first(unsent.size() - 1), probe);
  if (released) ++released->unsent_taken_bytes;
  return released;
}

void FaultyConn::prepare_close(bool unread) noexcept {
  if (!is_dead_) inner_->prepare_close(unread);
}

void FaultyConn::reset() noexcept {
  if (!is_dead_) inner_->reset();
}

}  // namespace twinstack::sim
