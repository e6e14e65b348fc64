#include "tcp/window.h"

#include <algorithm>

namespace twinstack::tcp {

namespace {
constexpr std::uint32_t kMaxWindowField = 65535;

// RFC 9293 3.8.6.2.2, as Linux __tcp_select_window(): the window stays while it is within a segment of the space. (One
// that is scaled is in units of its own.) A buffer under a segment is offered by halves.
std::uint32_t in_whole_segments(const ControlBlock& cb, std::uint32_t space, std::uint32_t capacity) noexcept {
  const std::uint32_t window = std::min(cb.rcv_wnd, kMaxWindowField);
  const std::uint32_t most = std::min(space, kMaxWindowField);
  const std::uint32_t unit = std::clamp<std::uint32_t>(cb.rcv_mss, 1, std::max(capacity, 1U));
  if (window > most || window + unit <= most) return most / unit * unit;
  return unit == capacity && most > window + capacity / 2 ? most : window;
}
}  // namespace

std::uint32_t possible_window(const ControlBlock& cb, Host& host) {
  const std::uint32_t space = host.receive_space();
  const std::uint32_t capacity = host.receive_capacity();
  if (space < std::min<std::uint32_t>(cb.rcv_mss, capacity) && space < capacity / 2) return 0;
  if (cb.rcv_wscale == 0) return in_whole_segments(cb, space, capacity);
  // Rounded up, as Linux does: under a large scale a small buffer could offer nothing otherwise, ever.
  const std::uint32_t unit = 1U << cb.rcv_wscale;
  return std::min((space + unit - 1) & ~(unit - 1), kMaxWindowField << cb.rcv_wscale);
}

std::uint16_t offer_window(ControlBlock& cb, Host& host) {
  const std::uint32_t unit = 1U << cb.rcv_wscale;
  const std::uint32_t current = offered_window(cb);
  std::uint32_t window = possible_window(cb, host);
  if (window < current) {
    // Never shrink (RFC 9293 3.8.6). Rounded up to the scale, as Linux does: it may offer up to one unit more.
    window = (current + unit - 1) & ~(unit - 1);
    window = std::min(window, kMaxWindowField << cb.rcv_wscale);
  }
  cb.rcv_wnd = window;
  cb.rcv_wup = cb.rcv_nxt;
  return static_cast<std::uint16_t>(window >> cb.rcv_wscale);
}

}  // namespace twinstack::tcp
