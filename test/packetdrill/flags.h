// What --so_flags says: words separated by commas, NAME=VALUE.
//
//   form=own|adopt     which stack; own when not given
//   local=, remote=    addresses of this host and of the peer, IPv4 or IPv6
//   gw=                next hop to the peer (adopt)
//   mtu=               of tun0; 1500 when not given
//   mss=               segment size of inbound packets larger than that (a script's own --mss)
//   log=               a file that a line is appended to at the end of each run: what became of the connections
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "wire/flow.h"

namespace twinstack::packetdrill {

struct Flags {
  bool adopt = false;
  IpAddress local = IpAddress::from_v4({192, 168, 0, 1});
  IpAddress remote = IpAddress::from_v4({192, 0, 2, 1});
  std::string gateway;
  std::string log_path;
  std::uint32_t mtu = 1500;
  std::uint16_t mss = 0;
};

// `text` may be nullptr.
[[nodiscard]] Result<Flags> parse_flags(const char* text);

}  // namespace twinstack::packetdrill
