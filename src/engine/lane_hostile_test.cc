// Applications that break the rules of the rings: their own session ends with an event, nobody else is harmed, nothing
// outside their memory is touched (this file earns its keep under AddressSanitizer).
#include <gtest/gtest.h>

#include "engine/lane_fixture.h"

namespace twinstack::engine {
namespace {

using namespace test;

constexpr std::uint32_t kBadSession = 9;

// The victim of LaneFixture (session 3), and beside it a session that misbehaves, with a connection of its own.
class LaneHostile : public LaneFixture {
 protected:
  LaneHostile() {
    box.lane.open_session(kBadSession, evil.arena());
    EXPECT_EQ(install(box, evil, mine,
                      {.min = idle_state(flow_number(9), 1, 1), .send_queue = {}, .unread = {}, .frames = {}}),
              Status::kOk);
    start();
    got();
  }

  // The session was ended for this cause; the victim is well.
  void expect_broken(Cause cause) {
    poll();
    const auto events = box.events();
    ASSERT_EQ(events.size(), 1U);
    EXPECT_EQ(events[0].type, EventType::kBadSession);
    EXPECT_EQ(events[0].cause, cause) << to_string(events[0].cause);
    EXPECT_EQ(events[0].session, kBadSession);
    expect_victim_is_well();
    // The driver can still take everything apart.
    ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = HwConnId(mine.hw)}).status, Status::kOk);
    EXPECT_EQ(box.call({.op = CommandOp::kExtract, .id = HwConnId(mine.hw)}).status, Status::kOk);
    EXPECT_EQ(box.call({.op = CommandOp::kRelease, .id = HwConnId(mine.hw)}).status, Status::kOk);
    box.lane.close_session(kBadSession);
    EXPECT_EQ(box.lane.free_pieces(), 4096U);
  }
  void expect_not_broken() {
    poll();
    EXPECT_TRUE(box.events().empty());
  }
  void expect_victim_is_well() {
    for (int i = 0; i < 3; ++i) {
      const auto sent = conn.written;
      peer.send(peer_bytes(500));
      EXPECT_EQ(program.write(conn, 700), 700U);
      poll();
      EXPECT_EQ(program.read(conn), 500U);
      const auto bytes = got_bytes();
      EXPECT_EQ(bytes, stream_bytes(conn.send_key, sent, 700));
      peer.send({});
      poll();
    }
    EXPECT_EQ(program.wrong_pieces, 0U);
  }
  // Bytes of the peer of the bad session's connection.
  void feed(std::size_t count) {
    RawPeer other(*far, reversed(flow_number(9)), 1, 1);
    other.send(std::vector<std::byte>(count));
    poll();
  }
  std::uint64_t own() const { return mine.hw; }

  Program evil{small_arena(), kBadSession};
  ProgramConn& mine = evil.open(5);
};

// ---- Ids.

TEST_F(LaneHostile, SendForAConnectionOfAnotherSession) {
  evil.submit(0, Program::send_entry(conn.hw, 0, 0, 10));
  expect_broken(Cause::kBadRingId);
  EXPECT_EQ(box.record(id()).counters.bytes_sent, 2100U) << "only what its own program sent";
}

TEST_F(LaneHostile, SendWithNoId) {
  evil.submit(0, Program::send_entry(0, 0, 0, 10));
  expect_broken(Cause::kBadRingId);
}

TEST_F(LaneHostile, SendWithAnIndexOutOfTheTable) {
  evil.submit(0, Program::send_entry(HwConnId(0, 0xffffff, 1).raw(), 0, 0, 10));
  expect_broken(Cause::kBadRingId);
}

TEST_F(LaneHostile, SendWithAnotherLanesId) {
  evil.submit(0, Program::send_entry(HwConnId(1, HwConnId(own()).index(), 1).raw(), 0, 0, 10));
  expect_broken(Cause::kBadRingId);
}

