// LatePackets: where the packets are fetched that reached the kernel for a connection that moves or is away, and that
// its TCP did not see. LateFilter is the kernel's; the simulator has one of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "base/result.h"

namespace twinstack::kernel {

// One late packet, valid during the callback. The checksum field may hold only the folded pseudo-header sum (packets
// of this host, packets that GRO merged) and may not have been verified yet by the kernel.
struct LatePacket {
  std::uint64_t cookie = 0;  // of the socket that it was meant for
  std::span<const std::byte> ip_header;
  std::span<const std::byte> tcp;  // header and payload; up to 64 KB when GRO or GSO made it
};

class LatePackets {
 public:
  virtual ~LatePackets() = default;

  // Hands the waiting packets to `callback`, oldest first; returns how many. Stops after some thousands: poll again.
  virtual Result<std::size_t> poll(const std::function<void(const LatePacket&)>& callback) = 0;
};

}  // namespace twinstack::kernel
