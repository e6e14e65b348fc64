#include "wire/icmp.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/numbers.h"

namespace twinstack::wire {

namespace {

constexpr std::size_t kIcmpHead = 8;
constexpr std::size_t kQuotedTcp = 8;  // ports and sequence number, which is all that RFC 792 promises
constexpr std::uint8_t kFragmentationNeeded = 4;
constexpr std::size_t kLargestV4 = 576;   // RFC 1812 4.3.2.3
constexpr std::size_t kLargestV6 = 1280;  // RFC 4443 2.4 (c)

IpAddress v4_at(ByteView bytes, std::size_t at) noexcept {
  return IpAddress::from_v4(
      {byte_at(bytes, at), byte_at(bytes, at + 1), byte_at(bytes, at + 2), byte_at(bytes, at + 3)});
}

IpAddress v6_at(ByteView bytes, std::size_t at) noexcept {
  IpAddress out;
  std::memcpy(out.bytes.data(), bytes.data() + at, out.bytes.size());
  return out;
}

InternetSum v6_pseudo_sum(ByteView packet, std::size_t icmp_bytes) noexcept {
  InternetSum sum;
  sum.add(packet.subspan(8, 32));
  sum.add_field(static_cast<std::uint16_t>(icmp_bytes));
  sum.add_field(kProtocolIcmpV6);
  return sum;
}

// The quoted segment's ports and number. `tcp`: what follows the quoted IP header.
bool read_quoted_tcp(ByteView tcp, IcmpError& out) noexcept {
  if (tcp.size() < kQuotedTcp) return false;
  out.flow.local_port = load_be<std::uint16_t>(tcp.data());
  out.flow.remote_port = load_be<std::uint16_t>(tcp.data() + 2);
  out.seq = Seq(load_be<std::uint32_t>(tcp.data() + 4));
  return true;
}

bool read_quoted_v4(ByteView quoted, IcmpError& out) noexcept {
  if (quoted.size() < kIpv4Bytes || byte_at(quoted, 0) >> 4 != 4) return false;
  const std::size_t head = std::size_t{byte_at(quoted, 0)} % 16 * 4;
  const bool later_fragment = (load_be<std::uint16_t>(quoted.data() + 6) & 0x1fffU) != 0;
  if (head < kIpv4Bytes || quoted.size() < head || later_fragment || byte_at(quoted, 9) != kProtocolTcp) return false;
  out.flow.local = v4_at(quoted, 12);
  out.flow.remote = v4_at(quoted, 16);
  return read_quoted_tcp(quoted.subspan(head), out);
}

bool read_quoted_v6(ByteView quoted, IcmpError& out) noexcept {
  if (quoted.size() < kIpv6Bytes || byte_at(quoted, 0) >> 4 != 6 || byte_at(quoted, 6) != kProtocolTcp) return false;
  out.flow.local = v6_at(quoted, 8);
  out.flow.remote = v6_at(quoted, 24);
  if (out.flow.local.is_v4() || out.flow.remote.is_v4()) return false;  // as parse_ip_packet()
  return read_quoted_tcp(quoted.subspan(kIpv6Bytes), out);
}

std::optional<IcmpKind> kind_v4(std::uint8_t type, std::uint8_t code) noexcept {
  switch (type) {
    case 3:
      return code == kFragmentationNeeded ? IcmpKind::kTooBig : IcmpKind::kUnreachable;
    case 11:
      return IcmpKind::kTimeExceeded;
    case 12:
      return IcmpKind::kParameterProblem;
    default:
      return std::nullopt;  // source quench is dead (RFC 6633)
  }
}

std::optional<IcmpKind> kind_v6(std::uint8_t type) noexcept {
  switch (type) {
    case 1:
      return IcmpKind::kUnreachable;
    case 2:
      return IcmpKind::kTooBig;
    case 3:
      return IcmpKind::kTimeExceeded;
    case 4:
      return IcmpKind::kParameterProblem;
    default:
      return std::nullopt;
  }
}

std::optional<IcmpError> parse_v4(ByteView packet) noexcept {
  if (packet.size() < kIpv4Bytes || byte_at(packet, 9) != kProtocolIcmp) return std::nullopt;
  const std::size_t head = std::size_t{byte_at(packet, 0)} % 16 * 4;
  const std::size_t total = load_be<std::uint16_t>(packet.data() + 2);
  const bool fragment = (load_be<std::uint16_t>(packet.data() + 6) & 0x3fffU) != 0;
  if (head < kIpv4Bytes || total < head + kIcmpHead || total > packet.size() || fragment) return std::nullopt;
  InternetSum ip_sum;
  ip_sum.add(packet.first(head));
  const ByteView icmp = packet.first(total).subspan(head);
  InternetSum sum;
  sum.add(icmp);
  if (ip_sum.checksum() != 0 || sum.checksum() != 0) return std::nullopt;
  const auto kind = kind_v4(byte_at(icmp, 0), byte_at(icmp, 1));
  IcmpError out;
  if (!kind || !read_quoted_v4(icmp.subspan(kIcmpHead), out) || out.flow.local != v4_at(packet, 16))
    return std::nullopt;
  out.kind = *kind;
  out.code = byte_at(icmp, 1);
  out.mtu = *kind == IcmpKind::kTooBig ? load_be<std::uint16_t>(icmp.data() + 6) : 0;
  return out;
}

std::optional<IcmpError> parse_v6(ByteView packet) noexcept {
  if (packet.size() < kIpv6Bytes || byte_at(packet, 6) != kProtocolIcmpV6) return std::nullopt;
  const std::size_t icmp_bytes = load_be<std::uint16_t>(packet.data() + 4);
  if (icmp_bytes < kIcmpHead || icmp_bytes > packet.size() - kIpv6Bytes) return std::nullopt;
  const ByteView icmp = packet.subspan(kIpv6Bytes, icmp_bytes);
  InternetSum sum = v6_pseudo_sum(packet, icmp_bytes);
  sum.add(icmp);
  if (sum.checksum() != 0) return std::nullopt;
  const auto kind = kind_v6(byte_at(icmp, 0));
  IcmpError out;
  if (!kind || !read_quoted_v6(icmp.subspan(kIcmpHead), out) || out.flow.local != v6_at(packet, 24))
    return std::nullopt;
  out.kind = *kind;
  out.code = byte_at(icmp, 1);
  out.mtu = *kind == IcmpKind::kTooBig ? load_be<std::uint32_t>(icmp.data() + 4) : 0;
  return out;
}

void store_checksum(std::byte* at, const InternetSum& sum) noexcept {
  const std::uint16_t checksum = sum.checksum();
  std::memcpy(at, &checksum, sizeof checksum);
}

void write_icmp_head(std::span<std::byte> icmp, std::uint8_t type, std::uint8_t code) noexcept {
  icmp[0] = std::byte{type};
  icmp[1] = std::byte{code};
}

std::vector<std::byte> make_v4(const IcmpError& error, const IpAddress& reporter, ByteView offending) {
  static constexpr std::uint8_t kTypes[] = {3, 3, 11, 12};
  const std::size_t quoted = std::min(offending.size(), kLargestV4 - kIpv4Bytes - kIcmpHead);
  std::vector<std::byte> out(kIpv4Bytes + kIcmpHead + quoted);
  out[0] = std::byte{0x45};
  store_be(out.data() + 2, static_cast<std::uint16_t>(out.size()));
  out[8] = std::byte{64};
  out[9] = std::byte{kProtocolIcmp};
  std::memcpy(out.data() + 12, reporter.v4().data(), 4);
  std::memcpy(out.data() + 16, offending.data() + 12, 4);
  InternetSum ip_sum;
  ip_sum.add(ByteView(out).first(kIpv4Bytes));
  store_checksum(out.data() + 10, ip_sum);
  const std::span<std::byte> icmp = std::span(out).subspan(kIpv4Bytes);
  const bool too_big = error.kind == IcmpKind::kTooBig;
  write_icmp_head(icmp, kTypes[static_cast<std::size_t>(error.kind)], too_big ? kFragmentationNeeded : error.code);
  if (too_big) store_be(icmp.data() + 6, static_cast<std::uint16_t>(error.mtu));
  std::memcpy(icmp.data() + kIcmpHead, offending.data(), quoted);
  InternetSum sum;
  sum.add(icmp);
  store_checksum(icmp.data() + 2, sum);
  return out;
}

std::vector<std::byte> make_v6(const IcmpError& error, const IpAddress& reporter, ByteView offending) {
  const std::size_t quoted = std::min(offending.size(), kLargestV6 - kIpv6Bytes - kIcmpHead);
  std::vector<std::byte> out(kIpv6Bytes + kIcmpHead + quoted);
  out[0] = std::byte{0x60};
  store_be(out.data() + 4, static_cast<std::uint16_t>(kIcmpHead + quoted));
  out[6] = std::byte{kProtocolIcmpV6};
  out[7] = std::byte{64};
  std::memcpy(out.data() + 8, reporter.bytes.data(), 16);
  std::memcpy(out.data() + 24, offending.data() + 8, 16);
  const std::span<std::byte> icmp = std::span(out).subspan(kIpv6Bytes);
  write_icmp_head(icmp, static_cast<std::uint8_t>(1 + static_cast<unsigned>(error.kind)), error.code);
  if (error.kind == IcmpKind::kTooBig) store_be(icmp.data() + 4, error.mtu);
  std::memcpy(icmp.data() + kIcmpHead, offending.data(), quoted);
  InternetSum sum = v6_pseudo_sum(out, icmp.size());
  sum.add(icmp);
  store_checksum(icmp.data() + 2, sum);
  return out;
}

}  // namespace

std::optional<IcmpError> parse_icmp_error(ByteView packet) noexcept {
  if (packet.empty()) return std::nullopt;
  const unsigned version = byte_at(packet, 0) >> 4;
  if (version == 4) return parse_v4(packet);
  return version == 6 ? parse_v6(packet) : std::nullopt;
}

std::vector<std::byte> make_icmp_error(const IcmpError& error, const IpAddress& reporter, ByteView offending) {
  ASSERT(offending.size() >= kIpv4Bytes);
  const bool v4 = byte_at(offending, 0) >> 4 == 4;
  ASSERT(v4 || offending.size() >= kIpv6Bytes);
  return v4 ? make_v4(error, reporter, offending) : make_v6(error, reporter, offending);
}

}  // namespace twinstack::wire
