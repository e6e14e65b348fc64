// build: Segment -> Ethernet + IPv4/IPv6 + TCP headers in front of payload that the caller puts into the same buffer.
// Pure, any thread. The hot path of sending:
//
//   auto room = link.allocate_tx();
//   const auto head = wire::write_headers(room, path, flow, segment, payload_bytes);
//   copy payload to room.subspan(head, payload_bytes);
//   wire::fill_checksum(room.first(head + payload_bytes));
//   link.commit_tx(head + payload_bytes);
//
// or, saving two passes, wire::copy_and_sum() of the payload to where shape_of() says that it begins, and then
// write_headers() with that sum.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/checksum.h"
#include "wire/flow.h"
#include "wire/numbers.h"
#include "wire/packet.h"
#include "wire/segment.h"
#include "wire/tcp_options.h"

namespace twinstack::wire {

inline constexpr std::uint32_t kMaxHeaderBytes = kEthernetBytes + kIpv6Bytes + kTcpBytes + 40;

// What is the same for all segments of a connection until its route changes.
struct PathHeader {
  MacAddress source_mac{};
  MacAddress destination_mac{};    // of the next hop
  std::uint8_t ttl = 64;           // hop limit
  std::uint8_t traffic_class = 0;  // the two ECN bits are taken from the segment
  std::uint32_t flow_label = 0;    // IPv6, host order, 20 bits
};

// How long the headers of a segment are.
struct HeaderShape {
  bool v4 = true;
  bool only_timestamps = true;
  std::uint32_t option_bytes = 0;

  [[nodiscard]] std::uint32_t ip_bytes() const noexcept { return v4 ? kIpv4Bytes : kIpv6Bytes; }
  [[nodiscard]] std::uint32_t ip_packet_bytes() const noexcept { return ip_bytes() + kTcpBytes + option_bytes; }
  [[nodiscard]] std::uint32_t bytes() const noexcept { return kEthernetBytes + ip_packet_bytes(); }
};
[[nodiscard]] inline HeaderShape shape_of(const FlowKey& flow, const Segment& segment) noexcept {
  const bool plain = only_timestamps(segment.options);
  return {flow.is_v4(), plain, plain ? kTimestampBytes : all_options_bytes(segment.options)};
}

// Length of all headers that write_headers() will write.
[[nodiscard]] std::uint32_t header_bytes(const FlowKey& flow, const Segment& segment) noexcept;

// Writes the headers for `payload_bytes` bytes that follow them; local of `flow` is the source. IPv4: DF set,
// identification 0 (RFC 6864 4.1), header checksum right. The TCP checksum field is zero until fill_checksum().
// Returns header_bytes(). REQUIRES: frame.size() >= header_bytes() + payload_bytes; the IP packet fits in 65535 bytes.
std::uint32_t write_headers(std::span<std::byte> frame, const PathHeader& path, const FlowKey& flow,
                            const Segment& segment, std::uint32_t payload_bytes) noexcept;

// The same, TCP checksum included: `payload_sum` is that of the payload (copy_and_sum()), `shape` that of the segment.
void write_headers(std::span<std::byte> frame, const PathHeader& path, const FlowKey& flow, const Segment& segment,
                   const HeaderShape& shape, std::uint32_t payload_bytes, const InternetSum& payload_sum) noexcept;

// Computes the TCP checksum of a frame made by write_headers() whose payload is in place.
// REQUIRES: `frame` is exactly headers and payload.
void fill_checksum(std::span<std::byte> frame) noexcept;

// The same three for a bare IP packet, without Ethernet: offsets count from the IP header, MACs of `path` are not read.
[[nodiscard]] std::uint32_t ip_packet_header_bytes(const FlowKey& flow, const Segment& segment) noexcept;
std::uint32_t write_ip_headers(std::span<std::byte> packet, const PathHeader& path, const FlowKey& flow,
                               const Segment& segment, std::uint32_t payload_bytes) noexcept;
void fill_ip_checksum(std::span<std::byte> packet) noexcept;

// RFC 3168 5, of a bare IP packet with its whole header: the sender's transport knows ECN.
[[nodiscard]] bool is_ecn_capable(ByteView packet) noexcept;
// Congestion experienced, as a router says it. REQUIRES: is_ecn_capable().
void mark_congestion(std::span<std::byte> packet) noexcept;

// Another acknowledgement number and window (as in the header, unscaled) in a frame that parse_frame() took; `packet`
// is what it said of it.
void replace_ack(std::span<std::byte> frame, const TcpPacket& packet, Seq ack, std::uint16_t window) noexcept;

}  // namespace twinstack::wire
