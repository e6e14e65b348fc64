#include "sim/sim_lane.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/assert.h"

namespace twinstack::sim {
namespace {

constexpr std::uint64_t kSecret = 0x5eed;

}  // namespace

void SimLane::Free::operator()(std::byte* memory) const noexcept { std::free(memory); }

std::unique_ptr<std::byte[], SimLane::Free> SimLane::make_memory(std::size_t bytes) {
  const std::size_t rounded = (bytes + 63) / 64 * 64;
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(64, rounded));
  ASSERT(memory != nullptr);
  std::memset(memory, 0, rounded);
  return std::unique_ptr<std::byte[], Free>(memory);
}

SimLane::SimLane(std::uint32_t index, const engine::LaneCapacity& capacity, std::unique_ptr<LaneNic> nic,
                 SimLaneHooks hooks)
    : hooks_(std::move(hooks)),
      memory_(make_memory(engine::LaneRegion::bytes_needed(capacity))),
      nic_(std::move(nic)),
      region({memory_.get(), engine::LaneRegion::bytes_needed(capacity)}, capacity),
      lane(index, region, *nic_, *this, kSecret, hooks_.now()),
      port(index, region, *this) {}

void SimLane::ring() {
  lane.process_commands(hooks_.now());
  (void)lane.take_last_words();  // frames leave with flush() here: there is nothing to kick
  if (lane.take_signal()) hooks_.signal_driver();
  if (is_asleep_ && (lane.has_work() || lane.has_waiting_rings() || lane.next_deadline() < sleep_until_)) doorbell();
}

bool SimLane::has_cause(Time now) const { return !is_asleep_ || is_rung_ || nic_->has_frames() || sleep_until_ <= now; }

Time SimLane::due(Time now) const {
  const Time free = std::max(now, stalled_until_);
  if (has_cause(now)) return free;
  return std::max(sleep_until_, free);
}

// LaneRunner::run() and poll_once() without spinning.
void SimLane::run(Time now) {
  is_rung_ = false;
  is_asleep_ = false;
  const bool busy = lane.poll(now);
  if (lane.take_signal()) hooks_.signal_driver();
  if (busy || !lane.prepare_sleep()) return;
  is_asleep_ = true;
  sleep_until_ = lane.next_deadline();
}

}  // namespace twinstack::sim
