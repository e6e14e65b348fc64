#include "nic/resegment.h"

#include <algorithm>
#include <cstring>

#include "wire/bytes.h"
#include "wire/packet.h"

namespace twinstack::nic {
namespace {

using wire::load_be;
using wire::store_be;
using wire::TcpPacket;

// Offsets within the headers (RFC 791 3.1, RFC 8200 3, RFC 9293 3.1).
constexpr std::size_t kIpv4TotalLength = 2;
constexpr std::size_t kIpv4Identification = 4;
constexpr std::size_t kIpv4Checksum = 10;
constexpr std::size_t kIpv6PayloadLength = 4;
constexpr std::size_t kTcpSequence = 4;
constexpr std::size_t kTcpFlags = 13;
constexpr std::size_t kTcpChecksum = 16;
constexpr std::size_t kTcpUrgent = 18;

void store_checksum(std::byte* to, std::uint16_t in_memory_order) noexcept {
  std::memcpy(to, &in_memory_order, sizeof in_memory_order);
}

void patch_ip(std::byte* ip, const TcpPacket& packet, std::uint32_t tcp_bytes, std::uint16_t number) noexcept {
  if (!packet.flow.is_v4()) {
    store_be(ip + kIpv6PayloadLength, static_cast<std::uint16_t>(packet.ip_header_bytes - 40U + tcp_bytes));
    return;
  }
  store_be(ip + kIpv4TotalLength, static_cast<std::uint16_t>(packet.ip_header_bytes + tcp_bytes));
  const auto id = static_cast<std::uint16_t>(load_be<std::uint16_t>(ip + kIpv4Identification) + number);
  store_be(ip + kIpv4Identification, id);
  store_checksum(ip + kIpv4Checksum, 0);
  wire::InternetSum sum;
  sum.add({ip, packet.ip_header_bytes});
  store_checksum(ip + kIpv4Checksum, sum.checksum());
}

void patch_tcp(std::byte* tcp, const TcpPacket& packet, std::uint32_t offset, bool last) noexcept {
  store_be(tcp + kTcpSequence, (packet.segment.seq + offset).raw());
  std::uint8_t flags = packet.segment.flags;
  if (!last) flags = static_cast<std::uint8_t>(flags & ~(wire::kFin | wire::kPsh));
  if (offset > 0) flags = static_cast<std::uint8_t>(flags & ~wire::kCwr);
  if ((flags & wire::kUrg) != 0) {
    // The pointer counts from the segment's own sequence number; behind the urgent data it says nothing any more.
    if (packet.segment.urgent <= offset && offset > 0) {
      flags = static_cast<std::uint8_t>(flags & ~wire::kUrg);
      store_be(tcp + kTcpUrgent, std::uint16_t{0});
    } else {
      store_be(tcp + kTcpUrgent, static_cast<std::uint16_t>(packet.segment.urgent - offset));
    }
  }
  tcp[kTcpFlags] = std::byte{flags};
}

void fill_tcp_checksum(std::span<std::byte> tcp, const FlowKey& flow) noexcept {
  store_checksum(tcp.data() + kTcpChecksum, 0);
  wire::InternetSum sum;
  sum.add_pseudo_header(flow, static_cast<std::uint32_t>(tcp.size()));
  sum.add(tcp);
  store_checksum(tcp.data() + kTcpChecksum, sum.checksum());
}

ResegmentVerdict copy_whole(const RxFrame& frame, std::uint32_t length_bytes, const FrameRoom& room) {
  const std::span<std::byte> out = room(length_bytes);
  if (out.size() < length_bytes) return ResegmentVerdict::kStopped;
  Payload(frame.parts, 0, length_bytes).copy_to(out.first(length_bytes));
  return ResegmentVerdict::kOk;
}

// A TCP frame that fits: only its checksum may be wanting.
ResegmentVerdict pass_tcp(const RxFrame& frame, const TcpPacket& packet, const FrameRoom& room) {
  const std::uint32_t length = packet.ip_offset + packet.ip_bytes;
  std::span<std::byte> out;
  const ResegmentVerdict verdict = copy_whole(frame, length, [&](std::uint32_t bytes) { return out = room(bytes); });
  if (verdict != ResegmentVerdict::kOk || !packet.partial_checksum) return verdict;
  fill_tcp_checksum(out.subspan(packet.tcp_offset, length - packet.tcp_offset), packet.flow);
  return ResegmentVerdict::kOk;
}

ResegmentVerdict cut(const RxFrame& frame, const TcpPacket& packet, std::uint32_t max_frame_bytes,
                     const FrameRoom& room) {
  const std::uint32_t headers = packet.tcp_offset + std::uint32_t{packet.tcp_header_bytes};
  if (headers >= max_frame_bytes) return ResegmentVerdict::kTooLong;
  const Payload header_bytes(frame.parts, 0, headers);
  const std::uint32_t step = max_frame_bytes - headers;
  const std::uint32_t total = packet.payload.size();
  std::uint16_t number = 0;
  for (std::uint32_t offset = 0; offset < total; offset += step, ++number) {
    const std::uint32_t here = std::min(step, total - offset);
    std::span<std::byte> out = room(headers + here);
    if (out.size() < headers + here) return ResegmentVerdict::kStopped;
    out = out.first(headers + here);
    header_bytes.copy_to(out);
    packet.payload.narrow(offset, here).copy_to(out.subspan(headers));
    patch_ip(out.data() + packet.ip_offset, packet, packet.tcp_header_bytes + here, number);
    patch_tcp(out.data() + packet.tcp_offset, packet, offset, offset + here == total);
    fill_tcp_checksum(out.subspan(packet.tcp_offset), packet.flow);
  }
  return ResegmentVerdict::kOk;
}

}  // namespace

std::string_view name(ResegmentVerdict verdict) noexcept {
  switch (verdict) {
    case ResegmentVerdict::kOk:
      return "ok";
    case ResegmentVerdict::kMalformed:
      return "malformed";
    case ResegmentVerdict::kBadChecksum:
      return "bad checksum";
    case ResegmentVerdict::kTooLong:
      return "too long";
    case ResegmentVerdict::kStopped:
      return "stopped";
  }
  return "?";
}

ResegmentVerdict resegment(const RxFrame& frame, std::uint32_t max_frame_bytes, ChecksumMode mode,
                           const FrameRoom& room) {
  TcpPacket packet;
  switch (wire::parse_frame(frame.parts, frame.length_bytes, mode, packet)) {
    case wire::ParseVerdict::kOk:
      break;
    case wire::ParseVerdict::kNotIp:
    case wire::ParseVerdict::kNotTcp:
    case wire::ParseVerdict::kIpOptions:
    case wire::ParseVerdict::kFragment:
      if (frame.length_bytes > max_frame_bytes) return ResegmentVerdict::kTooLong;
      return copy_whole(frame, frame.length_bytes, room);
    case wire::ParseVerdict::kBadChecksum:
      return ResegmentVerdict::kBadChecksum;
    case wire::ParseVerdict::kTruncated:
    case wire::ParseVerdict::kBadIpHeader:
    case wire::ParseVerdict::kBadTcpHeader:
      return ResegmentVerdict::kMalformed;
  }
  if (packet.ip_offset + packet.ip_bytes <= max_frame_bytes) return pass_tcp(frame, packet, room);
  return cut(frame, packet, max_frame_bytes, room);
}

}  // namespace twinstack::nic
