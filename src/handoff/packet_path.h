// PacketPath: the way of packets on one attached interface, as the hand-off needs it: which flows go to the engine, and
// how a packet that the engine holds gets into the kernel. The driver's thread only.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "nic/link.h"
#include "wire/flow.h"

namespace twinstack::handoff {

class PacketPath {
 public:
  virtual ~PacketPath() = default;

  // From now on packets of the flow go to the engine's lanes. kNoResource when the map is full.
  virtual Result<> steer(const FlowKey& flow, std::uint32_t generation) = 0;
  // From now on to the kernel.
  virtual Result<> unsteer(const FlowKey& flow) = 0;
  // Frames into the kernel's receive path, in order.
  virtual Result<> inject(std::span<const nic::RxFrame> frames) = 0;
};

}  // namespace twinstack::handoff
