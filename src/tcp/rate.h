// Delivery rate: how fast the network carries our segments to the peer (draft-cheng-iccrg-delivery-rate-estimation, as
// Linux's tcp_rate.c measures it), and when the program, not the network, was the limit.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tcp/connection.h"
#include "tcp/control_block.h"
#include "tcp/flight.h"
#include "tcp/min_tcp.h"

namespace twinstack::tcp {

// What one ACK said about delivery. Counts in segments.
struct RateSample {
  bool known = false;                 // a delivered segment gave the fields up to `app_limited`
  std::uint32_t prior_delivered = 0;  // ControlBlock::delivered when it was sent
  Time prior_delivered_at{};
  Duration send_interval{};
  Seq last_end;
  bool of_repeat = false;  // it was a retransmission
  bool app_limited = false;

  bool valid = false;                 // the fields below make a rate
  std::uint32_t delivered = 0;        // in `interval_us`
  std::uint32_t interval_us = 0;      // the longer of send and ACK phase, at least min_rtt
  std::uint32_t newly_delivered = 0;  // by this ACK
  std::uint32_t newly_lost = 0;       // marked while it was processed
  std::uint32_t prior_in_flight = 0;  // before it
  std::uint32_t rtt_us = 0;           // 0 = no sample
  bool ack_delayed = false;           // the sample may contain the peer's delayed ACK
};

// `segment` has just arrived at the peer.
void rate_on_delivered(Flight& flight, SentSegment& segment, RateSample& sample) noexcept;
// The ACK is processed but for the congestion control: completes the sample.
void rate_on_ack(ControlBlock& cb, RateSample& sample, DeliveryRate& rate, Time now) noexcept;
// `segments` were delivered in `interval_us`, which is not 0; `app_limited`: it could have been more, had the program
// sent more.
void keep_rate(DeliveryRate& rate, std::uint32_t segments, std::uint32_t interval_us, bool app_limited) noexcept;
// The program has nothing more to send now: when the network is not full either, what is measured is the program.
void rate_check_app_limited(ControlBlock& cb) noexcept;

[[nodiscard]] inline bool is_app_limited(const DeliveryRate& rate) noexcept { return rate.segments_per_s < 0; }
// 0 when none is known.
[[nodiscard]] std::uint64_t bytes_per_second(const DeliveryRate& rate, std::uint32_t mss) noexcept;
// What the stack that had the connection before had measured. `mss`: what bytes_per_second() will be given.
[[nodiscard]] DeliveryRate delivery_rate_of(const MinTcp& state, std::uint32_t mss) noexcept;

}  // namespace twinstack::tcp
