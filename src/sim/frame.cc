#include "sim/frame.h"

#include <algorithm>
#include <cstring>

#include "wire/build.h"

namespace twinstack::sim {
namespace {

constexpr std::size_t kV6Bytes = 40;
constexpr unsigned kTcp = 6;

unsigned byte_at(ByteView frame, std::size_t at) noexcept { return std::to_integer<unsigned>(frame[at]); }
std::uint16_t word_at(ByteView frame, std::size_t at) noexcept {
  return static_cast<std::uint16_t>(byte_at(frame, at) << 8 | byte_at(frame, at + 1));
}

bool is_v4(ByteView frame) noexcept { return word_at(frame, 12) == 0x0800; }

IpAddress v4_at(ByteView frame, std::size_t at) noexcept {
  const auto b = [&](std::size_t i) { return static_cast<std::uint8_t>(byte_at(frame, at + i)); };
  return IpAddress::from_v4({b(0), b(1), b(2), b(3)});
}

IpAddress v6_at(ByteView frame, std::size_t at) noexcept {
  IpAddress address;
  std::memcpy(address.bytes.data(), frame.data() + at, address.bytes.size());
  return address;
}

bool read_addresses(ByteView frame, FrameHead& head) noexcept {
  if (is_v4(frame)) {
    const std::size_t header_bytes = std::size_t{byte_at(frame, wire::kEthernetBytes) & 0xfU} * 4;
    if (header_bytes < 20 || byte_at(frame, wire::kEthernetBytes + 9) != kTcp) return false;
    head.flow.remote = v4_at(frame, wire::kEthernetBytes + 12);
    head.flow.local = v4_at(frame, wire::kEthernetBytes + 16);
    head.tcp_offset = static_cast<std::uint32_t>(wire::kEthernetBytes + header_bytes);
    return true;
  }
  if (word_at(frame, 12) != 0x86dd || frame.size() < wire::kEthernetBytes + kV6Bytes + 20) return false;
  if (byte_at(frame, wire::kEthernetBytes + 6) != kTcp) return false;
  head.flow.remote = v6_at(frame, wire::kEthernetBytes + 8);
  head.flow.local = v6_at(frame, wire::kEthernetBytes + 24);
  head.tcp_offset = wire::kEthernetBytes + kV6Bytes;
  return true;
}

}  // namespace

bool read_head(ByteView frame, FrameHead& head) noexcept {
  if (frame.size() < wire::kEthernetBytes + 40 || !read_addresses(frame, head)) return false;
  if (frame.size() < head.tcp_offset + 20) return false;
  head.flow.remote_port = word_at(frame, head.tcp_offset);
  head.flow.local_port = word_at(frame, head.tcp_offset + 2);
  return true;
}

}  // namespace twinstack::sim
