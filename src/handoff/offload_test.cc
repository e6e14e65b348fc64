// offload(): what it does, and that a failure at any step leaves the connection running in the kernel as if nothing had
// been tried: same owner, no slot, no chunk, no map entry, no packet lost, data flows on.
#include "handoff/offload.h"
#include "handoff/park.h"

#include <gtest/gtest.h>

#include <thread>
#include <utility>

#include "handoff/inject.h"
#include "handoff/test_host.h"
#include "handoff/upload.h"

namespace twinstack::handoff {
namespace {

using namespace test;
using engine::CommandOp;
using engine::HwConnId;
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr OffloadStep kSteps[] = {OffloadStep::kReserve, OffloadStep::kOwn,   OffloadStep::kCheck,
                                  OffloadStep::kFilter,  OffloadStep::kSteer, OffloadStep::kFreeze,
                                  OffloadStep::kInstall, OffloadStep::kCommit};

class OffloadTest : public testing::Test {
 protected:
  // Traffic in the kernel: unread bytes, bytes on their way in both directions, unsent bytes.
  void make_traffic() {
    hosts.program_writes(3000);
    hosts.peer_writes(4000);
    hosts.run(milliseconds(3));
    hosts.peer_writes(5000);
    hosts.run(microseconds(250), false);
    hosts.program_writes(80'000);  // more than the congestion window
    hosts.peer_writes(1000);
    ASSERT_GT(hosts.kernel->unread_bytes(), 0U);
    ASSERT_GT(hosts.kernel->send_queue_bytes(), 0U);
  }
  // Packets come in between all steps, through whatever stands in their way by then; `fail` ends the move.
  void packets_between_steps(const std::function<Result<>(OffloadStep)>& fail = {}) {
    hosts.tools.before_offload_step = [this, fail](OffloadStep step) -> Result<> {
      hosts.now += microseconds(60);
      hosts.peer_writes(700);
      hosts.settle();
      return fail ? fail(step) : Result<>{};
    };
  }
  Result<MoveReport> move() {
    auto report = hosts.move_to_engine();
    hosts.tools.before_offload_step = {};
    return report;
  }
  // The engine takes bytes for unsent that the frozen kernel sends (R17).
  void move_while_the_kernel_sends() {
    hosts.program_writes(3000);
    hosts.run(milliseconds(3));
    hosts.kernel->opens_after_snapshot = true;
    hosts.program_writes(30'000);
    ASSERT_TRUE(move().has_value());
  }
  // As if nothing had been tried; and the next attempt works.
  void expect_undone() {
    hosts.forward_strays();
    hosts.expect_in_kernel();
    hosts.run(milliseconds(5));
    hosts.program_writes(5000);
    hosts.peer_writes(5000);
    hosts.expect_stream_is_whole();
    hosts.expect_no_packet_lost();
    ASSERT_TRUE(move().has_value());
    hosts.program_writes(5000);
    hosts.peer_writes(5000);
    hosts.expect_stream_is_whole();
    hosts.expect_in_engine();
  }

  TwoHosts hosts;
};

TEST_F(OffloadTest, MovesAConnectionWithItsQueuesInTheMiddleOfTraffic) {
  make_traffic();
  packets_between_steps();
  const auto report = move();
  ASSERT_TRUE(report.has_value()) << report.error().message();
  EXPECT_GT(report->unread_bytes, 0U);
  EXPECT_GT(report->unacked_bytes, 0U);
  EXPECT_GT(report->unsent_bytes, 0U);
  hosts.expect_in_engine();
  EXPECT_EQ(hosts.kernel->phase(), kernel::Phase::kFrozen);
  hosts.settle();
  EXPECT_EQ(hosts.mine.owner_events, 1U);
  hosts.program_writes(10'000);
  hosts.peer_writes(10'000);
  hosts.expect_stream_is_whole();
  hosts.expect_no_packet_lost();
}

// B5 to B8: both sides learn each other's identifiers, and each resolves the others.
TEST_F(OffloadTest, TheIdentifiersAreExchanged) {
  ASSERT_TRUE(move().has_value());
  const HwConnId id = hosts.conn.hw;
  EXPECT_EQ(hosts.conn.shared().hw_conn_id.load(), id.raw()) << "B5";
  const engine::HwConnRecord& record = hosts.lane->port.record(id);
  EXPECT_EQ(record.slot, hosts.conn.slot) << "B6";
  EXPECT_EQ(record.tag, hosts.conn.tag);
  EXPECT_EQ(record.kernel_cookie, hosts.kernel->cookie());
  EXPECT_EQ(record.flow, hosts.flow);
  const engine::Reply reply = hosts.lane->call({.op = CommandOp::kQuery, .id = id});
  ASSERT_EQ(reply.status, engine::Status::kOk) << "B7";
  EXPECT_EQ(reply.state.hw_conn_id, id.raw());
  EXPECT_EQ(hosts.lane->conn(id).session, hosts.conn.session) << "B8";
}

TEST_F(OffloadTest, TheProgramReadsTheKernelsBytesBeforeTheEngines) {
  hosts.peer_writes(4000);
  hosts.run(milliseconds(1), false);
  ASSERT_EQ(hosts.kernel->unread_bytes(), 4000U);
  ASSERT_TRUE(move().has_value());
  hosts.peer_writes(4000);
  hosts.run(milliseconds(2), false);
  hosts.program_reads(6000);
  EXPECT_EQ(hosts.mine.received, 6000U);
  hosts.expect_stream_is_whole();
}

// ---- A failure injected before each step.

class OffloadFailsAt : public OffloadTest, public testing::WithParamInterface<OffloadStep> {};

TEST_P(OffloadFailsAt, TheConnectionGoesOnInTheKernel) {
  make_traffic();
  packets_between_steps([](OffloadStep step) -> Result<> {
    if (step == GetParam()) return error(ErrorCode::kSystem, "injected");
    return {};
  });
  const auto report = move();
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().what, "injected");
  // Whoever looked meanwhile took the kernel for silent.
  hosts.settle();
  EXPECT_EQ(hosts.mine.owner_events, GetParam() > OffloadStep::kOwn ? 1U : 0U);
  expect_undone();
}

INSTANTIATE_TEST_SUITE_P(EachStep, OffloadFailsAt, testing::ValuesIn(kSteps),
                         [](const auto& tested) { return std::string("offload_") + to_string(tested.param); });

// ---- Failures of what the hand-off calls.

TEST_F(OffloadTest, FailsAtReserveWhenTheTableIsFull) {
  std::vector<HwConnId> others;
  for (std::uint32_t i = 0; i < 64; ++i)
    others.push_back(
        engine::test::reserve(*hosts.lane, hosts.program, hosts.mine, engine::test::flow_number(100 + i), 0).id);
  make_traffic();
  packets_between_steps();
  const auto report = move();
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().code, ErrorCode::kNoResource);
  for (const HwConnId id : others) hosts.lane->call({.op = CommandOp::kRelease, .id = id});
  expect_undone();
}

TEST_F(OffloadTest, FailsAtOwnWhenACallOfTheProgramNeverEnds) {
  make_traffic();
  packets_between_steps();
  ipc::Owner owner{};
  ASSERT_TRUE(hosts.conn.gate().enter(owner));
  const auto report = move();
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().code, ErrorCode::kTimeout);
  EXPECT_EQ(hosts.owner(), ipc::Owner::kKernel);
  hosts.conn.gate().leave();
  expect_undone();
}

// Before anything is stopped: nobody has to look again.
TEST_F(OffloadTest, TheCheckRefusesWhatIsNotEligible) {
  make_traffic();
  packets_between_steps();
  hosts.kernel->fail.check = 1;
  const auto report = move();
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().code, ErrorCode::kNotEligible);
  hosts.settle();
  EXPECT_EQ(hosts.mine.owner_events, 0U);
  expect_undone();
}

// The check is not made again while the program is held: what the program sets before that must not be missed.
TEST_F(OffloadTest, FailsAtCheckWhenAnOptionWasSetSinceTheCheck) {
  for (const OffloadStep last : {OffloadStep::kReserve, OffloadStep::kOwn}) {
    packets_between_steps([&](OffloadStep step) -> Result<> {
      if (step == last) hosts.program_sets_option();
      return {};
    });
    const auto report = move();
    ASSERT_FALSE(report.has_value()) << to_string(last);
    EXPECT_EQ(report.error().code, ErrorCode::kNotEligible);
    EXPECT_TRUE(hosts.conn.options_changed());
    hosts.settle();
    hosts.expect_in_kernel();
  }
  expect_undone();
}

// A call that has entered before the gate was closed sets its option while the move waits for it.
TEST_F(OffloadTest, FailsAtCheckWhenACallInsideSetsAnOption) {
  ipc::Owner owner{};
  ASSERT_TRUE(hosts.conn.gate().enter(owner));
  std::thread program;
  hosts.tools.call_deadline = std::chrono::seconds(10);
  hosts.tools.before_offload_step = [&](OffloadStep step) -> Result<> {
    if (step != OffloadStep::kOwn) return {};
    program = std::thread([this] {
      while (hosts.owner() == ipc::Owner::kKernel) std::this_thread::yield();
      hosts.conn.shared().option_changes.fetch_add(1);
      hosts.conn.gate().leave();
    });
    return {};
  };
  const auto report = move();
  program.join();
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().code, ErrorCode::kNotEligible);
  expect_undone();
}

TEST_F(OffloadTest, OptionsSetBeforeTheCheckHinderNothing) {
  hosts.program_sets_option();
  ASSERT_TRUE(move().has_value());
  hosts.expect_in_engine();
}

TEST_F(OffloadTest, FailsAtFilterWhenTheKernelRefusesIt) {
  make_traffic();
  packets_between_steps();
  hosts.kernel->fail.attach = 1;
  ASSERT_FALSE(move().has_value());
  expect_undone();
}

TEST_F(OffloadTest, FailsAtSteerWhenTheMapIsFull) {
  make_traffic();
  packets_between_steps();
  hosts.path->fail_steer = 1;
  const auto report = move();
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().code, ErrorCode::kNoResource);
  expect_undone();
}

