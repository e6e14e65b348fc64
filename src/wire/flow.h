// FlowKey: the addresses and ports of one connection, seen from this host. IPv4 addresses are kept IPv4-mapped
// (::ffff:a.b.c.d, RFC 4291 2.5.5.2), so one key serves both families; a mapped address never appears in an IPv6
// header. Plain data: it lies in shared memory, in BPF maps (as `struct ts_flow`, src/bpf/shared.h) and in MinTcp.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>

namespace twinstack {

inline constexpr std::array<std::uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

struct IpAddress {
  std::array<std::uint8_t, 16> bytes{};  // network order

  [[nodiscard]] bool is_v4() const noexcept { return std::memcmp(bytes.data(), kMappedPrefix.data(), 12) == 0; }
  [[nodiscard]] std::array<std::uint8_t, 4> v4() const noexcept { return {bytes[12], bytes[13], bytes[14], bytes[15]}; }
  [[nodiscard]] static IpAddress from_v4(std::array<std::uint8_t, 4> address) noexcept;
  [[nodiscard]] std::string to_string() const;  // "10.0.0.1", "fd00::1"

  friend bool operator==(const IpAddress&, const IpAddress&) = default;
};

struct FlowKey {
  IpAddress local;
  IpAddress remote;
  std::uint16_t local_port = 0;   // host order
  std::uint16_t remote_port = 0;  // host order

  [[nodiscard]] bool is_v4() const noexcept { return local.is_v4(); }
  [[nodiscard]] std::uint64_t hash(std::uint64_t secret) const noexcept;
  [[nodiscard]] std::string to_string() const;  // "10.0.0.1:80 10.0.0.2:51000", "[fd00::1]:80 [fd00::2]:51000"

  friend bool operator==(const FlowKey&, const FlowKey&) = default;
};

static_assert(sizeof(FlowKey) == 36);

}  // namespace twinstack
