// upload(): the connection returns with all its queues; a failure before the kernel runs it leaves it running in the
// engine; thousands of moves under traffic lose nothing.
#include "handoff/upload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "handoff/lesson.h"
#include "handoff/offload.h"
#include "handoff/park.h"
#include "handoff/test_host.h"

namespace twinstack::handoff {
namespace {

using namespace test;
using engine::CommandOp;
using engine::HwConnId;
using std::chrono::microseconds;
using std::chrono::milliseconds;

class UploadTest : public testing::Test {
 protected:
  // In the engine and parked, with unread bytes, bytes on their way both ways, unsent bytes.
  void SetUp() override {
    ASSERT_TRUE(hosts.move_to_engine().has_value());
    hosts.run(milliseconds(1));
    ASSERT_TRUE(park(hosts.conn, hosts.tools).has_value());
    make_traffic();
  }
  void make_traffic() {
    hosts.program_writes(3000);
    hosts.peer_writes(4000);
    hosts.run(milliseconds(3));
    hosts.peer_writes(5000);
    hosts.run(microseconds(250), false);
    hosts.program_writes(60'000);
    hosts.peer_writes(1000);
    hosts.settle();
  }
  void packets_between_steps(const std::function<Result<>(UploadStep)>& fail = {}) {
    hosts.tools.before_upload_step = [this, fail](UploadStep step) -> Result<> {
      hosts.now += microseconds(60);
      hosts.peer_writes(700);
      hosts.settle();
      return fail ? fail(step) : Result<>{};
    };
  }
  Result<MoveReport> move() {
    auto report = upload(hosts.conn, hosts.tools);
    hosts.tools.before_upload_step = {};
    return report;
  }
  void expect_moved(const Result<MoveReport>& report) {
    ASSERT_TRUE(report.has_value()) << report.error().message();
    EXPECT_EQ(hosts.kernel->expired, 0);
    hosts.forward_strays();
    hosts.expect_in_kernel();
    hosts.program_writes(5000);
    hosts.peer_writes(5000);
    hosts.expect_stream_is_whole();
    hosts.expect_no_packet_lost();
    hosts.expect_in_kernel();
  }
  // It runs in the engine as if nothing had been tried; and the next attempt works.
  void expect_undone() {
    hosts.expect_in_engine();
    hosts.run(milliseconds(5));
    hosts.program_writes(5000);
    hosts.peer_writes(5000);
    hosts.expect_stream_is_whole();
    hosts.expect_in_engine();
    hosts.expect_no_packet_lost();
    expect_moved(move());
  }

  TwoHosts hosts;
};

TEST_F(UploadTest, ReturnsWithItsQueuesInTheMiddleOfTraffic) {
  packets_between_steps();
  const auto report = move();
  ASSERT_TRUE(report.has_value());
  EXPECT_GT(report->unread_bytes, 0U);
  EXPECT_GT(report->unacked_bytes, 0U);
  EXPECT_GT(report->unsent_bytes, 0U);
  EXPECT_GT(report->held_frames, 0U);
  EXPECT_EQ(hosts.conn.shared().tx_acked_bytes.load(), hosts.conn.shared().tx_submitted_bytes.load())
      << "given to the kernel: the chunks are the program's again";
  hosts.settle();
  EXPECT_EQ(hosts.mine.owner_events, 2U);
  expect_moved(report);
}

TEST_F(UploadTest, TheIdIsDeadAfterwards) {
  const HwConnId id = hosts.conn.hw;
  ASSERT_TRUE(move().has_value());
  EXPECT_EQ(hosts.lane->call({.op = CommandOp::kQuery, .id = id}).status, engine::Status::kStaleId);
  EXPECT_EQ(hosts.conn.shared().hw_conn_id.load(), 0U);
}

TEST_F(UploadTest, BeforeItWasParkedItParksFirst) {
  TwoHosts fresh;
  ASSERT_TRUE(fresh.move_to_engine().has_value());
  fresh.program_writes(5000);
  fresh.peer_writes(5000);
  fresh.run(milliseconds(1));
  ASSERT_EQ(fresh.kernel->phase(), kernel::Phase::kFrozen);
  ASSERT_TRUE(upload(fresh.conn, fresh.tools).has_value());
  fresh.expect_in_kernel();
  fresh.expect_stream_is_whole();
}

// ---- A failure injected before each step that can be undone.

// The engine sends on, to a peer that is gone, until it may no longer.
class UploadOfTheSilent : public UploadTest {
 protected:
  void SetUp() override {
    UploadTest::SetUp();
    hosts.run(milliseconds(50));
    hosts.program_writes(3000);
    nic::Link& link = hosts.peer->lane.link();
    const auto& tcb = hosts.lane->conn(hosts.conn.hw).tcb;
    for (int i = 0; i < 100'000 && !tcb.has(tcp::kGaveUp); ++i) {
      hosts.now += milliseconds(100);
      hosts.lane->lane.poll(hosts.now);
      link.advance(hosts.now);
      while (!link.receive(64).empty()) link.release();
    }
    ASSERT_TRUE(tcb.has(tcp::kGaveUp));
  }
};

TEST_F(UploadOfTheSilent, ItComesBackToEnd) {
  const auto report = move();
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(hosts.kernel->expired, 1);
}

TEST_F(UploadOfTheSilent, ButNotWhenThePeerSpeaksInTheLastMoment) {
  packets_between_steps();
  const auto report = move();
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(hosts.kernel->expired, 0);
}

// The last segments under way are lost, and the connection is moved more often than a retransmission timer fires: the
// move must not begin it anew.
TEST_F(UploadTest, ALostTailIsRepairedUnderMoves) {
  hosts.run(milliseconds(50));
  hosts.program_writes(3000);
  hosts.run(microseconds(50), false);
  hosts.now += milliseconds(1);
  nic::Link& link = hosts.peer->lane.link();
  link.advance(hosts.now);
  std::size_t lost = 0;
  for (auto frames = link.receive(64); !frames.empty(); frames = link.receive(64)) {
    lost += frames.size();
    link.release();
  }
  ASSERT_GT(lost, 0U);
  ASSERT_LT(hosts.theirs.received, hosts.mine.written);
  for (int i = 0; i < 10; ++i) {
    hosts.run(milliseconds(50));
    if (i % 2 == 0) {
      ASSERT_TRUE(upload(hosts.conn, hosts.tools).has_value());
      hosts.forward_strays();
    } else {
      ASSERT_TRUE(hosts.move_to_engine().has_value());
      hosts.run(milliseconds(1));
      ASSERT_TRUE(park(hosts.conn, hosts.tools).has_value());
    }
  }
  EXPECT_EQ(hosts.theirs.received, hosts.mine.written);
}

class UploadFailsAt : public UploadTest, public testing::WithParamInterface<UploadStep> {};

TEST_P(UploadFailsAt, TheConnectionGoesOnInTheEngine) {
  packets_between_steps([](UploadStep step) -> Result<> {
    if (step == GetParam()) return error(ErrorCode::kSystem, "injected");
    return {};
  });
  const std::uint64_t told = hosts.mine.owner_events;
  const auto report = move();
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().what, "injected");
  hosts.settle();
  EXPECT_EQ(hosts.mine.owner_events, told + (GetParam() > UploadStep::kOwn ? 1U : 0U));
  expect_undone();
}

// Killed in the middle of a data call: nobody will leave the gate.
TEST_F(UploadTest, AProgramThatDiedInsideACallIsNotWaitedFor) {
  ipc::Owner owner{};
  ASSERT_TRUE(hosts.conn.gate().enter(owner));
  EXPECT_FALSE(move().has_value());
  hosts.conn.program_gone = true;
  EXPECT_TRUE(move().has_value());
}

INSTANTIATE_TEST_SUITE_P(EachStep, UploadFailsAt,
                         testing::Values(UploadStep::kOwn, UploadStep::kPark, UploadStep::kHold, UploadStep::kExtract,
                                         UploadStep::kRestore),
                         [](const auto& tested) { return std::string("upload_") + to_string(tested.param); });

// From here on there is no way back: the release is tried again, the commit cannot fail.
TEST_F(UploadTest, AFailureInjectedAtReleaseGoesOnInTheKernel) {
  packets_between_steps([](UploadStep step) -> Result<> {
    if (step == UploadStep::kRelease || step == UploadStep::kCommit) return error(ErrorCode::kSystem, "too late");
    return {};
  });
  expect_moved(move());
}

// ---- Failures of what the hand-off calls.

TEST_F(UploadTest, FailsAtOwnWhenACallOfTheProgramNeverEnds) {
  packets_between_steps();
  ipc::Owner owner{};
  ASSERT_TRUE(hosts.conn.gate().enter(owner));
  const auto report = move();
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().code, ErrorCode::kTimeout);
  hosts.conn.gate().leave();
  expect_undone();
}

TEST_F(UploadTest, FailsAtParkAndStaysFrozen) {
  TwoHosts fresh;
  ASSERT_TRUE(fresh.move_to_engine().has_value());
  fresh.kernel->fail.park = 1;
  ASSERT_FALSE(upload(fresh.conn, fresh.tools).has_value());
  fresh.expect_in_engine();
  fresh.program_writes(5000);
  fresh.peer_writes(5000);
  fresh.expect_stream_is_whole();
  ASSERT_TRUE(upload(fresh.conn, fresh.tools).has_value());
  fresh.expect_in_kernel();
  fresh.expect_stream_is_whole();
}

TEST_F(UploadTest, FailsAtParkInTheGapAndIsRestoredFromThere) {
  TwoHosts fresh;
  ASSERT_TRUE(fresh.move_to_engine().has_value());
  fresh.kernel->fail.park = 1;
  fresh.kernel->fail.park_leaves = kernel::Phase::kGap;
  ASSERT_FALSE(upload(fresh.conn, fresh.tools).has_value());
  fresh.expect_in_engine();
  fresh.program_writes(5000);
  fresh.peer_writes(5000);
  fresh.expect_stream_is_whole();
  ASSERT_TRUE(upload(fresh.conn, fresh.tools).has_value());
  fresh.expect_in_kernel();
  fresh.expect_stream_is_whole();
}

TEST_F(UploadTest, ARestoreThatFailsOnceIsTriedAgain) {
  packets_between_steps();
  hosts.kernel->fail.restore = 1;
  expect_moved(move());
}

TEST_F(UploadTest, FailsAtRestoreTwice) {
  packets_between_steps();
  hosts.kernel->fail.restore = 2;
  ASSERT_FALSE(move().has_value());
  EXPECT_EQ(hosts.kernel->phase(), kernel::Phase::kGap);
  expect_undone();
}

TEST_F(UploadTest, FailsAtRestoreManyTimes) {
  for (int i = 0; i < 20; ++i) {
    packets_between_steps();
    hosts.kernel->fail.restore = 2;
    ASSERT_FALSE(move().has_value());
    hosts.run(milliseconds(1));
    hosts.program_writes(1000);
  }
  expect_undone();
}

TEST_F(UploadTest, FailsAtExtractWhenTheSendQueueExceedsTheRoom) {
  packets_between_steps();
  const auto whole = hosts.tools.send_room;
  hosts.tools.send_room = whole.first(1000);
  const auto report = move();
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().code, ErrorCode::kNoResource);
  hosts.tools.send_room = whole;
  expect_undone();
}

