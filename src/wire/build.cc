#include "wire/build.h"

#include <concepts>
#include <cstring>

#include "wire/bytes.h"
#include "wire/tcp_options.h"

namespace twinstack::wire {

namespace {

constexpr std::uint16_t kDontFragment = 0x4000;
constexpr std::size_t kTcpAckAt = 8;  // in the TCP header
constexpr std::size_t kTcpWindowAt = 14;
constexpr std::size_t kTcpChecksumAt = 16;

void write_ethernet(std::byte* out, const PathHeader& path, bool v4) noexcept {
  std::memcpy(out, path.destination_mac.data(), 6);
  std::memcpy(out + 6, path.source_mac.data(), 6);
  store_be<std::uint16_t>(out + 12, v4 ? kTypeIpv4 : kTypeIpv6);
}

std::uint8_t traffic_class(const PathHeader& path, const Segment& segment) noexcept {
  return static_cast<std::uint8_t>((path.traffic_class & 0xfcU) | static_cast<unsigned>(segment.ecn));
}

// Writes fields in network order and sums them on the way, so that a checksum need not read the header back.
class SummingWriter {
 public:
  explicit SummingWriter(std::byte* at) noexcept : at_(at) {}

  void u32(std::uint32_t value) noexcept {
    store_be(at_, value);
    at_ += sizeof value;
    sum_ += value;
  }
  void u64(std::uint64_t value) noexcept {
    store_be(at_, value);
    at_ += sizeof value;
    sum_ += (value >> 32) + (value & 0xffffffffU);
  }
  // REQUIRES: a multiple of four, written already.
  void skip(std::uint32_t bytes) noexcept {
    for (; bytes > 0; bytes -= 4, at_ += 4) sum_ += load_be<std::uint32_t>(at_);
  }
  // Host order; of the few fields of a header, so it does not overflow.
  [[nodiscard]] std::uint64_t sum() const noexcept { return sum_; }

