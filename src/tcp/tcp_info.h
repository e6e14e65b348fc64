// TcpInfo: Linux's struct tcp_info, field for field as of 6.18, whatever header this machine has. A program may ask for
// fewer bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "base/clock.h"
#include "tcp/connection.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

// Bits of TcpInfo::options (TCPI_OPT_*).
enum TcpInfoOption : std::uint8_t {
  kInfoTimestamps = 1,
  kInfoSack = 2,
  kInfoWindowScale = 4,
  kInfoEcn = 8,
  kInfoEcnSeen = 16,
  kInfoSynData = 32,
  kInfoMicroseconds = 64,
};

struct TcpInfo {
  std::uint8_t state = 0;
  std::uint8_t ca_state = 0;
  std::uint8_t retransmits = 0;
  std::uint8_t probes = 0;
  std::uint8_t backoff = 0;
  std::uint8_t options = 0;
  std::uint8_t window_scales = 0;  // snd_wscale in the low half, rcv_wscale in the high
  std::uint8_t app_limited = 0;    // bit 0: delivery_rate
  std::uint32_t rto_us = 0;
  std::uint32_t ato_us = 0;
  std::uint32_t snd_mss = 0;
  std::uint32_t rcv_mss = 0;
  std::uint32_t unacked = 0;
  std::uint32_t sacked = 0;
  std::uint32_t lost = 0;
  std::uint32_t retrans = 0;
  std::uint32_t fackets = 0;
  std::uint32_t last_data_sent_ms = 0;
  std::uint32_t last_ack_sent_ms = 0;
  std::uint32_t last_data_recv_ms = 0;
  std::uint32_t last_ack_recv_ms = 0;
  std::uint32_t pmtu = 0;
  std::uint32_t rcv_ssthresh = 0;
  std::uint32_t rtt_us = 0;
  std::uint32_t rttvar_us = 0;
  std::uint32_t snd_ssthresh = 0;
  std::uint32_t snd_cwnd = 0;
  std::uint32_t advmss = 0;
  std::uint32_t reordering = 0;
  std::uint32_t rcv_rtt_us = 0;
  std::uint32_t rcv_space = 0;
  std::uint32_t total_retrans = 0;
  std::uint64_t pacing_rate = 0;
  std::uint64_t max_pacing_rate = 0;
  std::uint64_t bytes_acked = 0;
  std::uint64_t bytes_received = 0;
  std::uint32_t segs_out = 0;
  std::uint32_t segs_in = 0;
  std::uint32_t notsent_bytes = 0;
  std::uint32_t min_rtt_us = 0;
  std::uint32_t data_segs_in = 0;
  std::uint32_t data_segs_out = 0;
  std::uint64_t delivery_rate = 0;
  std::uint64_t busy_time_us = 0;
  std::uint64_t rwnd_limited_us = 0;
  std::uint64_t sndbuf_limited_us = 0;
  std::uint32_t delivered = 0;
  std::uint32_t delivered_ce = 0;
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_retrans = 0;
  std::uint32_t dsack_dups = 0;
  std::uint32_t reord_seen = 0;
  std::uint32_t rcv_ooopack = 0;
  std::uint32_t snd_wnd = 0;
  std::uint32_t rcv_wnd = 0;
  std::uint32_t rehash = 0;
  std::uint16_t total_rto = 0;
  std::uint16_t total_rto_recoveries = 0;
  std::uint32_t total_rto_time_ms = 0;
  std::uint32_t accurate_ecn[8] = {};  // AccECN: not done here
};

static_assert(sizeof(TcpInfo) == 280 && std::is_trivially_copyable_v<TcpInfo>);
static_assert(offsetof(TcpInfo, rto_us) == 8 && offsetof(TcpInfo, pacing_rate) == 104);
static_assert(offsetof(TcpInfo, delivery_rate) == 160 && offsetof(TcpInfo, delivered) == 192);

// What the core knows of an established connection; the rest of `out` stays: its state, and what belongs to buffers,
// route and time (busy_time_us and its like).
void fill_tcp_info(const ControlBlock& cb, const Counters& counters, const DeliveryRate& rate, Time now,
                   TcpInfo& out) noexcept;

}  // namespace twinstack::tcp