TEST_F(UploadTest, AReleaseThatFailsOnceIsTriedAgain) {
  packets_between_steps();
  hosts.kernel->fail.release = 1;
  expect_moved(move());
}

// The stream cannot be kept: said so, reset, and nothing is left in the engine.
template <typename Move>
void expect_let_go(TwoHosts& hosts, const Move& move) {
  std::optional<ipc::Owner> owner_at_reset;
  hosts.kernel->on_reset = [&] { owner_at_reset = hosts.owner(); };
  const Result<MoveReport> report = move();
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(owner_at_reset, ipc::Owner::kToKernel) << "before a call of the program can come to the socket";
  EXPECT_EQ(report.error().code, ErrorCode::kBroken);
  EXPECT_FALSE(hosts.conn.hw);
  EXPECT_EQ(hosts.conn.shared().hw_conn_id.load(), 0U);
  EXPECT_EQ(hosts.owner(), ipc::Owner::kKernel);
  EXPECT_EQ(hosts.path->entries(), 0U);
  EXPECT_EQ(hosts.lane->lane.active_connections(), 0U);
  EXPECT_EQ(hosts.lane->lane.free_pieces(), 4096U);
}

TEST_F(UploadTest, AReleaseThatNeverWorksIsBroken) {
  packets_between_steps();
  hosts.kernel->fail.release = 100;
  expect_let_go(hosts, [this] { return move(); });
}

