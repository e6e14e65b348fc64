// The few netlink requests of RouteTable, on libnl. Internal to this folder. One thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "base/result.h"
#include "kernel/routes.h"

struct nl_msg;
struct nl_sock;

namespace twinstack::kernel {

struct NlSocketFree {
  void operator()(nl_sock* socket) const noexcept;
};
using NlSocket = std::unique_ptr<nl_sock, NlSocketFree>;

// What the kernel's route lookup says.
struct RouteAnswer {
  std::uint32_t interface_index = 0;
  std::optional<IpAddress> gateway;
  std::uint32_t mtu_bytes = 0;  // of the route, 0 = not set
  bool mtu_expires = false;     // it is a router's word in place of the route's own
};

struct LinkAnswer {
  nic::MacAddress mac{};
  std::uint32_t mtu_bytes = 0;
  bool ethernet = false;
  bool loopback = false;
  bool up = false;  // administratively and by carrier
};

// Valid: `mac` may be used. Not valid and `known`: being resolved, or failed.
struct NeighbourAnswer {
  nic::MacAddress mac{};
  bool valid = false;
};

class NetlinkRequests {
 public:
  static Result<NetlinkRequests> open();

  // kNotEligible: no route, a route that ends here, a kind of route that we do not do.
  Result<RouteAnswer> route(const RouteQuery& query);
  Result<LinkAnswer> link(std::uint32_t interface_index);
  Result<NeighbourAnswer> neighbour(std::uint32_t interface_index, const IpAddress& address);
  // Makes the kernel resolve the neighbour now.
  Result<> resolve(std::uint32_t interface_index, const IpAddress& address);
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }

 private:
  explicit NetlinkRequests(NlSocket socket) : socket_(std::move(socket)) {}
  // Sends, and hands the one answer (if it is one) to `on_answer`. The error of the kernel is `system_errno`.
  Result<RouteAnswer> ask_route(const RouteQuery& query, std::uint32_t flags);
  Result<> transact(nl_msg* message, const char* what, const std::function<void(nl_msg*)>& on_answer);

  NlSocket socket_;
  std::uint64_t count_ = 0;
};

// Change notices.
struct NeighbourNotice {
  std::uint32_t interface_index = 0;
  IpAddress address;
  nic::MacAddress mac{};
  bool valid = false;
  bool gone_or_failed = false;
};
struct TopologyNotice {};  // a link, address, route or rule changed: any next hop may have
using Notice = std::variant<TopologyNotice, NeighbourNotice>;

class NetlinkNotices {
 public:
  static Result<NetlinkNotices> open();
  [[nodiscard]] int fd() const noexcept;
  // Hands all notices that wait to `on_notice`; true when the kernel had to drop some.
  Result<bool> receive(const std::function<void(const Notice&)>& on_notice);

 private:
  explicit NetlinkNotices(NlSocket socket) : socket_(std::move(socket)) {}
  NlSocket socket_;
};

}  // namespace twinstack::kernel
