// SYN-SENT and simultaneous open: a segment in, the exact reply out.
#include <array>

#include "tcp/handshake_test_support.h"
#include "wire/tcp_options.h"

namespace twinstack::tcp::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(SynSent, TheSynIsExact) {
  Opening opening = just_connected();
  wire::Segment wanted;
  wanted.seq = Seq(kOurSeq);
  wanted.flags = wire::kSyn;
  wanted.window = 64240;
  wanted.options.has_mss = wanted.options.has_window_scale = true;
  wanted.options.sack_permitted = wanted.options.has_timestamps = true;
  wanted.options.mss = 1460;
  wanted.options.window_scale = 7;
  wanted.options.ts_val = kTsVal + 5;
  EXPECT_EQ(opening.poll_one(at_ms(5)), wanted) << "TSecr is 0 (RFC 7323 3.2)";
  EXPECT_EQ(next_deadline(opening.handshake), at_ms(1005));
}

TEST(SynSent, TheOptionsLieInLinuxsOrder) {
  const wire::Segment syn = just_connected().poll_one(at_ms(0));
  std::array<std::byte, wire::kMaxOptionBytes> bytes{};
  ASSERT_EQ(wire::write_options(bytes, syn.options), 20U);
  constexpr std::array<std::uint8_t, 20> kWanted = {2, 4,      0x05, 0xb4, 4, 2, 8, 10, 0, 0,
                                                    0, kTsVal, 0,    0,    0, 0, 1, 3,  3, 7};
  for (std::size_t i = 0; i < kWanted.size(); ++i) EXPECT_EQ(static_cast<std::uint8_t>(bytes[i]), kWanted[i]) << i;
}

