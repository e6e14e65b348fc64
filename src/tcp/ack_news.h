// AckNews: what one ACK told the sender, filled step by step while the ACK is processed (ack.cc) and read by recovery,
// timers and congestion control. Lives for the time of one call.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tcp/rate.h"
#include "wire/seq.h"

namespace twinstack::tcp {

// Bits of AckNews::flags (Linux's FLAG_* of tcp_ack()).
enum AckFlag : std::uint32_t {
  kUnaAdvanced = 1U << 0,        // snd_una moved
  kSegmentAcked = 1U << 1,       // a whole segment was acknowledged
  kRepeatAcked = 1U << 2,        // ... that had been retransmitted
  kOriginalArrived = 1U << 3,    // a segment below high_seq arrived that was never retransmitted
  kNewlySacked = 1U << 4,        // SACK told of something new
  kDuplicateReported = 1U << 5,  // a D-SACK (RFC 2883)
  kProbeDuplicated = 1U << 6,    // ... of the tail loss probe: the original had arrived
  kEcnEchoed = 1U << 7,
  kRestartTimer = 1U << 8,  // progress: the sender's timer begins anew
  kRepeatLost = 1U << 9,    // a retransmission was found lost
  kWindowChanged = 1U << 10,
  kCarriesData = 1U << 11,
  kReneging = 1U << 12,      // the segment at snd_una is one that had been SACKed
  kMaybeDelayed = 1U << 13,  // a lone small segment: its ACK may have waited for the peer's delayed-ACK timer
};

// What may be sent because of the ACK.
enum class Repair : std::uint8_t {
  kNothing,
  kLost,     // what is marked lost
  kNewData,  // F-RTO: new data instead
};

struct AckNews {
  std::uint32_t flags = 0;  // AckFlag
  std::uint32_t duplicates = 0;
  Repair repair = Repair::kNothing;

  Seq ack;
  Seq prior_una;
  Seq prior_highest_sacked;
  std::uint32_t prior_out = 0;
  std::uint32_t prior_sacked = 0;
  std::uint32_t prior_delivered = 0;
  std::uint32_t prior_lost = 0;
  std::uint32_t acked_segments = 0;  // wholly, by the ACK number

  // Lowest sequence number of a first transmission that arrived after later ones.
  bool reordered = false;
  Seq reordered_from;

  // Transmissions that give a round trip: first and last that were acknowledged, first and last that were SACKed.
  Time first_acked{};
  Time last_acked{};
  Time first_sacked{};
  Time last_sacked{};
  bool any_acked = false;
  bool any_sacked = false;
  bool foreign_acked = false;  // another stack had sent it: its echo is no clock of ours

  bool has_echo = false;  // RFC 7323: TSecr, not zero
  std::uint32_t echo = 0;

  RateSample sample;

  [[nodiscard]] bool has(std::uint32_t any_of) const noexcept { return (flags & any_of) != 0; }
  void note_reordered(Seq from) noexcept {
    if (!reordered || from < reordered_from) reordered_from = from;
    reordered = true;
  }
};

}  // namespace twinstack::tcp
