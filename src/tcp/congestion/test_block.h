// Test support: a bare control block in the hands of an algorithm, for tests that call its table and nothing else.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tcp/congestion/congestion.h"
#include "tcp/control_block.h"
#include "tcp/min_tcp.h"

namespace twinstack::tcp::test {

inline Time at_us(std::int64_t us) { return Time(std::chrono::seconds(1000) + std::chrono::microseconds(us)); }

// cwnd is what limits it; round trips of 100 ms.
inline ControlBlock block(CongestionKind kind, std::uint32_t cwnd, std::uint32_t ssthresh = kInfiniteSsthresh,
                          std::uint32_t rtt_us = 100'000) {
  ControlBlock cb;
  cb.mss = 1000;
  cb.cwnd = cwnd;
  cb.ssthresh = ssthresh;
  cb.srtt_us8 = rtt_us * 8;
  cb.options = kOptEcn | kOptSack;
  cb.set(kCwndLimited);
  cb.congestion_kind = kind;
  congestion_ops(kind).init(cb, at_us(0));
  return cb;
}

// `acked` segments at `now`, as control_congestion() does it in the open state.
inline void acknowledge(ControlBlock& cb, std::uint32_t acked, std::uint32_t rtt_us, Time now) {
  const CongestionOps& ops = congestion_ops(cb);
  cb.delivered += acked;
  if (ops.on_delivered != nullptr) ops.on_delivered(cb, acked, rtt_us, now);
  if (ops.on_ack != nullptr) ops.on_ack(cb, false);
  if (cb.has(kCwndLimited) || in_slow_start(cb)) ops.grow(cb, acked, now);
}

// A window's worth, two segments an ACK, spread over one round trip that begins at `from_us`. Returns its end.
inline std::int64_t one_round(ControlBlock& cb, std::int64_t from_us) {
  const std::uint32_t rtt_us = smoothed_rtt_us(cb);
  const std::uint32_t window = cb.cwnd;
  for (std::uint32_t acked = 0; acked < window; acked += 2) {
    const std::int64_t offset = std::int64_t{rtt_us} * acked / window;
    acknowledge(cb, window - acked == 1 ? 1 : 2, rtt_us, at_us(from_us + offset));
  }
  return from_us + rtt_us;
}

}  // namespace twinstack::tcp::test
