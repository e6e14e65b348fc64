// Constants of <linux/if_xdp.h> and <linux/bpf.h> that are newer than Debian 12's headers (6.1). Fixed by the kernel.
#pragma once

#include <cstdint>

namespace twinstack::nic {

inline constexpr std::uint16_t kXdpUseSg = 1U << 4;         // XDP_USE_SG, bind flag, Linux 6.6
inline constexpr std::uint32_t kXdpPktContinues = 1U << 0;  // XDP_PKT_CONTD, descriptor option, Linux 6.6
inline constexpr int kXdpMaxTxSkbBudget = 9;                // XDP_MAX_TX_SKB_BUDGET, socket option, Linux 6.17

}  // namespace twinstack::nic
