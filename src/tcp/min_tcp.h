// MinTcp: the minimum state that crosses between the stacks (MIN_TCP_T of the founding document), and nothing of either
// stack's private structures. Plain data, versioned: it lies in shared memory and in control messages. The queues
// (unread received bytes, unacknowledged and unsent bytes) travel beside it.
//
// All sequence numbers, ports and counts are in host order. Names are those of RFC 9293 3.3.1 and Linux's tcp_sock.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "wire/flow.h"

namespace twinstack::tcp {

inline constexpr std::uint32_t kMinTcpVersion = 5;

// Bits of MinTcp::options: what was negotiated in the handshake.
enum MinTcpOption : std::uint16_t {
  kOptTimestamps = 1 << 0,      // RFC 7323
  kOptSack = 1 << 1,            // RFC 2018
  kOptWindowScale = 1 << 2,     // RFC 7323
  kOptEcn = 1 << 3,             // RFC 3168
  kOptTsMicroseconds = 1 << 4,  // our TSval counts microseconds (Linux 6.7+, TCP_TIMESTAMP bit 0), else milliseconds
};

// Bits of MinTcp::flags: options of the program that change what TCP does.
enum MinTcpFlag : std::uint16_t {
  kFlagNoDelay = 1 << 0,             // TCP_NODELAY
  kFlagCork = 1 << 1,                // TCP_CORK
  kFlagKeepalive = 1 << 2,           // SO_KEEPALIVE
  kFlagFixedReceiveBuffer = 1 << 8,  // the program has set SO_RCVBUF or a small TCP_WINDOW_CLAMP: no auto-tuning
  kFlagMoreFollows = 1 << 7,  // no option: the last write was with MSG_MORE, and a segment under the full size waits
};

// What a congestion control has found out and keeps to itself, as TCP_CC_INFO tells it. Linux takes none of it back.
struct MeasuredPath {
  std::uint64_t bbr_bandwidth = 0;  // bytes a second; 0: nothing is known
  std::uint32_t bbr_min_rtt_us = 0;
  std::uint16_t bbr_pacing_gain = 0;  // of 256
  std::uint16_t bbr_cwnd_gain = 0;    // of 256
  std::uint16_t dctcp_known = 0;      // 1: the two below are
  std::uint16_t dctcp_ce_state = 0;   // 1: the last segment was marked
  std::uint32_t dctcp_alpha = 0;      // of 1024
};

struct MinTcp {
  std::uint32_t version = kMinTcpVersion;
  std::uint32_t size_bytes = 0;  // sizeof(MinTcp), set by whoever fills it; checked on the other side

  FlowKey flow;                // local and remote address and port
  std::uint32_t scope_id = 0;  // IPv6 link-local: interface index, else 0

  // Send side. snd_una <= snd_nxt <= write_seq. The send queue that travels beside is [snd_una, write_seq):
  // [snd_una, snd_nxt) was sent, [snd_nxt, write_seq) was not.
  std::uint32_t snd_una = 0;
  std::uint32_t snd_nxt = 0;
  std::uint32_t write_seq = 0;
  std::uint32_t snd_wl1 = 0;     // segment sequence number of the last window update
  std::uint32_t snd_wnd = 0;     // bytes, scaled
  std::uint32_t max_window = 0;  // largest window the peer ever offered, bytes
  // How much of ours the peer has ever acknowledged, as far as that is known (UINT32_MAX: or more): an ACK cannot be
  // older.
  std::uint32_t bytes_acked = 0;

  // Receive side. The receive queue that travels beside is [copied_seq, rcv_nxt): acknowledged, not yet read.
  std::uint32_t rcv_nxt = 0;
  std::uint32_t copied_seq = 0;
  std::uint32_t rcv_wnd = 0;  // bytes, scaled: what we offered at rcv_wup
  std::uint32_t rcv_wup = 0;  // rcv_nxt at the last window update sent

  std::uint16_t mss =
      0;  // what we may send in a segment, bytes, options of each segment not counted (as tcpi_snd_mss + options)
  std::uint16_t mss_clamp = 0;  // TCP_MAXSEG as read in repair mode: the peer's MSS as negotiated
  std::uint16_t advmss = 0;     // the MSS we announced
  std::uint16_t options = 0;    // MinTcpOption
  std::uint8_t snd_wscale = 0;  // shift of windows that the peer announces
  std::uint8_t rcv_wscale = 0;  // shift of windows that we announce
  std::uint16_t flags = 0;      // MinTcpFlag

  // Timestamps (RFC 7323).
  std::uint32_t ts_val = 0;     // our timestamp clock at the instant of the snapshot
  std::uint32_t ts_recent = 0;  // the peer's last TSval, 0 when not known (Linux does not tell)

  // Round-trip estimates (RFC 6298), microseconds; 0 = no sample.
  std::uint32_t srtt_us = 0;
  std::uint32_t rttvar_us = 0;
  std::uint32_t rto_us = 0;
  std::uint32_t min_rtt_us = 0;
  // For how long nothing of [snd_una, snd_nxt) has been acknowledged, 0 when nothing is out or it is not known,
  // UINT32_MAX when it is longer. A move begins no retransmission timer anew: connections that move more often than it
  // fires would never repair a loss.
  std::uint32_t stalled_us = 0;

  // Congestion state, in segments of `mss` bytes. ssthresh 0x7fffffff = infinite, as Linux.
  std::uint32_t cwnd_segments = 0;
  std::uint32_t ssthresh_segments = 0;
  std::uint32_t reordering_segments = 3;
  std::array<char, 16> congestion{};  // "cubic", "bbr", ... as TCP_CONGESTION

  // Limits and the program's own settings.
  std::uint32_t snd_buf_bytes = 0;  // SO_SNDBUF
  std::uint32_t rcv_buf_bytes = 0;  // SO_RCVBUF
  // TCP_WINDOW_CLAMP: no more is offered, however large the buffer; 0 = it makes no difference. A clamp that the
  // program has not set goes when the buffer grows (as Linux).
  std::uint32_t window_clamp_bytes = 0;
  std::uint32_t user_timeout_ms = 0;
  std::uint32_t keepalive_idle_s = 0;
  std::uint32_t keepalive_interval_s = 0;
  std::uint32_t keepalive_probes = 0;
  std::uint8_t ttl = 64;           // IP_TTL / IPV6_UNICAST_HOPS
  std::uint8_t traffic_class = 0;  // IP_TOS / IPV6_TCLASS
  std::uint16_t mss_found = 0;     // as `mss`: what the path carries in spite of that (RFC 4821); 0 = not searched
  std::uint32_t flow_label = 0;    // IPv6 flow label to send with, host order, 0 = none
  std::uint32_t delivery_app_limited = 0;  // 1: of the rate below the program was the limit, not the network
  std::uint64_t delivery_rate = 0;         // tcpi_delivery_rate, bytes a second; 0: none is known
  MeasuredPath measured{};
};

static_assert(std::is_trivially_copyable_v<MinTcp>);
static_assert(std::is_standard_layout_v<MinTcp>);
static_assert(std::has_unique_object_representations_v<MinTcp>, "no byte of it is left undefined");

}  // namespace twinstack::tcp
