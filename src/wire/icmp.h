// ICMP errors about TCP segments (RFC 792, RFC 4443), IPv4 and IPv6: bytes <-> values. Whether one is to be believed is
// the connection's to judge (RFC 5927). Pure, any thread; trusts no byte of the packet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "wire/flow.h"
#include "wire/payload.h"
#include "wire/seq.h"

namespace twinstack::wire {

enum class IcmpKind : std::uint8_t {
  kUnreachable,
  kTooBig,  // IPv4: "fragmentation needed"
  kTimeExceeded,
  kParameterProblem,
};

struct IcmpError {
  FlowKey flow;           // of the segment that is quoted: local = its source
  Seq seq;                // ... its sequence number
  std::uint32_t mtu = 0;  // kTooBig: of the next hop; 0 when the router does not tell (RFC 1191 5)
  IcmpKind kind = IcmpKind::kUnreachable;
  std::uint8_t code = 0;  // as in the message; its meaning depends on the family
};

// The error in a bare IP packet that is addressed to the sender of what it quotes. Nothing for other ICMP, wrong
// checksums, fragments, and quotations of anything but the first eight bytes, at least, of a TCP segment.
[[nodiscard]] std::optional<IcmpError> parse_icmp_error(ByteView packet) noexcept;

// The message that a router at `reporter` sends about `offending`, a bare IP packet. Of `error` kind, code and MTU
// count.
[[nodiscard]] std::vector<std::byte> make_icmp_error(const IcmpError& error, const IpAddress& reporter,
                                                     ByteView offending);

}  // namespace twinstack::wire
