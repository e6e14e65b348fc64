// packet: a received Ethernet frame -> TcpPacket, or the reason why it is none. Checks everything up to the TCP header,
// nothing that needs a connection. Pure, any thread; trusts no byte of the frame.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "wire/checksum.h"
#include "wire/flow.h"
#include "wire/payload.h"
#include "wire/segment.h"

namespace twinstack::wire {

using MacAddress = std::array<std::uint8_t, 6>;

// Outcome of parse_frame(); callers count them by value.
enum class ParseVerdict : std::uint8_t {
  kOk,
  kTruncated,     // shorter than its headers say, or headers not in the first part
  kNotIp,         // neither IPv4 nor IPv6 (after at most one VLAN tag)
  kBadIpHeader,   // version, lengths, IPv4 header checksum, IPv4-mapped address in IPv6
  kIpOptions,     // IPv4 options or IPv6 extension headers
  kFragment,      // IPv4 or IPv6 fragment
  kNotTcp,        // another protocol
  kBadTcpHeader,  // data offset under 5 or beyond the packet
  kBadChecksum,   // TCP checksum
};
inline constexpr std::size_t kParseVerdicts = 9;
[[nodiscard]] std::string_view name(ParseVerdict verdict) noexcept;

struct TcpPacket {
  FlowKey flow;     // local = destination of the frame
  Segment segment;  // ECN mark of the IP header included
  Payload payload;  // views the parts given to parse_frame(): valid as long as they are

  MacAddress source_mac{};
  MacAddress destination_mac{};
  std::uint16_t vlan_tci = 0;  // host order; meaningful when has_vlan
  bool has_vlan = false;
  bool partial_checksum =
      false;  // accepted in the kAcceptPartial form: the field must be filled before the frame leaves this host
  std::uint8_t ttl = 0;            // hop limit
  std::uint8_t traffic_class = 0;  // with the ECN bits
  std::uint16_t ip_offset = 0;     // from the start of the frame, bytes
  std::uint16_t ip_header_bytes = 0;
  std::uint16_t tcp_offset = 0;  // from the start of the frame, bytes
  std::uint16_t tcp_header_bytes = 0;
  std::uint32_t ip_bytes = 0;  // IP header, TCP header and payload, as the IP header says; padding not counted
};

// Reads the frame of `length_bytes` whose bytes lie in `parts`. `out` is valid only with kOk. Frames up to 64 KiB of IP
// packet (GSO super-packets); the IP length rules, Ethernet padding is ignored. No IPv6 jumbograms.
[[nodiscard]] ParseVerdict parse_frame(std::span<const ByteView> parts, std::uint32_t length_bytes, ChecksumMode mode,
                                       TcpPacket& out) noexcept;

// The same without the short way that it takes with the frames that nearly all are. For tests.
[[nodiscard]] ParseVerdict parse_frame_in_steps(std::span<const ByteView> parts, std::uint32_t length_bytes,
                                                ChecksumMode mode, TcpPacket& out) noexcept;

// The same for an IP packet without Ethernet header (a late packet of the kernel filter). Offsets count from its start.
[[nodiscard]] ParseVerdict parse_ip_packet(std::span<const ByteView> parts, std::uint32_t length_bytes,
                                           ChecksumMode mode, TcpPacket& out) noexcept;

}  // namespace twinstack::wire