TEST_F(LaneHostile, SendWithAStaleGeneration) {
  evil.submit(0, Program::send_entry(own() + 1, 0, 0, 10));
  expect_broken(Cause::kBadRingId);
}

// Reserved but not installed: there is no TCP state that could send.
TEST_F(LaneHostile, SendForAConnectionThatIsBeingInstalled) {
  ProgramConn& half = evil.open(6);
  const Reply reserved = reserve(box, evil, half, flow_number(10), 0);
  ASSERT_EQ(reserved.status, Status::kOk);
  evil.submit(0, Program::send_entry(reserved.id.raw(), 0, 0, 10));
  poll();
  const auto events = box.events();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].cause, Cause::kBadRingId);
  ASSERT_EQ(box.call({.op = CommandOp::kRelease, .id = reserved.id}).status, Status::kOk);
  EXPECT_EQ(box.lane.free_pieces(), 4096U);
}

// The driver has read the send queue already: what is added now would be lost, or read while it grows.
TEST_F(LaneHostile, SendForAConnectionThatWasExtracted) {
  ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = HwConnId(own())}).status, Status::kOk);
  ASSERT_EQ(box.call({.op = CommandOp::kExtract, .id = HwConnId(own())}).status, Status::kOk);
  evil.submit(0, Program::send_entry(own(), 0, 0, 10));
  poll();
  const auto events = box.events();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].cause, Cause::kBadRingId);
  EXPECT_EQ(box.conn(HwConnId(own())).send_queue.head, kNone);
}

// ---- Chunks, offsets, lengths of a send.

struct BadPiece {
  const char* name;
  std::uint32_t chunk;
  std::uint32_t offset;
  std::uint32_t length;
};

class LaneHostilePiece : public LaneHostile, public testing::WithParamInterface<BadPiece> {};

TEST_P(LaneHostilePiece, IsRefused) {
  const BadPiece& bad = GetParam();
  evil.submit(0, Program::send_entry(own(), bad.chunk, bad.offset, bad.length));
  expect_broken(Cause::kBadRingChunk);
}

INSTANTIATE_TEST_SUITE_P(
    Sends, LaneHostilePiece,
    testing::Values(BadPiece{"first_chunk_of_the_engine", 128, 0, 10}, BadPiece{"chunk_behind_the_last", 384, 0, 10},
                    BadPiece{"largest_chunk_number", 0xffffffffU, 0, 10}, BadPiece{"no_bytes", 0, 0, 0},
                    BadPiece{"more_than_a_chunk", 0, 0, 4097}, BadPiece{"across_the_end", 0, 4000, 97},
                    BadPiece{"behind_the_end", 0, 4096, 1}, BadPiece{"length_overflows", 0, 1, 0xffffffffU},
                    BadPiece{"offset_overflows", 0, 0xffffffffU, 1}, BadPiece{"sum_overflows", 0, 0xfffff001U, 0xfff}),
    [](const auto& tested) { return tested.param.name; });

TEST_F(LaneHostile, TheLastByteOfTheLastChunkIsFine) {
  evil.submit(0, Program::send_entry(own(), 127, 4095, 1));
  evil.submit(0, Program::send_entry(own(), 0, 0, 4096));
  expect_not_broken();
}

// The same chunk over and over: a waste, but the program's own.
TEST_F(LaneHostile, AChunkSentTwiceIsSentTwice) {
  for (int i = 0; i < 10; ++i) evil.submit(0, Program::send_entry(own(), 3, 100, 50));
  expect_not_broken();
  EXPECT_EQ(box.record(HwConnId(own())).counters.bytes_sent, 500U);
}

