// Test support of the handshake: makers of its states and of the peer's segments. Our TSval is kTsVal + t at at_ms(t).
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "tcp/handshake.h"
#include "tcp/test_support.h"

namespace twinstack::tcp::test {

inline constexpr std::uint32_t kTsVal = 100;
inline constexpr std::uint32_t kPeerTsVal = 700;
inline constexpr InitialNumbers kNumbers{.iss = Seq(kOurSeq), .ts_offset = kTsVal - 1'000'000};

using FlagSets = std::initializer_list<unsigned>;

inline FlowKey v4_flow() { return {IpAddress::from_v4({10, 0, 0, 1}), IpAddress::from_v4({10, 0, 0, 2}), 80, 51000}; }

inline FlowKey v6_flow() {
  FlowKey flow = v4_flow();
  flow.local = flow.remote = {};
  flow.local.bytes[0] = flow.remote.bytes[0] = 0xfd;
  flow.remote.bytes[15] = 2;
  return flow;
}

// As a Linux host with buffers by default: 128 KiB of which half counts, growing to 6 MiB.
inline HandshakeConfig linux_config() {
  HandshakeConfig config;
  config.receive_space_limit_bytes = 6 << 20;
  config.settings.congestion = {'c', 'u', 'b', 'i', 'c'};
  return config;
}

inline wire::TcpOptions peer_options() {
  wire::TcpOptions options;
  options.has_mss = options.has_window_scale = options.sack_permitted = options.has_timestamps = true;
  options.mss = 1400;
  options.window_scale = 9;
  options.ts_val = kPeerTsVal;
  return options;
}

inline wire::Segment peer_syn() {
  wire::Segment segment;
  segment.seq = Seq(kPeerSeq);
  segment.flags = wire::kSyn;
  segment.window = 64000;
  segment.options = peer_options();
  return segment;
}

inline wire::Segment peer_syn_ack(std::uint32_t ts_ecr = kTsVal) {
  wire::Segment segment = peer_syn();
  segment.flags = wire::kSyn | wire::kAck;
  segment.ack = Seq(kOurSeq + 1);
  segment.options.ts_ecr = ts_ecr;
  return segment;
}

// The ACK that completes a handshake in SYN-RECEIVED.
inline wire::Segment peer_ack(std::uint32_t ts_ecr = kTsVal) {
  wire::Segment segment = from_peer(kPeerSeq + 1, kOurSeq + 1);
  segment.window = 500;
  segment.options.has_timestamps = true;
  segment.options.ts_val = kPeerTsVal + 1;
  segment.options.ts_ecr = ts_ecr;
  return segment;
}

inline wire::Segment peer_reset(std::uint32_t seq = kPeerSeq + 1) {
  wire::Segment segment;
  segment.seq = Seq(seq);
  segment.flags = wire::kRst;
  return segment;
}

// A handshake with its configuration.
struct Opening {
  HandshakeConfig config;
  Handshake handshake;

  HandshakeVerdict receive(const wire::Segment& segment, Time now, std::uint32_t payload_bytes = 0) {
    return on_segment(handshake, config, segment, payload_bytes, now);
  }
  std::vector<wire::Segment> poll(Time now) {
    std::vector<wire::Segment> segments;
    wire::Segment segment;
    while (segments.size() < 10 && poll_transmit(handshake, config, now, segment)) segments.push_back(segment);
    return segments;
  }
  // REQUIRES that exactly one is there (the test fails otherwise).
  wire::Segment poll_one(Time now) {
    const auto segments = poll(now);
    EXPECT_EQ(segments.size(), 1U);
    return segments.empty() ? wire::Segment{} : segments.front();
  }
  // on_timer() at the next deadline, which is returned.
  Time fire(HandshakeTimer wanted = HandshakeTimer::kFired) {
    const Time at = next_deadline(handshake);
    EXPECT_EQ(on_timer(handshake, config, at - Duration(1)), HandshakeTimer::kNothing);
    EXPECT_EQ(on_timer(handshake, config, at), wanted);
    return at;
  }
  MinTcp state(Time now) const { return established_state(handshake, config, now); }
};

// SYN-RECEIVED after a passive open, the SYN-ACK not yet polled.
inline Opening just_listened(const HandshakeConfig& config = linux_config(), const wire::Segment& syn = peer_syn(),
                             const FlowKey& flow = v4_flow()) {
  Opening opening{.config = config, .handshake = {}};
  EXPECT_EQ(answer_listen(syn), HandshakeVerdict::kSynAccepted);
  open_passive(opening.handshake, opening.config, flow, kNumbers, syn, at_ms(0));
  return opening;
}

// SYN-RECEIVED, the SYN-ACK sent at at_ms(0).
inline Opening syn_received(const HandshakeConfig& config = linux_config(), const wire::Segment& syn = peer_syn()) {
  Opening opening = just_listened(config, syn);
  opening.poll_one(at_ms(0));
  return opening;
}

// SYN-SENT, the SYN not yet polled; and sent at at_ms(0).
inline Opening just_connected(const HandshakeConfig& config = linux_config(), const FlowKey& flow = v4_flow()) {
  Opening opening{.config = config, .handshake = {}};
  open_active(opening.handshake, opening.config, flow, kNumbers, at_ms(0));
  return opening;
}
inline Opening syn_sent(const HandshakeConfig& config = linux_config()) {
  Opening opening = just_connected(config);
  opening.poll_one(at_ms(0));
  return opening;
}

// SYN-RECEIVED after SYNs that met: ours sent at at_ms(0), the peer's come at at_ms(10), the SYN-ACK sent then.
inline Opening crossed(const HandshakeConfig& config = linux_config(), const wire::Segment& syn = peer_syn()) {
  Opening opening = syn_sent(config);
  EXPECT_EQ(opening.receive(syn, at_ms(10)), HandshakeVerdict::kSimultaneousOpen);
  opening.poll_one(at_ms(10));
  return opening;
}

}  // namespace twinstack::tcp::test
