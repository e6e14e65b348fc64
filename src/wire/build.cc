#include "wire/build.h"

#include <bit>

#include "wire/bytes.h"
#include "wire/tcp_options.h"

namespace twinstack::wire {

namespace {

constexpr std::uint16_t kTypeIpv4 = 0x0800;
constexpr std::uint16_t kTypeIpv6 = 0x86dd;
constexpr std::uint8_t kProtocolTcp = 6;
constexpr std::uint16_t kDontFragment = 0x4000;
constexpr std::size_t kTcpAckAt = 8;  // in the TCP header
constexpr std::size_t kTcpWindowAt = 14;
constexpr std::size_t kTcpChecksumAt = 16;
constexpr std::size_t kMappedPrefixBytes = 12;

void write_ethernet(std::byte* out, const PathHeader& path, bool v4) noexcept {
  std::memcpy(out, path.destination_mac.data(), 6);
  std::memcpy(out + 6, path.source_mac.data(), 6);
  store_be<std::uint16_t>(out + 12, v4 ? kTypeIpv4 : kTypeIpv6);
}

std::uint8_t traffic_class(const PathHeader& path, const Segment& segment) noexcept {
  return static_cast<std::uint8_t>((path.traffic_class & 0xfcU) | static_cast<unsigned>(segment.ecn));
}

void write_ipv4(std::byte* out, const PathHeader& path, const FlowKey& flow, const Segment& segment,
                std::uint32_t tcp_bytes) noexcept {
  out[0] = std::byte{0x45};
  out[1] = std::byte{traffic_class(path, segment)};
  store_be(out + 2, static_cast<std::uint16_t>(kIpv4Bytes + tcp_bytes));
  store_be<std::uint16_t>(out + 4, 0);
  store_be(out + 6, kDontFragment);
  out[8] = std::byte{path.ttl};
  out[9] = std::byte{kProtocolTcp};
  store_be<std::uint16_t>(out + 10, 0);
  std::memcpy(out + 12, flow.local.bytes.data() + kMappedPrefixBytes, 4);
  std::memcpy(out + 16, flow.remote.bytes.data() + kMappedPrefixBytes, 4);
  InternetSum sum;
  sum.add(ByteView(out, kIpv4Bytes));
  const std::uint16_t checksum = sum.checksum();
  std::memcpy(out + 10, &checksum, sizeof checksum);
}

void write_ipv6(std::byte* out, const PathHeader& path, const FlowKey& flow, const Segment& segment,
                std::uint32_t tcp_bytes) noexcept {
  const std::uint32_t first =
      6U << 28 | std::uint32_t{traffic_class(path, segment)} << 20 | (path.flow_label & 0xfffffU);
  store_be(out, first);
  store_be(out + 4, static_cast<std::uint16_t>(tcp_bytes));
  out[6] = std::byte{kProtocolTcp};
  out[7] = std::byte{path.ttl};
  std::memcpy(out + 8, flow.local.bytes.data(), 16);
  std::memcpy(out + 24, flow.remote.bytes.data(), 16);
}

void write_tcp(std::byte* out, const FlowKey& flow, const Segment& segment, std::uint32_t option_bytes) noexcept {
  store_be(out, flow.local_port);
  store_be(out + 2, flow.remote_port);
  store_be(out + 4, segment.seq.raw());
  store_be(out + 8, segment.ack.raw());
  out[12] = static_cast<std::byte>((kTcpBytes + option_bytes) / 4 << 4);
  out[13] = std::byte{segment.flags};
  store_be(out + 14, segment.window);
  store_be<std::uint16_t>(out + kTcpChecksumAt, 0);
  store_be(out + 18, segment.urgent);
}

std::uint32_t ip_bytes(const FlowKey& flow) noexcept { return flow.is_v4() ? kIpv4Bytes : kIpv6Bytes; }

// Where the parts of an IP packet of ours lie: found from the packet, so that filling needs nothing else.
struct Layout {
  std::size_t addresses;      // offset of source and destination
  std::size_t address_bytes;  // of both
  std::size_t tcp;            // offset
};

Layout layout_of(std::span<const std::byte> packet) noexcept {
  ASSERT(packet.size() >= kIpv4Bytes + kTcpBytes);
  const bool v4 = packet[0] == std::byte{0x45};
  if (v4) return {12, 8, kIpv4Bytes};
  ASSERT(packet.size() >= kIpv6Bytes + kTcpBytes);
  return {8, 32, kIpv6Bytes};
}

// The sum of pseudo-header and the first `count` bytes of TCP header and payload, whose length is `tcp_bytes`.
InternetSum sum_of(std::span<const std::byte> packet, const Layout& at, std::size_t count) noexcept {
  const auto tcp_bytes = static_cast<std::uint32_t>(packet.size() - at.tcp);
  InternetSum sum;
  sum.add(packet.subspan(at.addresses, at.address_bytes));
  sum.add_field(static_cast<std::uint16_t>(tcp_bytes >> 16));
  sum.add_field(static_cast<std::uint16_t>(tcp_bytes & 0xffffU));
  sum.add_field(kProtocolTcp);
  sum.add(packet.subspan(at.tcp, count));
  return sum;
}

void store_checksum(std::span<std::byte> packet, const Layout& at, const InternetSum& sum) noexcept {
  const std::uint16_t checksum = sum.checksum();
  std::memcpy(packet.data() + at.tcp + kTcpChecksumAt, &checksum, sizeof checksum);
}

}  // namespace

std::uint32_t ip_packet_header_bytes(const FlowKey& flow, const Segment& segment) noexcept {
  return ip_bytes(flow) + kTcpBytes + options_bytes(segment.options);
}

std::uint32_t header_bytes(const FlowKey& flow, const Segment& segment) noexcept {
  return kEthernetBytes + ip_packet_header_bytes(flow, segment);
}

std::uint32_t write_ip_headers(std::span<std::byte> packet, const PathHeader& path, const FlowKey& flow,
                               const Segment& segment, std::uint32_t payload_bytes) noexcept {
  const std::uint32_t option_bytes = options_bytes(segment.options);
  const std::uint32_t tcp_bytes = kTcpBytes + option_bytes + payload_bytes;
  const std::uint32_t tcp_offset = ip_bytes(flow);
  ASSERT(packet.size() >= tcp_offset + tcp_bytes && tcp_bytes <= 0xffffU - kIpv4Bytes);
  if (flow.is_v4()) {
    write_ipv4(packet.data(), path, flow, segment, tcp_bytes);
  } else {
    write_ipv6(packet.data(), path, flow, segment, tcp_bytes);
  }
  write_tcp(packet.data() + tcp_offset, flow, segment, option_bytes);
  write_options(packet.subspan(tcp_offset + kTcpBytes), segment.options);
  return tcp_offset + kTcpBytes + option_bytes;
}

std::uint32_t write_headers(std::span<std::byte> frame, const PathHeader& path, const FlowKey& flow,
                            const Segment& segment, std::uint32_t payload_bytes) noexcept {
  ASSERT(frame.size() > kEthernetBytes);
  write_ethernet(frame.data(), path, flow.is_v4());
  return kEthernetBytes + write_ip_headers(frame.subspan(kEthernetBytes), path, flow, segment, payload_bytes);
}

void fill_ip_checksum(std::span<std::byte> packet) noexcept {
  const Layout at = layout_of(packet);
  store_checksum(packet, at, sum_of(packet, at, packet.size() - at.tcp));
}

void fill_checksum(std::span<std::byte> frame) noexcept {
  ASSERT(frame.size() > kEthernetBytes);
  fill_ip_checksum(frame.subspan(kEthernetBytes));
}

void fill_checksum(std::span<std::byte> frame, const InternetSum& payload_sum) noexcept {
  ASSERT(frame.size() > kEthernetBytes);
  const std::span<std::byte> packet = frame.subspan(kEthernetBytes);
  const Layout at = layout_of(packet);
  const std::size_t tcp_header = static_cast<std::size_t>(packet[at.tcp + 12]) / 16 * 4;
  InternetSum sum = sum_of(packet, at, tcp_header);
  sum.add(payload_sum);
  store_checksum(packet, at, sum);
}

// RFC 1624 (3): the checksum is updated, so a wrong one stays wrong. A partial one covers the pseudo-header alone.
void replace_ack(std::span<std::byte> frame, const TcpPacket& packet, Seq ack, std::uint16_t window) noexcept {
  std::byte* const tcp = frame.data() + packet.tcp_offset;
  const std::uint32_t ack_before = load_be<std::uint32_t>(tcp + kTcpAckAt);
  const auto window_before = load_be<std::uint16_t>(tcp + kTcpWindowAt);
  store_be(tcp + kTcpAckAt, ack.raw());
  store_be(tcp + kTcpWindowAt, window);
  if (packet.partial_checksum) return;
  std::uint32_t sum = static_cast<std::uint16_t>(~load_be<std::uint16_t>(tcp + kTcpChecksumAt));
  for (const std::uint32_t value : {~ack_before, ack.raw()}) sum += (value >> 16) + (value & 0xffffU);
  sum += static_cast<std::uint16_t>(~window_before);
  sum += window;
  while (sum > 0xffffU) sum = (sum >> 16) + (sum & 0xffffU);
  store_be(tcp + kTcpChecksumAt, static_cast<std::uint16_t>(~sum));
}

}  // namespace twinstack::wire
