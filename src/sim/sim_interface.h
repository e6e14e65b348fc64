// SimInterface: the moving host's interface as the driver sees it: steering map, injector, next hops, lanes. What
// AttachedInterface is in the service. Also plays the XDP program. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "driver/interface.h"
#include "sim/frame.h"
#include "sim/sim_lane.h"
#include "wire/icmp.h"

namespace twinstack::sim {

class SimInterface final : public driver::Interface {
 public:
  // `to_kernel` takes frames into the kernel's receive path.
  SimInterface(std::function<void(Frame)> to_kernel, FramePool& pool) : to_kernel_(std::move(to_kernel)), pool_(pool) {}

  void add_lane(std::unique_ptr<SimLane> lane) { lanes_.push_back(std::move(lane)); }
  [[nodiscard]] std::vector<std::unique_ptr<SimLane>>& lanes() noexcept { return lanes_; }

  // A frame from the wire: to a lane when its flow is steered, else to the kernel.
  void demultiplex(Frame frame);
  [[nodiscard]] bool steers(const FlowKey& flow) const { return steered_.contains(flow); }
  [[nodiscard]] std::size_t steered_flows() const noexcept { return steered_.size(); }
  [[nodiscard]] std::uint32_t hop_users() const noexcept;

  // Faults.
  bool map_is_full = false;
  std::uint32_t fail_inject = 0;  // the next so many injections
  std::function<void(const FlowKey&)> on_failed_inject = [](const FlowKey&) {};
  bool keeps_flows = false;        // a bug that the product does not have (tests of the simulator)
  std::uint32_t queue_offset = 0;  // added to the hash that chooses the queue

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] std::uint64_t netns_cookie() const noexcept override { return 1; }
  Result<std::optional<std::uint32_t>> hop_for(const kernel::RouteQuery& query) override;
  void release_hop(std::uint32_t hop_index) override;
  void process_routes(const std::function<void(std::uint32_t, const std::string&)>& /*lost*/) override {}
  void process_icmp(const std::function<void(const wire::IcmpError&)>& too_big) override;
  [[nodiscard]] bool icmp_waits() const noexcept { return !icmp_.empty(); }
  [[nodiscard]] std::size_t lane_count() const noexcept override { return lanes_.size(); }
  [[nodiscard]] handoff::EnginePort& port(std::size_t lane) override { return lanes_[lane]->port; }
  [[nodiscard]] std::vector<std::vector<std::byte>> take_strays(std::size_t lane) override;
  [[nodiscard]] std::uint32_t lane_of(const FlowKey& flow) const override;
  void watch(const FlowKey& flow) override { watched_.try_emplace(flow, 0U); }
  void unwatch(const FlowKey& flow) override { watched_.erase(flow); }

  Result<> steer(const FlowKey& flow, std::uint32_t generation) override;
  Result<> unsteer(const FlowKey& flow) override;
  Result<> inject(std::span<const nic::RxFrame> frames) override;

  // From now on every call does nothing: the service is dead.
  bool is_dead = false;

 private:
  struct FlowHash {
    std::size_t operator()(const FlowKey& flow) const noexcept { return flow.hash(0); }
  };
  struct Hop {
    std::uint32_t users = 0;
    bool is_known = false;  // to the lanes
  };
  [[nodiscard]] std::uint32_t queue_of(const FlowKey& flow) const;
  void tell_lanes(std::uint32_t hop_index);
  void tell_failed_inject(const nic::RxFrame& frame) const;
  void overhear(ByteView frame);

  std::function<void(Frame)> to_kernel_;
  FramePool& pool_;
  std::string name_ = "sim0";
  std::vector<std::unique_ptr<SimLane>> lanes_;
  std::unordered_map<FlowKey, std::uint32_t, FlowHash> steered_;  // generation
  std::unordered_map<FlowKey, std::uint32_t, FlowHash> watched_;  // the queue of its last packet
  std::vector<wire::IcmpError> icmp_;                             // for the driver
  std::vector<Hop> hops_;                                         // one for each other host
};

}  // namespace twinstack::sim
