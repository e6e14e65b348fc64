// How much one poll does: whoever has a command for the lane waits for its end, so it is bounded in bytes as well.
#include "engine/lane_fixture.h"

namespace twinstack::engine {
namespace {

using namespace test;

constexpr std::uint64_t kBytesOfAPoll = 256U << 10;

class LaneTurns : public LaneFixture {
 protected:
  LaneTurns() : LaneFixture({.mtu_bytes = 65535}) {}
  std::uint64_t frames() const { return box.lane.counters().frames[static_cast<std::size_t>(wire::ParseVerdict::kOk)]; }
  // Frames that each of `polls` polls takes of a hundred that wait.
  std::vector<std::uint64_t> taken(std::size_t payload_bytes, int polls) {
    const auto frame = peer.frame(stream_bytes(1, 0, payload_bytes));
    for (int i = 0; i < 100; ++i) peer.send_frame(frame);
    std::vector<std::uint64_t> counts;
    for (int i = 0; i < polls; ++i) {
      const std::uint64_t before = frames();
      box.lane.poll(now);
      counts.push_back(frames() - before);
    }
    poll();
    return counts;
  }
};

TEST_F(LaneTurns, SmallFramesAreTakenManyAtATime) {
  start();
  EXPECT_EQ(taken(64, 2).back(), 64U);
}

TEST_F(LaneTurns, SuperPacketsAreTakenFewAtATime) {
  start();
  taken(64, 3);  // by now it takes many
  const auto counts = taken(60'000, 8);
  EXPECT_LE(counts[0], 64U) << "it cannot know yet";
  for (std::size_t i = 1; i < counts.size(); ++i) {
    EXPECT_GE(counts[i], 1U);
    EXPECT_LE(counts[i] * 60'000, kBytesOfAPoll);
  }
}

TEST_F(LaneTurns, SegmentsOfManyConnectionsAreSentInSeveralPolls) {
  constexpr std::uint32_t kConnections = 8;
  constexpr std::uint32_t kBytes = 60'000;
  std::vector<ProgramConn*> conns;
  for (std::uint32_t i = 0; i < kConnections; ++i) {
    ProgramConn& each = program.open(20 + i);
    Moved moved = idle(20 + i);
    moved.min.cwnd_segments = 100;
    moved.min.snd_wnd = moved.min.max_window = 1U << 20;
    ASSERT_EQ(install(box, program, each, moved), Status::kOk);
    conns.push_back(&each);
  }
  poll();
  for (ProgramConn* each : conns) ASSERT_EQ(program.write(*each, kBytes), kBytes);
  const std::uint64_t before = box.lane.counters().segments_out;
  box.lane.poll(now);
  const std::uint64_t first = box.lane.counters().segments_out - before;
  EXPECT_GE(first, 100U);
  EXPECT_LE(first, 160U);
  poll();
  EXPECT_GE(box.lane.counters().segments_out - before, kConnections * kBytes / 1460);
}

// Whoever found the submission ring crowded is told once half of it is free, however long that takes.
TEST_F(LaneTurns, RoomInTheRingIsToldToWhoAskedForIt) {
  start();
  const std::uint32_t entries = program.arena().geometry().sq_entries;
  auto& wish = program.arena().ring(0).sq_want_room.value;
  const auto told = [this] {
    ipc::CompleteEntry entry;
    int count = 0;
    while (program.completions(0).pop(entry) == ipc::CompleteConsumer::Pop::kEntry)
      count += entry.op == ipc::CompleteOp::kRingRoom ? 1 : 0;
    program.completions(0).release();
    return count;
  };
  const auto crowd = [&](std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i)
      program.submit(0, {.op = ipc::SubmitOp::kKick,
                         .flags = 0,
                         .reserved0 = 0,
                         .slot = 0,
                         .hw_conn_id = 0,
                         .chunk = 0,
                         .offset = 0,
                         .length = 0,
                         .reserved1 = 0});
  };
  crowd(entries);
  wish = 1;
  while (box.lane.poll(now)) {
  }
  EXPECT_EQ(told(), 1);
  EXPECT_EQ(wish, 0U);
  crowd(entries);
  while (box.lane.poll(now)) {
  }
  EXPECT_EQ(told(), 0) << "nobody asked";
}

// Each byte of a segment may be a piece of its own.
TEST_F(LaneTurns, SegmentsOfManyPiecesAreSentFewAtATime) {
  Moved moved = idle();
  moved.min.mss = moved.min.mss_clamp = 64;
  moved.min.cwnd_segments = 100;
  moved.min.snd_wnd = 0;
  ASSERT_EQ(install(box, program, conn, moved), Status::kOk);
  std::uint32_t queued = 0;
  for (; queued < 2000; ++queued) {
    if (program.room(0) == 0) box.lane.poll(now);
    program.submit(0, Program::send_entry(conn.hw, queued % 128, 0, 1));
  }
  while (box.lane.poll(now)) {
  }
  peer.send({});
  std::uint64_t most = 0;
  bool more = true;
  for (std::uint64_t before = box.record(id()).counters.bytes_sent; more;) {
    more = box.lane.poll(now);
    most = std::max(most, box.record(id()).counters.bytes_sent - before);
    before = box.record(id()).counters.bytes_sent;
  }
  EXPECT_EQ(got_bytes().size(), queued);
  EXPECT_LE(most, 1024U + 64U);
  EXPECT_GE(most, 512U);
}

}  // namespace
}  // namespace twinstack::engine
