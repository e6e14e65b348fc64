// Interface: what the mover needs of an interface that the service serves: the way of its packets, next hops, lanes.
// AttachedInterface stands on a real one, the simulator on wires in memory. The driver's thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "handoff/engine_port.h"
#include "handoff/packet_path.h"
#include "kernel/routes.h"
#include "wire/flow.h"
#include "wire/icmp.h"

namespace twinstack::driver {

class Interface : public handoff::PacketPath {
 public:
  [[nodiscard]] virtual const std::string& name() const noexcept = 0;
  [[nodiscard]] virtual std::uint64_t netns_cookie() const noexcept = 0;

  // The hop table index for a flow: its next hop leaves through this interface and is known to all lanes. kNotEligible
  // when it leaves elsewhere; nullopt while its neighbour is being resolved.
  virtual Result<std::optional<std::uint32_t>> hop_for(const kernel::RouteQuery& query) = 0;
  virtual void release_hop(std::uint32_t hop_index) = 0;
  // Takes in route changes. Connections whose hop is given to `lost` must go back to the kernel.
  virtual void process_routes(const std::function<void(std::uint32_t hop_index, const std::string& why)>& lost) = 0;

  // Takes in what routers have said about segments that were too big.
  virtual void process_icmp(const std::function<void(const wire::IcmpError&)>& too_big) = 0;

  [[nodiscard]] virtual std::size_t lane_count() const noexcept = 0;
  // REQUIRES: lane < lane_count(), as below.
  [[nodiscard]] virtual handoff::EnginePort& port(std::size_t lane) = 0;
  // Frames that belong to no connection of the lane: the kernel's.
  [[nodiscard]] virtual std::vector<std::vector<std::byte>> take_strays(std::size_t lane) = 0;
  // The lane (by position) whose queue saw the last packet of a flow that is watched; the first when none was seen.
  [[nodiscard]] virtual std::uint32_t lane_of(const FlowKey& flow) const = 0;

  // With several queues: notes by which one the packets of this connection of the kernel come, until unwatch(). Beyond
  // a bound the lane of a flow is a guess.
  virtual void watch(const FlowKey& flow) = 0;
  virtual void unwatch(const FlowKey& flow) = 0;
};

}  // namespace twinstack::driver
