// Tun: tun0 of the script's namespace, with the addresses of the flags: Linux's side of the wire, whose other end the
// object holds. Packets are bare IP packets; large ones come and go unsegmented. No call blocks but wait().
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "flags.h"
#include "wire/payload.h"

namespace twinstack::packetdrill {

inline constexpr char kTunName[] = "tun0";

class Tun {
 public:
  // Makes the device and brings it up. Needs CAP_NET_ADMIN and the `ip` command.
  static Result<Tun> open(const Flags& flags);

  // Into Linux, which has dealt with it when this returns. False when it was refused.
  bool write(ByteView packet);
  // The next packet that Linux has sent, IP header checksum right, TCP checksum perhaps not; false: none.
  bool read(std::vector<std::byte>& packet);
  // Sleeps until a packet waits, or `most` has passed.
  void wait(Duration most) const;

 private:
  Tun(UniqueFd fd, std::uint16_t mss) : fd_(std::move(fd)), mss_(mss), room_(65536 + 64) {}

  UniqueFd fd_;
  std::uint16_t mss_;  // of packets that arrive, 0: not told
  std::vector<std::byte> room_;
};

}  // namespace twinstack::packetdrill
