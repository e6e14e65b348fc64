// resegment: makes a received frame fit for the kernel's receive path: completes a partial checksum, and cuts a TCP
// super-packet (GSO, GRO) into segments that fit the wire, as a device with segmentation offload would. Pure, any
// thread; trusts no byte of the frame.
//
// Headers are copied from the original with all their options; what differs per segment is the sequence number,
// lengths, checksums, the IPv4 identification (counts up); FIN and PSH are only on the last segment, CWR only on the
// first (RFC 3168 6.1.2), urgent data keeps its place in the stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "nic/link.h"

namespace twinstack::nic {

enum class ResegmentVerdict : std::uint8_t {
  kOk,
  kMalformed,    // truncated, or headers that contradict themselves
  kBadChecksum,  // TCP checksum: never made good
  kTooLong,      // does not fit and cannot be cut: not TCP, or the headers alone are too long
  kStopped,      // the caller gave no room
};
[[nodiscard]] std::string_view name(ResegmentVerdict verdict) noexcept;

// Where the next frame, of exactly `length_bytes` bytes, goes. It is complete when the next room is asked for, or when
// resegment() returns. An empty span ends the work.
using FrameRoom = std::function<std::span<std::byte>(std::uint32_t length_bytes)>;

// One Ethernet frame in, one or more out, none longer than `max_frame_bytes`. Ethernet padding is taken off TCP frames.
// What is not TCP goes through untouched when it fits.
[[nodiscard]] ResegmentVerdict resegment(const RxFrame& frame, std::uint32_t max_frame_bytes, ChecksumMode mode,
                                         const FrameRoom& room);

}  // namespace twinstack::nic
