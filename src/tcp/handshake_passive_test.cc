// LISTEN and SYN-RECEIVED after a passive open: a segment in, the exact reply out.
#include "tcp/handshake_test_support.h"

namespace twinstack::tcp::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

wire::Segment with_flags(wire::Segment segment, unsigned flags) {
  segment.flags = static_cast<std::uint8_t>(flags);
  return segment;
}

// What we answer to a segment in SYN-RECEIVED that is not acceptable.
wire::Segment our_ack(std::uint32_t ts_val) {
  wire::Segment ack;
  ack.seq = Seq(kOurSeq + 1);
  ack.ack = Seq(kPeerSeq + 1);
  ack.flags = wire::kAck;
  ack.window = 510;  // 65160 / 128, rounded up
  ack.options.has_timestamps = true;
  ack.options.ts_val = ts_val;
  ack.options.ts_ecr = kPeerTsVal;
  return ack;
}

// RFC 9293 3.10.7.2.
TEST(Listen, FirstAResetIsIgnored) {
  EXPECT_EQ(answer_listen(peer_reset()), HandshakeVerdict::kDroppedReset);
  EXPECT_EQ(answer_listen(with_flags(peer_syn(), wire::kRst | wire::kSyn | wire::kAck)),
            HandshakeVerdict::kDroppedReset);
}

TEST(Listen, SecondAnAckIsAnsweredByAReset) {
  for (const unsigned flags : FlagSets{wire::kAck, wire::kAck | wire::kSyn, wire::kAck | wire::kFin}) {
    const HandshakeVerdict verdict = answer_listen(with_flags(from_peer(7, 8), flags));
    EXPECT_EQ(verdict, HandshakeVerdict::kBadAck);
    EXPECT_TRUE(wants_reset(verdict));
  }
}

TEST(Listen, ThirdASynIsTaken) {
  EXPECT_EQ(answer_listen(peer_syn()), HandshakeVerdict::kSynAccepted);
  EXPECT_EQ(answer_listen(with_flags(peer_syn(), wire::kSyn | wire::kPsh | wire::kUrg | wire::kEce | wire::kCwr)),
            HandshakeVerdict::kSynAccepted);
}

TEST(Listen, ASynWithFinIsIgnored) {
  EXPECT_EQ(answer_listen(with_flags(peer_syn(), wire::kSyn | wire::kFin)), HandshakeVerdict::kDroppedSynFin);
}

TEST(Listen, FourthAnythingElseIsDropped) {
  for (const unsigned flags : FlagSets{0, wire::kFin, wire::kPsh | wire::kUrg}) {
    EXPECT_EQ(answer_listen(with_flags(peer_syn(), flags)), HandshakeVerdict::kDroppedNoSyn);
  }
}

TEST(SynReceived, TheSynAckIsExact) {
  Opening opening = just_listened();
  wire::Segment wanted;
  wanted.seq = Seq(kOurSeq);
  wanted.ack = Seq(kPeerSeq + 1);
  wanted.flags = wire::kSyn | wire::kAck;
  wanted.window = 65160;
  wanted.options.has_mss = wanted.options.has_window_scale = true;
  wanted.options.sack_permitted = wanted.options.has_timestamps = true;
  wanted.options.mss = 1460;
  wanted.options.window_scale = 7;
  wanted.options.ts_val = kTsVal + 5;
  wanted.options.ts_ecr = kPeerTsVal;
  EXPECT_EQ(opening.poll_one(at_ms(5)), wanted);
  EXPECT_EQ(next_deadline(opening.handshake), at_ms(1005));
}

TEST(SynReceived, ASynWithoutOptionsGetsNoneButTheMss) {
  wire::Segment syn = peer_syn();
  syn.options = {};
  wire::TcpOptions wanted;
  wanted.has_mss = true;
  wanted.mss = 1460;
  const wire::Segment syn_ack = just_listened(linux_config(), syn).poll_one(at_ms(0));
  EXPECT_EQ(syn_ack.options, wanted);
  EXPECT_EQ(syn_ack.window, 64240);
}

