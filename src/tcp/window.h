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

// Chooses the window for a segment that is sent now, records it as offered and returns the header's field.
std::uint16_t offer_window(ControlBlock& cb, Host& host);

}  // namespace twinstack::tcp