TEST_F(UploadTest, AReleaseThatTakesOnlyPartOfTheUnsentBytesIsBroken) {
  packets_between_steps();
  hosts.kernel->fail.release_takes = 100;
  expect_let_go(hosts, [this] { return move(); });
}

TEST_F(UploadTest, AnErrorOfTheSocketIsReportedForTheProgram) {
  hosts.kernel->fail.release_socket_error = ECONNRESET;
  hosts.kernel->fail.release_takes = 0;
  const auto report = move();
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->socket_error, ECONNRESET);
  EXPECT_FALSE(hosts.conn.hw);
  EXPECT_EQ(hosts.owner(), ipc::Owner::kKernel);
}

TEST_F(UploadTest, PacketsThatCannotBeInjectedAreNotLostAndTheEntryGoes) {
  packets_between_steps();
  hosts.path->fail_inject = 100;
  const auto report = move();
  hosts.path->fail_inject = 0;
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(hosts.path->entries(), 0U);
  expect_moved(report);
}

// They lie in chunks that the program can write.
TEST_F(UploadTest, PacketsThatTheProgramSpoiltAreDroppedAndCounted) {
  packets_between_steps([this](UploadStep step) -> Result<> {
    if (step != UploadStep::kRelease) return {};
    const auto swept = hosts.lane->call({.op = CommandOp::kSweep, .id = hosts.conn.hw});
    EXPECT_GT(swept.held_pieces, 0U);
    const engine::Piece& first = hosts.conn.port->pieces()[swept.held_head];
    std::ranges::fill(hosts.conn.arena->chunk(first.chunk).subspan(first.offset, first.bytes()), std::byte{0xff});
    return {};
  });
  const auto report = move();
  ASSERT_TRUE(report.has_value());
  EXPECT_GT(report->held_frames, 0U);
  EXPECT_EQ(hosts.conn.held_dropped, 1U);
}