TEST_F(OffloadTest, FailsAtFreezeWhenSomethingCameUp) {
  make_traffic();
  packets_between_steps();
  hosts.kernel->fail.freeze = 1;
  const auto report = move();
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().code, ErrorCode::kNotEligible);
  expect_undone();
}

TEST_F(OffloadTest, FailsAtInstallWhenTheEngineDoesNotDoIt) {
  make_traffic();
  packets_between_steps();
  hosts.kernel->drop_option = 0x8000;
  ASSERT_FALSE(move().has_value());
  hosts.kernel->drop_option = 0;
  expect_undone();
}

TEST_F(OffloadTest, FailsAtInstallWithoutANextHop) {
  make_traffic();
  packets_between_steps();
  hosts.conn.hop_index = 17;
  ASSERT_FALSE(move().has_value());
  hosts.conn.hop_index = 0;
  expect_undone();
}

TEST_F(OffloadTest, ASocketThatCannotBePutBackIsSeenByNobody) {
  make_traffic();
  hosts.conn.hop_index = 17;
  hosts.kernel->fail.thaw = 1;
  ASSERT_FALSE(move().has_value());
  EXPECT_FALSE(hosts.kernel->is_untouched());
  EXPECT_EQ(hosts.owner(), ipc::Owner::kToEngine);
}

