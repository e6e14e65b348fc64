// Acknowledgement processing: RFC 9293 3.10.7.4 fifth, with RFC 5961 5 for what is acceptable.
#pragma once

#include <cstdint>

#include "tcp/connection.h"
#include "wire/segment.h"

namespace twinstack::tcp {

// RFC 5961 5.2: snd_una - max_window <= SEG.ACK <= snd_nxt, but nothing further back than was ever acknowledged (as
// Linux): `bytes_acked` here, and before. The other stack may have sent more than we know.
[[nodiscard]] bool ack_acceptable(const ControlBlock& cb, std::uint64_t bytes_acked, Seq ack) noexcept;

// What the peer has ever acknowledged, for MinTcp; at most twice as much as before install(), and `bytes_acked` since.
[[nodiscard]] std::uint32_t ever_acked(const ControlBlock& cb, std::uint64_t bytes_acked) noexcept;

// REQUIRES: ack_acceptable().
void process_ack(ControlBlock& cb, const wire::Segment& segment, std::uint32_t payload_bytes, Host& host, Time now);

}  // namespace twinstack::tcp
