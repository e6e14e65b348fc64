// EnginePort: the driver's end of one lane's control queue (engine/device.h). Commands are answered in order; call()
// waits for the answer, which is microseconds away. The driver's thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "base/result.h"
#include "engine/device.h"
#include "engine/region.h"

namespace twinstack::handoff {

// Makes the lane look at its control queue now. In one process: carries the commands out in the caller's thread under
// the lane's lock; across processes: a doorbell.
class LaneDoorbell {
 public:
  virtual ~LaneDoorbell() = default;
  virtual void ring() = 0;
};

class EnginePort {
 public:
  // REQUIRES: region and doorbell outlive the port; one port per region.
  EnginePort(std::uint32_t lane, engine::LaneRegion& region, LaneDoorbell& doorbell);
  EnginePort(const EnginePort&) = delete;
  EnginePort& operator=(const EnginePort&) = delete;

  [[nodiscard]] std::uint32_t lane() const noexcept { return lane_; }

  // The reply whatever its status.
  [[nodiscard]] engine::Reply call(const engine::Command& command);
  // The reply when its status is kOk; else an error that says what was refused.
  [[nodiscard]] Result<engine::Reply> request(const engine::Command& command);

  // Takes one event; false when there is none.
  [[nodiscard]] bool take_event(engine::Event& event);

  // The card's memory, for a connection that is held: nodes of its lists.
  [[nodiscard]] std::span<const engine::Piece> pieces() const noexcept { return region_.pieces(); }
  [[nodiscard]] const engine::HwConnRecord& record(engine::HwConnId id) const noexcept {
    return region_.records()[id.index()];
  }

 private:
  std::uint32_t lane_;
  engine::LaneRegion& region_;
  LaneDoorbell& doorbell_;
  ipc::RingProducer<engine::Command> commands_;
  ipc::RingConsumer<engine::Reply> replies_;
  ipc::RingConsumer<engine::Event> events_;
};

}  // namespace twinstack::handoff