TEST_F(UploadTest, WhatBothStacksHaveCountedStandsInTheSlot) {
  const auto base = [&] { return ipc::load_counters(hosts.conn.shared().base); };
  hosts.kernel->past.bytes_acked = 1000;
  hosts.kernel->past.delivered = 7;
  EXPECT_EQ(base().bytes_acked, 0U) << "published by a move only";
  packets_between_steps();  // what arrives until the engine is held is its own
  ASSERT_TRUE(move().has_value());
  const tcp::InfoCounters engine = hosts.conn.engine_counters;
  EXPECT_GT(engine.bytes_acked, 0U);
  EXPECT_EQ(engine.bytes_received, hosts.conn.shared().rx_posted_bytes.load());
  EXPECT_GT(engine.data_segs_out, 0U);
  EXPECT_EQ(base().bytes_acked, 1000 + engine.bytes_acked);
  EXPECT_EQ(base().bytes_received, engine.bytes_received);
  EXPECT_GT(engine.delivered, 0U);
  EXPECT_EQ(base().delivered, 7 + engine.delivered);
  hosts.kernel->past.bytes_acked = 3000;
  hosts.run(milliseconds(5));
  ASSERT_TRUE(hosts.move_to_engine().has_value());
  EXPECT_EQ(base().bytes_acked, 3000 + engine.bytes_acked);
}

// ---- What a restore loses is taught.

