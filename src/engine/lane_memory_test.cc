// What a lane does when memory runs short: chunks, completion rings, and what one application takes from another.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/lane_fixture.h"
#include "tcp/cold_state.h"

namespace twinstack::engine {
namespace {

using namespace test;
using std::chrono::milliseconds;

class LaneMemory : public LaneFixture {
 protected:
  Status status(const Command& command) { return box.call(command).status; }
  // A connection of a program of its own.
  ProgramConn& connect(Program& other, const Moved& moved) {
    box.lane.open_session(9, other.arena());
    ProgramConn& made = other.open(5);
    EXPECT_EQ(install(box, other, made, moved), Status::kOk);
    return made;
  }
};

TEST_F(LaneMemory, OutOfChunksThePeerSendsAgain) {
  ipc::ArenaConfig config = small_arena();
  config.rx_chunk_count = 4;
  Program poor(config, 9);
  ProgramConn& mine = connect(poor, idle());
  // Four chunks of 4096 take 16384 of these bytes.
  const Seq begin = peer.seq;
  for (int i = 0; i < 20; ++i) peer.send(stream_bytes(mine.receive_key, static_cast<std::uint64_t>(i) * 1000, 1000));
  poll();
  EXPECT_EQ(box.lane.free_chunks(9), 0U);
  auto segments = got();
  ASSERT_FALSE(segments.empty());
  EXPECT_EQ(segments.back().segment.ack, begin + 16384);
  poor.pump();
  EXPECT_EQ(poor.read(mine), 16384U);
  poll();
  peer.seq = begin + 16384;
  peer.send(stream_bytes(mine.receive_key, 16384, 1000));
  poll();
  poor.pump();
  EXPECT_GE(poor.read(mine), 1000U);
  EXPECT_EQ(poor.wrong_pieces, 0U);
}

// Sends a window's worth every round trip, all of which the program reads. The window in the end, bytes.
class LaneTuning : public LaneMemory {
 protected:
  std::uint32_t window_after(std::uint32_t rounds, std::uint16_t flags, const HostSettings& settings) {
    ipc::ArenaConfig config = small_arena();
    config.rx_chunk_count = 2048;  // 8 MB
    Program rich(config, 9);
    box.lane.open_session(9, rich.arena());
    box.lane.set_host_settings(settings);
    ProgramConn& mine = rich.open(5);
    Moved moved = idle();
    moved.min.rcv_buf_bytes = 131'072;
    moved.min.flags |= flags;
    if (srtt_us >= 0) moved.min.srtt_us = static_cast<std::uint32_t>(srtt_us);
    EXPECT_EQ(install(box, rich, mine, moved), Status::kOk);
    std::uint32_t window = moved.min.rcv_wnd;
    std::uint64_t sent = 0;
    for (std::uint32_t round = 0; round < rounds; ++round) {
      for (std::uint32_t left = window; left > 0;) {
        const std::uint32_t bytes = std::min(left, 1400U);
        peer.send(stream_bytes(mine.receive_key, sent, bytes));
        sent += bytes;
        left -= bytes;
        while (box.lane.poll(now)) {
        }
        rich.pump();
        rich.read(mine);
      }
      poll(milliseconds(31));
      const Seq edge = peer.seq;
      for (const auto& segment : got()) {
        window =
            bytes_between(edge, segment.segment.ack + (std::uint32_t{segment.segment.window} << moved.min.rcv_wscale));
      }
    }
    EXPECT_EQ(rich.wrong_pieces, 0U);
    const Reply reply = box.call({.op = CommandOp::kQuery, .id = HwConnId(mine.hw)});
    EXPECT_GE(reply.state.min.rcv_buf_bytes, std::max(window * 2, 131'072U) - 2048) << "the kernel can take it back";
    EXPECT_EQ(reply.state.min.flags & tcp::kFlagFixedReceiveBuffer, flags);
    return window;
  }
  std::int64_t srtt_us = -1;  // as idle() has it
};

TEST_F(LaneTuning, AFastReaderIsOfferedMore) {
  EXPECT_GT(window_after(6, 0, {.tcp_rmem_max_bytes = 2U << 20}), 500'000U);
}
TEST_F(LaneTuning, NoMoreThanTheHostAllows) {
  EXPECT_LE(window_after(6, 0, {.tcp_rmem_max_bytes = 300'000}), 150'000U);
}
TEST_F(LaneTuning, NotWhenTheProgramHasSetTheBuffer) {
  EXPECT_LE(window_after(6, tcp::kFlagFixedReceiveBuffer, {}), 65'536U);
}
TEST_F(LaneTuning, NotWhenTheHostForbidsIt) { EXPECT_LE(window_after(6, 0, {.tcp_moderate_rcvbuf = false}), 65'536U); }

TEST_F(LaneTuning, AlsoWhoOnlyReceives) {
  srtt_us = 0;
  EXPECT_GT(window_after(8, 0, {.tcp_rmem_max_bytes = 2U << 20}), 500'000U);
}

TEST_F(LaneTuning, DataOutOfOrderHasRoomBesideTheReadersPace) {
  ipc::ArenaConfig config = small_arena();
  config.rx_chunk_count = 2048;
  Program rich(config, 9);
  Moved moved = idle();
  moved.min.rcv_buf_bytes = 131'072;
  ProgramConn& mine = connect(rich, moved);
  const auto buffer = [&] {
    return box.call({.op = CommandOp::kQuery, .id = HwConnId(mine.hw)}).state.min.rcv_buf_bytes;
  };
  EXPECT_EQ(buffer(), 131'072U);
  peer.seq = peer.seq + 60'000;
  peer.send(stream_bytes(mine.receive_key, 60'000, 1000));
  poll();
  EXPECT_GE(buffer(), 2 * 61'000U + 2 * 2 * 10 * 1000U);
}

// What peers send out of order is memory of the service: a greedy one loses, a modest one does not.
TEST_F(LaneMemory, DataOutOfOrderIsBoundedOverAllConnections) {
  box.lane.set_out_of_order_limit(40'000);
  start();
  ProgramConn& other = program.open(6);
  Moved moved = idle(8);
  moved.min.flow.remote = IpAddress::from_v4({10, 0, 0, 77});
  ASSERT_EQ(install(box, program, other, moved), Status::kOk);
  RawPeer modest(*far, reversed(moved.min.flow), kPeer, kOur);
  const Seq begin = peer.seq;
  const auto hole = peer_bytes(1000);
  for (std::uint32_t i = 0; i < 100; ++i) {  // beyond the hole
    peer.seq = begin + 1000 + i * 600;
    peer.send(std::vector<std::byte>(500));
    poll();
  }
  EXPECT_LE(box.region.out_of_order().used(), 40'000U);
  const Seq modest_begin = modest.seq;
  modest.seq = modest_begin + 1000;
  modest.send(stream_bytes(other.receive_key, 1000, 1000));
  poll();
  modest.seq = modest_begin;
  modest.send(stream_bytes(other.receive_key, 0, 1000));
  poll();
  EXPECT_EQ(program.read(other), 2000U) << "nothing of it was lost";
  EXPECT_GT(box.lane.counters().out_of_order_pruned, 0U);
  EXPECT_LE(box.region.out_of_order().used(), 40'000U);
  // The hole is filled: what follows is acknowledged as far as it is there.
  got();
  peer.seq = begin;
  peer.send(hole);
  poll();
  const auto segments = got();
  ASSERT_FALSE(segments.empty());
  EXPECT_EQ(segments.back().segment.ack, begin + 1500);
  ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = id()}).status, Status::kOk);
  ASSERT_EQ(box.call({.op = CommandOp::kExtract, .id = id()}).status, Status::kOk);
  ASSERT_EQ(box.call({.op = CommandOp::kRelease, .id = id()}).status, Status::kOk);
  EXPECT_EQ(box.region.out_of_order().used(), 0U);
}

TEST_F(LaneMemory, WhoHoldsDataOutOfOrderIsOfferedNoMoreWhileThereIsLittleRoom) {
  box.lane.set_out_of_order_limit(40'000);
  Moved moved = idle();
  moved.min.rcv_buf_bytes = 131'072;
  start(moved);
  const Seq begin = peer.seq;
  const auto edge = [&] {
    Seq right = begin;
    const auto segments = got();
    EXPECT_FALSE(segments.empty());
    for (const auto& segment : segments) {
      right = segment.segment.ack + (std::uint32_t{segment.segment.window} << moved.min.rcv_wscale);
    }
    return right;
  };
  peer.send({}, wire::kAck | wire::kPsh, [](wire::Segment& segment) { segment.seq = segment.seq - 1; });
  poll();
  const Seq before = edge();
  ASSERT_GT(before, begin + 60'000);
  for (std::uint32_t i = 0; i < 100; ++i) {
    peer.seq = begin + 1000 + i * 600;
    peer.send(std::vector<std::byte>(500));
    poll();
  }
  EXPECT_TRUE(box.region.out_of_order().is_scarce_for(box.conn(id()).tcb.cold->share));
  peer.seq = begin;
  peer.send(peer_bytes(800));
  poll();
  program.read(conn);
  poll();
  got();
  peer.send(peer_bytes(100));
  poll();
  EXPECT_LE(edge(), before + 3 * 127) << "rounded up with each ACK";
}

// As Linux: the clamp bounds the window, not what is unread.
TEST_F(LaneMemory, NoWindowIsLargerThanTheClamp) {
  Moved moved = idle();
  moved.min.rcv_buf_bytes = 400'000;
  moved.min.rcv_wnd = 0;
  moved.min.window_clamp_bytes = 20'000;
  moved.min.flags |= tcp::kFlagFixedReceiveBuffer;
  start(moved);
  std::uint32_t largest = 0;
  std::uint32_t window = 0;
  for (int i = 0; i < 100; ++i) {
    for (const auto& segment : got()) {
      window = std::uint32_t{segment.segment.window} << moved.min.rcv_wscale;
      largest = std::max(largest, window);
    }
    if (window < 1000) break;
    peer.send(peer_bytes(1000));
    poll(milliseconds(50));
  }
  EXPECT_GE(largest, 20'000U);
  EXPECT_LE(largest, 20'000U + 127U);
  EXPECT_GT(conn.unread_bytes, 60'000U);
  EXPECT_EQ(box.call({.op = CommandOp::kQuery, .id = id()}).state.min.window_clamp_bytes, 20'000U);
}

TEST_F(LaneMemory, AClampUnderASegmentStillOffersOne) {
  Moved moved = idle();
  moved.min.rcv_wnd = 0;
  moved.min.window_clamp_bytes = 100;
  start(moved);
  peer.send({});
  poll();
  const auto segments = got();
  ASSERT_FALSE(segments.empty());
  EXPECT_GE(std::uint32_t{segments.back().segment.window} << moved.min.rcv_wscale, moved.min.mss - 127U);
}

// The clamp was no less than a segment when the connection came; a router's word has made them small for a while.
TEST_F(LaneMemory, AClampUnderASegmentByNowDoesNotCloseTheWindow) {
  Moved moved = idle();
  moved.min.rcv_wnd = 60'000;
  moved.min.window_clamp_bytes = 1200;
  moved.min.mss = 1000;
  start(moved);
  poll(std::chrono::minutes(11));
  program.write(conn, 10);
  poll();
  const auto window = [&] {
    const auto segments = got();
    return segments.empty() ? 0U : std::uint32_t{segments.back().segment.window} << moved.min.rcv_wscale;
  };
  for (int i = 0; i < 50; ++i) {
    peer.send(peer_bytes(1400));
    poll();
    program.read(conn);
    poll(milliseconds(50));
  }
  EXPECT_GE(window(), 1000U);
}

// One connection whose program does not read, and then one beside it: what is offered has its chunks.
TEST_F(LaneMemory, WindowsAreOfferedByTheChunksLeft) {
  ipc::ArenaConfig config = small_arena();
  config.rx_chunk_count = 20;  // 80 KB
  Program poor(config, 9);
  box.lane.open_session(9, poor.arena());
  const auto fill = [&](std::uint32_t number, std::uint32_t slot) -> ProgramConn& {
    ProgramConn& mine = poor.open(slot);
    Moved moved = idle(number);
    moved.min.rcv_buf_bytes = 1U << 20;
    moved.min.rcv_wnd = 0;  // what the kernel had offered is used up
    EXPECT_EQ(install(box, poor, mine, moved), Status::kOk);
    RawPeer sender(*far, reversed(flow_number(number)), kPeer, kOur);
    std::uint64_t sent = 0;
    Seq right_edge = sender.seq;
    for (int i = 0; i < 200; ++i) {
      poll();
      for (const auto& got : sender.receive(now))
        right_edge = got.segment.ack + (std::uint32_t{got.segment.window} << moved.min.rcv_wscale);
      const std::uint32_t most = std::min(bytes_between(sender.seq, max(sender.seq, right_edge)), 1000U);
      if (most == 0) continue;
      sender.send(stream_bytes(mine.receive_key, sent, most));
      sent += most;
    }
    poll();
    EXPECT_EQ(box.record(HwConnId(mine.hw)).counters.bytes_received, sent) << "nothing was dropped";
    EXPECT_GT(sent, 4096U);
    return mine;
  };
  ProgramConn& first = fill(7, 5);
  EXPECT_GT(box.lane.free_chunks(9), 0U);
  ProgramConn& second = fill(8, 6);
  poor.pump();
  EXPECT_GT(poor.read(first), 16'384U);
  EXPECT_GT(poor.read(second), 4096U);
  EXPECT_EQ(poor.wrong_pieces, 0U);
}

// ... and when the program reads that one, the other's peer is told without having asked.
TEST_F(LaneMemory, ChunksThatComeBackAreOfferedToTheOthers) {
  ipc::ArenaConfig config = small_arena();
  config.rx_chunk_count = 20;
  Program poor(config, 9);
  box.lane.open_session(9, poor.arena());
  Moved hog = idle(8);
  hog.min.rcv_wnd = 80U << 10;  // offered by the kernel
  ProgramConn& first = poor.open(6);
  ASSERT_EQ(install(box, poor, first, hog), Status::kOk);
  RawPeer greedy(*far, reversed(flow_number(8)), kPeer, kOur);
  for (std::uint64_t sent = 0; sent < 76'000; sent += 1000) {
    greedy.send(stream_bytes(first.receive_key, sent, 1000));
    poll();
  }
  poor.pump();
  Moved moved = idle();
  moved.min.rcv_wnd = 0;
  ProgramConn& second = poor.open(5);
  ASSERT_EQ(install(box, poor, second, moved), Status::kOk);
  poll();
  const auto offered = [&] {
    std::uint32_t window = 0;
    for (const auto& segment : got()) window = std::uint32_t{segment.segment.window} << moved.min.rcv_wscale;
    return window;
  };
  const std::uint32_t before = offered();
  EXPECT_LT(before, 4096U);
  EXPECT_GE(poor.read(first), 76'000U);
  poll();
  poor.pump();
  poll();
  EXPECT_GT(offered(), 20'000U);
}

// ... in several polls when they are many.
class LaneOffers : public LaneFixture {
 protected:
  static constexpr std::uint32_t kMany = 40;

  LaneOffers() {
    box.lane.open_session(9, poor.arena());
    ProgramConn& hog = poor.open(1);
    Moved moved = idle(8);
    moved.min.rcv_wnd = 80U << 10;  // offered by the kernel
    EXPECT_EQ(install(box, poor, hog, moved), Status::kOk);
    RawPeer greedy(*far, reversed(flow_number(8)), kPeer, kOur);
    for (std::uint64_t sent = 0; sent < 76'000; sent += 1000) {
      greedy.send(stream_bytes(hog.receive_key, sent, 1000));
      poll();
    }
    for (std::uint32_t i = 0; i < kMany; ++i) add(i);
    poll();
    got();
    poor.pump();
    poor.read(hog);
  }
  // One that can be offered little.
  void add(std::uint32_t number) {
    Moved moved = idle(20 + number);
    moved.min.rcv_wnd = 0;
    ASSERT_EQ(install(box, poor, poor.open(2 + number), moved), Status::kOk);
  }
  static ipc::ArenaConfig config() {
    ipc::ArenaConfig config = small_arena();
    config.rx_chunk_count = 20;
    return config;
  }
  std::uint64_t told() const { return box.lane.counters().segments_out; }

  Program poor{config(), 9};
};

TEST_F(LaneOffers, GoToAFewOfManyInEachPoll) {
  const std::uint64_t begin = told();
  std::uint64_t before = begin;
  for (int i = 0; i < 10; ++i) {
    box.lane.poll(now);
    EXPECT_LE(told() - before, 16U + 1U);
    before = told();
  }
  EXPECT_GE(told() - begin, std::uint64_t{kMany});
  EXPECT_FALSE(box.lane.poll(now)) << "there is nothing left to do";
}

// The same again and again, and then each that is there is told.
TEST_F(LaneOffers, GoToWhoIsLeftOfMoreThatAreGone) {
  for (std::uint32_t i = 0; i < 500; ++i) {
    const HwConnId id(poor.conns[2].hw);
    ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = id}).status, Status::kOk);
    ASSERT_EQ(box.call({.op = CommandOp::kRelease, .id = id}).status, Status::kOk);
    add(0);
  }
  const std::uint64_t before = told();
  poll();
  EXPECT_GE(told() - before, std::uint64_t{kMany});
  EXPECT_LE(told() - before, kMany + 1U);
}

// All that waits is processed in one go when the move ends: not as many packets as fit.
TEST_F(LaneMemory, PacketsThatWaitForAMoveAreChargedBesideTheirBytes) {
  constexpr std::uint32_t kMost = (4U << 20) / (1000 + 512);
  ipc::ArenaConfig config = small_arena();
  config.rx_chunk_count = 2048;
  Program rich(config, 9);
  ProgramConn& mine = connect(rich, idle());
  const auto held = [&] {
    EXPECT_EQ(box.call({.op = CommandOp::kHold, .id = HwConnId(mine.hw)}).status, Status::kOk);
    const std::uint64_t before = box.lane.counters().held_frames;
    const auto frame = peer.frame(std::vector<std::byte>(1000));
    for (std::uint32_t i = 0; i < 2 * kMost; ++i) {
      peer.send_frame(frame);
      box.lane.poll(now);
    }
    return box.lane.counters().held_frames - before;
  };
  const std::uint64_t first = held();
  EXPECT_LE(first, kMost);
  EXPECT_GE(first, kMost - kMost / 10);
  const Reply swept = box.call({.op = CommandOp::kSweep, .id = HwConnId(mine.hw)});
  EXPECT_EQ(box.call({.op = CommandOp::kDropHeld, .id = HwConnId(mine.hw), .held_pieces = swept.held_pieces}).status,
            Status::kOk);
  EXPECT_EQ(box.call({.op = CommandOp::kActivate, .id = HwConnId(mine.hw)}).status, Status::kOk);
  EXPECT_EQ(held(), first) << "what was charged went back";
  EXPECT_EQ(box.call({.op = CommandOp::kActivate, .id = HwConnId(mine.hw)}).status, Status::kOk);
  EXPECT_EQ(held(), first);
}

// The program does not look into its completion ring: nothing is lost, nothing breaks, the peer sends again.
TEST_F(LaneMemory, AFullCompletionRingDropsAndRecovers) {
  ipc::ArenaConfig config = small_arena();
  config.cq_entries = 256;
  Program slow(config, 9);
  ProgramConn& mine = connect(slow, idle());
  const Seq begin = peer.seq;
  for (std::uint64_t i = 0; i < 300; ++i) {
    peer.send(stream_bytes(mine.receive_key, i * 10, 10));
    while (box.lane.poll(now)) {
    }
  }
  EXPECT_GT(box.lane.counters().completion_full, 0U);
  EXPECT_TRUE(box.events().empty());
  got();
  slow.pump();
  slow.read(mine);
  EXPECT_LT(mine.received, 3000U);
  peer.seq = begin;
  for (std::uint64_t i = 0; i < 300; ++i) {
    peer.send(stream_bytes(mine.receive_key, i * 10, 10));
    while (box.lane.poll(now)) {
    }
    slow.pump();
    slow.read(mine);
  }
  EXPECT_EQ(mine.received, 3000U);
  EXPECT_EQ(slow.wrong_pieces, 0U);
}

// A ring that is full for one application is no reason to refuse another.
TEST_F(LaneMemory, RingEntriesAreKeptForTheirOwnRingAlone) {
  Program beside(small_arena(), 9);
  box.lane.open_session(9, beside.arena());
  const std::uint32_t entries = program.arena().geometry().cq_entries;
  const Command notify{.op = CommandOp::kNotify, .session = kSession, .slot = 5, .tag = 1, .ring = 0};
  while (status(notify) == Status::kOk) {
  }
  const Reply reserved = reserve(box, program, conn, idle().min.flow, 2);
  Command command{.op = CommandOp::kLoad, .id = reserved.id};
  command.unread_bytes = 2 * program.arena().geometry().chunk_bytes;
  command.chunk_count = 2;
  command.chunks = reserved.chunks;
  EXPECT_EQ(status(command), Status::kRingFull);
  program.pump();
  ASSERT_EQ(status(command), Status::kOk);
  Command other = notify;
  other.session = 9;
  std::uint32_t room = 0;
  while (status(other) == Status::kOk) ++room;
  EXPECT_EQ(room, entries - 16);
}

// ... but what was reported by SACK is not dropped on the way back, were it a whole window of the default size.
TEST_F(LaneMemory, DataOutOfOrderIsNotChargedForItsFrames) {
  constexpr std::uint32_t kSegments = 2600;
  ipc::ArenaConfig config = small_arena();
  config.rx_chunk_count = 2048;
  Program rich(config, 9);
  Moved moved = idle();
  moved.min.options |= tcp::kOptWindowScale | tcp::kOptSack;
  moved.min.rcv_wscale = 7;
  moved.min.rcv_buf_bytes = 8U << 20;
  moved.min.rcv_wnd = 4U << 20;
  ProgramConn& mine = connect(rich, moved);
  peer.seq += 1;  // a hole
  for (std::uint32_t i = 0; i < kSegments; ++i) {
    peer.send(std::vector<std::byte>(1200));
    box.lane.poll(now);
  }
  const std::uint64_t before = box.lane.counters().held_frames;
  ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = HwConnId(mine.hw)}).status, Status::kOk);
  ASSERT_EQ(box.call({.op = CommandOp::kExtract, .id = HwConnId(mine.hw)}).status, Status::kOk);
  EXPECT_EQ(box.lane.counters().held_frames - before, kSegments);
  EXPECT_EQ(box.lane.counters().held_dropped, 0U);
}

}  // namespace
}  // namespace twinstack::engine
