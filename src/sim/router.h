// Router: what a router on the path says of packets that its next link does not carry (RFC 1191, RFC 8201), and what
// somebody who only pretends to be one says. Frames in, frames out; one thread.
#pragma once

#include <cstdint>

#include "sim/frame.h"
#include "wire/seq.h"

namespace twinstack::sim {

// Whether the link behind the router carries no packet of that size. Only TCP is asked for: of errors there are none
// about errors, and the links that IPv6 runs on carry 1280 bytes at least (RFC 8200 5).
[[nodiscard]] bool is_too_big(ByteView frame, std::uint32_t mtu_bytes) noexcept;

// The ICMP error about it, for its sender. `tells`: with the MTU; old routers of IPv4 tell none (RFC 1191 5).
// REQUIRES: is_too_big().
[[nodiscard]] Frame too_big_answer(ByteView frame, std::uint32_t mtu_bytes, bool tells, FramePool& pool);

// An error about a segment that nobody has sent. local of `flow` is who is to believe it.
[[nodiscard]] Frame forged_too_big(const FlowKey& flow, Seq seq, std::uint32_t mtu_bytes, FramePool& pool);

}  // namespace twinstack::sim
