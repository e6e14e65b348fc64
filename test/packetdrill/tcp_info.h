// TCP_INFO of a connection that our core serves, as Linux lays it out (the newest that packetdrill reads: 280 bytes).
#pragma once

#include <sys/socket.h>

#include <cstdint>

#include "base/clock.h"
#include "tcp/connection.h"
#include "tcp/control_block.h"

namespace twinstack::packetdrill {

struct LinuxTcpInfo {
  std::uint8_t state;
  std::uint8_t ca_state;
  std::uint8_t retransmits;
  std::uint8_t probes;
  std::uint8_t backoff;
  std::uint8_t options;
  std::uint8_t wscales;  // low half: the peer's, high half: ours
  std::uint8_t bits;     // 0: delivery rate is app limited; 1, 2: why TFO failed
  std::uint32_t rto;
  std::uint32_t ato;
  std::uint32_t snd_mss;
  std::uint32_t rcv_mss;
  std::uint32_t unacked;
  std::uint32_t sacked;
  std::uint32_t lost;
  std::uint32_t retrans;
  std::uint32_t fackets;
  std::uint32_t last_data_sent;  // ms, as the three others
  std::uint32_t last_ack_sent;
  std::uint32_t last_data_recv;
  std::uint32_t last_ack_recv;
  std::uint32_t pmtu;
  std::uint32_t rcv_ssthresh;
  std::uint32_t rtt;
  std::uint32_t rttvar;
  std::uint32_t snd_ssthresh;
  std::uint32_t snd_cwnd;
  std::uint32_t advmss;
  std::uint32_t reordering;
  std::uint32_t rcv_rtt;
  std::uint32_t rcv_space;
  std::uint32_t total_retrans;
  std::uint64_t pacing_rate;
  std::uint64_t max_pacing_rate;
  std::uint64_t bytes_acked;
  std::uint64_t bytes_received;
  std::uint32_t segs_out;
  std::uint32_t segs_in;
  std::uint32_t notsent_bytes;
  std::uint32_t min_rtt;
  std::uint32_t data_segs_in;
  std::uint32_t data_segs_out;
  std::uint64_t delivery_rate;
  std::uint64_t busy_time;
  std::uint64_t rwnd_limited;
  std::uint64_t sndbuf_limited;
  std::uint32_t delivered;
  std::uint32_t delivered_ce;
  std::uint64_t bytes_sent;
  std::uint64_t bytes_retrans;
  std::uint32_t dsack_dups;
  std::uint32_t reord_seen;
  std::uint32_t rcv_ooopack;
  std::uint32_t snd_wnd;
  std::uint32_t rcv_wnd;
  std::uint32_t rehash;
  std::uint16_t total_rto;
  std::uint16_t total_rto_recoveries;
  std::uint32_t total_rto_time;
  std::uint32_t accurate_ecn[8];  // not ours
};
static_assert(sizeof(LinuxTcpInfo) == 280);

// Bits of LinuxTcpInfo::options.
enum TcpInfoOption : std::uint8_t {
  kInfoTimestamps = 1,
  kInfoSack = 2,
  kInfoWindowScale = 4,
  kInfoEcn = 8,
  kInfoEcnSeen = 16,
  kInfoSynData = 32,
};

// What the core knows.
[[nodiscard]] LinuxTcpInfo tcp_info_of(const tcp::ControlBlock& cb, const tcp::Counters& counters, Time now) noexcept;

// Copies an answer as getsockopt() does: at most *length bytes.
int answer_option(const void* answer, std::size_t bytes, void* value, socklen_t* length) noexcept;

}  // namespace twinstack::packetdrill
