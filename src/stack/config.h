// Config: what a host of the portable stack is told, named as Linux's sysctls (net.ipv4.* unless it says otherwise).
// Read at every use, so a test may change it between two calls, as sysctl does; the addresses as well.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tcp/initial_sequence.h"
#include "wire/flow.h"

namespace twinstack::stack {

// tcp_rmem, tcp_wmem.
struct BufferSizes {
  std::uint32_t min_bytes = 4096;
  std::uint32_t default_bytes = 131072;
  std::uint32_t max_bytes = 6U << 20;
};

// Bits of tcp_fastopen.
enum FastOpenMode : std::uint32_t {
  kFastOpenClient = 0x1,
  kFastOpenServer = 0x2,
  kFastOpenClientNoCookie = 0x4,    // data in the SYN without a cookie
  kFastOpenServerNoCookie = 0x200,  // the same is accepted
  kFastOpenAllListeners = 0x400,    // without TCP_FASTOPEN
};

struct Config {
  std::vector<IpAddress> addresses;  // of this host; the first of each family is the source of connections
  std::uint32_t mtu = 1500;          // of the only interface
  std::uint8_t ttl = 64;
  std::uint64_t seed = 1;  // of everything random: ISN, ports, timestamps. Read once.

  // Handshake.
  std::uint8_t tcp_ecn = 2;
  bool tcp_timestamps = true;
  bool tcp_sack = true;
  bool tcp_window_scaling = true;
  std::uint8_t tcp_syn_retries = 6;
  std::uint8_t tcp_syn_linear_timeouts = 4;
  std::uint8_t tcp_synack_retries = 5;
  std::uint32_t tcp_max_syn_backlog = 1024;
  std::uint32_t somaxconn = 4096;  // net.core.somaxconn
  bool tcp_abort_on_overflow = false;
  std::uint16_t tcp_min_snd_mss = 48;
  std::uint16_t initial_cwnd_segments = 10;

  // TCP Fast Open (RFC 7413). Keys: that which makes cookies, then others that are still accepted; none: drawn from the
  // seed.
  std::uint32_t tcp_fastopen = kFastOpenClient;
  std::vector<tcp::SequenceSecret> tcp_fastopen_keys;

  // Buffers.
  BufferSizes tcp_rmem{};
  BufferSizes tcp_wmem{4096, 16384, 4U << 20};
  std::uint32_t rmem_max = 212992;  // net.core: what SO_RCVBUF may ask for
  std::uint32_t wmem_max = 212992;
  bool tcp_moderate_rcvbuf = true;
  std::int8_t tcp_adv_win_scale = 1;  // share of the receive buffer that is window: 1/2; <= 0: 2^scale of it
  std::uint32_t tcp_notsent_lowat = UINT32_MAX;

  // Running.
  std::string tcp_congestion_control = "cubic";
  std::uint8_t tcp_retries2 = 15;
  std::uint8_t tcp_orphan_retries = 0;  // 0 means 8
  std::uint32_t tcp_keepalive_time_s = 7200;
  std::uint32_t tcp_keepalive_intvl_s = 75;
  std::uint32_t tcp_keepalive_probes = 9;
  bool tcp_slow_start_after_idle = true;
  std::uint8_t tcp_min_tso_segs = 2;  // only PSH tells
  std::uint32_t min_pmtu = 552;       // route/min_pmtu: a smaller MTU is not believed
  std::uint32_t mtu_expires_s = 600;
  std::uint8_t tcp_mtu_probing = 1;  // 1: black holes are looked for (Linux's default is 0), 2: always probing

  // The end.
  std::uint32_t tcp_fin_timeout_s = 60;
  std::uint32_t tcp_timewait_s = 60;  // TCP_TIMEWAIT_LEN, a constant there
  std::uint8_t tcp_tw_reuse = 0;      // 1: connect() may take over a TIME-WAIT that is a second old (RFC 6191)
  bool tcp_rfc1337 = false;
  std::uint32_t tcp_max_tw_buckets = 65536;
  std::uint32_t tcp_max_orphans = 65536;
  std::uint32_t tcp_invalid_ratelimit_ms = 500;

  // Ports.
  std::uint16_t ip_local_port_first = 32768;
  std::uint16_t ip_local_port_last = 60999;

  // Bounds that Linux does not have, or has otherwise.
  std::uint32_t max_sockets = 1U << 20;
  // Of IPv6 a /64 is one peer, but for link-local addresses.
  std::uint32_t max_half_open_per_peer = 256;
  std::uint32_t max_out_of_order_bytes_per_peer = 32U << 20;
};

}  // namespace twinstack::stack
