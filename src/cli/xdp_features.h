// What a network driver says it can do with XDP, by generic netlink (family "netdev", Linux 6.3 and newer): asked
// without attaching anything, so that a live link is not touched. Blocks for one exchange with the kernel. Any thread;
// about the network namespace that the thread is in.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace twinstack::cli {

struct XdpFeatures {
  bool native = false;    // runs programs in the driver, XDP_REDIRECT included
  bool zerocopy = false;  // AF_XDP without copies
};

// kUnsupported: this kernel cannot be asked.
Result<XdpFeatures> xdp_features(std::uint32_t interface_index);

}  // namespace twinstack::cli
