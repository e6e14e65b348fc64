// An end that receives segments of its peer, whose stream is given by position: for tests of the receive side.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "tcp/test_support.h"
#include "tcp/timers.h"

namespace twinstack::tcp::test {

inline std::string stream(std::uint64_t from, std::uint64_t count) {
  std::string out;
  for (std::uint64_t i = 0; i < count; ++i) out += static_cast<char>(stream_byte(2, from + i));
  return out;
}

inline MinTcp with(std::uint16_t options) {
  MinTcp state = idle_state();
  state.options = options;
  return state;
}

// An end that owes nothing any more and delays its ACKs.
struct Receiver {
  explicit Receiver(const MinTcp& state = idle_state(), std::uint32_t capacity = kWindow)
      : end(state, at_ms(0), capacity) {
    end.poll(at_ms(0));
    end.cb.ack_timeout_ms = kShortestAckTimeoutMs;  // not the first data
  }
  Arrival get(std::uint32_t offset, std::uint32_t bytes, Time now = at_ms(1), std::uint8_t flags = wire::kAck) {
    wire::Segment segment = from_peer(kPeerSeq + offset);
    segment.flags = flags;
    return end.receive(segment, stream(offset, bytes), now);
  }
  TestEnd end;
};

inline void expect_ack(const SegmentPlan& plan, std::uint32_t ack) {
  EXPECT_EQ(plan.payload_bytes, 0U);
  EXPECT_EQ(plan.segment.flags, wire::kAck);
  EXPECT_EQ(plan.segment.seq, Seq(kOurSeq));
  EXPECT_EQ(plan.segment.ack, Seq(ack));
}

}  // namespace twinstack::tcp::test