TEST_F(UploadTest, TheKernelKnowsRoundTripAndPeersClockAgain) {
  const tcp::ControlBlock& engine = hosts.lane->conn(hosts.conn.hw).tcb;
  const std::uint32_t before_us = engine.srtt_us8 / 8;
  const std::uint32_t ts_recent = engine.ts_recent;
  const Seq una = engine.snd_una;
  ASSERT_GT(before_us, 0U);
  ASSERT_TRUE(move().has_value());
  const tcp::ControlBlock& kernel = hosts.kernel->tcb();
  EXPECT_GE(kernel.srtt_us8 / 8, before_us);
  EXPECT_LE(kernel.srtt_us8 / 8, before_us + 3000);
  EXPECT_LT(kernel.rto_us, 1'000'000U);
  EXPECT_EQ(kernel.ts_recent, ts_recent);
  EXPECT_EQ(kernel.snd_una, una) << "the byte that it was taught with is acknowledged";
  expect_moved(MoveReport{});
}

TEST_F(UploadTest, ALessonThatIsLostIsMissedByNobody) {
  const Seq una = hosts.lane->conn(hosts.conn.hw).tcb.snd_una;
  hosts.path->fail_inject = 1;
  ASSERT_TRUE(move().has_value());
  EXPECT_EQ(hosts.kernel->tcb().snd_una.raw() + 1, una.raw());
  // The next snapshot leaves the byte out.
  ASSERT_TRUE(hosts.move_to_engine().has_value());
  EXPECT_GE(hosts.lane->conn(hosts.conn.hw).tcb.snd_una, una);
  hosts.program_writes(5000);
  hosts.peer_writes(5000);
  hosts.expect_stream_is_whole();
}

// The program may ask by then, and what it would be told would lack a byte: it is told to wait.
TEST_F(UploadTest, TheKernelIsTaughtWhenItOwnsTheConnectionAndThatIsKnown) {
  const auto& due = hosts.conn.shared().lesson_due;
  std::vector<std::pair<ipc::Owner, std::uint32_t>> seen;
  hosts.path->before_inject = [&] { seen.emplace_back(hosts.conn.gate().owner(), due.load()); };
  hosts.tools.before_upload_step = [&](UploadStep) -> Result<> {
    EXPECT_EQ(due.load(), 0U);
    return {};
  };
  expect_moved(move());
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen.front(), std::pair(ipc::Owner::kKernel, 1U));
  EXPECT_EQ(due.load(), 0U);
}

// The window of a SYN is not scaled, that of the packet which teaches is.
TEST(Lesson, IsNotGivenWhereTheWindowWouldLoseMuch) {
  tcp::MinTcp min;
  min.options = tcp::kOptTimestamps | tcp::kOptWindowScale;
  min.srtt_us = 10'000;
  min.snd_wscale = 7;
  for (const auto& [window, taught] : {std::pair{2000U, false}, {2048U, true}, {65535U, true}, {0U, true}}) {
    min.snd_wnd = window;
    EXPECT_EQ(can_be_taught(min), taught) << window;
  }
  min.snd_wscale = 14;
  min.snd_wnd = 65535;
  EXPECT_FALSE(can_be_taught(min));
}

// ---- Peer events end up with the kernel.

TEST_F(UploadTest, AFinOfThePeerIsSeenByTheKernelAfterAllData) {
  hosts.run(milliseconds(5));
  const auto& tcb = hosts.lane->conn(hosts.conn.hw).tcb;
  engine::test::RawPeer raw(*hosts.lane_end, reversed(hosts.flow), tcb.rcv_nxt.raw(), tcb.snd_nxt.raw());
  raw.ts_val = tcb.ts_recent;
  raw.send_frame(raw.frame({}, wire::kAck | wire::kFin));
  hosts.settle();
  const auto events = hosts.lane->events();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].cause, engine::Cause::kPeerFin);
  EXPECT_EQ(hosts.kernel->finished, 0);
  const auto report = move();
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(hosts.kernel->finished, 1);
  EXPECT_EQ(report->held_frames, 1U);
}