TEST_F(LaneHostile, MoreBytesThanAConnectionMayQueue) {
  bool broken = false;
  for (int i = 0; i < 20'000 && !broken; ++i) {
    // One piece that grows is impossible beyond its chunk; many pieces hit the share of the pool first.
    while (evil.room(0) > 0) evil.submit(0, Program::send_entry(own(), static_cast<std::uint32_t>(i) % 128, 0, 4096));
    box.lane.poll(now);
    broken = !box.events().empty();
  }
  EXPECT_FALSE(broken) << "it waits: pieces are short before bytes are";
  expect_victim_is_well();
}

// ---- Returns.

TEST_F(LaneHostile, ReturnOfBytesNeverPosted) {
  evil.submit(0, Program::return_entry(own(), 200, 1));
  expect_broken(Cause::kBadRingChunk);
}

TEST_F(LaneHostile, ReturnOfAnOwnChunk) {
  evil.submit(0, Program::return_entry(own(), 5, 1));
  expect_broken(Cause::kBadRingChunk);
}

TEST_F(LaneHostile, ReturnOfAChunkThatDoesNotExist) {
  evil.submit(0, Program::return_entry(own(), 0xffffffffU, 1));
  expect_broken(Cause::kBadRingChunk);
}

TEST_F(LaneHostile, ReturnOfNothing) {
  evil.submit(0, Program::return_entry(own(), 200, 0));
  expect_broken(Cause::kBadRingChunk);
}

TEST_F(LaneHostile, ReturnOfMoreThanWasPosted) {
  feed(100);
  evil.pump();
  ASSERT_EQ(mine.unread.size(), 1U);
  evil.submit(0, Program::return_entry(own(), mine.unread[0].chunk, 101));
  expect_broken(Cause::kBadRingChunk);
}

TEST_F(LaneHostile, ReturnTwice) {
  feed(100);
  evil.pump();
  ASSERT_EQ(mine.unread.size(), 1U);
  evil.submit(0, Program::return_entry(own(), mine.unread[0].chunk, 100));
  evil.submit(0, Program::return_entry(own(), mine.unread[0].chunk, 100));
  expect_broken(Cause::kBadRingChunk);
}

// The bytes are counted by chunk, so a wrong id harms only the window of the session's own connections.
TEST_F(LaneHostile, ReturnWithAnotherSessionsIdIsTakenAsStale) {
  feed(100);
  evil.pump();
  ASSERT_EQ(mine.unread.size(), 1U);
  const std::uint32_t unread = box.conn(id()).unread_bytes;
  evil.submit(0, Program::return_entry(conn.hw, mine.unread[0].chunk, 100));
  expect_not_broken();
  EXPECT_EQ(box.conn(id()).unread_bytes, unread);
  expect_victim_is_well();
}

// ---- Rings.

TEST_F(LaneHostile, UnknownOperations) {
  auto entry = Program::send_entry(own(), 0, 0, 10);
  entry.op = static_cast<ipc::SubmitOp>(0);
  evil.submit(0, entry);
  expect_broken(Cause::kBadRingOp);
}

TEST_F(LaneHostile, TheHighestOperation) {
  auto entry = Program::send_entry(own(), 0, 0, 10);
  entry.op = static_cast<ipc::SubmitOp>(255);
  evil.submit(1, entry);
  expect_broken(Cause::kBadRingOp);
}

TEST_F(LaneHostile, AKickIsNothing) {
  auto entry = Program::send_entry(0xffffffffffffffffU, 0xffffffffU, 0xffffffffU, 0xffffffffU);
  entry.op = ipc::SubmitOp::kKick;
  evil.submit(0, entry);
  expect_not_broken();
}

TEST_F(LaneHostile, AnImpossibleTail) {
  evil.arena().ring(0).sq_tail.value.store(evil.arena().ring(0).sq_head.value.load() + 513);
  expect_broken(Cause::kBadRingIndex);
}

TEST_F(LaneHostile, ATailBehindTheHead) {
  evil.arena().ring(1).sq_tail.value.store(evil.arena().ring(1).sq_head.value.load() - 1);
  expect_broken(Cause::kBadRingIndex);
}

