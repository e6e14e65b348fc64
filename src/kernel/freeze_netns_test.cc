// What a frozen socket does and does not: its sending, its stamps, what the snapshot takes for sent, the way back.
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "kernel/mover.h"
#include "kernel/sockopt.h"
#include "kernel/tcp_info.h"
#include "wire/seq.h"
#include "wire/tcp_options.h"

namespace twinstack::kernel::testing {
namespace {

using FreezeTest = MoveTest;

// R17: the window is open, and pacing alone has kept the data back.
TEST_F(FreezeTest, AFrozenSocketSendsNothingNew) {
  Mover mover(*bench_);
  make(mover);
  ASSERT_TRUE(ok(mover.conn->check_eligible(mover.limits)));
  const unsigned bytes_per_second = 50'000;
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_MAX_PACING_RATE, &bytes_per_second, sizeof bytes_per_second), 0);
  PatternEnd end(ours(), 0, 1);
  ASSERT_EQ(end.write_some(40'000), 40'000);
  ASSERT_TRUE(ok(mover.conn->attach_late_filter()));
  mover.hold->set(true);
  const auto frozen = mover.conn->freeze({mover.receive_room, mover.send_room});
  ASSERT_TRUE(ok(frozen));
  ASSERT_GT(frozen->unsent.size(), 10'000U);
  ASSERT_GT(frozen->min.snd_wnd, 40'000U);
  pollfd nothing{.fd = ours(), .events = 0, .revents = 0};
  ::poll(&nothing, 1, 500);  // pacing lets half of it go in this time
  const auto late = mover.park(*frozen);
  ASSERT_TRUE(ok(late));
  EXPECT_EQ(late->snd_nxt, frozen->min.snd_nxt);
}

// R17: its loss probe is due within a few milliseconds, its retransmission timer not before 200.
TEST_F(FreezeTest, AFrozenSocketRepeatsNothing) {
  Mover mover(*bench_);
  make(mover);
  ASSERT_TRUE(ok(mover.conn->check_eligible(mover.limits)));
  ASSERT_TRUE(ok(mover.conn->attach_late_filter()));
  PatternEnd end(ours(), 0, 1);
  ASSERT_EQ(end.write_some(14'000), 14'000);  // the initial window: all goes out, and no ACK comes in
  const auto frozen = mover.conn->freeze({mover.receive_room, mover.send_room});
  ASSERT_TRUE(ok(frozen));
  ASSERT_EQ(frozen->unacked.size(), 14'000U);
  pollfd nothing{.fd = ours(), .events = 0, .revents = 0};
  ::poll(&nothing, 1, 100);
  EXPECT_EQ(bench_->counter(Side::kA, "Tcp", "RetransSegs"), 0U);
  ASSERT_TRUE(ok(mover.conn->thaw()));
  mover.inject_late();
  EXPECT_TRUE(Peer(std::move(connection_.theirs), 0, 256U << 10).finish(end.written()));
}

// R19: a socket that paces has sent stamps ahead of its clock, which the peer echoes; the engine must not begin before.
class PacedTest : public FreezeTest {
 protected:
  void set_rate(unsigned bytes_per_second) const {
    ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_MAX_PACING_RATE, &bytes_per_second, sizeof bytes_per_second), 0);
  }
  // The next segment is 140 ms off, and an ACK carries that stamp already.
  void stamp_ahead(Mover& mover, PatternEnd& peer) {
    ASSERT_TRUE(ok(mover.conn->check_eligible(mover.limits)));
    set_rate(100'000);
    PatternEnd end(ours(), 0, 1);
    ASSERT_EQ(end.write_some(14'000), 14'000);
    ASSERT_EQ(peer.write_some(1), 1);
    ASSERT_TRUE(wait_for(ours(), POLLIN));
    const int quick = 1;
    ASSERT_EQ(::setsockopt(ours(), IPPROTO_TCP, TCP_QUICKACK, &quick, sizeof quick), 0);
    ASSERT_TRUE(wait_for(theirs(), POLLIN));
  }
  // The clock of the snapshot lies not behind what the peer has seen, and no more ms ahead than this.
  void expect_no_step_back(Mover& mover, PatternEnd& peer, std::uint32_t at_most) {
    ASSERT_TRUE(ok(mover.conn->attach_late_filter()));
    ASSERT_EQ(peer.write_some(1), 1);
    ASSERT_TRUE(wait_for(bench_->shared.late_filter->poll_fd(), POLLIN));
    const auto frozen = mover.conn->freeze({mover.receive_room, mover.send_room});
    ASSERT_TRUE(ok(frozen));
    wire::TcpOptions options;
    ASSERT_TRUE(ok(bench_->shared.late_filter->poll([&](const LatePacket& packet) {
      const std::size_t header = (static_cast<std::size_t>(packet.tcp[12]) >> 4) * 4;
      ASSERT_TRUE(wire::parse_options(packet.tcp.subspan(20, header - 20), options));
    })));
    ASSERT_TRUE(options.has_timestamps);
    EXPECT_GE(Seq(frozen->min.ts_val), Seq(options.ts_ecr));
    EXPECT_LE(frozen->min.ts_val - options.ts_ecr, at_most);
  }
};

TEST_F(PacedTest, TheTimestampClockDoesNotGoBack) {
  Mover mover(*bench_);
  make(mover);
  PatternEnd peer(theirs(), 1, 0);
  stamp_ahead(mover, peer);
  expect_no_step_back(mover, peer, 300);
}

// What TCP_INFO tells then lets nobody guess it (bbr's rate grows by much within one short round trip).
TEST_F(PacedTest, TheTimestampClockDoesNotGoBackWhenTheRateHasGrown) {
  Mover mover(*bench_);
  make(mover);
  PatternEnd peer(theirs(), 1, 0);
  stamp_ahead(mover, peer);
  set_rate(1'000'000'000);
  expect_no_step_back(mover, peer, 300);
}

TEST_F(PacedTest, WhatIsHeldBackForTooLongIsRefusedAndUnharmed) {
  Mover mover(*bench_);
  make(mover);
  ASSERT_TRUE(ok(mover.conn->check_eligible(mover.limits)));
  set_rate(300);
  PatternEnd end(ours(), 0, 1);
  ASSERT_EQ(end.write_some(14'000), 14'000);
  ASSERT_TRUE(wait_for(theirs(), POLLIN));
  ASSERT_TRUE(ok(mover.conn->attach_late_filter()));
  const auto frozen = mover.conn->freeze({mover.receive_room, mover.send_room});
  ASSERT_FALSE(frozen.has_value());
  EXPECT_EQ(frozen.error().code, ErrorCode::kNotEligible);
  EXPECT_EQ(mover.conn->phase(), Phase::kRunning);
  mover.inject_late();
  EXPECT_TRUE(Peer(std::move(connection_.theirs), 0, 256U << 10).finish(end.written()));
}

TEST_F(PacedTest, WithoutTheHookTheLeadIsEstimated) {
  bench_->shared.congestion = nullptr;
  Mover mover(*bench_);
  make(mover);
  PatternEnd peer(theirs(), 1, 0);
  stamp_ahead(mover, peer);
  expect_no_step_back(mover, peer, 10'000);
}

// A3: its pacing comes due while the send queue is read, and the kernel takes for sent what it has not: likely in each
// round.
TEST_F(PacedTest, WhatIsOnlyMarkedAsSentIsUnsent) {
  constexpr int kRounds = 10;
  constexpr std::size_t kBytes = 6U << 20;
  Mover mover(*bench_);
  make(mover);
  int rounds_with_marked = 0;
  for (int round = 0; round < kRounds; ++round) {
    auto connected = bench_->connect(Family::kV4, true);
    ASSERT_TRUE(ok(connected));
    connection_ = std::move(*connected);
    auto taken = bench_->take(ours());
    ASSERT_TRUE(ok(taken));
    mover.conn = std::move(*taken);
    ASSERT_TRUE(ok(mover.conn->check_eligible(mover.limits)));
    const int room = 16 << 20;
    ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room), 0);
    ASSERT_EQ(::setsockopt(theirs(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room), 0);
    set_rate(100'000'000);
    PatternEnd end(ours(), 0, 1);
    while (end.written() < kBytes) ASSERT_GT(end.write_some(kBytes - end.written()), 0);
    ASSERT_TRUE(ok(mover.conn->attach_late_filter()));
    const auto frozen = mover.conn->freeze({mover.receive_room, mover.send_room});
    ASSERT_TRUE(ok(frozen));
    ASSERT_GT(frozen->unsent.size(), 1U << 20);
    const auto said_to_be_unsent = queue_bytes(ours(), SIOCOUTQNSD, "SIOCOUTQNSD");
    ASSERT_TRUE(ok(said_to_be_unsent));
    if (*said_to_be_unsent != frozen->unsent.size()) ++rounds_with_marked;
    pollfd nothing{.fd = ours(), .events = 0, .revents = 0};
    ::poll(&nothing, 1, 20);
    const auto arrived = read_tcp_info(theirs());
    ASSERT_TRUE(ok(arrived));
    EXPECT_EQ(frozen->unsent.size(), end.written() - arrived->tcpi_bytes_received);
    const auto late = mover.conn->park(mover.receive_room);
    ASSERT_TRUE(ok(late));
    EXPECT_EQ(late->snd_nxt, frozen->min.snd_nxt);
    mover.conn->reset();
  }
  EXPECT_GT(rounds_with_marked, 0);
}

// R10: the kernel measures anew after a return. What was known before is not forgotten for that.
TEST_F(FreezeTest, RoundTripTimesAreRememberedUntilTheKernelHasMeasured) {
  Mover mover(*bench_);
  make(mover);
  auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  const auto late = mover.park(*frozen);
  ASSERT_TRUE(ok(late));
  frozen->min.srtt_us = 41'000;
  frozen->min.rttvar_us = 7'000;
  frozen->min.rto_us = 241'000;
  ASSERT_TRUE(ok(mover.back(*frozen, *late, false)));
  const auto again = mover.freeze();
  ASSERT_TRUE(ok(again));
  EXPECT_EQ(again->min.srtt_us, 41'000U);
  EXPECT_EQ(again->min.rttvar_us, 7'000U);
  EXPECT_EQ(again->min.rto_us, 241'000U);
  mover.conn->reset();
}

// A freeze that is undone: the kernel goes on with what it has not sent, although no ACK comes for it.
TEST_F(FreezeTest, AThawedSocketGoesOnSending) {
  Mover mover(*bench_);
  make(mover);
  PatternEnd end(ours(), 0, 1);
  end.fill();
  auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  ASSERT_GT(frozen->unsent.size(), 50'000U);
  ASSERT_TRUE(ok(mover.conn->thaw()));
  mover.inject_late();
  Peer peer(std::move(connection_.theirs), 0, 256U << 10);
  EXPECT_TRUE(peer.finish(end.written()));
  EXPECT_EQ(peer.wrong(), 0U);
}

}  // namespace
}  // namespace twinstack::kernel::testing