TEST(SynSent, TheSynGoesAgainUntilTheRetriesAreUsedUp) {
  Opening opening = syn_sent();
  Time last = at_ms(0);
  Duration interval = seconds(1);
  for (int i = 0; i < 6; ++i) {
    const Time at = opening.fire();
    EXPECT_EQ(at, last + interval) << i;
    EXPECT_EQ(opening.poll_one(at).flags, wire::kSyn);
    last = at;
    interval *= 2;
  }
  EXPECT_EQ(opening.fire(HandshakeTimer::kGaveUp), at_ms(127'000)) << "as Linux";
  EXPECT_EQ(opening.handshake.state, HandshakeState::kClosed);
}

TEST(SynSent, LinearTimeoutsAsLinux65) {
  HandshakeConfig config = linux_config();
  config.syn_linear_timeouts = 4;
  Opening opening = syn_sent(config);
  for (const int at : {1, 2, 3, 4, 5, 7, 11, 19, 35, 67}) {
    EXPECT_EQ(opening.fire(), at_ms(at * 1000));
    opening.poll_one(at_ms(at * 1000));
  }
  EXPECT_EQ(opening.fire(HandshakeTimer::kGaveUp), at_ms(131'000));
}

TEST(SynSent, LinearTimeoutsEndWhenDoublingOnesWouldHave) {
  HandshakeConfig config = linux_config();
  config.syn_linear_timeouts = 4;
  config.syn_retries = 1;
  Opening opening = syn_sent(config);
  for (const int at : {1, 2}) {
    EXPECT_EQ(opening.fire(), at_ms(at * 1000));
    opening.poll_one(at_ms(at * 1000));
  }
  EXPECT_EQ(opening.fire(HandshakeTimer::kGaveUp), at_ms(3'000));
}

TEST(SynSent, TheUserTimeoutIsMetOnTime) {
  HandshakeConfig config = linux_config();
  config.settings.user_timeout_ms = 2500;
  Opening opening = syn_sent(config);
  EXPECT_EQ(opening.fire(), at_ms(1000));
  opening.poll_one(at_ms(1000));
  EXPECT_EQ(opening.fire(HandshakeTimer::kGaveUp), at_ms(2500));
}

// However short it is, the first SYN has its whole second (as Linux).
TEST(SynSent, AUserTimeoutDoesNotHurryTheFirstTimeout) {
  HandshakeConfig config = linux_config();
  config.settings.user_timeout_ms = 700;
  Opening opening = syn_sent(config);
  EXPECT_EQ(opening.fire(HandshakeTimer::kGaveUp), at_ms(1000));
}

// The caller could not send, but its timer ran: what goes then is the first, and asks for ECN.
TEST(SynSent, ASynThatWasNeverSentIsNoRetransmission) {
  HandshakeConfig config = linux_config();
  config.ecn = EcnMode::kRequest;
  Opening opening = just_connected(config);
  EXPECT_EQ(opening.fire(), at_ms(1000));
  EXPECT_EQ(opening.poll_one(at_ms(1200)).flags, wire::kSyn | wire::kEce | wire::kCwr);
  EXPECT_EQ(opening.receive(peer_syn_ack(kTsVal + 1200), at_ms(1250)), HandshakeVerdict::kCompletedBySynAck);
  EXPECT_EQ(opening.state(at_ms(1250)).srtt_us, 50'000U);
}

// RFC 3168 6.1.1.1. When the first did come through after all, ECN is on: both sides have agreed, as Linux.
TEST(SynSent, ARetransmittedSynDoesNotAskForEcn) {
  HandshakeConfig config = linux_config();
  config.ecn = EcnMode::kRequest;
  Opening opening = just_connected(config);
  EXPECT_EQ(opening.poll_one(at_ms(0)).flags, wire::kSyn | wire::kEce | wire::kCwr);
  EXPECT_EQ(opening.poll_one(opening.fire()).flags, wire::kSyn);
  EXPECT_EQ(opening.poll_one(opening.fire()).flags, wire::kSyn);
  wire::Segment syn_ack = peer_syn_ack();
  syn_ack.flags |= wire::kEce;
  opening.receive(syn_ack, at_ms(3001));
  EXPECT_NE(opening.state(at_ms(3001)).options & kOptEcn, 0);
}

// RFC 9293 3.10.7.3 first.
TEST(SynSent, ABadAckIsRefused) {
  for (const std::uint32_t ack : {kOurSeq - 1, kOurSeq, kOurSeq + 2, kOurSeq + 0x80000000U}) {
    Opening opening = syn_sent();
    for (const unsigned flags : FlagSets{wire::kAck, wire::kAck | wire::kSyn}) {
      wire::Segment segment = peer_syn_ack();
      segment.flags = static_cast<std::uint8_t>(flags);
      segment.ack = Seq(ack);
      EXPECT_EQ(opening.receive(segment, at_ms(1)), HandshakeVerdict::kBadAck);
      EXPECT_EQ(reset_for(segment, 0)->seq, Seq(ack));
      EXPECT_TRUE(opening.poll(at_ms(1)).empty());
    }
    EXPECT_EQ(opening.handshake.state, HandshakeState::kSynSent);
  }
}

TEST(SynSent, NothingIsAcknowledgedBeforeTheSynIsSent) {
  EXPECT_EQ(just_connected().receive(peer_syn_ack(0), at_ms(0)), HandshakeVerdict::kBadAck);
}

// RFC 9293 3.5.1 figure 9: the reset ends the old connection, the SYN finds a free port.
TEST(SynSent, AfterABadAckTheSynGoesAgainSoonButOnce) {
  Opening opening = syn_sent();
  wire::Segment old = from_peer(77, kOurSeq + 50);
  opening.receive(old, at_ms(20));
  EXPECT_EQ(opening.fire(), at_ms(22));
  EXPECT_EQ(opening.poll_one(at_ms(22)).flags, wire::kSyn);
  opening.receive(old, at_ms(30));
  EXPECT_EQ(next_deadline(opening.handshake), at_ms(2022));
}

TEST(SynSent, AnEchoOfWhatWasNeverSentIsRefused) {
  for (const std::uint32_t echo : {kTsVal - 1, kTsVal + 1}) {
    Opening opening = syn_sent();
    const HandshakeVerdict verdict = opening.receive(peer_syn_ack(echo), at_ms(1));
    EXPECT_EQ(verdict, HandshakeVerdict::kBadEcho);
    EXPECT_TRUE(wants_reset(verdict));
    EXPECT_TRUE(opening.poll(at_ms(1)).empty());
    EXPECT_EQ(opening.receive(peer_syn_ack(0), at_ms(2)), HandshakeVerdict::kCompletedBySynAck) << "0 is no echo";
  }
}

// RFC 9293 3.10.7.3 second.
TEST(SynSent, AResetCountsOnlyWithAnAcceptableAck) {
  Opening opening = syn_sent();
  wire::Segment reset = peer_reset(0);
  EXPECT_EQ(opening.receive(reset, at_ms(1)), HandshakeVerdict::kDroppedReset);
  reset.flags |= wire::kAck;
  for (const std::uint32_t ack : {kOurSeq, kOurSeq + 2}) {
    reset.ack = Seq(ack);
    EXPECT_EQ(opening.receive(reset, at_ms(2)), HandshakeVerdict::kDroppedReset);
  }
  EXPECT_TRUE(opening.poll(at_ms(2)).empty());
  reset.ack = Seq(kOurSeq + 1);
  EXPECT_EQ(opening.receive(reset, at_ms(3)), HandshakeVerdict::kRefused);
  EXPECT_EQ(opening.handshake.state, HandshakeState::kClosed);
  EXPECT_EQ(next_deadline(opening.handshake), kNever);
}

// RFC 9293 3.10.7.3 fifth.
TEST(SynSent, WithoutSynItIsDropped) {
  Opening opening = syn_sent();
  EXPECT_EQ(opening.receive(peer_ack(), at_ms(1)), HandshakeVerdict::kDroppedNoSyn);
  wire::Segment fin = peer_ack();
  fin.flags = wire::kFin;
  EXPECT_EQ(opening.receive(fin, at_ms(1), 10), HandshakeVerdict::kDroppedNoSyn);
  EXPECT_TRUE(opening.poll(at_ms(1)).empty());
  EXPECT_EQ(opening.handshake.state, HandshakeState::kSynSent);
}

TEST(SynSent, TheSynAckCompletesItAndIsAcknowledged) {
  Opening opening = syn_sent();
  ASSERT_EQ(opening.receive(peer_syn_ack(), at_ms(30)), HandshakeVerdict::kCompletedBySynAck);
  EXPECT_EQ(next_deadline(opening.handshake), kNever);
  EXPECT_TRUE(opening.poll(at_ms(30)).empty()) << "the core sends the ACK";
  TestEnd end(opening.state(at_ms(30)), at_ms(30), 65536);
  const SegmentPlan ack = end.poll_one(at_ms(30));
  EXPECT_EQ(ack.segment.flags, wire::kAck);
  EXPECT_EQ(ack.segment.seq, Seq(kOurSeq + 1));
  EXPECT_EQ(ack.segment.ack, Seq(kPeerSeq + 1));
  EXPECT_EQ(ack.segment.options.ts_val, kTsVal + 30);
  EXPECT_EQ(ack.segment.options.ts_ecr, kPeerTsVal);
}

TEST(SynSent, DataAndFinOfTheSynAckComeAgain) {
  Opening opening = syn_sent();
  wire::Segment segment = peer_syn_ack();
  segment.flags |= wire::kFin;
  ASSERT_EQ(opening.receive(segment, at_ms(1), 100), HandshakeVerdict::kCompletedBySynAck);
  EXPECT_EQ(opening.state(at_ms(1)).rcv_nxt, kPeerSeq + 1);
}

TEST(SynSent, LostSynsLeaveTheirMarkOnTheEstimates) {
  Opening opening = syn_sent();
  opening.poll_one(opening.fire());
  opening.poll_one(opening.fire());
  wire::Segment syn_ack = peer_syn_ack();
  syn_ack.options.has_timestamps = false;
  ASSERT_TRUE(is_completed(opening.receive(syn_ack, at_ms(3050))));
  const MinTcp state = opening.state(at_ms(3050));
  EXPECT_EQ(state.srtt_us, 0U);
  EXPECT_EQ(state.rto_us, 3'000'000U);
  EXPECT_EQ(state.cwnd_segments, 1U);
  EXPECT_EQ(state.ssthresh_segments, kInfiniteSsthresh);
}

// RFC 5461 4.1 as Linux; RFC 1122 4.2.3.9; RFC 5927 4.1.
TEST(SynSent, IcmpErrors) {
  Opening opening = syn_sent();
  EXPECT_EQ(on_icmp_error(opening.handshake, opening.config, IcmpError::kHard, Seq(kOurSeq - 1)),
            HandshakeVerdict::kDroppedError);
  EXPECT_EQ(on_icmp_error(opening.handshake, opening.config, IcmpError::kSoft, Seq(kOurSeq)),
            HandshakeVerdict::kUnreachable);
  HandshakeConfig to_the_letter = linux_config();
  to_the_letter.soft_errors_abort = false;
  Opening patient = syn_sent(to_the_letter);
  EXPECT_EQ(on_icmp_error(patient.handshake, patient.config, IcmpError::kSoft, Seq(kOurSeq)),
            HandshakeVerdict::kNotedError);
  EXPECT_TRUE(patient.handshake.has(kHsSoftError));
  EXPECT_EQ(patient.handshake.state, HandshakeState::kSynSent);
  EXPECT_EQ(on_icmp_error(patient.handshake, patient.config, IcmpError::kHard, Seq(kOurSeq)),
            HandshakeVerdict::kUnreachable);
  Opening unsent = just_connected();
  EXPECT_EQ(on_icmp_error(unsent.handshake, unsent.config, IcmpError::kHard, Seq(kOurSeq)),
            HandshakeVerdict::kDroppedError);
}

TEST(SynSent, AbortIsSilent) {
  Opening opening = syn_sent();
  EXPECT_EQ(abort_handshake(opening.handshake), std::nullopt);
  EXPECT_EQ(opening.handshake.state, HandshakeState::kClosed);
  EXPECT_TRUE(opening.poll(at_ms(1)).empty());
}

// RFC 9293 3.5, figure 7.
TEST(SimultaneousOpen, ASynIsAnsweredByASynAck) {
  Opening opening = syn_sent();
  ASSERT_EQ(opening.receive(peer_syn(), at_ms(10)), HandshakeVerdict::kSimultaneousOpen);
  EXPECT_EQ(opening.handshake.state, HandshakeState::kSynReceived);
  wire::Segment wanted;
  wanted.seq = Seq(kOurSeq);
  wanted.ack = Seq(kPeerSeq + 1);
  wanted.flags = wire::kSyn | wire::kAck;
  wanted.window = 64240;
  wanted.options.has_mss = wanted.options.has_window_scale = true;
  wanted.options.sack_permitted = wanted.options.has_timestamps = true;
  wanted.options.mss = 1460;
  wanted.options.window_scale = 7;
  wanted.options.ts_val = kTsVal + 10;
  wanted.options.ts_ecr = kPeerTsVal;
  EXPECT_EQ(opening.poll_one(at_ms(10)), wanted);
  EXPECT_EQ(next_deadline(opening.handshake), at_ms(1010));
}

TEST(SimultaneousOpen, TheSynAckTellsWhatWasAgreedUpon) {
  wire::Segment bare = peer_syn();
  bare.options = {};
  Opening opening = syn_sent();
  opening.receive(bare, at_ms(10));
  const wire::Segment syn_ack = opening.poll_one(at_ms(10));
  EXPECT_TRUE(syn_ack.options.has_mss);
  EXPECT_FALSE(syn_ack.options.has_window_scale || syn_ack.options.sack_permitted || syn_ack.options.has_timestamps);
}

TEST(SimultaneousOpen, TheOtherSynAckCompletesIt) {
  Opening opening = crossed();
  ASSERT_EQ(opening.receive(peer_syn_ack(), at_ms(20)), HandshakeVerdict::kCompletedBySynAck);
  const MinTcp state = opening.state(at_ms(20));
  EXPECT_EQ(state.snd_wnd, 64000U) << "not scaled";
  EXPECT_EQ(state.snd_wl1, kPeerSeq);
  EXPECT_EQ(state.rcv_nxt, kPeerSeq + 1);
  EXPECT_EQ(state.srtt_us, 20'000U) << "by the echo: two of ours are out";
  ControlBlock cb;
  ASSERT_TRUE(establish(cb, opening.handshake, opening.config, at_ms(20)).has_value());
  EXPECT_TRUE(owes_ack(cb)) << "our SYN-ACK may be lost; as Linux";
}

TEST(SimultaneousOpen, AnAckCompletesItToo) {
  Opening opening = crossed();
  ASSERT_EQ(opening.receive(peer_ack(kTsVal + 10), at_ms(20), 100), HandshakeVerdict::kCompletedByAck);
  EXPECT_EQ(opening.state(at_ms(20)).snd_wnd, 500U << 9);
  EXPECT_EQ(opening.state(at_ms(20)).max_window, 500U << 9);
  EXPECT_EQ(opening.state(at_ms(20)).srtt_us, 10'000U);
}

TEST(SimultaneousOpen, WithoutStampsThereIsNoSample) {
  wire::Segment syn = peer_syn();
  syn.options.has_timestamps = false;
  Opening opening = crossed(linux_config(), syn);
  ASSERT_TRUE(is_completed(opening.receive(from_peer(kPeerSeq + 1, kOurSeq + 1), at_ms(20))));
  EXPECT_EQ(opening.state(at_ms(20)).srtt_us, 0U);
  EXPECT_EQ(opening.state(at_ms(20)).rto_us, 1'000'000U);
}

TEST(SimultaneousOpen, TheSynAgainDrawsTheSynAckAgain) {
  Opening opening = crossed();
  EXPECT_EQ(opening.receive(peer_syn(), at_ms(30)), HandshakeVerdict::kDuplicateSyn);
  EXPECT_EQ(opening.poll_one(at_ms(30)).flags, wire::kSyn | wire::kAck);
  EXPECT_EQ(opening.receive(peer_syn(), at_ms(40)), HandshakeVerdict::kDuplicateSynLimited);
  EXPECT_TRUE(opening.poll(at_ms(40)).empty());
}

TEST(SimultaneousOpen, TheSynAckIsRetriedAsASynIs) {
  Opening opening = crossed();
  Time at = at_ms(10);
  for (int i = 0; i < 6; ++i) {
    at = opening.fire();
    EXPECT_EQ(opening.poll_one(at).flags, wire::kSyn | wire::kAck);
  }
  opening.fire(HandshakeTimer::kGaveUp);
}

// RFC 5961 4.2, 3.2: it was an active open, nobody listens.
TEST(SimultaneousOpen, SynsAndResetsInTheWindowDrawAChallenge) {
  Opening opening = crossed();
  wire::Segment syn = peer_syn();
  syn.seq = Seq(kPeerSeq + 100);
  EXPECT_EQ(opening.receive(syn, at_ms(20)), HandshakeVerdict::kDroppedSyn);
  const wire::Segment ack = opening.poll_one(at_ms(20));
  EXPECT_EQ(ack.flags, wire::kAck);
  EXPECT_EQ(ack.seq, Seq(kOurSeq + 1));
  EXPECT_EQ(ack.ack, Seq(kPeerSeq + 1));
  EXPECT_EQ(opening.receive(peer_reset(kPeerSeq + 2), at_ms(30)), HandshakeVerdict::kDroppedReset);
  EXPECT_TRUE(opening.poll(at_ms(30)).empty()) << "limited in rate";
  EXPECT_EQ(opening.receive(peer_reset(), at_ms(31)), HandshakeVerdict::kReset);
}

TEST(SimultaneousOpen, ABadAckIsRefused) {
  Opening opening = crossed();
  wire::Segment segment = peer_syn_ack();
  segment.ack = Seq(kOurSeq + 2);
  EXPECT_EQ(opening.receive(segment, at_ms(20)), HandshakeVerdict::kBadAck);
  EXPECT_EQ(opening.handshake.state, HandshakeState::kSynReceived);
}

TEST(SimultaneousOpen, EcnNeedsBothSynsAndTheSynAck) {
  HandshakeConfig config = linux_config();
  config.ecn = EcnMode::kRequest;
  wire::Segment setup = peer_syn();
  setup.flags |= wire::kEce | wire::kCwr;
  Opening opening = syn_sent(config);
  opening.receive(setup, at_ms(10));
  EXPECT_EQ(opening.poll_one(at_ms(10)).flags, wire::kSyn | wire::kAck | wire::kEce);
  wire::Segment refusal = peer_syn_ack();
  Opening refused = opening;
  refused.receive(refusal, at_ms(20));
  EXPECT_EQ(refused.state(at_ms(20)).options & kOptEcn, 0) << "RFC 3168 6.1.1: a non-ECN-setup SYN-ACK";
  wire::Segment confirmation = peer_syn_ack();
  confirmation.flags |= wire::kEce;
  opening.receive(confirmation, at_ms(20));
  EXPECT_NE(opening.state(at_ms(20)).options & kOptEcn, 0);
  Opening unasked = syn_sent(config);
  unasked.receive(peer_syn(), at_ms(10));
  EXPECT_EQ(unasked.poll_one(at_ms(10)).flags, wire::kSyn | wire::kAck);
}

}  // namespace
}  // namespace twinstack::tcp::test