TEST_F(LaneHostile, AHeadOfTheEngineThatItOverwrites) {
  evil.submit(0, Program::send_entry(own(), 0, 0, 10));
  evil.arena().ring(0).sq_head.value.store(0x12345678);
  expect_not_broken();
  EXPECT_EQ(evil.arena().ring(0).sq_head.value.load(), 1U);
}

// A full ring again and again while one connection of the session is extracted: the driver is not kept.
TEST_F(LaneHostile, ATailThatRunsAwayWhileTheDriverExtracts) {
  ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = HwConnId(own())}).status, Status::kOk);
  auto kick = Program::send_entry(0, 0, 0, 0);
  kick.op = ipc::SubmitOp::kKick;
  for (std::uint32_t i = 0; i < 512; ++i) evil.arena().sq(0)[i] = kick;
  const std::uint64_t before = box.lane.counters().submissions;
  // Every poll of the tail sees a full ring: as if a second thread published all the time.
  evil.arena().ring(0).sq_tail.value.store(512);
  EXPECT_EQ(box.call({.op = CommandOp::kExtract, .id = HwConnId(own())}).status, Status::kOk);
  EXPECT_LE(box.lane.counters().submissions - before, 513U);
}

// The completion ring's head belongs to the program: a wrong one looks like a full ring.
TEST_F(LaneHostile, ACompletionHeadAheadOfTheTail) {
  evil.arena().ring(0).cq_head.value.store(evil.arena().ring(0).cq_tail.value.load() + 1);
  feed(100);
  EXPECT_GT(box.lane.counters().completion_full, 0U);
  expect_victim_is_well();
}

// Room when the segment is taken, none when it is posted: only a program that plays tricks does that.
TEST_F(LaneHostile, AnInstallWhoseCompletionRoomIsTakenBack) {
  ProgramConn& second = evil.open(6);
  Moved moved{.min = idle_state(flow_number(11), 1, 1), .send_queue = {}, .unread = {}, .frames = {}};
  moved.unread.resize(9000);
  const Reply reserved = reserve(box, evil, second, moved.min.flow, 3);
  Command command{.op = CommandOp::kInstall, .id = reserved.id};
  command.min = moved.min;
  command.unread_bytes = 9000;
  command.chunk_count = 3;
  command.chunks = reserved.chunks;
  ASSERT_EQ(box.call(command).status, Status::kOk);
  evil.arena().ring(0).cq_head.value.store(evil.arena().ring(0).cq_tail.value.load() + 1);
  EXPECT_EQ(box.call({.op = CommandOp::kActivate, .id = reserved.id}).status, Status::kOk);
  ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = reserved.id}).status, Status::kOk);
  EXPECT_EQ(box.call({.op = CommandOp::kExtract, .id = reserved.id}).status, Status::kOk);
  EXPECT_EQ(box.call({.op = CommandOp::kRelease, .id = reserved.id}).status, Status::kOk);
  expect_broken(Cause::kBadRingIndex);
}

TEST_F(LaneHostile, ASlotFullOfNonsense) {
  auto& slot = evil.arena().slot(5);
  slot.tx_acked_bytes.store(0xffffffffffffffffU);
  slot.rx_posted_bytes.store(0xffffffffffffffffU);
  slot.tx_limit_bytes.store(0);
  slot.owner.store(0xffffffffU);
  slot.tag.store(77);
  slot.want_tx_space.store(0xffffffffU);
  feed(100);
  evil.submit(0, Program::send_entry(own(), 0, 0, 10));
  expect_not_broken();
  expect_victim_is_well();
}

