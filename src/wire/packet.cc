#include "wire/packet.h"

#include "wire/bytes.h"
#include "wire/numbers.h"
#include "wire/tcp_options.h"

namespace twinstack::wire {

namespace {

constexpr std::size_t kVlanTag = 4;

// The frame under examination: the first part, where all headers must lie, and the length of all.
struct Frame {
  std::span<const ByteView> parts;
  ByteView head;
  std::uint32_t length_bytes;
  ChecksumMode mode;
};

bool has_total(const Frame& frame) noexcept {
  std::size_t total = 0;
  for (const ByteView part : frame.parts) total += part.size();
  return total >= frame.length_bytes;
}

// `pseudo`: the sum of the pseudo-header.
bool checksum_ok(const Frame& frame, TcpPacket& out, std::uint32_t tcp_bytes, const InternetSum& pseudo) noexcept {
  if (frame.mode == ChecksumMode::kAcceptPartial) {
    // CHECKSUM_PARTIAL: the field holds the folded pseudo-header sum, not complemented; the device would add the rest.
    std::uint16_t field = 0;
    std::memcpy(&field, frame.head.data() + out.tcp_offset + 16, sizeof field);
    if (field == pseudo.folded()) {
      out.partial_checksum = true;
      return true;
    }
  }
  InternetSum sum = pseudo;
  sum.add(Payload(frame.parts, out.tcp_offset, tcp_bytes));
  return sum.checksum() == 0;
}

void read_tcp_fields(ByteView tcp, TcpPacket& out) noexcept {
  const std::byte* at = tcp.data();
  out.flow.remote_port = load_be<std::uint16_t>(at);
  out.flow.local_port = load_be<std::uint16_t>(at + 2);
  out.segment.seq = Seq(load_be<std::uint32_t>(at + 4));
  out.segment.ack = Seq(load_be<std::uint32_t>(at + 8));
  out.segment.flags = byte_at(tcp, 13);
  out.segment.window = load_be<std::uint16_t>(at + 14);
  out.segment.urgent = load_be<std::uint16_t>(at + 18);
}

// RFC 9293 3.1 (IPv4), RFC 8200 8.1 (IPv6). `addresses`: both, as they lie in the header.
InternetSum pseudo_header(ByteView addresses, std::uint32_t tcp_bytes) noexcept {
  InternetSum sum;
  sum.add_few(addresses);
  sum.add_field(static_cast<std::uint16_t>(tcp_bytes));  // no jumbograms: it fits
  sum.add_field(kProtocolTcp);
  return sum;
}

// RFC 9293 3.1. `tcp_bytes`: header and payload, as the IP header says; all of it lies in the frame.
ParseVerdict parse_tcp(const Frame& frame, std::uint32_t tcp_bytes, const InternetSum& pseudo,
                       TcpPacket& out) noexcept {
  if (tcp_bytes < kTcpBytes) return ParseVerdict::kBadTcpHeader;
  if (frame.head.size() < out.tcp_offset + kTcpBytes) return ParseVerdict::kTruncated;
  const std::size_t header_bytes = std::size_t{byte_at(frame.head, out.tcp_offset + 12U)} / 16 * 4;
  if (header_bytes < kTcpBytes || header_bytes > tcp_bytes) return ParseVerdict::kBadTcpHeader;
  if (frame.head.size() < out.tcp_offset + header_bytes) return ParseVerdict::kTruncated;
  if (!checksum_ok(frame, out, tcp_bytes, pseudo)) return ParseVerdict::kBadChecksum;

  const ByteView tcp = frame.head.subspan(out.tcp_offset, header_bytes);
  out.tcp_header_bytes = static_cast<std::uint16_t>(header_bytes);
  read_tcp_fields(tcp, out);
  if (header_bytes > kTcpBytes) parse_options(tcp.subspan(kTcpBytes), out.segment.options);
  const auto header = static_cast<std::uint32_t>(header_bytes);
  out.payload = Payload(frame.parts, out.tcp_offset + header, tcp_bytes - header);
  return ParseVerdict::kOk;
}

void read_address(const std::byte* from, IpAddress& out) noexcept {
  std::memcpy(out.bytes.data(), from, out.bytes.size());
}

// IPv4-mapped, by whole words: the next to read it does so too.
void read_v4_address(const std::byte* from, IpAddress& out) noexcept {
  std::byte* const to = std::as_writable_bytes(std::span(out.bytes)).data();
  store_be(to, std::uint64_t{0});
  store_be(to + 8, std::uint64_t{0xffff} << 32 | load_be<std::uint32_t>(from));
}

// RFC 791 3.1.
ParseVerdict parse_ipv4(const Frame& frame, TcpPacket& out) noexcept {
  if (frame.head.size() < out.ip_offset + kIpv4Bytes) return ParseVerdict::kTruncated;
  const ByteView ip = frame.head.subspan(out.ip_offset);
  const std::size_t header_bytes = std::size_t{byte_at(ip, 0)} % 16 * 4;
  const std::uint32_t total = load_be<std::uint16_t>(ip.data() + 2);
  if (header_bytes < kIpv4Bytes || total < header_bytes) return ParseVerdict::kBadIpHeader;
  if (total > frame.length_bytes - out.ip_offset || ip.size() < header_bytes) return ParseVerdict::kTruncated;
  InternetSum sum;
  if (header_bytes == kIpv4Bytes)
    sum.add_few(ip.first(kIpv4Bytes));
  else
    sum.add(ip.first(header_bytes));
  if (sum.checksum() != 0) return ParseVerdict::kBadIpHeader;
  if (header_bytes > kIpv4Bytes) return ParseVerdict::kIpOptions;
  if ((load_be<std::uint16_t>(ip.data() + 6) & 0x3fffU) != 0) return ParseVerdict::kFragment;  // MF, offset
  if (byte_at(ip, 9) != kProtocolTcp) return ParseVerdict::kNotTcp;

  out.ip_header_bytes = kIpv4Bytes;
  out.ip_bytes = total;
  out.traffic_class = byte_at(ip, 1);
  out.ttl = byte_at(ip, 8);
  read_v4_address(ip.data() + 12, out.flow.remote);
  read_v4_address(ip.data() + 16, out.flow.local);
  out.tcp_offset = static_cast<std::uint16_t>(out.ip_offset + kIpv4Bytes);
  const std::uint32_t tcp_bytes = total - static_cast<std::uint32_t>(kIpv4Bytes);
  return parse_tcp(frame, tcp_bytes, pseudo_header(ip.subspan(12, 8), tcp_bytes), out);
}

ParseVerdict next_header_verdict(std::uint8_t next_header) noexcept {
  switch (next_header) {
    case kProtocolTcp:
      return ParseVerdict::kOk;
    case 44:
      return ParseVerdict::kFragment;
    case 0:   // hop-by-hop options
    case 43:  // routing
    case 51:  // authentication
    case 60:  // destination options
      return ParseVerdict::kIpOptions;
    default:
      return ParseVerdict::kNotTcp;
  }
}

// RFC 8200 3.
ParseVerdict parse_ipv6(const Frame& frame, TcpPacket& out) noexcept {
  if (frame.head.size() < out.ip_offset + kIpv6Bytes) return ParseVerdict::kTruncated;
  const ByteView ip = frame.head.subspan(out.ip_offset);
  const std::uint32_t payload_bytes = load_be<std::uint16_t>(ip.data() + 4);
  if (payload_bytes + kIpv6Bytes > frame.length_bytes - out.ip_offset) return ParseVerdict::kTruncated;
  if (const auto verdict = next_header_verdict(byte_at(ip, 6)); verdict != ParseVerdict::kOk) return verdict;

  out.ip_header_bytes = kIpv6Bytes;
  out.ip_bytes = payload_bytes + static_cast<std::uint32_t>(kIpv6Bytes);
  out.traffic_class = static_cast<std::uint8_t>(load_be<std::uint16_t>(ip.data()) >> 4 & 0xffU);
  out.ttl = byte_at(ip, 7);
  read_address(ip.data() + 8, out.flow.remote);
  read_address(ip.data() + 24, out.flow.local);
  // A mapped address on the wire would be taken for an IPv4 connection further in (RFC 4942 2.2).
  if (out.flow.remote.is_v4() || out.flow.local.is_v4()) return ParseVerdict::kBadIpHeader;
  out.tcp_offset = static_cast<std::uint16_t>(out.ip_offset + kIpv6Bytes);
  return parse_tcp(frame, payload_bytes, pseudo_header(ip.subspan(8, 32), payload_bytes), out);
}

ParseVerdict parse_ip(const Frame& frame, TcpPacket& out) noexcept {
  if (frame.length_bytes <= out.ip_offset || frame.head.size() <= out.ip_offset) return ParseVerdict::kTruncated;
  const unsigned version = byte_at(frame.head, out.ip_offset) >> 4;
  ParseVerdict verdict = ParseVerdict::kBadIpHeader;
  if (version == 4) verdict = parse_ipv4(frame, out);
  if (version == 6) verdict = parse_ipv6(frame, out);
  out.segment.ecn = static_cast<Ecn>(out.traffic_class & 3U);
  return verdict;
}

constexpr std::size_t kPlainTcpAt = kEthernetBytes + kIpv4Bytes;
constexpr std::uint32_t kPlainTcpBytes = kTcpBytes + kTimestampBytes;

// What nearly every frame is: IPv4 without options, all in one part, and timestamps as the only TCP option.
bool is_plain(const Frame& frame) noexcept {
  if (frame.head.size() < frame.length_bytes || frame.length_bytes < kPlainTcpAt + kPlainTcpBytes) return false;
  const std::byte* const ip = frame.head.data() + kEthernetBytes;
  const std::byte* const tcp = frame.head.data() + kPlainTcpAt;
  const std::uint32_t first = load_be<std::uint32_t>(ip);  // version, header length, traffic class, total length
  const std::uint32_t total = first & 0xffffU;
  if (load_be<std::uint16_t>(ip - 2) != kTypeIpv4 || first >> 24 != 0x45) return false;
  if (total < kIpv4Bytes + kPlainTcpBytes || total > frame.length_bytes - kEthernetBytes) return false;
  if ((load_be<std::uint16_t>(ip + 6) & 0x3fffU) != 0 || ip[9] != std::byte{kProtocolTcp}) return false;
  return static_cast<std::uint8_t>(tcp[12]) / 16 * 4 == kPlainTcpBytes &&
         load_be<std::uint32_t>(tcp + kTcpBytes) == kTimestampsAligned;
}

void read_plain_headers(const std::byte* head, TcpPacket& out) noexcept {
  const std::byte* const ip = head + kEthernetBytes;
  const std::byte* const tcp = head + kPlainTcpAt;
  std::memcpy(out.destination_mac.data(), head, 6);
  std::memcpy(out.source_mac.data(), head + 6, 6);
  out.vlan_tci = 0;
  out.has_vlan = false;
  out.traffic_class = static_cast<std::uint8_t>(ip[1]);
  out.ttl = static_cast<std::uint8_t>(ip[8]);
  out.ip_offset = kEthernetBytes;
  out.ip_header_bytes = kIpv4Bytes;
  out.tcp_header_bytes = kPlainTcpBytes;
  read_v4_address(ip + 12, out.flow.remote);
  read_v4_address(ip + 16, out.flow.local);
  read_tcp_fields(ByteView(tcp, kTcpBytes), out);
  out.segment.ecn = static_cast<Ecn>(out.traffic_class & 3U);
  out.segment.options = TcpOptions{};
  out.segment.options.has_timestamps = true;
  out.segment.options.ts_val = load_be<std::uint32_t>(tcp + kTcpBytes + 4);
  out.segment.options.ts_ecr = load_be<std::uint32_t>(tcp + kTcpBytes + 8);
}

// True: `out` is what the steps would have made of the frame. False: they are to be taken, and say what is wrong or
// else about it.
bool parse_plain(const Frame& frame, TcpPacket& out) noexcept {
  if (!is_plain(frame)) return false;
  const ByteView ip = frame.head.subspan(kEthernetBytes, kIpv4Bytes);
  out.ip_bytes = load_be<std::uint16_t>(ip.data() + 2);
  const std::uint32_t tcp_bytes = out.ip_bytes - static_cast<std::uint32_t>(kIpv4Bytes);
  out.tcp_offset = kPlainTcpAt;
  out.partial_checksum = false;
  if (fold(sum_words(ip.data(), kIpv4Bytes)) != 0xffff) return false;
  if (!checksum_ok(frame, out, tcp_bytes, pseudo_header(ip.subspan(12, 8), tcp_bytes))) return false;
  read_plain_headers(frame.head.data(), out);
  out.payload = Payload(frame.parts, kPlainTcpAt + kPlainTcpBytes, tcp_bytes - kPlainTcpBytes);
  return true;
}

Frame examine(std::span<const ByteView> parts, std::uint32_t length_bytes, ChecksumMode mode) noexcept {
  ByteView head;
  if (!parts.empty()) head = parts.front().first(std::min<std::size_t>(parts.front().size(), length_bytes));
  return {parts, head, length_bytes, mode};
}

ParseVerdict parse_frame_in_steps(const Frame& frame, TcpPacket& out) noexcept {
  out = TcpPacket{};
  if (frame.head.size() < kEthernetBytes || !has_total(frame)) return ParseVerdict::kTruncated;
  std::memcpy(out.destination_mac.data(), frame.head.data(), 6);
  std::memcpy(out.source_mac.data(), frame.head.data() + 6, 6);
  auto type = load_be<std::uint16_t>(frame.head.data() + 12);
  out.ip_offset = kEthernetBytes;
  if (type == kTypeVlan) {
    if (frame.head.size() < kEthernetBytes + kVlanTag) return ParseVerdict::kTruncated;
    out.has_vlan = true;
    out.vlan_tci = load_be<std::uint16_t>(frame.head.data() + kEthernetBytes);
    type = load_be<std::uint16_t>(frame.head.data() + kEthernetBytes + 2);
    out.ip_offset = kEthernetBytes + kVlanTag;
  }
  if (type != kTypeIpv4 && type != kTypeIpv6) return ParseVerdict::kNotIp;
  if (frame.head.size() <= out.ip_offset) return ParseVerdict::kTruncated;
  const unsigned version = byte_at(frame.head, out.ip_offset) >> 4;
  if (version != (type == kTypeIpv4 ? 4U : 6U)) return ParseVerdict::kBadIpHeader;
  return parse_ip(frame, out);
}

}  // namespace

std::string_view name(ParseVerdict verdict) noexcept {
  static constexpr std::array<std::string_view, kParseVerdicts> kNames = {
      "ok",       "truncated", "not-ip",         "bad-ip-header", "ip-options",
      "fragment", "not-tcp",   "bad-tcp-header", "bad-checksum"};
  const auto index = static_cast<std::size_t>(verdict);
  return index < kNames.size() ? kNames[index] : "unknown";
}

ParseVerdict parse_frame(std::span<const ByteView> parts, std::uint32_t length_bytes, ChecksumMode mode,
                         TcpPacket& out) noexcept {
  const Frame frame = examine(parts, length_bytes, mode);
  return parse_plain(frame, out) ? ParseVerdict::kOk : parse_frame_in_steps(frame, out);
}

ParseVerdict parse_frame_in_steps(std::span<const ByteView> parts, std::uint32_t length_bytes, ChecksumMode mode,
                                  TcpPacket& out) noexcept {
  return parse_frame_in_steps(examine(parts, length_bytes, mode), out);
}

ParseVerdict parse_ip_packet(std::span<const ByteView> parts, std::uint32_t length_bytes, ChecksumMode mode,
                             TcpPacket& out) noexcept {
  out = TcpPacket{};
  const Frame frame = examine(parts, length_bytes, mode);
  if (!has_total(frame)) return ParseVerdict::kTruncated;
  return parse_ip(frame, out);
}

}  // namespace twinstack::wire