// Enough chunks for the reservation, too few for the queues.
TEST(OffloadChunks, FailsAtInstallWhenTheChunksAreUsedUp) {
  ipc::ArenaConfig config = TwoHosts::default_arena();
  config.rx_chunk_count = 6;
  config.chunk_bytes = 2048;
  TwoHosts hosts(config);
  hosts.program_writes(40'000);
  const auto report = hosts.move_to_engine();
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().code, ErrorCode::kNoResource);
  hosts.expect_in_kernel();
  hosts.expect_stream_is_whole();
  hosts.expect_no_packet_lost();
}

// S8: the peer has acknowledged a part of a segment, which the kernel keeps whole.
TEST_F(OffloadTest, BytesAcknowledgedBeforeTheQueueAreNotSentAgain) {
  make_traffic();
  hosts.kernel->stale_bytes = 700;
  ASSERT_GT(hosts.kernel->send_queue_bytes(), 0U);
  ASSERT_TRUE(move().has_value());
  hosts.program_writes(5000);
  hosts.expect_stream_is_whole();
}

// More than one command has chunks for, and one that carries of both.
TEST(OffloadChunks, LongQueuesTravelInSeveralCommands) {
  ipc::ArenaConfig config = TwoHosts::default_arena();
  config.chunk_bytes = 2048;
  config.rx_chunk_count = 1024;
  TwoHosts hosts(config);
  hosts.program_writes(450'000);
  hosts.peer_writes(250'000);
  hosts.run(milliseconds(5), false);
  const std::size_t most = std::size_t{engine::kMaxCommandChunks} * config.chunk_bytes;
  ASSERT_GT(hosts.kernel->unread_bytes(), 100'000U);
  ASSERT_LT(hosts.kernel->unread_bytes(), most);
  ASSERT_GT(hosts.kernel->send_queue_bytes(), most);
  const auto report = hosts.move_to_engine();
  ASSERT_TRUE(report.has_value()) << report.error().message();
  EXPECT_GT(report->unread_bytes, 100'000U);
  EXPECT_GT(report->unacked_bytes + report->unsent_bytes, most);
  hosts.expect_in_engine();
  hosts.expect_stream_is_whole();
  hosts.expect_no_packet_lost();
}

// A host with too few chunks for 450 KB, and the step that was tried last.
struct FewChunks {
  static constexpr std::uint32_t kChunks = engine::kMaxCommandChunks + 20;
  static ipc::ArenaConfig config() {
    ipc::ArenaConfig config = TwoHosts::default_arena();
    config.chunk_bytes = 2048;
    config.rx_chunk_count = kChunks;
    return config;
  }
  FewChunks() {
    hosts.tools.before_offload_step = [this](OffloadStep step) -> Result<> {
      last = step;
      return {};
    };
  }
  void expect_refused(const Result<MoveReport>& report, OffloadStep at) {
    ASSERT_FALSE(report.has_value());
    EXPECT_EQ(report.error().code, ErrorCode::kNoResource);
    EXPECT_EQ(last, at);
    EXPECT_EQ(hosts.lane->lane.free_chunks(hosts.program.session()), kChunks);
    hosts.expect_in_kernel();
    hosts.expect_stream_is_whole();
    hosts.expect_no_packet_lost();
  }

  TwoHosts hosts{config()};
  OffloadStep last{};
};

// The check saw less than what the freeze finds. Some are loaded already: they come back with the reservation.
TEST(OffloadChunks, FailsAtInstallWhenTheChunksAreUsedUpMidway) {
  FewChunks few;
  ASSERT_TRUE(check(few.hosts.conn, few.hosts.tools).has_value());
  few.hosts.program_writes(450'000);
  few.expect_refused(offload(few.hosts.conn, few.hosts.tools), OffloadStep::kInstall);
}

TEST(OffloadChunks, TooFewOfThemAreSeenBeforeAnythingIsStopped) {
  FewChunks few;
  few.hosts.program_writes(450'000);
  few.expect_refused(few.hosts.move_to_engine(), OffloadStep::kReserve);
}

// The engine's timestamps go on from the kernel's clock, however long the queues took.
TEST_F(OffloadTest, TheClockGoesOnWhileQueuesAreCopied) {
  make_traffic();
  hosts.tools.before_offload_step = [&](OffloadStep step) -> Result<> {
    if (step == OffloadStep::kInstall) hosts.now += milliseconds(25);
    return {};
  };
  const Time before = hosts.now;
  tcp::MinTcp kernels;
  tcp::extract(hosts.kernel->tcb(), before, kernels);
  ASSERT_TRUE(move().has_value());
  const auto engines = hosts.lane->call({.op = engine::CommandOp::kQuery, .id = hosts.conn.hw}).state.min;
  EXPECT_GE(Seq(engines.ts_val), Seq(kernels.ts_val) + 25);
}

// The packets of a failed move cannot be injected at once: they are not lost, the driver forwards them.
TEST_F(OffloadTest, UndoWhoseInjectionFailsLosesNoPacket) {
  make_traffic();
  packets_between_steps();
  hosts.kernel->drop_option = 0x8000;
  hosts.path->fail_inject = 10;
  ASSERT_FALSE(move().has_value());
  hosts.path->fail_inject = 0;
  hosts.kernel->drop_option = 0;
  expect_undone();
}

// ---- Parking.

TEST_F(OffloadTest, ParkGivesBytesThatTheKernelTookLateToTheEngine) {
  make_traffic();
  ASSERT_TRUE(move().has_value());
  // A packet was past the filter: the kernel acknowledged bytes that the engine never saw. The peer has dropped them.
  hosts.run(milliseconds(3));
  hosts.program_reads();
  ASSERT_EQ(hosts.mine.received, hosts.theirs.written);
  const auto late = engine::test::stream_bytes(hosts.mine.receive_key, hosts.theirs.written, 50'000);
  hosts.kernel->taken_after_snapshot = late;
  // The test's kernel froze at an older rcv_nxt: bytes that the engine has are cut off by their sequence numbers.
  const auto already =
      static_cast<std::uint32_t>(hosts.lane->conn(hosts.conn.hw).tcb.rcv_nxt - hosts.kernel->tcb().rcv_nxt);
  Bytes all = engine::test::stream_bytes(hosts.mine.receive_key, hosts.mine.received - already, already);
  all.insert(all.end(), late.begin(), late.end());
  hosts.kernel->taken_after_snapshot = all;
  ASSERT_TRUE(park(hosts.conn, hosts.tools).has_value());
  EXPECT_EQ(hosts.kernel->phase(), kernel::Phase::kParked);
  hosts.settle();
  hosts.program_reads();
  EXPECT_EQ(hosts.mine.received, hosts.theirs.written + 50'000);
  EXPECT_EQ(hosts.program.wrong_pieces, 0U);
  hosts.settle();
  EXPECT_EQ(hosts.lane->lane.free_chunks(hosts.program.session()), 256U);
}

// Other connections of the program hold all but so many.
void leave_chunks(TwoHosts& two, std::uint32_t count) {
  while (two.lane->lane.free_chunks(two.program.session()) > count) {
    const std::uint32_t more = two.lane->lane.free_chunks(two.program.session()) - count;
    ASSERT_TRUE(two.conn.port
                    ->request({.op = engine::CommandOp::kGetChunks,
                               .session = two.conn.session,
                               .chunk_count = std::min<std::uint32_t>(more, engine::kMaxCommandChunks)})
                    .has_value());
  }
}

// The kernel has acknowledged it, and the peer will not send it again: it is kept for the kernel, however little memory
// there is.
TEST_F(OffloadTest, AFinThatTheKernelTookLateComesBackToIt) {
  struct Case {
    std::uint32_t late_bytes;
    std::uint32_t free_chunks;
  };
  for (const Case& one : {Case{0, 8}, Case{900, 8}, Case{0, 1}, Case{0, 0}}) {
    TwoHosts two;
    two.peer_writes(3000);
    two.run(milliseconds(5));
    two.program_reads();
    ASSERT_TRUE(two.move_to_engine().has_value());
    two.kernel->taken_after_snapshot =
        engine::test::stream_bytes(two.mine.receive_key, two.theirs.written, one.late_bytes);
    two.kernel->fin_after_snapshot = true;
    leave_chunks(two, one.free_chunks);
    ASSERT_TRUE(park(two.conn, two.tools).has_value());
    EXPECT_EQ(two.conn.acknowledged_fin, two.lane->conn(two.conn.hw).tcb.rcv_nxt);
    two.settle();
    two.program_reads();
    EXPECT_EQ(two.mine.received, 3000 + one.late_bytes);
    ASSERT_TRUE(upload(two.conn, two.tools).has_value());
    EXPECT_EQ(two.kernel->finished, 1) << one.late_bytes << " bytes, " << one.free_chunks << " chunks";
    EXPECT_FALSE(two.conn.acknowledged_fin);
  }
}

// A program that is not told of it would wait for ever.
TEST_F(OffloadTest, AFinThatTheKernelDoesNotTakeBackEndsTheConnection) {
  ASSERT_TRUE(hosts.move_to_engine().has_value());
  hosts.kernel->fin_after_snapshot = true;
  ASSERT_TRUE(park(hosts.conn, hosts.tools).has_value());
  hosts.path->fail_inject = 100;
  int resets = 0;
  hosts.kernel->on_reset = [&] { ++resets; };
  const auto returned = upload(hosts.conn, hosts.tools);
  ASSERT_FALSE(returned.has_value());
  EXPECT_EQ(returned.error().code, ErrorCode::kBroken);
  EXPECT_EQ(resets, 1);
  EXPECT_FALSE(hosts.conn.hw);
}

// R16: the frozen kernel has sent data that the engine takes for unsent, and the peer acknowledges it.
TEST_F(OffloadTest, WhatTheKernelSendsAfterTheSnapshotMayBeAcknowledged) {
  move_while_the_kernel_sends();
  const tcp::ControlBlock& tcb = hosts.lane->conn(hosts.conn.hw).tcb;
  ASSERT_GT(hosts.kernel->tcb().snd_nxt, tcb.snd_nxt);
  hosts.run(milliseconds(3));
  EXPECT_EQ(hosts.theirs.received, 33'000U);
  ASSERT_TRUE(park(hosts.conn, hosts.tools).has_value());
  hosts.program_writes(5000);
  hosts.expect_stream_is_whole();
}

// The same, and the peer has not answered yet when the kernel is parked: the engine waits for the answer.
TEST_F(OffloadTest, ParkTellsTheEngineWhatTheKernelHasSent) {
  move_while_the_kernel_sends();
  const tcp::ControlBlock& tcb = hosts.lane->conn(hosts.conn.hw).tcb;
  const Seq sent = hosts.kernel->tcb().snd_nxt;
  ASSERT_TRUE(park(hosts.conn, hosts.tools).has_value());
  EXPECT_EQ(tcb.snd_nxt, sent);
  EXPECT_EQ(tcb.sender_timer, tcp::SenderTimer::kRetransmit);
  EXPECT_FALSE(tcb.has(tcp::kOtherStackSends));
  hosts.expect_stream_is_whole();
}

TEST_F(OffloadTest, AFrameThatTheEngineRefusesKeepsNoChunk) {
  make_traffic();
  ASSERT_TRUE(move().has_value());
  const std::uint32_t before = hosts.lane->lane.free_chunks(hosts.program.session());
  ASSERT_GT(before, 0U);
  const Bytes too_long(65536 + 18);
  EXPECT_FALSE(inject_frame(hosts.conn, too_long).has_value());
  EXPECT_EQ(hosts.lane->lane.free_chunks(hosts.program.session()), before);
  const engine::HwConnId served = std::exchange(hosts.conn.hw, engine::HwConnId());
  EXPECT_FALSE(inject_frame(hosts.conn, Bytes(100)).has_value()) << "a connection that is not there";
  hosts.conn.hw = served;
  EXPECT_EQ(hosts.lane->lane.free_chunks(hosts.program.session()), before);
  hosts.expect_stream_is_whole();
}

TEST_F(OffloadTest, AParkThatFailsLeavesTheConnectionInTheEngine) {
  make_traffic();
  ASSERT_TRUE(move().has_value());
  hosts.kernel->fail.park = 1;
  EXPECT_FALSE(park(hosts.conn, hosts.tools).has_value());
  hosts.expect_in_engine();
  hosts.expect_stream_is_whole();
  EXPECT_TRUE(park(hosts.conn, hosts.tools).has_value());
}

}  // namespace
}  // namespace twinstack::handoff