TEST_F(LaneHostile, NothingOfABrokenSessionIsReadAgain) {
  evil.submit(0, Program::send_entry(0, 0, 0, 10));
  poll();
  EXPECT_EQ(box.events().size(), 1U);
  const std::uint64_t before = box.lane.counters().submissions;
  for (int i = 0; i < 100; ++i) evil.submit(1, Program::send_entry(0, 0, 0, 10));
  poll();
  EXPECT_EQ(box.lane.counters().submissions, before);
  EXPECT_TRUE(box.events().empty());
  EXPECT_TRUE(box.lane.prepare_sleep()) << "it keeps nobody awake";
}

// A greedy program takes its share of the lane's pieces, and no more: the victim's sends find some.
TEST_F(LaneHostile, AllThePiecesOfTheLane) {
  for (int i = 0; i < 50; ++i) {
    for (std::uint32_t k = 0; evil.room(0) > 0; ++k)
      evil.submit(0, Program::send_entry(own(), k % 128, 2 * (k % 64), 1));  // none joins its neighbour
    box.lane.poll(now);
    got();
  }
  expect_not_broken();
  EXPECT_GE(box.lane.free_pieces(), 4096U / 2 - 1);
  expect_victim_is_well();
}

// Random entries, random indices, random slots: a broken session at worst.
TEST_F(LaneHostile, RandomRubbish) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    Rng rng(seed);
    Program wild(small_arena(), 20);
    box.lane.open_session(20, wild.arena());
    ProgramConn& its = wild.open(5);
    ASSERT_EQ(install(box, wild, its,
                      {.min = idle_state(flow_number(12), 1, 1), .send_queue = {}, .unread = {}, .frames = {}}),
              Status::kOk);
    RawPeer other(*far, reversed(flow_number(12)), 1, 1);
    for (int i = 0; i < 40; ++i) {
      const auto pick = [&](std::initializer_list<std::uint32_t> values) {
        return rng.below(3) == 0 ? static_cast<std::uint32_t>(rng.next())
                                 : *(values.begin() + rng.below(static_cast<std::uint32_t>(values.size())));
      };
      ipc::SubmitEntry entry =
          Program::send_entry(rng.below(4) == 0 ? rng.next() : its.hw, pick({0, 127, 128, 383, 384}),
                              pick({0, 1, 4095, 4096}), pick({0, 1, 100, 4096, 4097}));
      entry.op = static_cast<ipc::SubmitOp>(1 + rng.below(rng.below(10) == 0 ? 250 : 2));
      entry.flags = static_cast<std::uint8_t>(rng.next());
      if (wild.room(0) > 0) wild.submit(0, entry);
      if (rng.below(20) == 0)
        wild.arena().ring(rng.below(2)).cq_head.value.store(static_cast<std::uint32_t>(rng.next()));
      if (rng.below(100) == 0)
        wild.arena().ring(rng.below(2)).sq_tail.value.store(static_cast<std::uint32_t>(rng.next()));
      if (rng.below(3) == 0) other.send(std::vector<std::byte>(rng.below(1000)));
      box.lane.poll(now);
      if (rng.below(10) == 0) {
        EXPECT_EQ(box.call({.op = CommandOp::kHold, .id = HwConnId(its.hw)}).status, Status::kOk);
        (void)box.call({.op = CommandOp::kExtract, .id = HwConnId(its.hw)});
        EXPECT_EQ(box.call({.op = CommandOp::kActivate, .id = HwConnId(its.hw)}).status, Status::kOk);
      }
    }
    box.events();
    ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = HwConnId(its.hw)}).status, Status::kOk);
    ASSERT_EQ(box.call({.op = CommandOp::kRelease, .id = HwConnId(its.hw)}).status, Status::kOk);
    box.lane.close_session(20);
    far->advance(now);
    for (auto frames = far->receive(64); !frames.empty(); frames = far->receive(64)) far->release();
    far->release();
    while (!box.lane.take_stray().empty()) {
    }
  }
  expect_victim_is_well();
  EXPECT_EQ(box.lane.free_pieces(), 4096U);
}

}  // namespace
}  // namespace twinstack::engine
