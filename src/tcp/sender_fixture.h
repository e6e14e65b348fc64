// A sender with full segments in flight, the ACKs of its peer, and what it sends for them: for tests of loss recovery.
#pragma once

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "tcp/flight.h"
#include "tcp/test_support.h"
#include "tcp/timestamps.h"

namespace twinstack::tcp::test {

inline constexpr std::uint16_t kSackAndStamps = kOptSack | kOptTimestamps;

using Ranges = std::vector<std::pair<std::uint32_t, std::uint32_t>>;  // in segments from kOurSeq

// `segments` full segments are in flight, sent at 0 ms; the round trip is 10 ms.
struct Sender {
  explicit Sender(std::uint16_t options = 0, std::uint32_t segments = 10, std::uint32_t queued = 100)
      : end(state(options), at_ms(0)), mss(end.cb.mss) {
    end.poll(at_ms(0));
    end.cb.cwnd = segments;
    end.write(queued * mss, at_ms(0));
    EXPECT_EQ(end.poll(at_ms(0)).size(), segments);
  }
  static MinTcp state(std::uint16_t options) {
    MinTcp out = idle_state();
    out.options = options;
    out.snd_wscale = 7;
    out.snd_wnd = out.max_window = 65535 << 7;
    out.srtt_us = out.min_rtt_us = 10'000;
    out.rttvar_us = 1000;
    out.ts_val = 5'000;
    out.congestion = {'r', 'e', 'n', 'o'};
    return out;
  }

  // Acknowledges `segments`, reports `sacked`; `echo_ms`: the timestamp that is echoed is of this instant (-1: none).
  std::vector<SegmentPlan> ack(std::uint32_t segments, const Ranges& sacked = {}, Time now = at_ms(10),
                               std::int64_t echo_ms = -1) {
    wire::Segment segment = from_peer(kPeerSeq, kOurSeq + segments * mss);
    for (const auto& [left, right] : sacked) {
      segment.options.sack[segment.options.sack_count++] = {Seq(kOurSeq + left * mss), Seq(kOurSeq + right * mss)};
    }
    if (echo_ms >= 0) {
      segment.options.has_timestamps = true;
      segment.options.ts_val = 1;
      segment.options.ts_ecr = ts_clock(end.cb, at_ms(echo_ms));
    }
    EXPECT_EQ(end.receive(segment, "", now), Arrival::kAccepted);
    return end.poll(now);
  }
  std::uint32_t sent_segments() const { return bytes_between(Seq(kOurSeq), end.cb.snd_nxt) / mss; }
  const Flight& flight() const { return *end.cb.flight; }
  RecoveryState recovery() const { return end.cb.recovery; }
  // Which segments are sent, negative for retransmissions (segment 0 as -1000).
  std::vector<int> what(const std::vector<SegmentPlan>& plans) const {
    std::vector<int> out;
    for (const auto& plan : plans) {
      const int index = (plan.segment.seq - Seq(kOurSeq)) / mss;
      EXPECT_EQ(plan.payload_bytes, mss);
      out.push_back(plan.retransmission ? (index == 0 ? -1000 : -index) : index);
    }
    return out;
  }

  TestEnd end;
  std::uint16_t mss;
};

using Sent = std::vector<int>;

}  // namespace twinstack::tcp::test
