// RouteTable: where the frames of a flow go: output interface, MAC addresses, MTU. The kernel's own routing and
// neighbour tables answer (netlink); the answers are cached and kept current from its change notices.
//
// Bound to the network namespace that the calling thread was in at open(). One thread at a time. No call blocks longer
// than the kernel takes to answer a request; neighbour resolution is started, never waited for.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "nic/link.h"
#include "wire/flow.h"

namespace twinstack::kernel {

struct RouteQuery {
  IpAddress local;  // the connection's source
  IpAddress remote;
  std::uint32_t scope_id = 0;         // IPv6 link-local: interface index
  std::uint32_t mark = 0;             // SO_MARK
  std::uint32_t bound_interface = 0;  // SO_BINDTODEVICE, 0 = any
  std::uint8_t traffic_class = 0;     // TOS

  friend bool operator==(const RouteQuery&, const RouteQuery&) = default;
};

struct NextHop {
  std::uint32_t id = 0;  // of the cached query: equal queries have equal ids, until forget()
  std::uint32_t interface_index = 0;
  nic::MacAddress source_mac{};       // of the interface
  nic::MacAddress destination_mac{};  // of the gateway, or of the peer on the same link
  std::uint32_t mtu_bytes = 0;        // smaller of interface and route
  IpAddress neighbour;                // whose MAC that is
  bool via_gateway = false;

  friend bool operator==(const NextHop&, const NextHop&) = default;
};

struct RouteEvent {
  enum class Kind : std::uint8_t {
    kChanged,     // `next_hop` is what to use from now on
    kUnresolved,  // the neighbour is not answering or was dropped; resolution was started; kChanged or kLost follows
    kLost,        // no usable route any more: `why`; move the connections back. The id is forgotten.
  };
  Kind kind = Kind::kChanged;
  std::uint32_t id = 0;
  NextHop next_hop;  // kChanged: the new one; else the last known
  std::string why;   // kLost
};

struct RouteTableStats {
  std::uint64_t lookups = 0;
  std::uint64_t cache_hits = 0;
  std::uint64_t kernel_requests = 0;
  std::uint64_t notices = 0;
  std::uint64_t overruns = 0;  // notices were lost: everything was looked up again
};

class RouteTable {
 public:
  static constexpr std::size_t kMaxEntries = 65536;

  static Result<std::unique_ptr<RouteTable>> open();
  RouteTable(const RouteTable&) = delete;
  RouteTable& operator=(const RouteTable&) = delete;
  ~RouteTable();

  // Next hop of a flow. nullopt: the neighbour is being resolved; ask again after the next event. kNotEligible: no
  // route, loopback, not Ethernet, interface down, gateway of the other family (`what` says which). kNoResource: the
  // cache is full.
  Result<std::optional<NextHop>> lookup(const RouteQuery& query);
  // The id is not watched any more.
  void forget(std::uint32_t id);
  [[nodiscard]] std::size_t size() const noexcept;

  // Polls readable when the kernel has sent notices.
  [[nodiscard]] int poll_fd() const noexcept;
  // Takes in what the kernel has sent and tells which watched next hops changed. `callback` must not call back into
  // this object.
  Result<> process_events(const std::function<void(const RouteEvent&)>& callback);

  [[nodiscard]] const RouteTableStats& stats() const noexcept;

 private:
  class Impl;
  explicit RouteTable(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace twinstack::kernel
