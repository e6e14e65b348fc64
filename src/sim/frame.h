// Frame: a whole Ethernet frame on its way through the simulated network, and the few fields of its headers that wires
// and checkers look at without parsing it. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "wire/flow.h"
#include "wire/payload.h"

namespace twinstack::sim {

using Frame = std::vector<std::byte>;

// Buffers to be used again: a run makes millions of frames.
class FramePool {
 public:
  [[nodiscard]] Frame take(std::size_t bytes) {
    Frame frame;
    if (!spare_.empty()) {
      frame = std::move(spare_.back());
      spare_.pop_back();
    }
    frame.resize(bytes);
    return frame;
  }
  [[nodiscard]] Frame copy(ByteView bytes) {
    Frame frame = take(bytes.size());
    std::copy(bytes.begin(), bytes.end(), frame.begin());
    return frame;
  }
  void give(Frame frame) {
    constexpr std::size_t kMost = 4096;
    if (spare_.size() < kMost) spare_.push_back(std::move(frame));
  }

 private:
  std::vector<Frame> spare_;
};

// What a device reads of a frame: no checksum is looked at. `flow` as the receiver sees it.
struct FrameHead {
  FlowKey flow;
  std::uint32_t tcp_offset = 0;
};
// False: not TCP over IPv4 or IPv6, or too short for its headers.
[[nodiscard]] bool read_head(ByteView frame, FrameHead& head) noexcept;

}  // namespace twinstack::sim
