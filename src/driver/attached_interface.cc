#include "driver/attached_interface.h"

#include <sys/random.h>
#include <sys/socket.h>

#include "base/log.h"
#include "driver/host_settings.h"
#include "nic/af_xdp/af_xdp_link.h"
#include "nic/af_xdp/netns.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace twinstack::driver {
namespace {

// Flows of the kernel that an interface watches at a time, beside those that it steers.
constexpr std::uint32_t kMaxWatched = 65536;

Result<std::uint64_t> current_netns_cookie() {
  UniqueFd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!probe) return system_error("socket(AF_INET)");
  std::uint64_t cookie = 0;
  socklen_t length = sizeof(cookie);
  if (::getsockopt(probe.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) != 0)
    return system_error("getsockopt(SO_NETNS_COOKIE)");
  return cookie;
}

Result<std::uint64_t> random_secret() {
  std::uint64_t secret = 0;
  if (::getrandom(&secret, sizeof(secret), 0) != sizeof(secret)) return system_error("getrandom");
  return secret;
}

}  // namespace

Result<std::unique_ptr<AttachedInterface>> AttachedInterface::attach(const InterfaceOption& interface,
                                                                     const ServiceOptions& options,
                                                                     std::uint32_t first_lane, int driver_event_fd) {
  ASSIGN_OR_RETURN(const nic::ScopedNetns inside, nic::ScopedNetns::enter(interface.netns));
  std::unique_ptr<AttachedInterface> self(new AttachedInterface);
  self->name_ = interface.netns.empty() ? interface.name : interface.name + "@" + interface.netns;
  ASSIGN_OR_RETURN(self->netns_cookie_, current_netns_cookie());
  ASSIGN_OR_RETURN(self->xdp_, nic::XdpAttachment::attach({.interface = interface.name,
                                                           .mode = options.xdp_mode,
                                                           .max_flows = options.max_connections * 2 + kMaxWatched}));
  ASSIGN_OR_RETURN(self->injector_, nic::PacketInjector::create({.interface = interface.name}));
  ASSIGN_OR_RETURN(self->routes_, kernel::RouteTable::open());
  ASSIGN_OR_RETURN(kernel::SockDiag diag, kernel::SockDiag::open());
  self->diag_.emplace(std::move(diag));
  ASSIGN_OR_RETURN(kernel::IcmpErrors icmp, kernel::IcmpErrors::open());
  self->icmp_.emplace(std::move(icmp));
  TRY(self->open_lanes(options, first_lane, driver_event_fd));
  return self;
}

Result<> AttachedInterface::open_lanes(const ServiceOptions& options, std::uint32_t first_lane, int driver_event_fd) {
  const std::uint32_t queues = xdp_->interface().queues;
  const engine::HostSettings settings = read_host_settings();
  for (std::uint32_t queue = 0; queue < queues; ++queue) {
    ASSIGN_OR_RETURN(auto link, nic::AfXdpLink::open(*xdp_, {.queue = queue, .defer_kick = true}));
    ASSIGN_OR_RETURN(const std::uint64_t secret, random_secret());
    LaneRunnerOptions lane{.index = first_lane + queue,
                           .capacity = {.connections = options.max_connections, .pieces = 262144},
                           .spin = std::chrono::microseconds(options.spin_us),
                           .cpu = std::nullopt,
                           .secret = secret,
                           .settings = settings,
                           .driver_event_fd = driver_event_fd};
    if (!options.cpus.empty()) lane.cpu = options.cpus[lane.index % options.cpus.size()];
    ASSIGN_OR_RETURN(auto runner, LaneRunner::create(lane, std::move(link)));
    lanes_.push_back(std::move(runner));
  }
  return {};
}

void AttachedInterface::tell_lanes(std::uint32_t hop_index, const kernel::NextHop& next) {
  for (auto& lane : lanes_) {
    (void)lane->port().call({.op = engine::CommandOp::kSetHop,
                             .hop_index = hop_index,
                             .hop = {.source = next.source_mac,
                                     .destination = next.destination_mac,
                                     .reserved = 0,
                                     .mtu_bytes = next.mtu_bytes}});
  }
}

