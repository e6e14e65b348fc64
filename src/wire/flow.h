// FlowKey: the addresses and ports of one connection, seen from this host. IPv4 addresses are kept IPv4-mapped
// (::ffff:a.b.c.d, RFC 4291 2.5.5.2), so one key serves both families; a mapped address never appears in an IPv6
// header. Plain data: it lies in shared memory, in BPF maps (as `struct ts_flow`, src/bpf/shared.h) and in MinTcp.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>

namespace twinstack {

inline constexpr std::array<std::uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

struct IpAddress {
  std::array<std::uint8_t, 16> bytes{};  // network order

  // Eight bytes from `at` on, as they lie in memory.
  [[nodiscard]] std::uint64_t word(std::size_t at) const noexcept {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
  }
  // By words, as below.
  [[nodiscard]] bool is_v4() const noexcept {
    std::uint32_t third = 0;
    std::memcpy(&third, bytes.data() + 8, sizeof third);
    return word(0) == 0 && third == std::bit_cast<std::uint32_t>(std::array<std::uint8_t, 4>{0, 0, 0xff, 0xff});
  }
  [[nodiscard]] std::array<std::uint8_t, 4> v4() const noexcept { return {bytes[12], bytes[13], bytes[14], bytes[15]}; }
  [[nodiscard]] static IpAddress from_v4(std::array<std::uint8_t, 4> address) noexcept;
  [[nodiscard]] std::string to_string() const;  // "10.0.0.1", "fd00::1"
  // Who can send from it: of IPv6 whoever has a /64 has all addresses in it, but for link-local ones (fe80::/10).
  [[nodiscard]] IpAddress network() const noexcept {
    IpAddress network = *this;
    const bool link_local = bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
    if (!is_v4() && !link_local) std::memset(network.bytes.data() + 8, 0, 8);
    return network;
  }

  // By words, without the call that the default would make.
  friend bool operator==(const IpAddress& a, const IpAddress& b) noexcept {
    return a.word(0) == b.word(0) && a.word(8) == b.word(8);
  }
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

// As the other end sees it.
[[nodiscard]] inline FlowKey reversed(const FlowKey& flow) noexcept {
  return {.local = flow.remote, .remote = flow.local, .local_port = flow.remote_port, .remote_port = flow.local_port};
}

}  // namespace twinstack
