// Address: where a socket is, or whom it talks to. The family of an address follows from its bytes (IPv4-mapped = v4);
// the wildcard exists in both.
#pragma once

#include <cstdint>

#include "wire/flow.h"

namespace twinstack::stack {

enum class Family : std::uint8_t { kV4, kV6 };

struct Address {
  IpAddress ip;
  std::uint16_t port = 0;  // host order

  friend bool operator==(const Address&, const Address&) = default;
};

[[nodiscard]] inline IpAddress any_v4() noexcept { return IpAddress::from_v4({0, 0, 0, 0}); }
[[nodiscard]] inline IpAddress any_v6() noexcept { return {}; }
[[nodiscard]] inline bool is_any(const IpAddress& ip) noexcept { return ip == any_v4() || ip == any_v6(); }
// A v6 wildcard counts as v6.
[[nodiscard]] inline Family family_of(const IpAddress& ip) noexcept { return ip.is_v4() ? Family::kV4 : Family::kV6; }
// Broadcast (limited only: subnets are not known here) and multicast.
[[nodiscard]] bool is_group(const IpAddress& ip) noexcept;

}  // namespace twinstack::stack
