// packet: segments and ICMP errors to IP packets and back, on top of src/wire, which knows Ethernet frames only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "script.h"
#include "wire/flow.h"
#include "wire/packet.h"
#include "wire/segment.h"

namespace twinstack::conformance {

struct PacketExtras {
  std::span<const std::uint8_t> raw_options{};  // behind the segment's own, a multiple of four
  bool corrupt = false;                         // a wrong checksum
  std::uint8_t ttl = 64;
};

// `flow` as the sender sees it.
[[nodiscard]] std::vector<std::byte> make_packet(const FlowKey& flow, const wire::Segment& segment, ByteView payload,
                                                 const PacketExtras& extras = {});

// An ICMP error from `flow.remote` that quotes the first bytes of a segment of `flow` with this sequence number.
// `flow` as the host sees it.
[[nodiscard]] std::vector<std::byte> make_icmp(const FlowKey& flow, IcmpKind kind, Seq quoted, std::uint32_t mtu_bytes);

// A packet as values; the payload is a copy.
struct ReadPacket {
  wire::TcpPacket head;  // its payload is not valid
  std::vector<std::byte> payload{};
};
// kInvalid with the reason when it is no TCP packet or its checksums are wrong.
Result<ReadPacket> read_packet(ByteView packet);

}  // namespace twinstack::conformance
