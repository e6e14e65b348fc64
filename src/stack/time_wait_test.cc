// TIME-WAIT: exact replies to everything that may come (Linux's tcp_timewait_state_process()).
#include <sys/socket.h>

#include <cerrno>

#include "stack/test_support.h"

namespace twinstack::stack::test {
namespace {

struct Waiting : ::testing::Test, OneHost {
  SoftStack& s() { return *stack; }
  static wire::Segment stamped(std::uint8_t flags, std::uint32_t seq, std::uint32_t ack, std::uint32_t ts) {
    wire::Segment out = segment(flags, seq, ack);
    out.options.has_timestamps = true;
    out.options.ts_val = ts;
    return out;
  }
  // We closed first; the peer's FIN was 1001, its stamps went up to 700.
  void enter(bool timestamps = false) {
    listener = s().socket(Family::kV4);
    s().bind(listener, {any_v4(), 80});
    s().listen(listener, 8, now);
    const auto make = [&](std::uint8_t flags, std::uint32_t seq, std::uint32_t ack) {
      return timestamps ? stamped(flags, seq, ack, 700) : segment(flags, seq, ack);
    };
    inject(make(wire::kSyn, 1000, 0));
    const Seen answer = take_one();
    iss = answer.segment.seq.raw();
    stamp = answer.segment.options.ts_val;
    inject(make(wire::kAck, 1001, iss + 1));
    s().close(s().accept(listener, nullptr, now), now);
    inject(make(wire::kFin | wire::kAck, 1001, iss + 2));
    EXPECT_EQ(s().time_wait_count(), 1U);
    take();
  }
  void expect_ack() {
    const Seen out = take_one();
    EXPECT_EQ(flags_of(out.segment), ".");
    EXPECT_EQ(out.segment.seq, Seq(iss + 2));
    EXPECT_EQ(out.segment.ack, Seq(1002));
  }
  std::uint32_t stamp = 0;
};

TEST_F(Waiting, ItsFinAgainIsAcknowledgedAndTheTimeBeginsAnew) {
  enter();
  advance(seconds(50));
  inject(segment(wire::kFin | wire::kAck, 1001, iss + 2));
  expect_ack();
  advance(seconds(50));
  EXPECT_EQ(s().time_wait_count(), 1U);
  advance(seconds(11));
  EXPECT_EQ(s().time_wait_count(), 0U);
}

TEST_F(Waiting, OldDataIsAcknowledged) {
  enter();
  inject(segment(wire::kAck, 990, iss + 2), "old");
  expect_ack();
}

TEST_F(Waiting, ABareAckInOrderIsSilent) {
  enter();
  inject(segment(wire::kAck, 1002, iss + 2));
  EXPECT_TRUE(take().empty());
}

TEST_F(Waiting, ABareAckOutOfWindowIsAnsweredTwiceASecondAtMost) {
  enter();
  for (int i = 0; i < 5; ++i) inject(segment(wire::kAck, 900, iss + 2));
  expect_ack();
  advance(milliseconds(500));
  inject(segment(wire::kAck, 900, iss + 2));
  expect_ack();
}

TEST_F(Waiting, AResetKillsItUnlessRfc1337) {
  enter();
  inject(segment(wire::kRst, 1005));
  EXPECT_EQ(s().time_wait_count(), 1U) << "not the exact number";
  inject(segment(wire::kRst, 1002));
  EXPECT_EQ(s().time_wait_count(), 0U);
  EXPECT_TRUE(take().empty());
}

TEST_F(Waiting, Rfc1337IgnoresResets) {
  config.tcp_rfc1337 = true;
  enter();
  inject(segment(wire::kRst, 1002));
  EXPECT_EQ(s().time_wait_count(), 1U);
}

TEST_F(Waiting, ANewerSynBeginsAnew) {
  enter();
  inject(segment(wire::kSyn, 5000));
  const Seen answer = take_one();
  EXPECT_EQ(flags_of(answer.segment), "S.");
  EXPECT_EQ(answer.segment.seq, Seq(iss + 2 + 65537));
  EXPECT_EQ(answer.segment.ack, Seq(5001));
  EXPECT_EQ(s().time_wait_count(), 0U);
  EXPECT_EQ(s().half_open_count(), 1U);
}

TEST_F(Waiting, AnOlderSynIsAnsweredByAnAck) {
  enter();
  inject(segment(wire::kSyn, 900));
  expect_ack();
  EXPECT_EQ(s().time_wait_count(), 1U);
}

TEST_F(Waiting, WithTimestampsTheStampDecides) {
  enter(true);
  inject(stamped(wire::kSyn, 900, 0, 701));
  EXPECT_EQ(flags_of(take_one().segment), "S.") << "an older number, a newer stamp (RFC 6191)";
}

TEST_F(Waiting, ASynWithAnOlderStampIsRefusedWhateverItsNumber) {
  enter(true);
  inject(stamped(wire::kSyn, 5000, 0, 600));
  expect_ack();
  EXPECT_EQ(s().time_wait_count(), 1U);
}

TEST_F(Waiting, AnswersCarryTimestamps) {
  enter(true);
  advance(milliseconds(123));
  inject(stamped(wire::kFin | wire::kAck, 1001, iss + 2, 700));
  const Seen out = take_one();
  EXPECT_EQ(out.segment.options.ts_val, stamp + 123);
  EXPECT_EQ(out.segment.options.ts_ecr, 700U);
}

TEST_F(Waiting, ANewerSynWithoutAListenerIsOnlyAcknowledged) {
  enter();
  s().close(listener, now);
  inject(segment(wire::kSyn, 5000));
  expect_ack();
}

TEST_F(Waiting, TheTableIsBounded) {
  config.tcp_max_tw_buckets = 0;
  listener = s().socket(Family::kV4);
  s().bind(listener, {any_v4(), 80});
  s().listen(listener, 8, now);
  const SocketId id = establish();
  s().close(id, now);
  inject(segment(wire::kFin | wire::kAck, 1001, iss + 2));
  EXPECT_EQ(s().time_wait_count(), 0U);
  EXPECT_EQ(s().stats().time_wait_overflow, 1U);
  EXPECT_EQ(s().socket_count(), 1U);
}

struct FinWait2 : Waiting {
  void enter_fin_wait_2() {
    const SocketId id = establish();
    s().close(id, now);
    inject(segment(wire::kAck, 1001, iss + 2));
    EXPECT_EQ(s().time_wait_count(), 1U);
    take();
  }
};

TEST_F(FinWait2, TheFinLeadsToTimeWait) {
  enter_fin_wait_2();
  advance(seconds(30));
  inject(segment(wire::kFin | wire::kAck, 1001, iss + 2));
  expect_ack();
  advance(seconds(59));
  EXPECT_EQ(s().time_wait_count(), 1U);
}

TEST_F(FinWait2, ADuplicateIsSilent) {
  enter_fin_wait_2();
  inject(segment(wire::kAck, 1001, iss + 2));
  EXPECT_TRUE(take().empty());
}

TEST_F(FinWait2, OutOfWindowDrawsAnAck) {
  enter_fin_wait_2();
  inject(segment(wire::kAck, 900, iss + 2));
  const Seen out = take_one();
  EXPECT_EQ(out.segment.ack, Seq(1001));
}

TEST_F(FinWait2, ASynInTheWindowDrawsAReset) {
  enter_fin_wait_2();
  inject(segment(wire::kSyn, 1500));
  EXPECT_EQ(flags_of(take_one().segment), "R.");
  EXPECT_EQ(s().time_wait_count(), 0U);
}

TEST_F(FinWait2, AResetEndsIt) {
  enter_fin_wait_2();
  inject(segment(wire::kRst, 1001));
  EXPECT_EQ(s().time_wait_count(), 0U);
}

TEST(Reuse, ConnectTakesAFlowOverThatIsASecondOld) {
  for (const bool reuse : {false, true}) {
    TwoHosts net;
    net.configs[0].tcp_tw_reuse = reuse ? 1 : 0;
    const SocketId listener = net.listen();
    const auto bound = [&] {
      const SocketId id = net.client().socket(Family::kV4);
      EXPECT_EQ(net.client().set_option(id, SOL_SOCKET, SO_REUSEADDR, 1, net.now), 0);
      EXPECT_EQ(net.client().bind(id, {v4(1), 4000}), 0);
      return id;
    };
    const SocketId first = bound();
    EXPECT_EQ(net.client().connect(first, {v4(2), 80}, net.now), -EINPROGRESS);
    net.run_for(milliseconds(100));
    const SocketId served = net.server().accept(listener, nullptr, net.now);
    net.client().close(first, net.now);
    net.run_for(milliseconds(50));
    net.server().close(served, net.now);
    net.run_for(milliseconds(500));
    EXPECT_EQ(net.client().time_wait_count(), 1U);
    EXPECT_EQ(net.client().connect(bound(), {v4(2), 80}, net.now), -EADDRNOTAVAIL) << "too soon";
    net.run_for(seconds(2));
    EXPECT_EQ(net.client().connect(bound(), {v4(2), 80}, net.now), reuse ? -EINPROGRESS : -EADDRNOTAVAIL);
    net.run_for(milliseconds(100));
    EXPECT_EQ(net.server().accept(listener, nullptr, net.now) >= 0, reuse);
  }
}

}  // namespace
}  // namespace twinstack::stack::test