Result<std::optional<std::uint32_t>> AttachedInterface::hop_for(const kernel::RouteQuery& query) {
  ASSIGN_OR_RETURN(const std::optional<kernel::NextHop> next, routes_->lookup(query));
  if (!next) return std::optional<std::uint32_t>();
  if (next->interface_index != xdp_->interface().index) {
    if (!hop_of_route_.contains(next->id)) routes_->forget(next->id);  // nobody waits for news of it
    return error(ErrorCode::kNotEligible, "its route does not leave through " + name_);
  }
  const auto known = hop_of_route_.find(next->id);
  if (known != hop_of_route_.end()) {
    Hop& hop = hops_[known->second];
    ++hop.users;
    if (!(hop.next == *next)) {
      hop.next = *next;
      tell_lanes(known->second, *next);
    }
    return known->second;
  }
  std::uint32_t index = static_cast<std::uint32_t>(hops_.size());
  if (free_hops_.empty()) {
    hops_.emplace_back();
  } else {
    index = free_hops_.back();
    free_hops_.pop_back();
  }
  hops_[index] = Hop{.route_id = next->id, .users = 1, .next = *next};
  hop_of_route_[next->id] = index;
  tell_lanes(index, *next);
  return index;
}

void AttachedInterface::release_hop(std::uint32_t hop_index) {
  Hop& hop = hops_[hop_index];
  if (--hop.users > 0) return;
  routes_->forget(hop.route_id);
  hop_of_route_.erase(hop.route_id);
  free_hops_.push_back(hop_index);
}

void AttachedInterface::process_routes(
    const std::function<void(std::uint32_t hop_index, const std::string& why)>& lost) {
  std::vector<std::pair<std::uint32_t, std::string>> gone;
  const auto processed = routes_->process_events([&](const kernel::RouteEvent& event) {
    const auto known = hop_of_route_.find(event.id);
    if (known == hop_of_route_.end()) return;
    switch (event.kind) {
      case kernel::RouteEvent::Kind::kChanged:
        if (event.next_hop.interface_index != xdp_->interface().index) {
          gone.emplace_back(known->second, "its route now leaves through another interface");
          return;
        }
        hops_[known->second].next = event.next_hop;
        tell_lanes(known->second, event.next_hop);
        return;
      case kernel::RouteEvent::Kind::kUnresolved:
        return;  // the last known address serves until the kernel knows more
      case kernel::RouteEvent::Kind::kLost:
        gone.emplace_back(known->second, event.why);
        return;
    }
  });
  if (!processed) spdlog::error("{}: {}", name_, processed.error().message());
  for (const auto& [hop_index, why] : gone) lost(hop_index, why);
}

std::uint32_t AttachedInterface::lane_of(const FlowKey& flow) const {
  const auto state = xdp_->steering().state(flow);
  return state && state->packets > 0 && state->rx_queue < lanes_.size() ? state->rx_queue : 0;
}

void AttachedInterface::watch(const FlowKey& flow) {
  if (lanes_.size() < 2 || watched_.size() >= kMaxWatched) return;
  const auto known = xdp_->steering().state(flow);
  if (known && known->generation != 0) return;  // an older connection of the same flow is still the engine's
  if (xdp_->steering().watch(flow)) watched_.insert(flow);
}

void AttachedInterface::unwatch(const FlowKey& flow) {
  if (watched_.erase(flow) > 0) (void)xdp_->steering().remove(flow);
}

Result<> AttachedInterface::steer(const FlowKey& flow, std::uint32_t generation) {
  return xdp_->steering().add(flow, generation);
}

Result<> AttachedInterface::unsteer(const FlowKey& flow) {
  if (watched_.contains(flow)) return xdp_->steering().watch(flow);
  TRY(xdp_->steering().remove(flow));
  return {};
}

Result<> AttachedInterface::inject(std::span<const nic::RxFrame> frames) {
  // The kernel may have had these packets before (late filter), so partial checksums are possible on any device.
  TRY(injector_->inject(frames, wire::ChecksumMode::kAcceptPartial));
  return {};
}

}  // namespace twinstack::driver
