// Any bytes as a frame: the parser touches nothing outside, what it accepts is consistent, and resegment() makes only
// frames that the parser accepts again.
#include <vector>

#include "base/assert.h"
#include "input.h"
#include "nic/resegment.h"
#include "wire/packet.h"

namespace twinstack {
namespace {

using wire::ChecksumMode;
using wire::ParseVerdict;

void check(const wire::TcpPacket& packet, std::size_t frame_bytes) {
  ASSERT(packet.tcp_offset == packet.ip_offset + packet.ip_header_bytes);
  const std::size_t payload_at = std::size_t{packet.tcp_offset} + packet.tcp_header_bytes;
  ASSERT(payload_at + packet.payload.size() <= frame_bytes);
  ASSERT(packet.ip_bytes == packet.ip_header_bytes + packet.tcp_header_bytes + packet.payload.size());
  std::vector<std::byte> copy(packet.payload.size());
  ASSERT(packet.payload.copy_to(copy) == copy.size());
}

void cut(const nic::RxFrame& frame, std::uint32_t most, ChecksumMode mode) {
  std::vector<std::vector<std::byte>> cuts;
  const auto verdict = nic::resegment(frame, most, mode, [&](std::uint32_t length) -> std::span<std::byte> {
    ASSERT(length <= most);
    cuts.emplace_back(length);
    return cuts.back();
  });
  if (verdict != nic::ResegmentVerdict::kOk) return;
  for (const auto& bytes : cuts) {
    const ByteView part(bytes);
    wire::TcpPacket packet;
    const auto again =
        wire::parse_frame({&part, 1}, static_cast<std::uint32_t>(bytes.size()), ChecksumMode::kVerify, packet);
    ASSERT(cuts.size() == 1 || again == ParseVerdict::kOk);
  }
}

void run(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto how = input.take<std::uint8_t>();
  if (size > 0) ++data, --size;
  // The first part holds the headers if it can; the rest comes in pieces.
  const std::vector<std::byte> frame(reinterpret_cast<const std::byte*>(data),
                                     reinterpret_cast<const std::byte*>(data) + size);
  const ByteView all(frame);
  std::vector<ByteView> parts;
  const std::size_t first = (how & 1) != 0 ? std::min<std::size_t>(size, 128) : size;
  parts.push_back(all.first(first));
  for (std::size_t at = first; at < size; at += 50)
    parts.push_back(all.subspan(at, std::min<std::size_t>(50, size - at)));
  const ChecksumMode mode = (how & 2) != 0 ? ChecksumMode::kAcceptPartial : ChecksumMode::kVerify;
  wire::TcpPacket packet;
  const auto length = static_cast<std::uint32_t>(size);
  if (wire::parse_frame(parts, length, mode, packet) == ParseVerdict::kOk) check(packet, size);
  if (wire::parse_ip_packet(parts, length, mode, packet) == ParseVerdict::kOk) check(packet, size);
  cut({.parts = parts, .length_bytes = length}, 60 + how % 200U, mode);
}

}  // namespace
}  // namespace twinstack

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  twinstack::run(data, size);
  return 0;
}
