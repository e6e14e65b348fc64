#include "send_room.h"

#include <algorithm>
#include <vector>

namespace twinstack::moving {

namespace {

// Linux tcp_xmit_size_goal(): whole segments, as many as one packet of GSO holds, half a window of the peer at most.
std::uint32_t chunk_bytes(const tcp::ControlBlock& cb) noexcept {
  constexpr std::uint32_t kLargest = 65536 - 321;
  constexpr std::uint32_t kDefaultMss = 536;
  const std::uint32_t half = cb.max_window > kDefaultMss ? cb.max_window / 2 : cb.max_window;
  return std::max(std::min(kLargest, half) / cb.mss, 1U) * cb.mss;
}

std::uint32_t unsent(const tcp::ControlBlock& cb) noexcept { return bytes_between(cb.snd_nxt, cb.write_seq); }

}  // namespace

void SendRoom::begin(const tcp::ControlBlock& cb) {
  buffer_ = {};
  buffer_.begin(cb.snd_una);
  const std::vector<std::byte> queued(bytes_between(cb.snd_una, cb.write_seq));
  if (!queued.empty()) buffer_.begin_chunk();
  if (!queued.empty()) added(queued, true);
}

std::uint32_t SendRoom::take(const tcp::ControlBlock& cb, Seq sent, const SendLimits& limits, std::size_t wanted) {
  buffer_.acknowledge(cb.snd_una);
  std::uint32_t room = buffer_.room_in_chunk(sent, chunk_bytes(cb));
  if (room == 0) {
    if (buffer_.weight() >= limits.buffer_bytes || unsent(cb) >= limits.not_sent_low_water) return 0;
    buffer_.begin_chunk();
    room = chunk_bytes(cb);
  }
  return static_cast<std::uint32_t>(std::min<std::size_t>(room, wanted));
}

void SendRoom::added(ByteView bytes, bool ends_record) {
  buffer_.append(bytes);
  if (ends_record) buffer_.close_chunk();
}

bool SendRoom::is_writable(const tcp::ControlBlock& cb, const SendLimits& limits) {
  buffer_.acknowledge(cb.snd_una);
  const std::uint32_t queued = buffer_.weight();
  if (queued >= limits.buffer_bytes || limits.buffer_bytes - queued < queued / 2) return false;
  return std::uint64_t{unsent(cb)} * 2 < limits.not_sent_low_water;
}

}  // namespace twinstack::moving
