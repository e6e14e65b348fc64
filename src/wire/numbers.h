// Numbers and sizes of the headers: Ethernet, IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293).
#pragma once

#include <cstddef>
#include <cstdint>

#include "wire/payload.h"

namespace twinstack::wire {

// Headers without options, in bytes.
inline constexpr std::uint32_t kEthernetBytes = 14;
inline constexpr std::uint32_t kIpv4Bytes = 20;
inline constexpr std::uint32_t kIpv6Bytes = 40;
inline constexpr std::uint32_t kTcpBytes = 20;

// EtherType.
inline constexpr std::uint16_t kTypeIpv4 = 0x0800;
inline constexpr std::uint16_t kTypeIpv6 = 0x86dd;
inline constexpr std::uint16_t kTypeVlan = 0x8100;

// IPv4's protocol, IPv6's next header.
inline constexpr std::uint8_t kProtocolIcmp = 1;
inline constexpr std::uint8_t kProtocolTcp = 6;
inline constexpr std::uint8_t kProtocolIcmpV6 = 58;

[[nodiscard]] inline std::uint8_t byte_at(ByteView bytes, std::size_t at) noexcept {
  return static_cast<std::uint8_t>(bytes[at]);
}

}  // namespace twinstack::wire
