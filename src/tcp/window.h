// The receive window that we offer (RFC 9293 3.8.6). Its right edge never moves left; small openings are not offered
// (silly window syndrome, 3.8.6.2.2).
#pragma once

#include <cstdint>

#include "tcp/connection.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

// First sequence number that the peer may not send. What was taken beyond the window is behind it all the same.
[[nodiscard]] inline Seq window_right_edge(const ControlBlock& cb) noexcept {
  return max(cb.rcv_wup + cb.rcv_wnd, cb.rcv_nxt);
}

// What is left of the window last offered, bytes.
[[nodiscard]] inline std::uint32_t offered_window(const ControlBlock& cb) noexcept {
  return bytes_between(cb.rcv_nxt, window_right_edge(cb));
}

// The window that the memory allows, bytes: a multiple of the scale, 0 rather than less than a segment.
[[nodiscard]] std::uint32_t possible_window(const ControlBlock& cb, Host& host);

// The most that may be unread of a buffer of `buffer_bytes`. A closing window is rounded up to its unit with each ACK,
// so that it never shrinks: a peer can make that add up.
[[nodiscard]] inline std::uint32_t most_unread(const ControlBlock& cb, std::uint32_t buffer_bytes) noexcept {
  constexpr std::uint32_t kRoundingSlack = 64U << 10;
  return buffer_bytes + kRoundingSlack + (4U << cb.rcv_wscale);
}

// Chooses the window for a segment that is sent now, records it as offered and returns the header's field.
std::uint16_t offer_window(ControlBlock& cb, Host& host);

}  // namespace twinstack::tcp
