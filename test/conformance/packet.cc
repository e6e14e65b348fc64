#include "packet.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "wire/build.h"
#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/tcp_options.h"

namespace twinstack::conformance {
namespace {

constexpr std::uint8_t kIcmpV4 = 1;
constexpr std::uint8_t kIcmpV6 = 58;
constexpr std::size_t kIcmpHeaderBytes = 8;
constexpr std::size_t kQuotedBytes = 64;  // of the packet that an error quotes: at least 8 behind its IP header

std::size_t ip_header_bytes(bool v4) noexcept { return v4 ? wire::kIpv4Bytes : wire::kIpv6Bytes; }

// Takes the Ethernet header off.
std::vector<std::byte> without_ethernet(std::vector<std::byte> frame) {
  frame.erase(frame.begin(), frame.begin() + wire::kEthernetBytes);
  return frame;
}

// The data offset counts `more_bytes` more.
void lengthen_tcp_header(std::span<std::byte> tcp, std::size_t more_bytes) noexcept {
  tcp[12] = static_cast<std::byte>(std::to_integer<unsigned>(tcp[12]) + (more_bytes / 4 << 4));
}

// Type and code: RFC 792, RFC 4443.
std::array<std::uint8_t, 2> icmp_type(IcmpKind kind, bool v4) noexcept {
  switch (kind) {
    case IcmpKind::kNetUnreachable:
      return v4 ? std::array<std::uint8_t, 2>{3, 0} : std::array<std::uint8_t, 2>{1, 0};
    case IcmpKind::kHostUnreachable:
      return v4 ? std::array<std::uint8_t, 2>{3, 1} : std::array<std::uint8_t, 2>{1, 3};
    case IcmpKind::kProtocolUnreachable:
      return v4 ? std::array<std::uint8_t, 2>{3, 2} : std::array<std::uint8_t, 2>{4, 1};
    case IcmpKind::kPortUnreachable:
      return v4 ? std::array<std::uint8_t, 2>{3, 3} : std::array<std::uint8_t, 2>{1, 4};
    case IcmpKind::kFragmentationNeeded:
      return v4 ? std::array<std::uint8_t, 2>{3, 4} : std::array<std::uint8_t, 2>{2, 0};
    case IcmpKind::kProhibited:
      return v4 ? std::array<std::uint8_t, 2>{3, 13} : std::array<std::uint8_t, 2>{1, 1};
    case IcmpKind::kTimeExceeded:
      return v4 ? std::array<std::uint8_t, 2>{11, 0} : std::array<std::uint8_t, 2>{3, 0};
    case IcmpKind::kParameterProblem:
      return v4 ? std::array<std::uint8_t, 2>{12, 0} : std::array<std::uint8_t, 2>{4, 0};
    case IcmpKind::kSourceQuench:
      return {4, 0};
  }
  return {0, 0};
}

// The IP header of `carrier` made to carry `protocol` with so many bytes.
void readdress(std::span<std::byte> header, bool v4, std::uint8_t protocol, std::size_t bytes) noexcept {
  if (!v4) {
    wire::store_be(&header[4], static_cast<std::uint16_t>(bytes));
    header[6] = std::byte{protocol};
    return;
  }
  wire::store_be(&header[2], static_cast<std::uint16_t>(wire::kIpv4Bytes + bytes));
  header[9] = std::byte{protocol};
  std::memset(&header[10], 0, 2);
  wire::InternetSum sum;
  sum.add(header.first(wire::kIpv4Bytes));
  const std::uint16_t checksum = sum.checksum();
  std::memcpy(&header[10], &checksum, sizeof checksum);
}

// ICMPv6 sums a pseudo-header with its own protocol number (RFC 4443 2.3), ICMP none (RFC 792).
void sum_icmp(std::span<const std::byte> header, std::span<std::byte> icmp, bool v4) noexcept {
  wire::InternetSum sum;
  if (!v4) {
    sum.add(header.subspan(8, 32));
    sum.add_field(static_cast<std::uint16_t>(icmp.size()));
    sum.add_field(kIcmpV6);
  }
  sum.add(icmp);
  const std::uint16_t checksum = sum.checksum();
  std::memcpy(&icmp[2], &checksum, sizeof checksum);
}

}  // namespace

std::vector<std::byte> make_packet(const FlowKey& flow, const wire::Segment& segment, ByteView payload,
                                   const PacketExtras& extras) {
  const std::size_t head = wire::header_bytes(flow, segment);
  const std::size_t extra = extras.raw_options.size();
  std::vector<std::byte> frame(head + extra + payload.size());
  wire::write_headers(frame, {.ttl = extras.ttl}, flow, segment, static_cast<std::uint32_t>(extra + payload.size()));
  lengthen_tcp_header(std::span(frame).subspan(wire::kEthernetBytes + ip_header_bytes(flow.is_v4())), extra);
  std::ranges::copy(std::as_bytes(extras.raw_options), frame.begin() + static_cast<std::ptrdiff_t>(head));
  std::ranges::copy(payload, frame.begin() + static_cast<std::ptrdiff_t>(head + extra));
  wire::fill_checksum(frame);
  const std::size_t checksum_at = wire::kEthernetBytes + ip_header_bytes(flow.is_v4()) + 16;
  if (extras.corrupt) frame[checksum_at] ^= std::byte{0x55};
  return without_ethernet(std::move(frame));
}

std::vector<std::byte> make_icmp(const FlowKey& flow, IcmpKind kind, Seq quoted, std::uint32_t mtu_bytes) {
  const bool v4 = flow.is_v4();
  wire::Segment segment;
  segment.seq = quoted;
  segment.flags = wire::kAck;
  std::vector<std::byte> quote = make_packet(flow, segment, std::vector<std::byte>(kQuotedBytes));
  quote.resize(ip_header_bytes(v4) + kQuotedBytes / 2);

  // The error's own IP header is that of a segment of the peer, readdressed.
  std::vector<std::byte> packet = make_packet(reversed(flow), segment, {});
  packet.resize(ip_header_bytes(v4));
  readdress(packet, v4, v4 ? kIcmpV4 : kIcmpV6, kIcmpHeaderBytes + quote.size());
  packet.resize(packet.size() + kIcmpHeaderBytes);
  packet.insert(packet.end(), quote.begin(), quote.end());
  const auto icmp = std::span(packet).subspan(ip_header_bytes(v4));
  const auto type = icmp_type(kind, v4);
  icmp[0] = std::byte{type[0]};
  icmp[1] = std::byte{type[1]};
  // RFC 1191 4: the MTU lies in the last two bytes; RFC 4443 3.2: in all four.
  if (kind == IcmpKind::kFragmentationNeeded) wire::store_be(&icmp[4], mtu_bytes);
  sum_icmp(packet, icmp, v4);
  return packet;
}

Result<ReadPacket> read_packet(ByteView packet) {
  if (packet.empty()) return error(ErrorCode::kInvalid, "an empty packet");
  std::vector<std::byte> frame(wire::kEthernetBytes);
  const bool v6 = std::to_integer<unsigned>(packet[0]) >> 4 == 6;
  wire::store_be(&frame[12], static_cast<std::uint16_t>(v6 ? 0x86dd : 0x0800));
  frame.insert(frame.end(), packet.begin(), packet.end());
  const ByteView view(frame);
  ReadPacket out;
  const auto verdict = wire::parse_frame(std::span(&view, 1), static_cast<std::uint32_t>(frame.size()),
                                         wire::ChecksumMode::kVerify, out.head);
  if (verdict != wire::ParseVerdict::kOk) return error(ErrorCode::kInvalid, std::string(wire::name(verdict)));
  out.payload.resize(out.head.payload.size());
  out.head.payload.copy_to(out.payload);
  out.head.payload = {};
  return out;
}

}  // namespace twinstack::conformance
