// The control queue: what is refused, and that a refusal changes nothing; held packets; what a release gives back;
// wake-ups.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/lane_fixture.h"

namespace twinstack::engine {
namespace {

using namespace test;
using std::chrono::milliseconds;

class LaneControl : public LaneFixture {
 protected:
  Status status(const Command& command) { return box.call(command).status; }
  Command reserve_command() const {
    return {.op = CommandOp::kReserve,
            .session = kSession,
            .slot = 5,
            .tag = 1,
            .ring = 0,
            .flow = flow_number(7),
            .chunk_count = 2};
  }
  void expect_nothing_is_lent() {
    EXPECT_EQ(box.lane.free_chunks(kSession), 256U);
    EXPECT_EQ(box.lane.free_pieces(), 4096U);
    EXPECT_EQ(box.lane.active_connections(), 0U);
  }
};

// ---- Refusals.

TEST_F(LaneControl, ReserveChecksItsArguments) {
  const auto with = [&](auto change) {
    Command command = reserve_command();
    change(command);
    return status(command);
  };
  EXPECT_EQ(with([](Command& c) { c.session = kSession + 1; }), Status::kBadArgument);
  EXPECT_EQ(with([](Command& c) { c.ring = 2; }), Status::kBadArgument);
  EXPECT_EQ(with([](Command& c) { c.ring = 0xffffffffU; }), Status::kBadArgument);
  EXPECT_EQ(with([](Command& c) { c.slot = 64; }), Status::kBadArgument);
  EXPECT_EQ(with([](Command& c) { c.chunk_count = kMaxCommandChunks + 1; }), Status::kBadArgument);
  expect_nothing_is_lent();
}

TEST_F(LaneControl, AFlowIsReservedOnce) {
  EXPECT_EQ(status(reserve_command()), Status::kOk);
  EXPECT_EQ(status(reserve_command()), Status::kBadArgument);
}

TEST_F(LaneControl, ReserveWithoutChunksLeavesNothingBehind) {
  ipc::ArenaConfig config = small_arena();
  config.rx_chunk_count = 1;
  Program poor(config, 9);
  box.lane.open_session(9, poor.arena());
  Command command = reserve_command();
  command.session = 9;
  EXPECT_EQ(status(command), Status::kNoChunk);
  EXPECT_EQ(box.lane.active_connections(), 0U);
  EXPECT_EQ(box.lane.free_chunks(9), 1U);
  EXPECT_EQ(status(reserve_command()), Status::kOk) << "the flow is free";
}

TEST_F(LaneControl, AFullTableRefusesAndServesAgainAfterARelease) {
  std::vector<HwConnId> ids;
  for (std::uint32_t i = 0; i < 64; ++i) {
    Command command = reserve_command();
    command.flow = flow_number(1000 + i);
    const Reply reply = box.call(command);
    ASSERT_EQ(reply.status, Status::kOk);
    ids.push_back(reply.id);
    ASSERT_EQ(status({.op = CommandOp::kPutChunks, .session = kSession, .chunk_count = 2, .chunks = reply.chunks}),
              Status::kOk);
  }
  EXPECT_EQ(status(reserve_command()), Status::kNoSlot);
  EXPECT_EQ(status({.op = CommandOp::kRelease, .id = ids[20]}), Status::kOk);
  const Reply reply = box.call(reserve_command());
  EXPECT_EQ(reply.status, Status::kOk);
  EXPECT_EQ(reply.id.index(), ids[20].index());
  EXPECT_NE(reply.id, ids[20]);
}

// Every command that names a connection, with ids that are none.
TEST_F(LaneControl, StaleAndForeignIdsReachNobody) {
  start();
  const HwConnId living = id();
  const HwConnId bad[] = {HwConnId(),
                          HwConnId(0, living.index(), living.generation() + 1),
                          HwConnId(0, living.index(), 0),
                          HwConnId(1, living.index(), living.generation()),
                          HwConnId(0, living.index() + 1, 1),
                          HwConnId(0, 0xffffff, 1)};
  for (const CommandOp op : {CommandOp::kLoad, CommandOp::kInstall, CommandOp::kInject, CommandOp::kActivate,
                             CommandOp::kDrain, CommandOp::kHold, CommandOp::kExtract, CommandOp::kDropHeld,
                             CommandOp::kRelease, CommandOp::kQuery, CommandOp::kSetHopOf}) {
    for (const HwConnId none : bad) EXPECT_EQ(status({.op = op, .id = none, .flag = 1}), Status::kStaleId);
  }
  EXPECT_EQ(status({.op = static_cast<CommandOp>(99), .id = living}), Status::kBadArgument);
  EXPECT_EQ(box.conn(living).state, ConnState::kActive);
}

TEST_F(LaneControl, CommandsNeedTheirState) {
  const Reply reserved = box.call(reserve_command());
  ASSERT_EQ(reserved.status, Status::kOk);
  const HwConnId held = reserved.id;
  for (const CommandOp op :
       {CommandOp::kActivate, CommandOp::kDrain, CommandOp::kHold, CommandOp::kExtract, CommandOp::kQuery})
    EXPECT_EQ(status({.op = op, .id = held}), Status::kBadState);
  ASSERT_EQ(status({.op = CommandOp::kPutChunks, .session = kSession, .chunk_count = 2, .chunks = reserved.chunks}),
            Status::kOk);
  ASSERT_EQ(status({.op = CommandOp::kRelease, .id = held}), Status::kOk);
  start();
  for (const CommandOp op :
       {CommandOp::kLoad, CommandOp::kInstall, CommandOp::kActivate, CommandOp::kExtract, CommandOp::kRelease})
    EXPECT_EQ(status({.op = op, .id = id()}), Status::kBadState);
  EXPECT_EQ(box.conn(id()).state, ConnState::kActive);
}

TEST_F(LaneControl, InstallRefusesQueuesThatDoNotFitTheState) {
  Moved moved = idle();
  moved.send_queue = stream_bytes(1, 0, 100);
  moved.min.write_seq += 99;
  EXPECT_EQ(install(box, program, conn, moved), Status::kBadArgument);
}

// Queues in two commands: order, what the program sees before the activation (nothing), what a refusal leaves.
TEST_F(LaneControl, LoadedQueuesAreThoseOfTheInstall) {
  const auto unread = peer_bytes(5000);
  const auto send_queue = stream_bytes(conn.send_key, 0, 5000);
  const Reply reserved = reserve(box, program, conn, idle().min.flow, 4);
  const auto carry = [&](CommandOp op, std::uint32_t from, std::uint32_t bytes, std::uint32_t first_chunk) {
    Command command{.op = op, .id = reserved.id};
    command.min = idle().min;
    command.min.write_seq += 5000;
    command.unread_bytes = command.send_bytes = bytes;
    command.chunk_count = 2;
    std::copy_n(reserved.chunks.begin() + first_chunk, 2, command.chunks.begin());
    const auto lay = [&](std::uint32_t chunk, const std::vector<std::byte>& queue) {
      std::copy_n(queue.begin() + from, bytes, program.arena().chunk(command.chunks[chunk]).begin());
    };
    lay(0, unread);
    lay(1, send_queue);
    return command;
  };
  ASSERT_EQ(status(carry(CommandOp::kLoad, 0, 3000, 0)), Status::kOk);
  Command wrong = carry(CommandOp::kInstall, 3000, 2000, 2);
  wrong.min.write_seq += 1;
  EXPECT_EQ(status(wrong), Status::kBadArgument);
  wrong = carry(CommandOp::kLoad, 3000, 2000, 2);
  wrong.chunk_count = 3;
  EXPECT_EQ(status(wrong), Status::kBadArgument);
  ASSERT_EQ(status(carry(CommandOp::kInstall, 3000, 2000, 2)), Status::kOk);
  poll();
  program.pump();
  EXPECT_EQ(conn.unread_bytes, 0U) << "the kernel still has these bytes";
  conn.hw = reserved.id.raw();
  EXPECT_EQ(box.call({.op = CommandOp::kQuery, .id = id()}).state.unread_bytes, 5000U);
  ASSERT_EQ(status({.op = CommandOp::kActivate, .id = id()}), Status::kOk);
  poll();
  program.pump();
  EXPECT_EQ(program.read(conn), 5000U);
  EXPECT_EQ(program.wrong_pieces, 0U);
  Moved moved = extract(box, program, conn);
  EXPECT_EQ(moved.send_queue, send_queue);
  expect_nothing_is_lent();
}

TEST_F(LaneControl, LoadedQueuesThatAreReleasedComeBack) {
  const Reply reserved = reserve(box, program, conn, idle().min.flow, 4);
  Command command{.op = CommandOp::kLoad, .id = reserved.id};
  command.unread_bytes = command.send_bytes = 6000;
  command.chunk_count = 4;
  command.chunks = reserved.chunks;
  ASSERT_EQ(status(command), Status::kOk);
  ASSERT_EQ(status({.op = CommandOp::kRelease, .id = reserved.id}), Status::kOk);
  expect_nothing_is_lent();
  EXPECT_EQ(program.arena().slot(5).tx_acked_bytes.load(), 0U);
}

// What an unread chunk will need in the ring is kept for it until it is posted or released, and no longer.
TEST_F(LaneControl, RingEntriesOfLoadedChunksAreKeptAndComeBack) {
  const std::uint32_t entries = program.arena().geometry().cq_entries;
  const auto load = [&] {
    const Reply reserved = reserve(box, program, conn, idle().min.flow, 64);
    Command command{.op = CommandOp::kLoad, .id = reserved.id};
    command.unread_bytes = 64 * program.arena().geometry().chunk_bytes;
    command.chunk_count = 64;
    command.chunks = reserved.chunks;
    EXPECT_EQ(status(command), Status::kOk);
    return reserved.id;
  };
  const Command notify{.op = CommandOp::kNotify, .session = kSession, .slot = 5, .tag = 1, .ring = 0};
  for (std::uint32_t i = 0; i < entries / 16; ++i)
    ASSERT_EQ(status({.op = CommandOp::kRelease, .id = load()}), Status::kOk);
  std::uint32_t room = 0;
  while (status(notify) == Status::kOk) ++room;
  program.pump();
  poll();
  const HwConnId loaded = load();
  std::uint32_t less = 0;
  while (status(notify) == Status::kOk) ++less;
  EXPECT_EQ(less + 64, room);
  program.pump();
  EXPECT_EQ(status({.op = CommandOp::kRelease, .id = loaded}), Status::kOk);
  expect_nothing_is_lent();
}

// Refused before anything is stopped: whoever else there is must be able to receive.
TEST_F(LaneControl, OneMoveTakesNoMoreThanHalfOfTheChunks) {
  Command command = reserve_command();
  command.expected_chunks = 129;
  EXPECT_EQ(status(command), Status::kNoChunk);
  expect_nothing_is_lent();
  command.expected_chunks = 128;
  EXPECT_EQ(status(command), Status::kOk);
}

TEST_F(LaneControl, InstallRefusesWhatTheCoreDoesNotDo) {
  Moved moved = idle();
  moved.min.options |= 0x8000;
  const Reply reserved = reserve(box, program, conn, moved.min.flow, 0);
  ASSERT_EQ(reserved.status, Status::kOk);
  EXPECT_EQ(status({.op = CommandOp::kInstall, .id = reserved.id, .min = moved.min}), Status::kUnsupported);
  EXPECT_EQ(status({.op = CommandOp::kRelease, .id = reserved.id}), Status::kOk);
  expect_nothing_is_lent();
}

TEST_F(LaneControl, NotifyReachesTheProgramAndChecksItsArguments) {
  start();
  EXPECT_EQ(status({.op = CommandOp::kNotify, .session = kSession, .slot = 5, .tag = 1, .ring = 0}), Status::kOk);
  program.pump();
  EXPECT_EQ(conn.owner_events, 1U);
  EXPECT_EQ(status({.op = CommandOp::kNotify, .session = 77, .slot = 5, .tag = 1, .ring = 0}), Status::kBadArgument);
  EXPECT_EQ(status({.op = CommandOp::kNotify, .session = kSession, .slot = 5, .tag = 1, .ring = 9}),
            Status::kBadArgument);
}

// ---- Identifiers and queries.

TEST_F(LaneControl, QueryTellsTheHardwareStateById) {
  start();
  peer.send(peer_bytes(300));
  program.write(conn, 500);
  poll();
  const Reply reply = box.call({.op = CommandOp::kQuery, .id = id()});
  ASSERT_EQ(reply.status, Status::kOk);
  EXPECT_EQ(reply.state.hw_conn_id, id().raw());
  EXPECT_EQ(reply.state.min.flow, flow_number(7));
  EXPECT_EQ(reply.state.info.bytes_received, 300U);
  EXPECT_EQ(reply.state.info.bytes_sent, 500U);
  EXPECT_EQ(reply.state.info.state, 1U) << "TCP_ESTABLISHED";
  EXPECT_EQ(reply.state.info.unacked, 1U) << "segments";
  EXPECT_EQ(reply.state.info.snd_cwnd, reply.state.min.cwnd_segments);
  EXPECT_EQ(reply.state.unread_bytes, 300U);
  EXPECT_EQ(reply.state.min.rcv_nxt - reply.state.min.copied_seq, 300U);
  EXPECT_EQ(reply.state.min.snd_nxt - reply.state.min.snd_una, 500U);
  EXPECT_EQ(box.record(id()).kernel_cookie, 1005U);
  EXPECT_EQ(box.record(id()).slot, 5U);
  EXPECT_EQ(box.record(id()).tag, 1U);
}

// ---- Releases give everything back.

TEST_F(LaneControl, AnInstallThatIsReleasedWithoutActivationWasNeverSeen) {
  Moved moved = idle();
  moved.unread = peer_bytes(9000);
  moved.send_queue = stream_bytes(conn.send_key, 0, 9000);
  moved.min.write_seq += 9000;
  const Reply reserved = reserve(box, program, conn, moved.min.flow, 6);
  Command command{.op = CommandOp::kInstall, .id = reserved.id};
  command.min = moved.min;
  command.unread_bytes = command.send_bytes = 9000;
  command.chunk_count = 6;
  command.chunks = reserved.chunks;
  ASSERT_EQ(status(command), Status::kOk);
  poll();
  EXPECT_EQ(conn.unread_bytes, 0U) << "the kernel still has these bytes";
  EXPECT_EQ(program.arena().slot(5).rx_posted_bytes.load(), 0U);
  EXPECT_TRUE(got().empty());
  ASSERT_EQ(status({.op = CommandOp::kRelease, .id = reserved.id}), Status::kOk);
  expect_nothing_is_lent();
  EXPECT_EQ(program.arena().slot(5).tx_acked_bytes.load(), 0U);
}

TEST_F(LaneControl, AReleaseGivesBackChunksPiecesSlotAndFlow) {
  for (int round = 0; round < 200; ++round) {
    start();
    peer.send(peer_bytes(100));
    peer.send_frame(
        peer.frame(std::vector<std::byte>(1000), wire::kAck, [](wire::Segment& segment) { segment.seq += 5000; }));
    program.write(conn, 3000, 700);
    poll();
    Moved moved = extract(box, program, conn);
    program.pump();
    program.read(conn);
    poll();
    EXPECT_EQ(moved.send_queue.size(), 3000U);
    EXPECT_EQ(moved.frames.size(), 1U) << "the out-of-order bytes";
    expect_nothing_is_lent();
    EXPECT_EQ(program.free_tx_chunks(), 128U);
    // A new life of the same flow.
    got();
    peer.seq = Seq(kPeer);
    peer.ack = Seq(kOur);
  }
  EXPECT_EQ(program.wrong_pieces, 0U);
  EXPECT_EQ(box.lane.take_stray().size(), 0U);
}

// The slot stands in the transmit list when it is released and reserved again in one batch of commands.
TEST_F(LaneControl, ASlotReusedWithinOneBatchKeepsTheTransmitListWhole) {
  start();
  ProgramConn& second = program.open(6);
  ASSERT_EQ(install(box, program, second,
                    {.min = idle_state(flow_number(8), 10, 20), .send_queue = {}, .unread = {}, .frames = {}}),
            Status::kOk);
  poll();
  got();
  const auto run = [&](std::initializer_list<Command> batch) {
    auto producer = box.region.command_producer();
    for (const Command& command : batch) producer.push(command);
    producer.publish();
    box.lane.process_commands(now);
    std::vector<Reply> got_replies;
    Reply reply;
    auto consumer = box.region.reply_consumer();
    while (consumer.pop(reply) == ipc::RingConsumer<Reply>::Pop::kEntry) got_replies.push_back(reply);
    consumer.release();
    return got_replies;
  };
  Command again = reserve_command();
  again.chunk_count = 0;
  // kDrain puts both into the transmit list.
  const auto replied = run({{.op = CommandOp::kDrain, .id = id(), .flag = 1},
                            {.op = CommandOp::kDrain, .id = HwConnId(second.hw), .flag = 0},
                            {.op = CommandOp::kHold, .id = id()},
                            {.op = CommandOp::kRelease, .id = id()},
                            again,
                            {.op = CommandOp::kDrain, .id = HwConnId(second.hw), .flag = 0}});
  ASSERT_EQ(replied.size(), 6U);
  for (const Reply& reply : replied) ASSERT_EQ(reply.status, Status::kOk);
  EXPECT_EQ(replied[4].id.index(), id().index());
  EXPECT_FALSE(box.lane.has_work());
  program.write(second, 100);
  while (box.lane.poll(now)) {
  }
  far->advance(now);
  std::size_t frames = 0;
  for (auto some = far->receive(16); !some.empty(); some = far->receive(16)) {
    frames += some.size();
    far->release();
  }
  far->release();
  EXPECT_GE(frames, 1U) << "the other connection still sends";
}

TEST_F(LaneControl, AHoldTellsThatItsLastFramesMustLeave) {
  start();
  EXPECT_FALSE(box.lane.take_last_words());
  ASSERT_EQ(status({.op = CommandOp::kHold, .id = id()}), Status::kOk);
  EXPECT_TRUE(box.lane.take_last_words());
  EXPECT_FALSE(box.lane.take_last_words());
}

// ---- Held packets.

class LaneHeld : public LaneControl {
 protected:
  void hold() { ASSERT_EQ(status({.op = CommandOp::kHold, .id = id()}), Status::kOk); }
  Reply sweep() { return box.call({.op = CommandOp::kSweep, .id = id()}); }
};

TEST_F(LaneHeld, PacketsDuringAMoveWaitAndAreProcessedOnceInOrder) {
  start();
  hold();
  std::vector<std::vector<std::byte>> frames;
  for (int i = 0; i < 50; ++i) {
    frames.push_back(peer.frame(peer_bytes(100)));
    peer.send_frame(frames.back());
    peer.seq += 100;
    if (i % 7 == 0) poll();
  }
  const Reply swept = sweep();
  EXPECT_EQ(held_frames(box, program, swept), frames);
  program.pump();
  EXPECT_EQ(conn.unread_bytes, 0U);
  ASSERT_EQ(status({.op = CommandOp::kActivate, .id = id()}), Status::kOk);
  program.pump();
  EXPECT_EQ(conn.unread_bytes, 5000U);
  EXPECT_EQ(program.read(conn), 5000U);
  EXPECT_EQ(program.wrong_pieces, 0U);
  poll();
  EXPECT_EQ(box.record(id()).counters.segs_in, 50U);
  EXPECT_EQ(box.lane.free_chunks(kSession), 256U);
}

TEST_F(LaneHeld, LatePacketsOfTheFilterGoBeforeThoseOfTheLink) {
  const Reply reserved = reserve(box, program, conn, flow_number(7), 0);
  const auto first = peer.frame(peer_bytes(100));
  peer.seq += 100;
  peer.send(peer_bytes(100));
  poll();
  ASSERT_EQ(inject(box, program, reserved.id, first), Status::kOk);
  Command command{.op = CommandOp::kInstall, .id = reserved.id};
  command.min = idle().min;
  ASSERT_EQ(status(command), Status::kOk);
  ASSERT_EQ(status({.op = CommandOp::kActivate, .id = reserved.id}), Status::kOk);
  conn.hw = reserved.id.raw();
  program.pump();
  EXPECT_EQ(program.read(conn), 200U);
  EXPECT_EQ(program.wrong_pieces, 0U);
  EXPECT_EQ(box.record(id()).counters.out_of_order, 0U);
}

// The driver copies what the sweep told of while the lane goes on receiving: what came later stays.
TEST_F(LaneHeld, WhatArrivesAfterTheSweepIsNotDroppedWithIt) {
  start();
  hold();
  peer.send(peer_bytes(100));
  peer.send(peer_bytes(100));
  const Reply first = sweep();
  EXPECT_EQ(held_frames(box, program, first).size(), 2U);
  const auto later = peer.frame(peer_bytes(100));
  peer.send_frame(later);
  poll();
  ASSERT_EQ(
      status(
          {.op = CommandOp::kDropHeld, .id = id(), .late_pieces = first.late_pieces, .held_pieces = first.held_pieces}),
      Status::kOk);
  EXPECT_EQ(held_frames(box, program, sweep()), std::vector<std::vector<std::byte>>{later});
}

TEST_F(LaneHeld, WhatNobodyTookOverIsTheKernelsWhenTheConnectionGoes) {
  start();
  hold();
  const auto late = peer.frame(peer_bytes(100));
  peer.seq += 100;
  const auto held = peer.frame(peer_bytes(100));
  peer.send_frame(held);
  poll();
  ASSERT_EQ(inject(box, program, id(), late), Status::kOk);
  EXPECT_FALSE(box.lane.take_signal());
  ASSERT_EQ(status({.op = CommandOp::kRelease, .id = id()}), Status::kOk);
  EXPECT_TRUE(box.lane.take_signal());
  EXPECT_EQ(box.lane.take_stray(), late);
  EXPECT_EQ(box.lane.take_stray(), held);
  expect_nothing_is_lent();
}

TEST_F(LaneHeld, AnInjectedPacketOfAnActiveConnectionIsProcessed) {
  start();
  const auto frame = peer.frame(peer_bytes(100));
  ASSERT_EQ(inject(box, program, id(), frame), Status::kOk);
  program.pump();
  EXPECT_EQ(program.read(conn), 100U);
}

TEST_F(LaneHeld, AnInjectThatCannotBeIsRefused) {
  start();
  Command command{.op = CommandOp::kInject, .id = id()};
  command.frame_bytes = 4097;
  command.chunk_count = 1;
  EXPECT_EQ(status(command), Status::kBadArgument);
  command.frame_bytes = 70'000;
  command.chunk_count = kMaxCommandChunks;
  EXPECT_EQ(status(command), Status::kBadArgument);
  command.frame_bytes = 100;
  command.chunk_count = 0xffffffffU;
  EXPECT_EQ(status(command), Status::kBadArgument);
}

// A super-packet that arrives in many small buffers, held and replayed whole.
TEST_F(LaneHeld, ASuperPacketInManyPartsStaysOnePacket) {
  nic::MemoryWireOptions options{.mtu_bytes = 65535, .part_bytes = 128};
  nic::MemoryWire big = nic::MemoryWire::make(options);
  LaneBox other(std::move(big.a), now);
  set_hop(other);
  other.lane.open_session(kSession, program.arena());
  RawPeer sender(*big.b, reversed(flow_number(7)), kPeer, kOur);
  ASSERT_EQ(install(other, program, conn, idle()), Status::kOk);
  ASSERT_EQ(other.call({.op = CommandOp::kHold, .id = id()}).status, Status::kOk);
  const auto frame = sender.frame(peer_bytes(60'000));
  sender.send_frame(frame);
  const Reply swept = other.call({.op = CommandOp::kSweep, .id = id()});
  EXPECT_EQ(held_frames(other, program, swept), std::vector<std::vector<std::byte>>{frame});
  ASSERT_EQ(other.call({.op = CommandOp::kActivate, .id = id()}).status, Status::kOk);
  program.pump();
  EXPECT_EQ(program.read(conn), 60'000U);
  EXPECT_EQ(program.wrong_pieces, 0U);
  EXPECT_EQ(other.record(id()).counters.segs_in, 1U);
}

TEST_F(LaneHeld, HeldPacketsAreBoundedAndWholeWhenMemoryEnds) {
  start();
  hold();
  for (int i = 0; i < 2000; ++i) {
    peer.send(peer_bytes(1000));
    poll();
  }
  EXPECT_GT(box.lane.counters().held_dropped, 0U);
  for (const auto& frame : held_frames(box, program, sweep())) EXPECT_EQ(frame.size(), 1000U + 14 + 20 + 32);
  ASSERT_EQ(status({.op = CommandOp::kActivate, .id = id()}), Status::kOk);
  program.pump();
  program.read(conn);
  EXPECT_EQ(program.wrong_pieces, 0U);
}

// What was reported by SACK and cannot travel becomes packets again.
TEST_F(LaneHeld, OutOfOrderDataBecomesPackets) {
  start();
  const auto bytes = peer_bytes(8000);
  const ByteView all(bytes);
  const auto send_at = [&](std::size_t at, std::size_t count) {
    peer.send_frame(peer.frame(all.subspan(at, count), wire::kAck,
                               [&](wire::Segment& segment) { segment.seq += static_cast<std::uint32_t>(at); }));
  };
  send_at(0, 1000);
  send_at(2000, 1000);
  send_at(5000, 1400);
  poll();
  const Moved moved = extract(box, program, conn);
  EXPECT_EQ(moved.min.rcv_nxt, kPeer + 1000);
  std::vector<std::byte> rebuilt(8000);
  std::size_t covered = 0;
  for (const auto& frame : moved.frames) {
    wire::TcpPacket packet;
    const ByteView part(frame);
    ASSERT_EQ(
        wire::parse_frame({&part, 1}, static_cast<std::uint32_t>(frame.size()), wire::ChecksumMode::kVerify, packet),
        wire::ParseVerdict::kOk);
    EXPECT_EQ(packet.flow, flow_number(7)) << "as the peer would have sent it";
    EXPECT_TRUE(packet.segment.options.has_timestamps);
    const std::uint32_t at = packet.segment.seq.raw() - kPeer;
    packet.payload.copy_to(std::span(rebuilt).subspan(at));
    EXPECT_TRUE(std::equal(rebuilt.begin() + at, rebuilt.begin() + at + packet.payload.size(), bytes.begin() + at));
    covered += packet.payload.size();
  }
  EXPECT_EQ(covered, 2400U);
  program.pump();
  EXPECT_EQ(program.read(conn), 1000U);
  poll();
  expect_nothing_is_lent();
}

// ---- Sleep and wake-ups.

class LaneSleep : public LaneControl {
 protected:
  std::uint32_t need_wakeup(std::uint32_t ring) { return program.arena().ring(ring).sq_need_wakeup.value.load(); }
};

TEST_F(LaneSleep, AsksEveryRingForAWakeUpAndTakesItBack) {
  start();
  EXPECT_TRUE(box.lane.prepare_sleep());
  EXPECT_EQ(need_wakeup(0), 1U);
  EXPECT_EQ(need_wakeup(1), 1U);
  poll();
  EXPECT_EQ(need_wakeup(0), 0U);
  EXPECT_EQ(need_wakeup(1), 0U);
}

TEST_F(LaneSleep, DoesNotSleepOverWork) {
  start();
  program.write(conn, 10);
  EXPECT_FALSE(box.lane.prepare_sleep());
  poll();
  EXPECT_TRUE(box.lane.prepare_sleep());
  EXPECT_TRUE(program.submissions(0).take_wakeup()) << "the program that submits next wakes the lane";
}

// The driver's commands run while the lane's thread sleeps; they must not take back the wake-ups that it waits for.
TEST_F(LaneSleep, CommandsOfTheDriverKeepTheWakeUpsArmed) {
  start();
  ProgramConn& other = program.open(6);
  ASSERT_EQ(install(box, program, other,
                    {.min = idle_state(flow_number(8), 10, 20), .send_queue = {}, .unread = {}, .frames = {}}),
            Status::kOk);
  poll();
  ASSERT_TRUE(box.lane.prepare_sleep());
  program.write(conn, 100);  // in the ring, its doorbell not yet written
  extract(box, program, conn);
  EXPECT_EQ(need_wakeup(0), 1U);
  program.write(other, 100);
  EXPECT_TRUE(program.submissions(0).take_wakeup());
}

TEST_F(LaneSleep, TheProgramIsWokenWhenItAskedAndOnlyThen) {
  start();
  peer.send(peer_bytes(10));
  poll();
  EXPECT_TRUE(box.woken.empty());
  program.read(conn);
  EXPECT_TRUE(program.completions(0).prepare_sleep());
  peer.send(peer_bytes(10));
  poll();
  EXPECT_EQ(box.woken, (std::set<std::pair<std::uint32_t, std::uint32_t>>{{kSession, 0}}));
  box.woken.clear();
  peer.send(peer_bytes(10));
  poll();
  EXPECT_TRUE(box.woken.empty()) << "once for each request";
}

TEST_F(LaneSleep, AnIdleLaneHasNoDeadline) {
  Moved moved = idle();
  moved.min.flags = tcp::kFlagNoDelay;
  start(moved);
  for (int i = 0; i < 10; ++i) poll(std::chrono::seconds(1));
  EXPECT_EQ(box.lane.next_deadline(), kNever);
  program.write(conn, 10);
  poll();
  EXPECT_LE(box.lane.next_deadline(), now + std::chrono::seconds(1)) << "the retransmission timer";
  EXPECT_FALSE(box.lane.has_work());
}

// ---- Sessions.

TEST_F(LaneControl, ASessionIsClosedWhenItsConnectionsAreGone) {
  start();
  extract(box, program, conn);
  box.lane.close_session(kSession);
  EXPECT_EQ(status(reserve_command()), Status::kBadArgument);
  poll();
  Program next;
  box.lane.open_session(kSession, next.arena());
  EXPECT_EQ(status(reserve_command()), Status::kOk);
}

}  // namespace
}  // namespace twinstack::engine
