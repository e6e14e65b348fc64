// SimLane: hosts one lane as LaneRunner does (src/driver/lane_runner.h), with instants in place of its thread and no
// lock: polled while there is work, asleep until the link, a doorbell or its deadline wakes it. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/clock.h"
#include "engine/lane.h"
#include "handoff/engine_port.h"
#include "sim/lane_nic.h"

namespace twinstack::sim {

struct SimLaneHooks {
  std::function<Time()> now;
  std::function<void()> signal_driver;                                          // events or strays came up
  std::function<void(std::uint32_t session, std::uint32_t ring)> wake_program;  // a ring that asked for it
};

class SimLane final : public engine::Waker, public handoff::LaneDoorbell {
 public:
  SimLane(std::uint32_t index, const engine::LaneCapacity& capacity, std::unique_ptr<LaneNic> nic, SimLaneHooks hooks);

  // The driver has put a command into the queue.
  void ring() override;
  void wake(std::uint32_t session, std::uint32_t ring) override { hooks_.wake_program(session, ring); }
  // A program has submitted to a ring that asked for it; or the driver's.
  void doorbell() noexcept { is_rung_ = true; }

  // When the thread would run next: now or earlier means at once.
  [[nodiscard]] Time due(Time now) const;
  // A round of the thread.
  void run(Time now);
  void stall_until(Time until) noexcept { stalled_until_ = until; }

  [[nodiscard]] LaneNic& nic() noexcept { return *nic_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const noexcept;
  };
  [[nodiscard]] static std::unique_ptr<std::byte[], Free> make_memory(std::size_t bytes);
  [[nodiscard]] bool has_cause(Time now) const;

  SimLaneHooks hooks_;
  std::unique_ptr<std::byte[], Free> memory_;
  std::unique_ptr<LaneNic> nic_;
  bool is_rung_ = true;
  bool is_asleep_ = false;
  Time sleep_until_ = kNever;
  Time stalled_until_ = Time::min();

 public:
  engine::LaneRegion region;
  engine::Lane lane;
  handoff::EnginePort port;
};

}  // namespace twinstack::sim