TEST(SynReceived, TheSynAckGoesAgainUntilTheRetriesAreUsedUp) {
  Opening opening = syn_received();
  Time last = at_ms(0);
  Duration interval = seconds(1);
  for (int i = 0; i < 5; ++i) {
    const Time at = opening.fire();
    EXPECT_EQ(at, last + interval) << i;
    const wire::Segment again = opening.poll_one(at);
    EXPECT_EQ(again.flags, wire::kSyn | wire::kAck);
    EXPECT_EQ(again.seq, Seq(kOurSeq));
    EXPECT_EQ(again.options.ts_ecr, kPeerTsVal);
    last = at;
    interval *= 2;
  }
  EXPECT_EQ(opening.fire(HandshakeTimer::kGaveUp), at_ms(63'000));
  EXPECT_EQ(opening.handshake.state, HandshakeState::kClosed);
  EXPECT_EQ(next_deadline(opening.handshake), kNever);
  EXPECT_TRUE(opening.poll(at_ms(63'000)).empty());
}

TEST(SynReceived, EcnStaysInARetransmittedSynAck) {
  wire::Segment syn = peer_syn();
  syn.flags |= wire::kEce | wire::kCwr;
  Opening opening = syn_received(linux_config(), syn);
  EXPECT_EQ(opening.poll_one(opening.fire()).flags, wire::kSyn | wire::kAck | wire::kEce);
}

TEST(SynReceived, TheIntervalEndsAtTwoMinutes) {
  HandshakeConfig config = linux_config();
  config.synack_retries = 255;
  Opening opening = syn_received(config);
  Time last = at_ms(0);
  for (int i = 0; i < 255; ++i) {
    const Time at = opening.fire();
    EXPECT_LE(at - last, seconds(120));
    opening.poll_one(at);
    last = at;
  }
  EXPECT_EQ(opening.fire(HandshakeTimer::kGaveUp) - last, seconds(120));
}

TEST(SynReceived, NoUserTimeoutLimitsAHalfOpenConnection) {
  HandshakeConfig config = linux_config();
  config.settings.user_timeout_ms = 100;
  EXPECT_EQ(syn_received(config).fire(), at_ms(1000));
}

TEST(SynReceived, TheSynAgainDrawsTheSynAckAgain) {
  Opening opening = syn_received();
  EXPECT_EQ(opening.receive(peer_syn(), at_ms(300)), HandshakeVerdict::kDuplicateSyn);
  const wire::Segment again = opening.poll_one(at_ms(300));
  EXPECT_EQ(again.flags, wire::kSyn | wire::kAck);
  EXPECT_EQ(again.options.ts_val, kTsVal + 300);
  EXPECT_EQ(next_deadline(opening.handshake), at_ms(1300)) << "the timer begins anew, as Linux";
}

TEST(SynReceived, SynsThatComeInAFloodAreAnsweredTwiceASecond) {
  Opening opening = syn_received();
  int answers = 0;
  for (int i = 0; i < 1000; ++i) {
    const HandshakeVerdict verdict = opening.receive(peer_syn(), at_ms(i));
    const std::size_t sent = opening.poll(at_ms(i)).size();
    EXPECT_EQ(sent, verdict == HandshakeVerdict::kDuplicateSyn ? 1U : 0U);
    answers += static_cast<int>(sent);
  }
  EXPECT_EQ(answers, 2);
}

TEST(SynReceived, SynsDoNotKeepTheEntryForEver) {
  Opening opening = syn_received();
  Time now = at_ms(0);
  while (opening.handshake.in_progress() && now < at_ms(300'000)) {
    now += milliseconds(600);
    opening.receive(peer_syn(), now);
    opening.poll(now);
    on_timer(opening.handshake, opening.config, now);
  }
  EXPECT_LT(now, at_ms(100'000));
}

TEST(SynReceived, DataInTheSynAgainIsStillASyn) {
  Opening opening = syn_received();
  EXPECT_EQ(opening.receive(peer_syn(), at_ms(1), 100), HandshakeVerdict::kDuplicateSyn);
  EXPECT_EQ(opening.poll_one(at_ms(1)).ack, Seq(kPeerSeq + 1)) << "data in a SYN is not accepted";
}

// RFC 9293 3.5.2 group 2.
TEST(SynReceived, ABadAckIsRefusedAndTheHandshakeGoesOn) {
  for (const std::uint32_t ack : {kOurSeq - 1, kOurSeq, kOurSeq + 2, kOurSeq + 0x80000000U}) {
    Opening opening = syn_received();
    wire::Segment segment = peer_ack();
    segment.ack = Seq(ack);
    const HandshakeVerdict verdict = opening.receive(segment, at_ms(1));
    EXPECT_EQ(verdict, HandshakeVerdict::kBadAck);
    EXPECT_EQ(reset_for(segment, 0)->seq, Seq(ack));
    EXPECT_TRUE(opening.poll(at_ms(1)).empty()) << "the reset is all";
    EXPECT_EQ(opening.receive(peer_ack(), at_ms(2)), HandshakeVerdict::kCompletedByAck);
  }
}

TEST(SynReceived, NothingIsAcknowledgedBeforeTheSynAckIsSent) {
  Opening opening = just_listened();
  EXPECT_EQ(opening.receive(peer_ack(0), at_ms(0)), HandshakeVerdict::kBadAck);
}

// RFC 5961 3.2.
TEST(SynReceived, AResetAtRcvNxtEndsIt) {
  Opening opening = syn_received();
  EXPECT_EQ(opening.receive(peer_reset(), at_ms(1)), HandshakeVerdict::kReset);
  EXPECT_EQ(opening.handshake.state, HandshakeState::kClosed);
  Opening with_ack = syn_received();
  wire::Segment reset = peer_reset();
  reset.flags |= wire::kAck;
  reset.ack = Seq(kOurSeq + 1);
  EXPECT_EQ(with_ack.receive(reset, at_ms(1)), HandshakeVerdict::kReset);
}

TEST(SynReceived, AResetElsewhereInTheWindowDrawsAChallenge) {
  Opening opening = syn_received();
  EXPECT_EQ(opening.receive(peer_reset(kPeerSeq + 2), at_ms(1)), HandshakeVerdict::kDroppedReset);
  EXPECT_EQ(opening.poll_one(at_ms(1)), our_ack(kTsVal + 1));
  EXPECT_EQ(opening.receive(peer_reset(kPeerSeq + 65160), at_ms(2)), HandshakeVerdict::kDroppedReset);
  EXPECT_TRUE(opening.poll(at_ms(2)).empty()) << "limited in rate";
  EXPECT_EQ(opening.receive(peer_reset(kPeerSeq + 2), at_ms(501)), HandshakeVerdict::kDroppedReset);
  EXPECT_EQ(opening.poll(at_ms(501)).size(), 1U);
}

TEST(SynReceived, AResetOutsideOfTheWindowIsIgnored) {
  for (const std::uint32_t seq : {kPeerSeq, kPeerSeq + 65162, kPeerSeq + 0x70000000U}) {
    Opening opening = syn_received();
    EXPECT_EQ(opening.receive(peer_reset(seq), at_ms(1)), HandshakeVerdict::kDroppedOutOfWindow);
    EXPECT_TRUE(opening.poll(at_ms(1)).empty());
  }
}

TEST(SynReceived, AResetWithABadAckProvesNothing) {
  Opening opening = syn_received();
  wire::Segment reset = peer_reset();
  reset.flags |= wire::kAck;
  reset.ack = Seq(kOurSeq + 5);
  EXPECT_EQ(opening.receive(reset, at_ms(1)), HandshakeVerdict::kDroppedReset);
  EXPECT_EQ(opening.handshake.state, HandshakeState::kSynReceived);
  EXPECT_TRUE(opening.poll(at_ms(1)).empty());
}

TEST(SynReceived, AResetInTheWindowDrawsAChallengeWhateverItAcknowledges) {
  Opening opening = syn_received();
  wire::Segment reset = peer_reset(kPeerSeq + 2);
  reset.flags |= wire::kAck;
  reset.ack = Seq(kOurSeq + 5);
  EXPECT_EQ(opening.receive(reset, at_ms(1)), HandshakeVerdict::kDroppedReset);
  EXPECT_EQ(opening.poll_one(at_ms(1)), our_ack(kTsVal + 1));
}

// RFC 9293 3.10.7.4 fourth.
TEST(SynReceived, ASynInTheWindowLeadsBackToListen) {
  Opening opening = syn_received();
  wire::Segment syn = peer_syn();
  syn.seq = Seq(kPeerSeq + 100);
  EXPECT_EQ(opening.receive(syn, at_ms(1)), HandshakeVerdict::kBackToListen);
  EXPECT_EQ(opening.handshake.state, HandshakeState::kClosed);
  EXPECT_TRUE(opening.poll(at_ms(1)).empty());
}

TEST(SynReceived, ASynOutsideOfTheWindowDrawsAnAck) {
  Opening opening = syn_received();
  wire::Segment syn = peer_syn();
  syn.seq = Seq(kPeerSeq - 100);
  syn.options.ts_val = kPeerTsVal + 3;
  EXPECT_EQ(opening.receive(syn, at_ms(1)), HandshakeVerdict::kDroppedOutOfWindow);
  EXPECT_EQ(opening.poll_one(at_ms(1)), our_ack(kTsVal + 1));
}

// RFC 9293 3.5.1, figure 11: SYNs of a third party meet at two listeners; neither is a client.
TEST(SynReceived, ASynAckIsNoAck) {
  Opening opening = syn_received();
  EXPECT_EQ(opening.receive(peer_syn_ack(), at_ms(1)), HandshakeVerdict::kDroppedOutOfWindow);
  EXPECT_EQ(opening.receive(peer_syn_ack(), at_ms(1), 100), HandshakeVerdict::kDroppedSyn);
  EXPECT_EQ(opening.handshake.state, HandshakeState::kSynReceived);
  EXPECT_EQ(opening.poll(at_ms(1)).size(), 1U);
}

// RFC 7323 5.3.
TEST(SynReceived, AnOldTimestampIsDropped) {
  Opening opening = syn_received();
  wire::Segment old = peer_ack();
  old.options.ts_val = kPeerTsVal - 1;
  EXPECT_EQ(opening.receive(old, at_ms(1)), HandshakeVerdict::kDroppedPaws);
  EXPECT_EQ(opening.poll_one(at_ms(1)), our_ack(kTsVal + 1));
  wire::Segment syn = peer_syn();
  syn.options.ts_val = kPeerTsVal - 1;
  EXPECT_EQ(opening.receive(syn, at_ms(600)), HandshakeVerdict::kDroppedPaws);
  EXPECT_EQ(opening.poll_one(at_ms(600)).flags, wire::kAck) << "no SYN-ACK";
  wire::Segment reset = peer_reset();
  reset.options = old.options;
  EXPECT_EQ(opening.receive(reset, at_ms(601)), HandshakeVerdict::kReset) << "5.2: resets are exempt";
}

TEST(SynReceived, TimestampsMayWrapAndMayBeLeftOut) {
  wire::Segment syn = peer_syn();
  syn.options.ts_val = 0xfffffffe;
  Opening wraps = syn_received(linux_config(), syn);
  wire::Segment ack = peer_ack();
  ack.options.ts_val = 2;
  EXPECT_EQ(wraps.receive(ack, at_ms(1)), HandshakeVerdict::kCompletedByAck);
  EXPECT_EQ(wraps.state(at_ms(1)).ts_recent, 2U);
  Opening left_out = syn_received();
  ack.options.has_timestamps = false;
  EXPECT_EQ(left_out.receive(ack, at_ms(1)), HandshakeVerdict::kCompletedByAck) << "as Linux";
  EXPECT_EQ(left_out.state(at_ms(1)).ts_recent, kPeerTsVal);
}

TEST(SynReceived, ATimestampOfZeroInTheSynSaysNothing) {
  wire::Segment syn = peer_syn();
  syn.options.ts_val = 0;
  Opening opening = syn_received(linux_config(), syn);
  wire::Segment ack = peer_ack();
  ack.options.ts_val = 0x90000000;  // "older" than 0
  EXPECT_EQ(opening.receive(ack, at_ms(1)), HandshakeVerdict::kCompletedByAck);
}

TEST(SynReceived, AnEchoOfWhatWasNeverSentIsDropped) {
  Opening opening = syn_received();
  opening.poll_one(opening.fire());  // stamps kTsVal and kTsVal + 1000 are out
  EXPECT_EQ(opening.receive(peer_ack(kTsVal - 1), at_ms(1001)), HandshakeVerdict::kDroppedEcho);
  EXPECT_EQ(opening.poll(at_ms(1001)).size(), 1U);
  EXPECT_EQ(opening.receive(peer_ack(kTsVal + 1002), at_ms(1002)), HandshakeVerdict::kDroppedEcho);
  EXPECT_TRUE(opening.poll(at_ms(1002)).empty()) << "limited in rate";
  EXPECT_EQ(opening.receive(peer_ack(0), at_ms(1003)), HandshakeVerdict::kCompletedByAck) << "0 is no echo";
}

TEST(SynReceived, TheStampOfAChallengeMayBeEchoed) {
  Opening opening = syn_received();
  opening.receive(peer_reset(kPeerSeq + 2), at_ms(300));
  EXPECT_EQ(opening.poll_one(at_ms(300)).options.ts_val, kTsVal + 300);
  EXPECT_EQ(opening.receive(peer_ack(kTsVal + 301), at_ms(310)), HandshakeVerdict::kDroppedEcho);
  EXPECT_EQ(opening.receive(peer_ack(kTsVal + 300), at_ms(310)), HandshakeVerdict::kCompletedByAck);
}

// RFC 9293 3.10.7.4 first.
TEST(SynReceived, WhatIsOutsideOfTheWindowDrawsAnAck) {
  Opening opening = syn_received();
  wire::Segment segment = peer_ack();
  segment.seq = Seq(kPeerSeq);
  EXPECT_EQ(opening.receive(segment, at_ms(1)), HandshakeVerdict::kDroppedOutOfWindow);
  EXPECT_EQ(opening.poll_one(at_ms(1)), our_ack(kTsVal + 1));
  segment.seq = Seq(kPeerSeq + 1 + 65160 + 1);
  EXPECT_EQ(opening.receive(segment, at_ms(2)), HandshakeVerdict::kDroppedOutOfWindow);
  EXPECT_TRUE(opening.poll(at_ms(2)).empty()) << "ACKs of ACKs are limited";
  EXPECT_EQ(opening.receive(segment, at_ms(3), 10), HandshakeVerdict::kDroppedOutOfWindow);
  EXPECT_EQ(opening.poll(at_ms(3)).size(), 1U) << "data is not";
  segment.flags |= wire::kFin;
  EXPECT_EQ(opening.receive(segment, at_ms(4)), HandshakeVerdict::kDroppedOutOfWindow);
  EXPECT_EQ(opening.poll(at_ms(4)).size(), 1U) << "nor is a FIN";
}

TEST(SynReceived, TheEdgesOfTheWindowAreIn) {
  struct Case {
    std::uint32_t seq;
    std::uint32_t payload_bytes;
    bool in;
  };
  constexpr std::uint32_t kRight = kPeerSeq + 1 + 65160;
  for (const Case& c : {Case{kPeerSeq + 1, 0, true}, Case{kRight, 0, true}, Case{kRight, 1, false},
                        Case{kRight - 1, 1, true}, Case{kPeerSeq - 9, 11, true}, Case{kPeerSeq - 9, 10, false}}) {
    Opening opening = syn_received();
    wire::Segment segment = peer_ack();
    segment.seq = Seq(c.seq);
    EXPECT_EQ(opening.receive(segment, at_ms(1), c.payload_bytes),
              c.in ? HandshakeVerdict::kCompletedByAck : HandshakeVerdict::kDroppedOutOfWindow)
        << c.seq - kPeerSeq << ' ' << c.payload_bytes;
  }
}

TEST(SynReceived, AClosedWindowTakesAnAck) {
  HandshakeConfig config = linux_config();
  config.receive_space_bytes = 0;
  Opening opening = syn_received(config);
  EXPECT_EQ(opening.receive(peer_ack(), at_ms(1)), HandshakeVerdict::kCompletedByAck);
  EXPECT_EQ(opening.state(at_ms(1)).rcv_wnd, 0U);
}

TEST(SynReceived, WithoutAckItIsDropped) {
  Opening opening = syn_received();
  EXPECT_EQ(opening.receive(with_flags(peer_ack(), wire::kPsh), at_ms(1), 10), HandshakeVerdict::kDroppedNoAck);
  EXPECT_TRUE(opening.poll(at_ms(1)).empty());
}

TEST(SynReceived, DataWithTheAckGoesOnToTheCore) {
  Opening opening = syn_received();
  const wire::Segment ack = peer_ack();
  ASSERT_EQ(opening.receive(ack, at_ms(1), 5), HandshakeVerdict::kCompletedByAck);
  TestEnd end(opening.state(at_ms(1)), at_ms(1));
  EXPECT_EQ(end.receive(ack, "hello", at_ms(1)), Arrival::kAccepted);
  EXPECT_EQ(end.text, "hello");
}

// The ACK and the first data were lost: the rest must not be, nor may its stamp become ts_recent (RFC 7323 4.3).
TEST(SynReceived, DataBeyondAHoleCompletesIt) {
  Opening opening = syn_received();
  wire::Segment ack = peer_ack();
  ack.seq = Seq(kPeerSeq + 1 + 5);
  ack.options.ts_val = kPeerTsVal + 9;
  ASSERT_EQ(opening.receive(ack, at_ms(1), 5), HandshakeVerdict::kCompletedByAck);
  EXPECT_EQ(opening.state(at_ms(1)).ts_recent, kPeerTsVal);
  EXPECT_EQ(opening.state(at_ms(1)).rcv_nxt, kPeerSeq + 1);
  TestEnd end(opening.state(at_ms(1)), at_ms(1));
  EXPECT_EQ(end.receive(ack, "world", at_ms(1)), Arrival::kAccepted);
  ack.seq = Seq(kPeerSeq + 1);
  end.receive(ack, "hello", at_ms(2));
  EXPECT_EQ(end.text, "helloworld");
}

struct Measured {
  std::uint32_t srtt_us;
  std::uint32_t rto_us;
  std::uint32_t cwnd_segments;
};

Measured complete_at(Opening& opening, const wire::Segment& ack, Time now) {
  EXPECT_EQ(opening.receive(ack, now), HandshakeVerdict::kCompletedByAck);
  const MinTcp state = opening.state(now);
  return {state.srtt_us, state.rto_us, state.cwnd_segments};
}

wire::Segment syn_without_stamps() {
  wire::Segment syn = peer_syn();
  syn.options.has_timestamps = false;
  return syn;
}

// RFC 6298 2.2.
TEST(HandshakeEstimates, TheRoundTripOfTheHandshakeIsTheFirstSample) {
  Opening opening = syn_received(linux_config(), syn_without_stamps());
  const Measured got = complete_at(opening, from_peer(kPeerSeq + 1, kOurSeq + 1), at_ms(80));
  EXPECT_EQ(got.srtt_us, 80'000U);
  EXPECT_EQ(got.rto_us, 280'000U);
  EXPECT_EQ(got.cwnd_segments, 10U);
  Opening at_once = syn_received();
  EXPECT_EQ(complete_at(at_once, peer_ack(), at_ms(0)).srtt_us, 1U) << "0 would mean: not measured";
}

// Karn's algorithm; RFC 6298 5.7.
TEST(HandshakeEstimates, WithoutStampsARetransmissionLeavesNoSampleAndThreeSeconds) {
  Opening opening = syn_received(linux_config(), syn_without_stamps());
  opening.poll_one(opening.fire());
  const Measured got = complete_at(opening, from_peer(kPeerSeq + 1, kOurSeq + 1), at_ms(1080));
  EXPECT_EQ(got.srtt_us, 0U);
  EXPECT_EQ(got.rto_us, 3'000'000U);
  EXPECT_EQ(got.cwnd_segments, 10U) << "RFC 6928 2: not for one retransmission";
}

TEST(HandshakeEstimates, ASynAckThatADuplicateSynDrewIsARetransmissionToo) {
  Opening opening = syn_received(linux_config(), syn_without_stamps());
  opening.receive(syn_without_stamps(), at_ms(300));
  opening.poll_one(at_ms(300));
  const Measured got = complete_at(opening, from_peer(kPeerSeq + 1, kOurSeq + 1), at_ms(380));
  EXPECT_EQ(got.srtt_us, 0U);
  EXPECT_EQ(got.rto_us, 1'000'000U) << "no timer expired";
}

TEST(HandshakeEstimates, TheEchoSaysWhichSynAckWasAnswered) {
  Opening opening = syn_received();
  opening.poll_one(opening.fire());
  EXPECT_EQ(complete_at(opening, peer_ack(kTsVal + 1000), at_ms(1080)).srtt_us, 80'000U);
  Opening first = syn_received();
  first.poll_one(first.fire());
  EXPECT_EQ(complete_at(first, peer_ack(kTsVal), at_ms(1080)).srtt_us, 1'080'000U);
}

// RFC 6928 2, Linux tcp_init_transfer().
TEST(HandshakeEstimates, TwoRetransmissionsCutTheWindowUnlessTheyWereSpurious) {
  Opening lost = syn_received();
  lost.poll_one(lost.fire());
  lost.poll_one(lost.fire());
  EXPECT_EQ(complete_at(lost, peer_ack(kTsVal + 3000), at_ms(3050)).cwnd_segments, 1U);
  Opening spurious = syn_received();
  spurious.poll_one(spurious.fire());
  spurious.poll_one(spurious.fire());
  EXPECT_EQ(complete_at(spurious, peer_ack(kTsVal), at_ms(3050)).cwnd_segments, 10U);
}

TEST(SynReceived, AbortTellsThePeer) {
  Opening opening = syn_received();
  const auto reset = abort_handshake(opening.handshake);
  ASSERT_TRUE(reset.has_value());
  EXPECT_EQ(reset->seq, Seq(kOurSeq + 1));
  EXPECT_EQ(reset->ack, Seq(kPeerSeq + 1));
  EXPECT_EQ(reset->flags, wire::kRst | wire::kAck);
  EXPECT_EQ(opening.handshake.state, HandshakeState::kClosed);
}

TEST(SynReceived, UnreachableEndsIt) {
  for (const IcmpError error : {IcmpError::kSoft, IcmpError::kHard}) {
    Opening opening = syn_received();
    EXPECT_EQ(on_icmp_error(opening.handshake, opening.config, error, Seq(kOurSeq + 1)),
              HandshakeVerdict::kDroppedError);
    EXPECT_EQ(on_icmp_error(opening.handshake, opening.config, error, Seq(kOurSeq)), HandshakeVerdict::kUnreachable);
    EXPECT_EQ(opening.handshake.state, HandshakeState::kClosed);
  }
}

}  // namespace
}  // namespace twinstack::tcp::test
