// The end of a connection in the whole machine: FIN both ways, in every order, states of RFC 9293 3.3.2.
#include <gtest/gtest.h>

#include "tcp/cold_state.h"
#include "tcp/test_support.h"

namespace twinstack::tcp::test {
namespace {

struct Whole {
  explicit Whole(std::uint16_t options = kOptSack) : end(state(options), at_ms(0)) {
    run_whole_machine(end.cb);
    end.poll(at_ms(0));
  }
  static MinTcp state(std::uint16_t options) {
    MinTcp out = idle_state();
    out.options = options;
    return out;
  }
  Arrival fin(std::uint32_t seq, std::uint32_t ack, std::string_view text = "") {
    wire::Segment segment = from_peer(seq, ack);
    segment.flags |= wire::kFin;
    return end.receive(segment, text, at_ms(1));
  }
  Arrival ack(std::uint32_t seq, std::uint32_t number) { return end.receive(from_peer(seq, number), "", at_ms(1)); }
  TcpState state() const { return tcp_state(end.cb); }
  TestEnd end;
};

TEST(Closing, ActiveCloseThroughFinWaitToTimeWait) {
  Whole w;
  EXPECT_EQ(w.state(), TcpState::kEstablished);
  on_close(w.end.cb);
  EXPECT_EQ(w.state(), TcpState::kFinWait1);
  const SegmentPlan fin = w.end.poll_one(at_ms(1));
  EXPECT_TRUE(fin.segment.has(wire::kFin));
  EXPECT_EQ(fin.segment.seq, Seq(kOurSeq));
  EXPECT_EQ(fin.payload_bytes, 0U);
  w.ack(kPeerSeq, kOurSeq + 1);
  EXPECT_EQ(w.state(), TcpState::kFinWait2);
  EXPECT_EQ(w.fin(kPeerSeq, kOurSeq + 1), Arrival::kAccepted);
  EXPECT_EQ(w.state(), TcpState::kTimeWait);
  EXPECT_EQ(w.end.poll_one(at_ms(1)).segment.ack, Seq(kPeerSeq + 1));
}

TEST(Closing, PassiveCloseThroughCloseWaitAndLastAck) {
  Whole w;
  EXPECT_EQ(w.fin(kPeerSeq, kOurSeq, "abc"), Arrival::kAccepted);
  EXPECT_EQ(w.end.text, "abc");
  EXPECT_EQ(w.state(), TcpState::kCloseWait);
  w.end.write(10, at_ms(1));  // half closed: ours goes on
  on_close(w.end.cb);
  EXPECT_EQ(w.state(), TcpState::kLastAck);
  const SegmentPlan last = w.end.poll_one(at_ms(1));
  EXPECT_EQ(last.payload_bytes, 10U);
  EXPECT_TRUE(last.segment.has(wire::kFin));
  EXPECT_EQ(last.segment.ack, Seq(kPeerSeq + 4));
  w.ack(kPeerSeq + 4, kOurSeq + 11);
  EXPECT_EQ(w.state(), TcpState::kClosed);
}

TEST(Closing, SimultaneousClose) {
  Whole w;
  on_close(w.end.cb);
  w.end.poll_one(at_ms(1));
  w.fin(kPeerSeq, kOurSeq);
  EXPECT_EQ(w.state(), TcpState::kClosing);
  EXPECT_EQ(w.end.poll_one(at_ms(1)).segment.ack, Seq(kPeerSeq + 1));
  w.ack(kPeerSeq + 1, kOurSeq + 1);
  EXPECT_EQ(w.state(), TcpState::kTimeWait);
}

TEST(Closing, AFinThatComesBeforeItsTextIsRemembered) {
  Whole w;
  EXPECT_EQ(w.fin(kPeerSeq + 3, kOurSeq, "def"), Arrival::kAccepted);
  EXPECT_EQ(w.state(), TcpState::kEstablished);
  w.end.receive(from_peer(kPeerSeq), "abc", at_ms(2));
  EXPECT_EQ(w.end.text, "abcdef");
  EXPECT_EQ(w.state(), TcpState::kCloseWait);
  EXPECT_EQ(w.end.cb.rcv_nxt, Seq(kPeerSeq + 7));
}

TEST(Closing, AFinThatIsHeldIsReported) {
  Whole w;
  w.fin(kPeerSeq + 3, kOurSeq, "def");
  const SegmentPlan ack = w.end.poll_one(at_ms(1));
  ASSERT_EQ(ack.segment.options.sack_count, 1);
  EXPECT_EQ(ack.segment.options.sack[0], (wire::SackBlock{Seq(kPeerSeq + 3), Seq(kPeerSeq + 7)}));
}

TEST(Closing, AFinAloneIsAcknowledgedAtOnceWhenNothingCameBefore) {
  Whole w;
  w.fin(kPeerSeq, kOurSeq);
  EXPECT_EQ(w.end.poll_one(at_ms(1)).segment.ack, Seq(kPeerSeq + 1));
}

TEST(Closing, ARepeatedFinIsReportedAsADuplicate) {
  Whole w;
  w.fin(kPeerSeq, kOurSeq, "abc");
  acknowledge_now(w.end.cb);
  w.end.poll_one(at_ms(1));
  w.fin(kPeerSeq, kOurSeq, "abc");
  const wire::TcpOptions options = w.end.poll_one(at_ms(1)).segment.options;
  ASSERT_EQ(options.sack_count, 1);
  EXPECT_EQ(options.sack[0], (wire::SackBlock{Seq(kPeerSeq), Seq(kPeerSeq + 4)}));
}

// As Linux tcp_fin(): the text that came before is not reported as a duplicate.
TEST(Closing, AFinBehindTextThatHadComeIsNoDuplicate) {
  Whole w;
  EXPECT_EQ(w.end.receive(from_peer(kPeerSeq, kOurSeq), "text", at_ms(1)), Arrival::kAccepted);
  w.end.poll(at_ms(1));
  EXPECT_EQ(w.fin(kPeerSeq, kOurSeq, "text"), Arrival::kAccepted);
  acknowledge_now(w.end.cb);
  const SegmentPlan ack = w.end.poll_one(at_ms(1));
  EXPECT_EQ(ack.segment.ack, Seq(kPeerSeq + 5));
  EXPECT_EQ(ack.segment.options.sack_count, 0);
}

TEST(Closing, ARepeatedFinIsAcknowledgedAgain) {
  Whole w;
  w.fin(kPeerSeq, kOurSeq);
  acknowledge_now(w.end.cb);
  w.end.poll_one(at_ms(1));
  w.fin(kPeerSeq, kOurSeq);
  EXPECT_EQ(w.end.poll_one(at_ms(1)).segment.ack, Seq(kPeerSeq + 1));
  EXPECT_EQ(w.state(), TcpState::kCloseWait);
}

TEST(Closing, TextAfterTheFinIsNotTaken) {
  Whole w;
  w.fin(kPeerSeq, kOurSeq, "abc");
  w.end.receive(from_peer(kPeerSeq + 4), "more", at_ms(2));
  EXPECT_EQ(w.end.text, "abc");
  EXPECT_EQ(w.end.cb.rcv_nxt, Seq(kPeerSeq + 4));
}

TEST(Closing, AResetAtTheExactNumberEndsIt) {
  Whole w;
  wire::Segment reset = from_peer(kPeerSeq + 1);
  reset.flags = wire::kRst;
  EXPECT_EQ(w.end.receive(reset, "", at_ms(1)), Arrival::kDroppedReset);
  reset.seq = Seq(kPeerSeq);
  EXPECT_EQ(w.end.receive(reset, "", at_ms(1)), Arrival::kReset);
}

TEST(Closing, AResetBehindReportedDataEndsItToo) {
  Whole w;
  w.end.receive(from_peer(kPeerSeq + 10), "later", at_ms(1));
  wire::Segment reset = from_peer(kPeerSeq + 14);
  reset.flags = wire::kRst;
  EXPECT_EQ(w.end.receive(reset, "", at_ms(1)), Arrival::kDroppedReset);
  reset.seq = Seq(kPeerSeq + 15);
  EXPECT_EQ(w.end.receive(reset, "", at_ms(1)), Arrival::kReset);
}

// Linux tcp_reset_check(): a peer that aborts right behind its FIN may repeat the number of the FIN.
TEST(Closing, AResetWithTheNumberOfTheFinEndsIt) {
  for (const bool acknowledged : {true, false}) {
    for (const bool closed_here : {true, false}) {
      SCOPED_TRACE(::testing::Message() << acknowledged << closed_here);
      Whole w;
      wire::Segment reset = from_peer(kPeerSeq + 4);
      reset.flags = wire::kRst;
      w.fin(kPeerSeq, kOurSeq, "text");
      if (closed_here) on_close(w.end.cb);
      if (acknowledged) w.end.poll(at_ms(1));
      reset.seq = Seq(kPeerSeq + 3);
      EXPECT_NE(w.end.receive(reset, "", at_ms(1)), Arrival::kReset);
      reset.seq = Seq(kPeerSeq + 4);
      EXPECT_EQ(w.end.receive(reset, "", at_ms(1)), Arrival::kReset);
    }
  }
}

TEST(Closing, AResetBelowWhatWasReceivedEndsNothingWithoutAFin) {
  Whole w;
  w.end.receive(from_peer(kPeerSeq), "text", at_ms(1));
  wire::Segment reset = from_peer(kPeerSeq + 3);
  reset.flags = wire::kRst;
  EXPECT_EQ(w.end.receive(reset, "", at_ms(1)), Arrival::kDroppedReset);
  w.end.poll(at_ms(1));
  EXPECT_EQ(w.end.receive(reset, "", at_ms(1)), Arrival::kDroppedOutOfWindow);
}

TEST(Closing, TheFinIsRetransmitted) {
  Whole w(0);
  w.end.write(5, at_ms(0));
  on_close(w.end.cb);
  const SegmentPlan first = w.end.poll_one(at_ms(0));
  EXPECT_EQ(first.payload_bytes, 5U);
  EXPECT_TRUE(first.segment.has(wire::kFin));
  const Time at = w.end.fire(at_ms(0));
  const SegmentPlan again = w.end.poll_one(at);
  EXPECT_TRUE(again.retransmission);
  EXPECT_EQ(again.payload_bytes, 5U);
  EXPECT_TRUE(again.segment.has(wire::kFin));
}

TEST(Closing, AClosedWindowHoldsTheFinBackUntilItOpens) {
  Whole w;
  w.end.cb.snd_wnd = 0;
  on_close(w.end.cb);
  EXPECT_TRUE(w.end.poll(at_ms(0)).empty());
  EXPECT_EQ(w.end.cb.sender_timer, SenderTimer::kPersist);
  w.ack(kPeerSeq, kOurSeq);
  EXPECT_TRUE(w.end.poll_one(at_ms(1)).segment.has(wire::kFin));
}

TEST(Closing, AFullWindowTakesTheTextAndTheFinFollows) {
  Whole w;
  w.end.cb.snd_wnd = w.end.cb.max_window = 100;
  w.end.write(100, at_ms(0));
  on_close(w.end.cb);
  const SegmentPlan text = w.end.poll_one(at_ms(0));
  EXPECT_FALSE(text.segment.has(wire::kFin));
  w.ack(kPeerSeq, kOurSeq + 100);
  EXPECT_TRUE(w.end.poll_one(at_ms(1)).segment.has(wire::kFin));
}

// Two whole machines end a connection over a bad network.
TEST(Closing, BothEndsComeToTheirEndFromManySeeds) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    MinTcp theirs = Whole::state(rng.below(2) == 0 ? kOptSack : 0);
    MinTcp ours = theirs;
    std::swap(theirs.snd_una, theirs.rcv_nxt);
    theirs.snd_nxt = theirs.write_seq = theirs.snd_una;
    theirs.rcv_wup = theirs.copied_seq = theirs.snd_wl1 = theirs.rcv_nxt;
    TestEnd a(ours, at_ms(0));
    TestEnd b(theirs, at_ms(0));
    b.send_key = 2;
    b.receive_key = 1;
    run_whole_machine(a.cb);
    run_whole_machine(b.cb);
    TestNetwork net(seed, a, b, at_ms(0));
    net.faults = {.loss_ppm = 150'000, .duplicate_ppm = 50'000, .reorder_ppm = 100'000};
    a.write(rng.below(50'000), net.now);
    b.write(rng.below(50'000), net.now);
    on_close(a.cb);
    bool closed = false;
    const auto over = [](const TestEnd& end) {
      return tcp_state(end.cb) == TcpState::kTimeWait || tcp_state(end.cb) == TcpState::kClosed;
    };
    const Time limit = at_ms(600'000);
    while (net.now < limit && !(over(a) && over(b))) {
      a.read_all(net.now);
      b.read_all(net.now);
      if (!closed && rng.below(4) == 0) {
        on_close(b.cb);
        closed = true;
      }
      net.step(std::min(limit, net.now + std::chrono::milliseconds(100)));
      if (HasFatalFailure()) return;
    }
    EXPECT_TRUE(over(a) && over(b)) << static_cast<int>(tcp_state(a.cb)) << ' ' << static_cast<int>(tcp_state(b.cb));
    EXPECT_EQ(a.received, b.written);
    EXPECT_EQ(b.received, a.written);
    EXPECT_EQ(a.wrong_bytes + b.wrong_bytes, 0U);
    if (HasFailure()) return;
  }
}

// What found no memory was followed by the FIN: that is due when the program has made room.
TEST(Closing, AFinBehindWhatFoundNoMemoryIsTakenWithTheRead) {
  Whole w;
  w.fin(kPeerSeq + 4, kOurSeq, "longer text");
  w.end.deliver_limit = 4;
  w.end.receive(from_peer(kPeerSeq), "some", at_ms(1));
  w.end.poll(at_ms(1));
  ASSERT_FALSE(w.end.cb.has(kFinReceived));
  w.end.deliver_limit = ~0U;
  w.end.read_all(at_ms(2));
  EXPECT_TRUE(w.end.cb.has(kFinReceived));
  EXPECT_EQ(tcp_state(w.end.cb), TcpState::kCloseWait);
}

// A peer that sends beyond the end of its own stream.
TEST(Closing, BehindTheEndOfTheStreamThereIsNothing) {
  Whole w;
  w.end.receive(from_peer(kPeerSeq + 4), "beyond", at_ms(1));
  w.fin(kPeerSeq, kOurSeq, "abc");
  EXPECT_TRUE(w.end.cb.has(kFinReceived));
  EXPECT_FALSE(has_out_of_order_data(w.end.cb));
  w.end.read_all(at_ms(2));
  EXPECT_EQ(w.end.text, "abc");
  EXPECT_EQ(w.end.cb.rcv_nxt, Seq(kPeerSeq + 4));
}

}  // namespace
}  // namespace twinstack::tcp::test
