// Makers of frames for the tests of this folder. Not part of the library.
#pragma once

#include <string_view>
#include <vector>

#include "nic/link.h"
#include "wire/build.h"

namespace twinstack::nic {

using Bytes = std::vector<std::byte>;

inline constexpr Time at(Duration since_start) { return Time(since_start); }

inline Bytes bytes_of(std::string_view text) {
  const auto view = std::as_bytes(std::span(text));
  return {view.begin(), view.end()};
}

inline FlowKey test_flow(bool v6 = false) {
  FlowKey flow{.local = IpAddress::from_v4({10, 0, 0, 1}),
               .remote = IpAddress::from_v4({10, 0, 0, 2}),
               .local_port = 80,
               .remote_port = 51000};
  if (v6) {
    flow.local.bytes = {0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    flow.remote.bytes = {0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};
  }
  return flow;
}

// A whole frame from flow.local to flow.remote, checksum filled.
inline Bytes tcp_frame(const FlowKey& flow, const wire::Segment& segment, const Bytes& payload) {
  const std::uint32_t head = wire::header_bytes(flow, segment);
  Bytes frame(head + payload.size());
  wire::write_headers(frame, {}, flow, segment, static_cast<std::uint32_t>(payload.size()));
  std::copy(payload.begin(), payload.end(), frame.begin() + head);
  wire::fill_checksum(frame);
  return frame;
}

inline Bytes counting_bytes(std::size_t length) {
  Bytes bytes(length);
  for (std::size_t i = 0; i < length; ++i) bytes[i] = static_cast<std::byte>((i * 2654435761U) >> 11);
  return bytes;
}

inline Bytes flat(const RxFrame& frame) {
  Bytes bytes(frame.length_bytes);
  Payload(frame.parts, 0, frame.length_bytes).copy_to(bytes);
  return bytes;
}

// Commits one frame. False when the link has no room.
inline bool commit(Link& link, const Bytes& frame) {
  const std::span<std::byte> room = link.allocate_tx();
  if (room.size() < frame.size()) return false;
  std::copy(frame.begin(), frame.end(), room.begin());
  link.commit_tx(static_cast<std::uint32_t>(frame.size()));
  return true;
}

// Everything that waits.
inline std::vector<Bytes> receive_all(Link& link) {
  std::vector<Bytes> result;
  while (true) {
    const auto frames = link.receive(16);
    for (const RxFrame& frame : frames) result.push_back(flat(frame));
    const bool last = frames.empty();
    link.release();
    if (last) return result;
  }
}

}  // namespace twinstack::nic