// R20: the FIN waits, the engine goes on with newer ACKs until it is drained, and the kernel that comes back knows no
// older one.
TEST_F(UploadTest, AFinThatNewerAcksHaveOvertakenIsSeenByTheKernel) {
  hosts.program_writes(30'000);
  hosts.run(milliseconds(5));
  const auto& tcb = hosts.lane->conn(hosts.conn.hw).tcb;
  engine::test::RawPeer raw(*hosts.lane_end, reversed(hosts.flow), tcb.rcv_nxt.raw(), tcb.snd_nxt.raw());
  raw.ts_val = tcb.ts_recent;
  const Seq before = tcb.snd_una;
  raw.send_frame(raw.frame({}, wire::kAck | wire::kFin));
  hosts.settle();
  hosts.program_writes(20'000);
  hosts.run(milliseconds(5));
  ASSERT_GT(tcb.snd_una, before);
  ASSERT_TRUE(move().has_value());
  EXPECT_EQ(hosts.kernel->finished, 1);
  EXPECT_EQ(hosts.kernel->lost_frames, 0U);
}

// RFC 5961 5.2: what nobody who has seen the connection would send is not made good on the way; nor is an ACK that
// carries nothing else, whose window is as old.
TEST_F(UploadTest, OnlyGoodPacketsThatCarrySomethingGetTheNewestAck) {
  hosts.program_writes(30'000);
  hosts.run(milliseconds(5));
  const auto& tcb = hosts.lane->conn(hosts.conn.hw).tcb;
  const FlowKey from_peer = reversed(hosts.flow);
  engine::test::RawPeer raw(*hosts.lane_end, from_peer, tcb.rcv_nxt.raw(), tcb.snd_una.raw());
  raw.ts_val = tcb.ts_recent;
  const auto with_ack = [&](Seq ack) { return [ack](wire::Segment& segment) { segment.ack = ack; }; };
  const std::vector<std::byte> fin_of_nobody =
      raw.frame({}, wire::kAck | wire::kFin, with_ack(tcb.snd_una - tcb.max_window - 1));
  const std::vector<std::byte> bare = raw.frame({}, wire::kAck, with_ack(tcb.snd_una - 2));
  hosts.tools.before_upload_step = [&](UploadStep step) -> Result<> {
    if (step != UploadStep::kExtract) return {};
    raw.send_frame(fin_of_nobody);
    raw.send_frame(bare);
    hosts.settle();
    return {};
  };
  ASSERT_TRUE(move().has_value());
  EXPECT_EQ(hosts.kernel->lost_frames, 2U);
  EXPECT_EQ(hosts.kernel->finished, 0);
}

// ---- B19, B14, B15, B22: thousands of moves under traffic in both directions.

TEST(Moves, ThousandsOfMovesUnderTrafficKeepTheStream) {
  TwoHosts hosts;
  Rng rng(42);
  std::uint64_t moves = 0;
  std::uint32_t held = 0;
  const auto between = [&] {
    hosts.now += microseconds(rng.below(40));
    if (rng.below(3) == 0) hosts.peer_writes(1 + rng.below(4000));
    hosts.settle();
    return Result<>{};
  };
  hosts.tools.before_offload_step = [&](OffloadStep) { return between(); };
  hosts.tools.before_upload_step = [&](UploadStep) { return between(); };
  for (int i = 0; i < 2000; ++i) {
    hosts.program_writes(1 + rng.below(6000));
    hosts.peer_writes(1 + rng.below(6000));
    hosts.run(microseconds(50 * rng.below(6)), rng.below(4) != 0);
    const auto out = hosts.move_to_engine();
    ASSERT_TRUE(out.has_value()) << out.error().message();
    ++moves;
    hosts.program_writes(1 + rng.below(6000));
    hosts.run(microseconds(50 * rng.below(6)), rng.below(4) != 0);
    if (rng.below(2) == 0) {
      ASSERT_TRUE(park(hosts.conn, hosts.tools).has_value());
    }
    const auto back = upload(hosts.conn, hosts.tools);
    ASSERT_TRUE(back.has_value()) << back.error().message();
    held += back->held_frames;
    ++moves;
  }
  hosts.tools.before_offload_step = {};
  hosts.tools.before_upload_step = {};
  EXPECT_EQ(moves, 4000U);
  EXPECT_GT(held, 100U);
  EXPECT_GE(hosts.kernel->room_made, held);
  hosts.expect_stream_is_whole();
  hosts.expect_no_packet_lost();
  hosts.expect_in_kernel();
  EXPECT_EQ(hosts.kernel->counters.segs_retransmitted, 0U);
  EXPECT_EQ(hosts.kernel->counters.timeouts, 0U);
}

}  // namespace
}  // namespace twinstack::handoff
