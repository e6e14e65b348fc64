#include "sim/router.h"

#include <algorithm>
#include <array>

#include "wire/build.h"
#include "wire/icmp.h"

namespace twinstack::sim {
namespace {

constexpr std::uint32_t kLeastMtuV6 = 1280;

bool is_v4(ByteView frame) noexcept { return frame[12] == std::byte{0x08}; }

std::uint32_t mtu_for(ByteView frame, std::uint32_t mtu_bytes) noexcept {
  return is_v4(frame) ? mtu_bytes : std::max(mtu_bytes, kLeastMtuV6);
}

IpAddress address_of_router(bool v4) noexcept {
  IpAddress address = IpAddress::from_v4({10, 0, 1, 254});
  if (!v4) address.bytes = {0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 254};
  return address;
}

Frame error_about(ByteView offending, std::uint32_t mtu_bytes, bool v4, FramePool& pool) {
  const wire::IcmpError error{.flow = {}, .seq = {}, .mtu = mtu_bytes, .kind = wire::IcmpKind::kTooBig};
  const auto packet = wire::make_icmp_error(error, address_of_router(v4), offending);
  Frame frame = pool.take(wire::kEthernetBytes + packet.size());
  std::fill_n(frame.begin(), wire::kEthernetBytes, std::byte{0});
  frame[12] = v4 ? std::byte{0x08} : std::byte{0x86};
  frame[13] = v4 ? std::byte{0x00} : std::byte{0xdd};
  std::ranges::copy(packet, frame.begin() + wire::kEthernetBytes);
  return frame;
}

}  // namespace

bool is_too_big(ByteView frame, std::uint32_t mtu_bytes) noexcept {
  FrameHead head;
  return read_head(frame, head) && frame.size() > wire::kEthernetBytes + mtu_for(frame, mtu_bytes);
}

Frame too_big_answer(ByteView frame, std::uint32_t mtu_bytes, bool tells, FramePool& pool) {
  const bool v4 = is_v4(frame);
  const std::uint32_t told = tells || !v4 ? mtu_for(frame, mtu_bytes) : 0;
  return error_about(frame.subspan(wire::kEthernetBytes), told, v4, pool);
}

Frame forged_too_big(const FlowKey& flow, Seq seq, std::uint32_t mtu_bytes, FramePool& pool) {
  wire::Segment segment;
  segment.seq = seq;
  segment.flags = wire::kAck;
  std::array<std::byte, wire::kMaxHeaderBytes> quoted{};
  const std::uint32_t bytes = wire::write_ip_headers(quoted, {}, flow, segment, 0);
  return error_about(ByteView(quoted).first(bytes), mtu_bytes, flow.is_v4(), pool);
}

}  // namespace twinstack::sim
