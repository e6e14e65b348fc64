#include "kernel/routes.h"

#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernel/netlink.h"

namespace twinstack::kernel {
namespace {

struct QueryHash {
  std::size_t operator()(const RouteQuery& query) const noexcept {
    std::uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a
    const auto mix = [&hash](std::uint64_t value) { hash = (hash ^ value) * 0x100000001b3U; };
    for (const std::uint8_t byte : query.local.bytes) mix(byte);
    for (const std::uint8_t byte : query.remote.bytes) mix(byte);
    mix(query.scope_id);
    mix(query.mark);
    mix(query.bound_interface);
    mix(query.traffic_class);
    return static_cast<std::size_t>(hash);
  }
};

struct Entry {
  RouteQuery query;
  NextHop next_hop;       // the last usable one, or its beginnings while unresolved
  bool resolved = false;  // next_hop may be used
};

}  // namespace

class RouteTable::Impl {
 public:
  Impl(NetlinkRequests requests, NetlinkNotices notices)
      : requests_(std::move(requests)), notices_(std::move(notices)) {}

  Result<std::optional<NextHop>> lookup(const RouteQuery& query);
  void forget(std::uint32_t id);
  Result<> process_events(const std::function<void(const RouteEvent&)>& callback);
  [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }
  [[nodiscard]] int poll_fd() const noexcept { return notices_.fd(); }
  [[nodiscard]] const RouteTableStats& stats() noexcept {
    stats_.kernel_requests = requests_.count();
    return stats_;
  }

 private:
  using Callback = std::function<void(const RouteEvent&)>;

  // Asks the kernel. The error kNotEligible says why there is no next hop; `resolved` false: being resolved.
  Result<Entry> ask(const RouteQuery& query, std::uint32_t id);
  void look_up_again(const Callback& callback);
  void apply(const NeighbourNotice& notice, const Callback& callback);
  void lose(std::uint32_t id, std::string why, const Callback& callback);

