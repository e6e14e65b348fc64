// What all handshakes share: the RST for what belongs to nothing, the options that two SYNs agree upon, ECN, the MinTcp
// that comes out, and that no segment ever breaks it.
#include "tcp/handshake.h"

#include <cstring>
#include <set>
#include <string>

#include "tcp/handshake_test_support.h"
#include "tcp/rtt.h"
#include "tcp/timestamps.h"
#include "wire/tcp_options.h"

namespace twinstack::tcp::test {
namespace {

wire::Segment with_flags(unsigned flags) {
  wire::Segment segment = from_peer(7000, 9000);
  segment.flags = static_cast<std::uint8_t>(flags);
  return segment;
}

wire::Segment reset(std::uint32_t seq, std::uint32_t ack, unsigned flags) {
  wire::Segment segment;
  segment.seq = Seq(seq);
  segment.ack = Seq(ack);
  segment.flags = static_cast<std::uint8_t>(flags);
  return segment;
}

// RFC 9293 3.10.7.1.
TEST(HandshakeResetFor, WithAckItTakesTheAcknowledgementAsSequenceNumber) {
  EXPECT_EQ(reset_for(with_flags(wire::kAck), 100), reset(9000, 0, wire::kRst));
  EXPECT_EQ(reset_for(with_flags(wire::kSyn | wire::kAck), 0), reset(9000, 0, wire::kRst));
}

TEST(HandshakeResetFor, WithoutAckItAcknowledgesAllOfTheSegment) {
  EXPECT_EQ(reset_for(with_flags(0), 100), reset(0, 7100, wire::kRst | wire::kAck));
  EXPECT_EQ(reset_for(with_flags(wire::kSyn), 0), reset(0, 7001, wire::kRst | wire::kAck));
  EXPECT_EQ(reset_for(with_flags(wire::kSyn | wire::kFin), 10), reset(0, 7012, wire::kRst | wire::kAck));
}

TEST(HandshakeResetFor, AResetIsNotAnswered) {
  EXPECT_EQ(reset_for(with_flags(wire::kRst), 0), std::nullopt);
  EXPECT_EQ(reset_for(with_flags(wire::kRst | wire::kAck | wire::kSyn), 5), std::nullopt);
}

// Options: each is used when both have it, and only then told in the SYN-ACK.
struct OptionCase {
  std::uint16_t bit;
  void (*take_from_syn)(wire::TcpOptions&);
  bool (*told)(const wire::TcpOptions&);
};
constexpr OptionCase kOptionCases[] = {
    {kOptTimestamps, [](wire::TcpOptions& o) { o.has_timestamps = false; },
     [](const wire::TcpOptions& o) { return o.has_timestamps; }},
    {kOptSack, [](wire::TcpOptions& o) { o.sack_permitted = false; },
     [](const wire::TcpOptions& o) { return o.sack_permitted; }},
    {kOptWindowScale, [](wire::TcpOptions& o) { o.has_window_scale = false; },
     [](const wire::TcpOptions& o) { return o.has_window_scale; }},
};

void expect_only_without(const OptionCase& option, Opening& opening) {
  const wire::Segment syn_ack = opening.poll_one(at_ms(0));
  for (const OptionCase& other : kOptionCases) {
    EXPECT_EQ(other.told(syn_ack.options), other.bit != option.bit) << other.bit;
    EXPECT_EQ((opening.handshake.options & other.bit) != 0, other.bit != option.bit) << other.bit;
  }
}

TEST(HandshakeOptions, WhatThePeerDoesNotOfferIsNotUsed) {
  for (const OptionCase& option : kOptionCases) {
    wire::Segment syn = peer_syn();
    option.take_from_syn(syn.options);
    Opening opening = just_listened(linux_config(), syn);
    expect_only_without(option, opening);
  }
}

TEST(HandshakeOptions, WhatWeMayNotUseIsNotUsed) {
  for (const OptionCase& option : kOptionCases) {
    HandshakeConfig config = linux_config();
    config.options = static_cast<std::uint16_t>(config.options & ~option.bit);
    Opening opening = just_listened(config);
    expect_only_without(option, opening);
    Opening active = just_connected(config);
    EXPECT_FALSE(option.told(active.poll_one(at_ms(0)).options));
    ASSERT_EQ(active.receive(peer_syn_ack(option.bit == kOptTimestamps ? 0 : kTsVal), at_ms(1)),
              HandshakeVerdict::kCompletedBySynAck);
    EXPECT_EQ(active.state(at_ms(1)).options & option.bit, 0);
  }
}

TEST(HandshakeOptions, WithoutScalingNeitherSideScales) {
  wire::Segment syn = peer_syn();
  syn.options.has_window_scale = false;
  syn.options.window_scale = 0;
  Opening opening = syn_received(linux_config(), syn);
  ASSERT_EQ(opening.receive(peer_ack(), at_ms(1)), HandshakeVerdict::kCompletedByAck);
  const MinTcp state = opening.state(at_ms(1));
  EXPECT_EQ(state.snd_wscale, 0);
  EXPECT_EQ(state.rcv_wscale, 0);
  EXPECT_EQ(state.snd_wnd, 500U);
  Opening active = syn_sent();
  wire::Segment syn_ack = peer_syn_ack();
  syn_ack.options.has_window_scale = false;
  active.receive(syn_ack, at_ms(1));
  EXPECT_EQ(active.state(at_ms(1)).rcv_wscale, 0) << "RFC 7323 2.2: both or none";
}

// RFC 7323 2.3.
TEST(HandshakeOptions, AScaleOver14Is14) {
  for (const auto& [told, used] : {std::pair<int, int>{13, 13}, {14, 14}, {15, 14}, {255, 14}}) {
    wire::Segment syn = peer_syn();
    syn.options.window_scale = static_cast<std::uint8_t>(told);
    EXPECT_EQ(syn_received(linux_config(), syn).handshake.snd_wscale, used);
  }
}

TEST(HandshakeOptions, MicrosecondStampsOnlyWithTimestamps) {
  HandshakeConfig config = linux_config();
  config.options |= kOptTsMicroseconds;
  Opening opening = syn_received(config);
  ASSERT_EQ(opening.receive(peer_ack(0), at_ms(1)), HandshakeVerdict::kCompletedByAck);
  EXPECT_NE(opening.state(at_ms(1)).options & kOptTsMicroseconds, 0);
  wire::Segment syn = peer_syn();
  syn.options.has_timestamps = false;
  EXPECT_EQ(syn_received(config, syn).handshake.options & kOptTsMicroseconds, 0);
}

// RFC 9293 3.7.1, MUST-15; as Linux for a value of 0.
TEST(HandshakeMss, WithoutTheOptionItIs536Or1220) {
  wire::Segment none = peer_syn();
  none.options.has_mss = false;
  wire::Segment zero = peer_syn();
  zero.options.mss = 0;
  for (const wire::Segment& syn : {none, zero}) {
    EXPECT_EQ(just_listened(linux_config(), syn, v4_flow()).handshake.peer_mss, 536);
    EXPECT_EQ(just_listened(linux_config(), syn, v6_flow()).handshake.peer_mss, 1220);
  }
}

MinTcp state_for_mss(std::uint16_t peers, std::uint16_t path, std::uint16_t user) {
  HandshakeConfig config = linux_config();
  config.path_mss = path;
  config.user_mss = user;
  wire::Segment syn = peer_syn();
  syn.options.mss = peers;
  Opening opening = syn_received(config, syn);
  opening.receive(peer_ack(), at_ms(1));
  return opening.state(at_ms(1));
}

TEST(HandshakeMss, TheSmallestOfPeerPathAndProgram) {
  EXPECT_EQ(state_for_mss(1400, 1460, 0).mss, 1400);
  EXPECT_EQ(state_for_mss(8960, 1460, 0).mss, 1460);
  EXPECT_EQ(state_for_mss(8960, 1460, 0).mss_clamp, 8960);
  EXPECT_EQ(state_for_mss(1400, 1460, 1000).mss, 1000);
  EXPECT_EQ(state_for_mss(1400, 1460, 1000).mss_clamp, 1000);
}

TEST(HandshakeMss, ATinyOneDoesNotMakeUsSendTinySegments) {
  for (const std::uint16_t tiny : std::initializer_list<std::uint16_t>{1, 12, 47}) {
    const MinTcp state = state_for_mss(tiny, 1460, 0);
    EXPECT_EQ(state.mss, 48) << "as Linux tcp_min_snd_mss";
    EXPECT_EQ(state.mss_clamp, tiny);
    ControlBlock cb;
    ASSERT_TRUE(install(cb, state, at_ms(1)).has_value());
    EXPECT_EQ(cb.mss, 36) << "less the timestamps";
  }
  EXPECT_EQ(state_for_mss(1400, 20, 0).mss, 48);
}

TEST(HandshakeMss, TheProgramsLimitIsAnnounced) {
  HandshakeConfig config = linux_config();
  config.user_mss = 1000;
  EXPECT_EQ(just_connected(config).poll_one(at_ms(0)).options.mss, 1000);
  config.user_mss = 9000;
  EXPECT_EQ(just_connected(config).poll_one(at_ms(0)).options.mss, 1460);
}

// Figures of Linux with an MTU of 1500.
TEST(HandshakeWindow, IsAMultipleOfFullSegmentsAndNeverScaledInASyn) {
  EXPECT_EQ(just_connected().poll_one(at_ms(0)).window, 64240) << "44 x 1460";
  EXPECT_EQ(just_listened().poll_one(at_ms(0)).window, 65160) << "45 x 1448";
  HandshakeConfig config = linux_config();
  config.receive_space_bytes = 1 << 20;
  EXPECT_EQ(just_listened(config).poll_one(at_ms(0)).window, 65535);
  config.receive_space_bytes = 1000;
  EXPECT_EQ(just_listened(config).poll_one(at_ms(0)).window, 1000) << "less than a segment";
  config.receive_space_bytes = 0;
  EXPECT_EQ(just_listened(config).poll_one(at_ms(0)).window, 0);
}

TEST(HandshakeWindow, TheScaleTellsAllThatTheBufferMayGrowTo) {
  const auto scale = [](std::uint32_t space, std::uint32_t limit) {
    HandshakeConfig config = linux_config();
    config.receive_space_bytes = space;
    config.receive_space_limit_bytes = limit;
    return int{just_connected(config).poll_one(at_ms(0)).options.window_scale};
  };
  EXPECT_EQ(scale(65536, 6 << 20), 7) << "Linux by default";
  EXPECT_EQ(scale(0, 0), 0);
  EXPECT_EQ(scale(1000, 65535), 0);
  EXPECT_EQ(scale(1000, 65536), 1);
  EXPECT_EQ(scale(1 << 20, 1000), 4) << "1048280, of full segments";
  EXPECT_EQ(scale(1000, 0xffffffff), 14);
  EXPECT_EQ(scale(0xffffffff, 0), 14);
}

// RFC 3168 6.1.1; what the listener does is that of Linux tcp_ecn_create_request().
TEST(HandshakeEcn, AListenerAgreesToAnEcnSetupSyn) {
  constexpr unsigned kSetup = wire::kEce | wire::kCwr;
  struct Case {
    EcnMode mode;
    bool required;
    unsigned flags;
    wire::Ecn ip;
    bool agrees;
  };
  for (const Case& c : {Case{EcnMode::kOff, false, kSetup, wire::Ecn::kNotEct, false},
                        Case{EcnMode::kAccept, false, kSetup, wire::Ecn::kNotEct, true},
                        Case{EcnMode::kRequest, false, kSetup, wire::Ecn::kNotEct, true},
                        Case{EcnMode::kAccept, false, wire::kEce, wire::Ecn::kNotEct, false},
                        Case{EcnMode::kAccept, false, wire::kCwr, wire::Ecn::kNotEct, false},
                        Case{EcnMode::kAccept, false, 0, wire::Ecn::kNotEct, false},
                        Case{EcnMode::kAccept, false, kSetup, wire::Ecn::kEct0, false},
                        Case{EcnMode::kAccept, false, kSetup, wire::Ecn::kCe, false},
                        Case{EcnMode::kOff, true, kSetup, wire::Ecn::kCe, true},
                        Case{EcnMode::kOff, true, 0, wire::Ecn::kNotEct, false}}) {
    HandshakeConfig config = linux_config();
    config.ecn = c.mode;
    config.ecn_required = c.required;
    wire::Segment syn = peer_syn();
    syn.flags = static_cast<std::uint8_t>(syn.flags | c.flags);
    syn.ecn = c.ip;
    Opening opening = just_listened(config, syn);
    const wire::Segment syn_ack = opening.poll_one(at_ms(0));
    EXPECT_EQ(syn_ack.flags, wire::kSyn | wire::kAck | (c.agrees ? wire::kEce : 0));
    EXPECT_EQ(syn_ack.ecn, c.agrees && c.required ? wire::Ecn::kEct0 : wire::Ecn::kNotEct);
    ASSERT_TRUE(is_completed(opening.receive(peer_ack(), at_ms(1))));
    EXPECT_EQ((opening.state(at_ms(1)).options & kOptEcn) != 0, c.agrees);
  }
}

TEST(HandshakeEcn, AClientAsksAsConfigured) {
  for (const auto& [mode, required, asks] : {std::tuple{EcnMode::kOff, false, false},
                                             {EcnMode::kAccept, false, false},
                                             {EcnMode::kRequest, false, true},
                                             {EcnMode::kOff, true, true}}) {
    HandshakeConfig config = linux_config();
    config.ecn = mode;
    config.ecn_required = required;
    const wire::Segment syn = just_connected(config).poll_one(at_ms(0));
    EXPECT_EQ(syn.flags, wire::kSyn | (asks ? wire::kEce | wire::kCwr : 0));
    EXPECT_EQ(syn.ecn, required ? wire::Ecn::kEct0 : wire::Ecn::kNotEct) << "RFC 8257 3.5, else RFC 3168 6.1.1";
  }
}

TEST(HandshakeEcn, IsOnWhenTheSynAckSaysSo) {
  HandshakeConfig asking = linux_config();
  asking.ecn = EcnMode::kRequest;
  for (const auto& [config, flags, on] : {std::tuple{asking, unsigned{wire::kEce}, true},
                                          {asking, 0U, false},
                                          {asking, wire::kEce | wire::kCwr, false},
                                          {linux_config(), unsigned{wire::kEce}, false}}) {
    Opening opening = syn_sent(config);
    wire::Segment syn_ack = peer_syn_ack();
    syn_ack.flags = static_cast<std::uint8_t>(syn_ack.flags | flags);
    ASSERT_TRUE(is_completed(opening.receive(syn_ack, at_ms(1))));
    EXPECT_EQ((opening.state(at_ms(1)).options & kOptEcn) != 0, on);
  }
}

MinTcp template_settings() {
  MinTcp settings;
  std::memset(static_cast<void*>(&settings), 0x5a, sizeof settings);  // what is not filled would stay visible
  settings.scope_id = 3;
  settings.flags = kFlagNoDelay | kFlagKeepalive;
  settings.congestion = {'r', 'e', 'n', 'o'};
  settings.snd_buf_bytes = 87'040;
  settings.rcv_buf_bytes = 131'072;
  settings.user_timeout_ms = 0;
  settings.keepalive_idle_s = 7200;
  settings.keepalive_interval_s = 75;
  settings.keepalive_probes = 9;
  settings.ttl = 63;
  settings.traffic_class = 8;
  settings.mss_found = 0;
  settings.flow_label = 12;
  return settings;
}

// Every field, by its bytes.
TEST(HandshakeEstablishedState, EveryFieldOfAnActiveOpen) {
  HandshakeConfig config = linux_config();
  config.settings = template_settings();
  Opening opening = syn_sent(config);
  ASSERT_EQ(opening.receive(peer_syn_ack(), at_ms(30)), HandshakeVerdict::kCompletedBySynAck);
  MinTcp wanted = template_settings();
  wanted.version = kMinTcpVersion;
  wanted.size_bytes = sizeof(MinTcp);
  wanted.flow = v4_flow();
  wanted.snd_una = wanted.snd_nxt = wanted.write_seq = kOurSeq + 1;
  wanted.bytes_acked = 0;
  wanted.snd_wl1 = kPeerSeq;
  wanted.snd_wnd = wanted.max_window = 64000;
  wanted.rcv_nxt = wanted.copied_seq = wanted.rcv_wup = kPeerSeq + 1;
  wanted.rcv_wnd = 64240;
  wanted.mss = wanted.mss_clamp = 1400;
  wanted.advmss = 1448;
  wanted.options = kOptTimestamps | kOptSack | kOptWindowScale;
  wanted.snd_wscale = 9;
  wanted.rcv_wscale = 7;
  wanted.ts_val = kTsVal + 32;
  wanted.ts_recent = kPeerTsVal;
  wanted.srtt_us = wanted.min_rtt_us = 30'000;
  wanted.rttvar_us = 15'000;
  wanted.rto_us = 230'000;
  wanted.stalled_us = 0;
  wanted.cwnd_segments = 10;
  wanted.ssthresh_segments = kInfiniteSsthresh;
  wanted.reordering_segments = 3;
  const MinTcp got = opening.state(at_ms(32));
  EXPECT_EQ(std::memcmp(&got, &wanted, sizeof wanted), 0);
}

// An ACK that the peer sent before our SYN's data had reached it is not too old (RFC 5961 5.2).
TEST(HandshakeEstablishedState, DataOfTheSynIsAcknowledged) {
  const HandshakeConfig config = linux_config();
  Opening opening = syn_sent(config);
  ASSERT_EQ(opening.receive(peer_syn_ack(), at_ms(30)), HandshakeVerdict::kCompletedBySynAck);
  opening.handshake.acked_bytes = 1000;
  EXPECT_EQ(established_state(opening.handshake, config, at_ms(30)).bytes_acked, 1000U);
}

TEST(HandshakeEstablishedState, EveryFieldOfAPassiveOpen) {
  HandshakeConfig config = linux_config();
  config.settings = template_settings();
  Opening opening = syn_received(config);
  ASSERT_EQ(opening.receive(peer_ack(), at_ms(200)), HandshakeVerdict::kCompletedByAck);
  MinTcp wanted = template_settings();
  wanted.version = kMinTcpVersion;
  wanted.size_bytes = sizeof(MinTcp);
  wanted.flow = v4_flow();
  wanted.snd_una = wanted.snd_nxt = wanted.write_seq = kOurSeq + 1;
  wanted.bytes_acked = 0;
  wanted.snd_wl1 = kPeerSeq + 1;
  wanted.snd_wnd = wanted.max_window = 500 << 9;
  wanted.rcv_nxt = wanted.copied_seq = wanted.rcv_wup = kPeerSeq + 1;
  wanted.rcv_wnd = 65160;
  wanted.mss = wanted.mss_clamp = 1400;
  wanted.advmss = 1448;
  wanted.options = kOptTimestamps | kOptSack | kOptWindowScale;
  wanted.snd_wscale = 9;
  wanted.rcv_wscale = 7;
  wanted.ts_val = kTsVal + 200;
  wanted.ts_recent = kPeerTsVal + 1;
  wanted.srtt_us = wanted.min_rtt_us = 200'000;
  wanted.rttvar_us = 100'000;
  wanted.rto_us = 600'000;
  wanted.stalled_us = 0;
  wanted.cwnd_segments = 10;
  wanted.ssthresh_segments = kInfiniteSsthresh;
  wanted.reordering_segments = 3;
  const MinTcp got = opening.state(at_ms(200));
  EXPECT_EQ(std::memcmp(&got, &wanted, sizeof wanted), 0);
}

TEST(HandshakeEstablishedState, TheCoreGoesOnWithTheSameClockAndTimeout) {
  for (const std::uint16_t unit : {std::uint16_t{0}, std::uint16_t{kOptTsMicroseconds}}) {
    HandshakeConfig config = linux_config();
    config.options |= unit;
    Opening opening = just_connected(config);
    const std::uint32_t first = opening.poll_one(at_ms(0)).options.ts_val;
    ASSERT_TRUE(is_completed(opening.receive(peer_syn_ack(first), at_ms(30))));
    ControlBlock cb;
    ASSERT_TRUE(establish(cb, opening.handshake, opening.config, at_ms(32)).has_value());
    EXPECT_EQ(ts_clock(cb, at_ms(40)) - first, unit == 0 ? 40U : 40'000U);
    // What the core makes of a first sample, and of these estimates.
    ControlBlock measured;
    ASSERT_TRUE(install(measured, idle_state(), at_ms(32)).has_value());
    add_rtt_sample(measured, 30'000);
    MinTcp wanted;
    extract(measured, at_ms(32), wanted);
    MinTcp got;
    extract(cb, at_ms(32), got);
    EXPECT_EQ(got.srtt_us, wanted.srtt_us);
    EXPECT_EQ(got.rttvar_us, wanted.rttvar_us);
    EXPECT_EQ(got.rto_us, wanted.rto_us);
    EXPECT_EQ(opening.state(at_ms(32)).rto_us, wanted.rto_us);
  }
}

TEST(HandshakeEstablishedState, AnAckIsOwedOnlyToWhoWaitsForIt) {
  Opening passive = syn_received();
  passive.receive(peer_ack(), at_ms(1));
  ControlBlock cb;
  ASSERT_TRUE(establish(cb, passive.handshake, passive.config, at_ms(1)).has_value());
  EXPECT_FALSE(owes_ack(cb));
  Opening active = syn_sent();
  active.receive(peer_syn_ack(), at_ms(1));
  ASSERT_TRUE(establish(cb, active.handshake, active.config, at_ms(1)).has_value());
  EXPECT_TRUE(owes_ack(cb));
}

TEST(HandshakeNames, EveryVerdictHasItsOwn) {
  std::set<std::string> names;
  for (std::size_t i = 0; i < kHandshakeVerdicts; ++i) names.emplace(name(static_cast<HandshakeVerdict>(i)));
  EXPECT_EQ(names.size(), kHandshakeVerdicts);
  EXPECT_FALSE(names.contains("unknown") || names.contains(""));
  EXPECT_EQ(name(HandshakeVerdict::kUnreachable), "unreachable");
  EXPECT_EQ(name(static_cast<HandshakeVerdict>(kHandshakeVerdicts)), "unknown");
}

wire::Segment random_segment(Rng& rng, const Handshake& handshake) {
  wire::Segment segment;
  segment.flags = rng.below(3) == 0 ? static_cast<std::uint8_t>(rng.next()) : std::uint8_t{wire::kAck};
  segment.seq = Seq(kPeerSeq + rng.below(6)) - 3 + (rng.below(4) == 0 ? rng.below(100'000) : 0);
  segment.ack = handshake.iss + rng.below(4);
  segment.window = static_cast<std::uint16_t>(rng.next());
  segment.ecn = static_cast<wire::Ecn>(rng.below(4));
  if (rng.below(2) == 0) segment.options = peer_options();
  segment.options.ts_val += rng.below(4);
  segment.options.ts_ecr = rng.below(2) == 0 ? 0 : kTsVal + rng.below(2000) - 10;
  segment.options.mss = static_cast<std::uint16_t>(rng.below(3) == 0 ? rng.below(100) : rng.next());
  segment.options.window_scale = static_cast<std::uint8_t>(rng.next());
  return segment;
}

// At most one segment leaves for each that arrives, none is larger than a SYN, and what comes out installs.
void run_random(std::uint64_t seed, Opening opening) {
  Rng rng(seed);
  Time now = at_ms(0);
  opening.poll(now);
  for (int step = 0; step < 300 && opening.handshake.in_progress(); ++step) {
    now += std::chrono::milliseconds(rng.below(700));
    if (on_timer(opening.handshake, opening.config, now) == HandshakeTimer::kFired) {
      ASSERT_EQ(opening.poll(now).size(), 1U);
    }
    if (!opening.handshake.in_progress()) break;
    const wire::Segment segment = random_segment(rng, opening.handshake);
    const std::uint32_t payload_bytes = rng.below(3) * 500;
    const HandshakeVerdict verdict = opening.receive(segment, now, payload_bytes);
    const bool answered = wants_reset(verdict) && reset_for(segment, payload_bytes).has_value();
    ASSERT_LE(opening.poll(now).size() + (answered ? 1 : 0), 1U) << name(verdict);
    ASSERT_EQ(is_over(verdict), opening.handshake.state == HandshakeState::kClosed);
    ASSERT_EQ(is_completed(verdict), opening.handshake.state == HandshakeState::kEstablished);
    if (!is_completed(verdict)) continue;
    ASSERT_TRUE(segment.has(wire::kAck) && segment.ack == opening.handshake.iss + 1 && !segment.has(wire::kRst));
    ControlBlock cb;
    const auto installed = establish(cb, opening.handshake, opening.config, now);
    ASSERT_TRUE(installed.has_value()) << installed.error().message();
  }
}

TEST(HandshakeRobustness, RandomSegmentsNeverBreakIt) {
  for (std::uint64_t seed = 1; seed <= 3000 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    run_random(seed, just_listened());
    run_random(seed, just_connected());
  }
}

TEST(HandshakeBlock, IsSmall) { EXPECT_LE(sizeof(Handshake), 160U); }

}  // namespace
}  // namespace twinstack::tcp::test
