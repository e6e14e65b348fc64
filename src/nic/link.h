// Link: one queue of a packet device, as the engine sees it: AF_XDP, the in-memory link, and wrappers around either
// (fault, pcap, trace). Frames are whole Ethernet frames without FCS.
//
// One thread at a time uses a Link (the holder of the lane's lock), but for kick(). No call blocks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/clock.h"
#include "wire/packet.h"
#include "wire/payload.h"

namespace twinstack::nic {

using wire::ChecksumMode;
using wire::MacAddress;

struct LinkInfo {
  MacAddress mac{};                   // of the interface
  std::uint32_t mtu_bytes = 1500;     // of the interface: IP packet, without the Ethernet header
  std::uint32_t interface_index = 0;  // 0 for a memory link
  std::uint32_t queue = 0;
  ChecksumMode checksum = ChecksumMode::kVerify;
};

// One received frame: its bytes lie in `parts` buffers, in order. All headers lie in the first part.
struct RxFrame {
  std::span<const ByteView> parts;
  std::uint32_t length_bytes = 0;
};

struct LinkStats {
  std::uint64_t rx_frames = 0;
  std::uint64_t rx_bytes = 0;
  std::uint64_t rx_dropped = 0;  // by the device or for lack of buffers, as far as the device tells
  std::uint64_t tx_frames = 0;
  std::uint64_t tx_bytes = 0;
  std::uint64_t tx_dropped = 0;  // refused by the device after commit_tx
};

class Link {
 public:
  virtual ~Link() = default;

  // Up to `max_frames` frames that have arrived, oldest first. The views are valid until release() or the next
  // receive(). REQUIRES: what the last receive() returned has been released.
  virtual std::span<const RxFrame> receive(std::size_t max_frames) = 0;
  // The buffers of the frames last received go back to the device.
  virtual void release() = 0;

  // Room for one frame to send: at least mtu + 14 bytes; empty when nothing is free now (poll again after flush()).
  // A second call without commit_tx() returns the same room.
  virtual std::span<std::byte> allocate_tx() = 0;
  // The room last allocated now holds a frame of `length_bytes`.
  virtual void commit_tx(std::uint32_t length_bytes) = 0;
  // Frames that can be committed now without flush().
  virtual std::size_t tx_room() = 0;
  // Hands all committed frames to the device (as a rule one system call) and takes back buffers that were sent. What
  // the device does not take now is offered again by the next flush().
  virtual void flush() = 0;
  // The system call, where the link leaves it to its user (AfXdpOptions::defer_kick): after each flush(), without the
  // lane's lock, as it may work off a peer's packets for hundreds of microseconds. One thread at a time, beside one
  // that makes the other calls.
  virtual void kick() {}

  // A descriptor that polls readable when frames wait, -1 when the link has none (memory link).
  [[nodiscard]] virtual int poll_fd() const = 0;
  // When a link itself holds frames for later (fault wrapper, memory link with delay): the earliest, else kNever.
  // `advance` tells such links the time; the others ignore it.
  [[nodiscard]] virtual Time next_event() const { return kNever; }
  virtual void advance(Time /*now*/) {}

  [[nodiscard]] virtual const LinkInfo& info() const = 0;
  [[nodiscard]] virtual LinkStats stats() const = 0;
};

}  // namespace twinstack::nic