 private:
  std::byte* at_;
  std::uint64_t sum_ = 0;
};

template <std::unsigned_integral T>
T load_address(const IpAddress& address, std::size_t at) noexcept {
  return load_be<T>(std::as_bytes(std::span(address.bytes)).data() + at);
}

// Returns the sum of the addresses.
std::uint64_t write_ipv4(std::byte* out, const PathHeader& path, const FlowKey& flow, const Segment& segment,
                         std::uint32_t tcp_bytes) noexcept {
  const auto local = load_address<std::uint32_t>(flow.local, kMappedPrefix.size());
  const auto remote = load_address<std::uint32_t>(flow.remote, kMappedPrefix.size());
  const std::uint64_t addresses = std::uint64_t{local} + remote;
  const std::uint32_t first =
      0x45U << 24 | std::uint32_t{traffic_class(path, segment)} << 16 | (kIpv4Bytes + tcp_bytes);
  const std::uint32_t third = std::uint32_t{path.ttl} << 24 | std::uint32_t{kProtocolTcp} << 16;
  const std::uint16_t sum = fold(addresses + first + kDontFragment + third);
  store_be(out, std::uint64_t{first} << 32 | kDontFragment);
  store_be(out + 8, std::uint64_t{third | static_cast<std::uint16_t>(~sum)} << 32 | local);
  store_be(out + 16, remote);
  return addresses;
}

std::uint64_t write_ipv6(std::byte* out, const PathHeader& path, const FlowKey& flow, const Segment& segment,
                         std::uint32_t tcp_bytes) noexcept {
  const std::uint32_t first =
      6U << 28 | std::uint32_t{traffic_class(path, segment)} << 20 | (path.flow_label & 0xfffffU);
  store_be(out, first);
  store_be(out + 4, tcp_bytes << 16 | std::uint32_t{kProtocolTcp} << 8 | path.ttl);
  SummingWriter addresses(out + 8);
  for (const IpAddress* address : {&flow.local, &flow.remote}) {
    addresses.u64(load_address<std::uint64_t>(*address, 0));
    addresses.u64(load_address<std::uint64_t>(*address, 8));
  }
  return addresses.sum();
}

// The checksum field is left zero. Returns the sum of the header.
std::uint64_t write_tcp(std::span<std::byte> out, const FlowKey& flow, const Segment& segment,
                        const HeaderShape& shape) noexcept {
  SummingWriter header(out.data());
  header.u64(std::uint64_t{flow.local_port} << 48 | std::uint64_t{flow.remote_port} << 32 | segment.seq.raw());
  const std::uint32_t offset = (kTcpBytes + shape.option_bytes) / 4;
  header.u64(std::uint64_t{segment.ack.raw()} << 32 | offset << 28 | std::uint32_t{segment.flags} << 16 |
             segment.window);
  header.u32(segment.urgent);
  const TcpOptions& options = segment.options;
  if (shape.only_timestamps) {
    header.u32(kTimestampsAligned);
    header.u64(std::uint64_t{options.ts_val} << 32 | options.ts_ecr);
  } else {
    header.skip(write_options(out.subspan(kTcpBytes), options));
  }
  return header.sum();
}

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

// Returns the sum of pseudo-header and TCP header, host order.
std::uint64_t write_ip(std::span<std::byte> packet, const PathHeader& path, const FlowKey& flow, const Segment& segment,
                       const HeaderShape& shape, std::uint32_t payload_bytes) noexcept {
  const std::uint32_t tcp_bytes = kTcpBytes + shape.option_bytes + payload_bytes;
  ASSERT(packet.size() >= shape.ip_bytes() + tcp_bytes && tcp_bytes <= 0xffffU - kIpv4Bytes);
  const std::uint64_t addresses = shape.v4 ? write_ipv4(packet.data(), path, flow, segment, tcp_bytes)
                                           : write_ipv6(packet.data(), path, flow, segment, tcp_bytes);
  const std::uint64_t header = write_tcp(packet.subspan(shape.ip_bytes()), flow, segment, shape);
  return addresses + header + tcp_bytes + kProtocolTcp;
}

}  // namespace

std::uint32_t ip_packet_header_bytes(const FlowKey& flow, const Segment& segment) noexcept {
  return shape_of(flow, segment).ip_packet_bytes();
}

std::uint32_t header_bytes(const FlowKey& flow, const Segment& segment) noexcept {
  return shape_of(flow, segment).bytes();
}

std::uint32_t write_ip_headers(std::span<std::byte> packet, const PathHeader& path, const FlowKey& flow,
                               const Segment& segment, std::uint32_t payload_bytes) noexcept {
  const HeaderShape shape = shape_of(flow, segment);
  write_ip(packet, path, flow, segment, shape, payload_bytes);
  return shape.ip_packet_bytes();
}

std::uint32_t write_headers(std::span<std::byte> frame, const PathHeader& path, const FlowKey& flow,
                            const Segment& segment, std::uint32_t payload_bytes) noexcept {
  ASSERT(frame.size() > kEthernetBytes);
  write_ethernet(frame.data(), path, flow.is_v4());
  return kEthernetBytes + write_ip_headers(frame.subspan(kEthernetBytes), path, flow, segment, payload_bytes);
}

void write_headers(std::span<std::byte> frame, const PathHeader& path, const FlowKey& flow, const Segment& segment,
                   const HeaderShape& shape, std::uint32_t payload_bytes, const InternetSum& payload_sum) noexcept {
  ASSERT(frame.size() > kEthernetBytes);
  write_ethernet(frame.data(), path, shape.v4);
  const std::span<std::byte> packet = frame.subspan(kEthernetBytes);
  const std::uint64_t headers = write_ip(packet, path, flow, segment, shape, payload_bytes);
  const std::uint16_t sum = fold(headers + swap_to_network(payload_sum.folded()));
  store_be(packet.data() + shape.ip_bytes() + kTcpChecksumAt, static_cast<std::uint16_t>(~sum));
}

bool is_ecn_capable(ByteView packet) noexcept {
  if (packet.size() < kIpv4Bytes) return false;
  const unsigned traffic_class = byte_at(packet, 1);
  return ((byte_at(packet, 0) >> 4 == 4 ? traffic_class : traffic_class >> 4) & 3) != 0;
}

void mark_congestion(std::span<std::byte> packet) noexcept {
  constexpr std::size_t kChecksumAt = 10;
  const unsigned first = byte_at(packet, 0);
  if (first >> 4 != 4) {
    packet[1] |= std::byte{0x30};
    return;
  }
  packet[1] |= std::byte{3};
  packet[kChecksumAt] = packet[kChecksumAt + 1] = std::byte{0};
  InternetSum sum;
  sum.add(ByteView(packet).first(std::size_t{first & 0xf} * 4));
  const std::uint16_t checksum = sum.checksum();
  std::memcpy(packet.data() + kChecksumAt, &checksum, sizeof checksum);
}

void fill_ip_checksum(std::span<std::byte> packet) noexcept {
  const Layout at = layout_of(packet);
  const auto tcp_bytes = static_cast<std::uint32_t>(packet.size() - at.tcp);
  InternetSum sum;
  sum.add(packet.subspan(at.addresses, at.address_bytes));
  sum.add_field(static_cast<std::uint16_t>(tcp_bytes >> 16));
  sum.add_field(static_cast<std::uint16_t>(tcp_bytes & 0xffffU));
  sum.add_field(kProtocolTcp);
  sum.add(packet.subspan(at.tcp));
  const std::uint16_t checksum = sum.checksum();
  std::memcpy(packet.data() + at.tcp + kTcpChecksumAt, &checksum, sizeof checksum);
}

void fill_checksum(std::span<std::byte> frame) noexcept {
  ASSERT(frame.size() > kEthernetBytes);
  fill_ip_checksum(frame.subspan(kEthernetBytes));
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
