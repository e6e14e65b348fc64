// AttachedInterface: one interface that the service serves: the XDP program, a lane per queue, injection, routes. The
// driver's thread only, but for the lanes' own threads.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/monotonic.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "driver/interface.h"
#include "driver/lane_runner.h"
#include "driver/service.h"
#include "kernel/icmp_errors.h"
#include "kernel/routes.h"
#include "kernel/sock_diag.h"
#include "nic/af_xdp/attachment.h"
#include "nic/af_xdp/injector.h"

namespace twinstack::driver {

// Of flows that come over our own unix socket or from sockets that exist: nobody chooses collisions among many.
struct FlowHash {
  [[nodiscard]] std::size_t operator()(const FlowKey& flow) const noexcept { return flow.hash(0); }
};

class AttachedInterface final : public Interface {
 public:
  // Attaches and makes the lanes, numbered from `first_lane` on. They do not run yet.
  static Result<std::unique_ptr<AttachedInterface>> attach(const InterfaceOption& interface,
                                                           const ServiceOptions& options, std::uint32_t first_lane,
                                                           int driver_event_fd);

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] std::uint64_t netns_cookie() const noexcept override { return netns_cookie_; }
  [[nodiscard]] std::vector<std::unique_ptr<LaneRunner>>& lanes() noexcept { return lanes_; }
  [[nodiscard]] const nic::XdpAttachment& xdp() const noexcept { return *xdp_; }
  [[nodiscard]] kernel::RouteTable& routes() noexcept { return *routes_; }
  [[nodiscard]] const kernel::IcmpErrors& icmp() const noexcept { return *icmp_; }
  [[nodiscard]] kernel::SockDiag& diag() noexcept { return *diag_; }

  Result<std::optional<std::uint32_t>> hop_for(const kernel::RouteQuery& query) override;
  void release_hop(std::uint32_t hop_index) override;
  void process_routes(const std::function<void(std::uint32_t hop_index, const std::string& why)>& lost) override;
  void process_icmp(const std::function<void(const wire::IcmpError&)>& too_big) override {
    icmp_->poll(monotonic_now(), too_big);
  }
  [[nodiscard]] std::size_t lane_count() const noexcept override { return lanes_.size(); }
  [[nodiscard]] handoff::EnginePort& port(std::size_t lane) override { return lanes_[lane]->port(); }
  [[nodiscard]] std::vector<std::vector<std::byte>> take_strays(std::size_t lane) override {
    return lanes_[lane]->take_strays();
  }
  [[nodiscard]] std::uint32_t lane_of(const FlowKey& flow) const override;
  void watch(const FlowKey& flow) override;
  void unwatch(const FlowKey& flow) override;

  Result<> steer(const FlowKey& flow, std::uint32_t generation) override;
  Result<> unsteer(const FlowKey& flow) override;
  Result<> inject(std::span<const nic::RxFrame> frames) override;

 private:
  struct Hop {
    std::uint32_t route_id = 0;
    std::uint32_t users = 0;
    kernel::NextHop next;
  };

  AttachedInterface() = default;
  Result<> open_lanes(const ServiceOptions& options, std::uint32_t first_lane, int driver_event_fd);
  void tell_lanes(std::uint32_t hop_index, const kernel::NextHop& next);

  std::string name_;
  std::uint64_t netns_cookie_ = 0;
  std::unique_ptr<nic::XdpAttachment> xdp_;
  std::unique_ptr<nic::PacketInjector> injector_;
  std::unique_ptr<kernel::RouteTable> routes_;
  std::optional<kernel::SockDiag> diag_;
  std::optional<kernel::IcmpErrors> icmp_;
  std::vector<std::unique_ptr<LaneRunner>> lanes_;
  std::unordered_set<FlowKey, FlowHash> watched_;
  std::map<std::uint32_t, std::uint32_t> hop_of_route_;  // route id -> hop index
  std::vector<Hop> hops_;
  std::vector<std::uint32_t> free_hops_;
};

}  // namespace twinstack::driver