  NetlinkRequests requests_;
  NetlinkNotices notices_;
  std::unordered_map<std::uint32_t, Entry> entries_;
  std::unordered_map<RouteQuery, std::uint32_t, QueryHash> ids_;
  std::uint32_t next_id_ = 1;
  RouteTableStats stats_;
};

Result<Entry> RouteTable::Impl::ask(const RouteQuery& query, std::uint32_t id) {
  ASSIGN_OR_RETURN(const RouteAnswer route, requests_.route(query));
  ASSIGN_OR_RETURN(const LinkAnswer link, requests_.link(route.interface_index));
  if (link.loopback) return error(ErrorCode::kNotEligible, "the route leads to the loopback interface");
  if (!link.ethernet)
    return error(ErrorCode::kNotEligible, "the route leaves through an interface that is not Ethernet");
  if (!link.up) return error(ErrorCode::kNotEligible, "the interface of the route is down");
  Entry entry{.query = query, .next_hop = {}};
  NextHop& hop = entry.next_hop;
  hop.id = id;
  hop.interface_index = route.interface_index;
  hop.source_mac = link.mac;
  hop.mtu_bytes = route.mtu_bytes != 0 ? std::min(route.mtu_bytes, link.mtu_bytes) : link.mtu_bytes;
  hop.via_gateway = route.gateway.has_value();
  hop.neighbour = route.gateway.value_or(query.remote);
  if (hop.neighbour.is_v4() != query.remote.is_v4()) {
    return error(ErrorCode::kNotEligible, "the gateway is of the other address family");
  }
  ASSIGN_OR_RETURN(const NeighbourAnswer neighbour, requests_.neighbour(hop.interface_index, hop.neighbour));
  entry.resolved = neighbour.valid;
  hop.destination_mac = neighbour.mac;
  if (!entry.resolved) TRY(requests_.resolve(hop.interface_index, hop.neighbour));
  return entry;
}

Result<std::optional<NextHop>> RouteTable::Impl::lookup(const RouteQuery& query) {
  ++stats_.lookups;
  const auto known = ids_.find(query);
  if (known != ids_.end()) {
    const Entry& entry = entries_.at(known->second);
    if (entry.resolved) {
      ++stats_.cache_hits;
      return entry.next_hop;
    }
  }
  if (known == ids_.end() && entries_.size() >= kMaxEntries) {
    return error(ErrorCode::kNoResource, "the table of next hops is full");
  }
  const std::uint32_t id = known != ids_.end() ? known->second : next_id_++;
  auto entry = ask(query, id);
  if (!entry.has_value()) {
    forget(id);
    return std::unexpected(entry.error());
  }
  ids_[query] = id;
  entries_[id] = *entry;
  if (!entry->resolved) return std::nullopt;
  return entry->next_hop;
}

void RouteTable::Impl::forget(std::uint32_t id) {
  const auto at = entries_.find(id);
  if (at == entries_.end()) return;
  ids_.erase(at->second.query);
  entries_.erase(at);
}

Result<> RouteTable::Impl::process_events(const Callback& callback) {
  bool topology = false;
  std::vector<NeighbourNotice> neighbours;
  ASSIGN_OR_RETURN(const bool overrun, notices_.receive([&](const Notice& notice) {
    ++stats_.notices;
    if (const auto* neighbour = std::get_if<NeighbourNotice>(&notice)) {
      neighbours.push_back(*neighbour);
    } else {
      topology = true;
    }
  }));
  stats_.overruns += overrun;
  for (const NeighbourNotice& notice : neighbours) apply(notice, callback);
  if (topology || overrun) look_up_again(callback);
  return {};
}

void RouteTable::Impl::apply(const NeighbourNotice& notice, const Callback& callback) {
  for (auto& [id, entry] : entries_) {
    NextHop& hop = entry.next_hop;
    if (hop.interface_index != notice.interface_index || hop.neighbour != notice.address) continue;
    if (notice.valid && (!entry.resolved || hop.destination_mac != notice.mac)) {
      hop.destination_mac = notice.mac;
      entry.resolved = true;
      callback({.kind = RouteEvent::Kind::kChanged, .id = id, .next_hop = hop, .why = {}});
    } else if (notice.gone_or_failed && entry.resolved) {
      entry.resolved = false;
      // A refusal shows at the next look: the interface is going.
      static_cast<void>(requests_.resolve(hop.interface_index, hop.neighbour));
      callback({.kind = RouteEvent::Kind::kUnresolved, .id = id, .next_hop = hop, .why = {}});
    }
  }
}

void RouteTable::Impl::look_up_again(const Callback& callback) {
  std::vector<std::uint32_t> ids;
  ids.reserve(entries_.size());
  for (const auto& [id, entry] : entries_) ids.push_back(id);
  for (const std::uint32_t id : ids) {
    Entry& entry = entries_.at(id);
    auto now = ask(entry.query, id);
    if (!now.has_value()) {
      lose(id, now.error().message(), callback);
      continue;
    }
    const bool was_resolved = entry.resolved;
    const NextHop before = entry.next_hop;
    entry = *now;
    if (entry.resolved && (!was_resolved || entry.next_hop != before)) {
      callback({.kind = RouteEvent::Kind::kChanged, .id = id, .next_hop = entry.next_hop, .why = {}});
    } else if (!entry.resolved && was_resolved) {
      callback({.kind = RouteEvent::Kind::kUnresolved, .id = id, .next_hop = before, .why = {}});
    }
  }
}

void RouteTable::Impl::lose(std::uint32_t id, std::string why, const Callback& callback) {
  const NextHop last = entries_.at(id).next_hop;
  forget(id);
  callback({.kind = RouteEvent::Kind::kLost, .id = id, .next_hop = last, .why = std::move(why)});
}

RouteTable::RouteTable(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RouteTable::~RouteTable() = default;

Result<std::unique_ptr<RouteTable>> RouteTable::open() {
  // The notices first: what changes between the two is then seen.
  ASSIGN_OR_RETURN(NetlinkNotices notices, NetlinkNotices::open());
  ASSIGN_OR_RETURN(NetlinkRequests requests, NetlinkRequests::open());
  return std::unique_ptr<RouteTable>(new RouteTable(std::make_unique<Impl>(std::move(requests), std::move(notices))));
}

Result<std::optional<NextHop>> RouteTable::lookup(const RouteQuery& query) { return impl_->lookup(query); }
void RouteTable::forget(std::uint32_t id) { impl_->forget(id); }
std::size_t RouteTable::size() const noexcept { return impl_->size(); }
int RouteTable::poll_fd() const noexcept { return impl_->poll_fd(); }
Result<> RouteTable::process_events(const std::function<void(const RouteEvent&)>& callback) {
  return impl_->process_events(callback);
}
const RouteTableStats& RouteTable::stats() const noexcept { return impl_->stats(); }

}  // namespace twinstack::kernel
