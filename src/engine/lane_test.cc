// One lane against a peer of bare segments, and two lanes against each other: data both ways, what an install brings,
// memory that follows data in flight, events for the driver.
#include "engine/lane.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "engine/lane_fixture.h"

namespace twinstack::engine {
namespace {

using namespace test;
using std::chrono::milliseconds;
using LaneTest = LaneFixture;

TEST_F(LaneTest, AnInstallSendsOneAckAndNothingElse) {
  start();
  const auto segments = got();
  ASSERT_EQ(segments.size(), 1U);
  EXPECT_EQ(segments[0].segment.flags, wire::kAck);
  EXPECT_EQ(segments[0].segment.seq, Seq(kOur));
  EXPECT_EQ(segments[0].segment.ack, Seq(kPeer));
  EXPECT_TRUE(segments[0].payload.empty());
}

TEST_F(LaneTest, ReceivedBytesReachTheProgramAndAreAcknowledged) {
  start();
  got();
  peer.send(peer_bytes(1000));
  poll();
  EXPECT_EQ(program.read(conn), 1000U);
  poll(milliseconds(50));
  const auto segments = got();
  ASSERT_FALSE(segments.empty());
  EXPECT_EQ(segments.back().segment.ack, Seq(kPeer + 1000));
  EXPECT_EQ(program.wrong_pieces, 0U);
  EXPECT_EQ(program.arena().slot(5).rx_posted_bytes.load(), 1000U);
}

TEST_F(LaneTest, WrittenBytesReachThePeerInOrder) {
  start();
  got();
  EXPECT_EQ(program.write(conn, 5000), 5000U);
  poll();
  EXPECT_EQ(got_bytes(), stream_bytes(conn.send_key, 0, 5000));
  peer.send({});
  poll();
  EXPECT_EQ(program.arena().slot(5).tx_acked_bytes.load(), 5000U);
  EXPECT_EQ(conn.sent_events, 1U);
}

// The unread bytes come before those that the engine receives; they are not acknowledged again.
TEST_F(LaneTest, AWriteWithMoreWaitsForTheNext) {
  Moved moved = idle();
  moved.min.flags |= tcp::kFlagNoDelay;
  start(moved);
  got();
  auto entry = Program::send_entry(conn.hw, 0, 0, 10);
  entry.flags = ipc::kSubmitMore;
  program.submit(0, entry);
  poll();
  EXPECT_TRUE(got_bytes().empty());
  program.submit(0, Program::send_entry(conn.hw, 0, 10, 20));
  poll();
  const auto segments = got();
  ASSERT_EQ(segments.size(), 1U);
  EXPECT_EQ(segments[0].payload.size(), 30U);
}

TEST_F(LaneTest, UnreadBytesOfTheKernelAreReadFirst) {
  Moved moved = idle();
  moved.unread = peer_bytes(10'000);  // more than two chunks
  moved.min.copied_seq = kPeer - 10'000;
  start(moved);
  peer.send(peer_bytes(1400));
  poll();
  EXPECT_EQ(program.read(conn), 11'400U);
  EXPECT_EQ(program.wrong_pieces, 0U);
}

TEST_F(LaneTest, UnreadBytesCountAgainstTheWindow) {
  Moved moved = idle();
  moved.unread = peer_bytes(20'000);
  moved.min.rcv_wnd = 0;
  moved.min.rcv_buf_bytes = 60'000;
  start(moved);
  const auto segments = got();
  ASSERT_EQ(segments.size(), 1U);
  EXPECT_EQ(segments[0].segment.window << 7, (30'000 - 20'000 + 127) / 128 * 128);
}

// A peer that heeds no window gets no more memory than the buffer and what rounding may have offered.
TEST_F(LaneTest, UnreadBytesAreBoundedWhateverThePeerSends) {
  Moved moved = idle();
  moved.min.rcv_buf_bytes = 60'000;
  start(moved);
  for (int i = 0; i < 2000; ++i) {
    peer.send(peer_bytes(100));
    poll(milliseconds(1));
    got();
  }
  program.pump();
  EXPECT_LE(conn.unread_bytes, 30'000U + moved.min.rcv_wnd + (64U << 10) + (4U << 7));
}

// SO_RCVBUF at its least, and a scale that the whole buffer is less than a unit of: the peer may send all the same.
TEST_F(LaneTest, ATinyReceiveBufferStillOffersAWindow) {
  Moved moved = idle();
  moved.min.rcv_wnd = 0;
  moved.min.rcv_buf_bytes = 2304;
  moved.min.rcv_wscale = 14;
  start(moved);
  const auto segments = got();
  ASSERT_EQ(segments.size(), 1U);
  EXPECT_EQ(segments[0].segment.window, 1U);
}

TEST_F(LaneTest, UnackedAndUnsentBytesOfTheKernelGoOn) {
  Moved moved = idle();
  // [una, nxt) was sent by the kernel, [nxt, write) was not.
  moved.send_queue = stream_bytes(conn.send_key, 0, 9000);
  moved.min.snd_nxt += 2000;
  moved.min.write_seq += 9000;
  conn.written = 9000;
  start(moved);
  auto segments = got();
  ASSERT_FALSE(segments.empty());
  EXPECT_EQ(segments[0].segment.seq, Seq(kOur + 2000)) << "what was sent is not sent again without need";
  // The peer has only the first 1000 of what the kernel sent, and all that the engine sent: the timer mends it.
  peer.ack = Seq(kOur + 1000);
  peer.send({});
  poll();
  std::vector<std::byte> rest(8000);
  for (int i = 0; i < 100 && peer.ack != Seq(kOur + 9000); ++i) {
    for (const auto& segment : got()) {
      if (segment.payload.empty()) continue;
      const auto at = static_cast<std::size_t>(segment.segment.seq - Seq(kOur + 1000));
      ASSERT_LE(at + segment.payload.size(), rest.size());
      std::copy(segment.payload.begin(), segment.payload.end(), rest.begin() + static_cast<std::ptrdiff_t>(at));
    }
    peer.send({});
    poll(milliseconds(100));
  }
  EXPECT_EQ(peer.ack, Seq(kOur + 9000));
  // RawPeer keeps nothing out of order: all must have been sent by now.
  EXPECT_EQ(program.arena().slot(5).tx_acked_bytes.load(), 0U) << "these bytes were never the rings'";
  EXPECT_EQ(box.lane.free_chunks(kSession), 256U);
}

TEST_F(LaneTest, BytesOfTheRingsFollowThoseThatCameWithTheConnection) {
  Moved moved = idle();
  moved.send_queue = stream_bytes(conn.send_key, 0, 300);
  moved.min.write_seq += 300;
  conn.written = 300;
  start(moved);
  EXPECT_EQ(program.write(conn, 500, 100), 500U);
  poll();
  EXPECT_EQ(got_bytes(), stream_bytes(conn.send_key, 0, 800));
  peer.send({});
  poll();
  EXPECT_EQ(program.arena().slot(5).tx_acked_bytes.load(), 500U);
}

TEST_F(LaneTest, AnIdleConnectionOwnsNoChunkAndNoPiece) {
  const std::uint32_t pieces = box.lane.free_pieces();
  Moved moved = idle();
  moved.unread = peer_bytes(5000);
  moved.send_queue = stream_bytes(conn.send_key, 0, 5000);
  moved.min.write_seq += 5000;
  conn.written = 5000;
  start(moved);
  for (int i = 0; i < 20; ++i) {
    peer.send(peer_bytes(700));
    program.write(conn, 900, 50);
    poll();
    got();
    program.read(conn, 333);
    peer.send({});
    poll();
  }
  got();
  peer.send({});
  program.read(conn);
  poll();
  program.pump();
  EXPECT_EQ(program.wrong_pieces, 0U);
  EXPECT_EQ(conn.unread_bytes, 0U);
  EXPECT_EQ(box.lane.free_chunks(kSession), 256U);
  EXPECT_EQ(box.lane.free_pieces(), pieces);
  EXPECT_EQ(program.free_tx_chunks(), 128U);
  EXPECT_EQ(box.conn(id()).send_queue.head, kNone);
  EXPECT_EQ(box.conn(id()).rx_chunk, kNone);
}

TEST_F(LaneTest, SmallWritesInARowShareOnePiece) {
  start();
  peer.send(peer_bytes(1));
  peer.window = 0;  // a window that shrinks counts only on a newer segment
  peer.send(peer_bytes(1));
  poll();
  const std::uint32_t pieces = box.lane.free_pieces();
  program.write(conn, 2000, 20);
  poll();
  EXPECT_EQ(box.lane.free_pieces(), pieces - 1);
}

// ---- Events that send the connection back.

class LaneToSoftware : public LaneTest {
 protected:
  void expect_event(Cause cause) {
    poll();
    const auto events = box.events();
    ASSERT_EQ(events.size(), 1U);
    EXPECT_EQ(events[0].type, EventType::kToSoftware);
    EXPECT_EQ(events[0].cause, cause);
    EXPECT_EQ(events[0].id, id());
    EXPECT_EQ(events[0].session, kSession);
    EXPECT_EQ(events[0].slot, 5U);
    EXPECT_EQ(events[0].tag, 1U);
    EXPECT_TRUE(box.lane.take_signal());
  }
  // The packet waits in the held list, byte for byte.
  void expect_held(const std::vector<std::byte>& frame) {
    ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = id()}).status, Status::kOk);
    const Reply reply = box.call({.op = CommandOp::kExtract, .id = id()});
    EXPECT_EQ(held_frames(box, program, reply), std::vector<std::vector<std::byte>>{frame});
  }
};

TEST_F(LaneToSoftware, FinOfThePeer) {
  start();
  const auto frame = peer.frame(peer_bytes(10), wire::kAck | wire::kFin);
  peer.send_frame(frame);
  expect_event(Cause::kPeerFin);
  program.pump();
  EXPECT_EQ(conn.unread_bytes, 0U) << "the kernel will deliver its data";
  expect_held(frame);
}

// It waits in memory of the program, which puts a packet of another connection there, right in every sum.
TEST_F(LaneToSoftware, APacketThatTheProgramReplacedIsNotUsed) {
  start();
  auto frame = peer.frame(peer_bytes(10), wire::kAck | wire::kFin);
  peer.send_frame(frame);
  expect_event(Cause::kPeerFin);
  ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = id()}).status, Status::kOk);
  // Another source address: the halves of this one exchanged, which changes no sum.
  constexpr std::ptrdiff_t kSourceAddress = 14 + 12;
  const Piece& piece = box.port.pieces()[box.region.waiting()[box.conn(id()).waiting].held.head];
  const auto held = program.arena().chunk(piece.chunk).subspan(piece.offset, frame.size());
  ASSERT_TRUE(std::ranges::equal(held, frame));
  const auto source = held.begin() + kSourceAddress;
  std::swap_ranges(source, source + 2, source + 2);
  ASSERT_FALSE(std::ranges::equal(held, frame));
  ASSERT_EQ(box.call({.op = CommandOp::kActivate, .id = id()}).status, Status::kOk);
  poll();
  EXPECT_EQ(box.events().size(), 0U);
  EXPECT_EQ(box.lane.counters().unknown_flow, 0U) << "it was taken for a packet of that connection";
  EXPECT_EQ(box.lane.counters().held_dropped, 1U);
}

TEST_F(LaneToSoftware, WhoHasResetTheConnectionGetsNoAckThatWasOwed) {
  start();
  poll();
  got();
  for (int i = 0; i < 20; ++i) {  // beyond those that are acknowledged at once
    peer.send(peer_bytes(10));
    poll();
    got();
  }
  peer.send(peer_bytes(10));
  poll();
  const bool waits = got().empty();
  peer.send_frame(peer.frame({}, wire::kRst | wire::kAck));
  expect_event(Cause::kPeerReset);
  ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = id()}).status, Status::kOk);
  poll();
  EXPECT_TRUE(waits);
  EXPECT_TRUE(got().empty());
}

TEST_F(LaneToSoftware, ResetOfThePeer) {
  start();
  const auto frame = peer.frame({}, wire::kRst | wire::kAck);
  peer.send_frame(frame);
  expect_event(Cause::kPeerReset);
  expect_held(frame);
}

TEST_F(LaneToSoftware, UrgentData) {
  start();
  const auto frame =
      peer.frame(peer_bytes(4), wire::kAck | wire::kUrg, [](wire::Segment& segment) { segment.urgent = 4; });
  peer.send_frame(frame);
  expect_event(Cause::kUrgent);
  expect_held(frame);
}

TEST_F(LaneToSoftware, TheEventComesOnceThoughThePeerRepeatsItself) {
  start();
  const auto frame = peer.frame({}, wire::kAck | wire::kFin);
  for (int i = 0; i < 3; ++i) peer.send_frame(frame);
  expect_event(Cause::kPeerFin);
}

TEST_F(LaneToSoftware, OfWhatAPeerRepeatsWithoutEndOneWaits) {
  start();
  const std::uint32_t free_before = box.free_pieces();
  const auto fin = peer.frame(peer_bytes(10), wire::kAck | wire::kFin);
  for (int i = 0; i < 500; ++i) {
    peer.send_frame(fin);
    poll();
    const auto urgent = peer.frame(std::vector<std::byte>(4), wire::kAck | wire::kUrg);
    peer.send_frame(urgent);
    poll();
  }
  EXPECT_EQ(box.free_pieces(), free_before - 2);
  EXPECT_EQ(box.lane.counters().held_repeated, 998U);
  EXPECT_EQ(box.lane.counters().held_frames, 2U);
  peer.send_frame(peer.frame({}, wire::kRst | wire::kAck));
  poll();
  EXPECT_EQ(box.lane.counters().held_frames, 3U) << "another kind";
}

// A return that failed: the engine goes on, looks at the packet again and says it again.
TEST_F(LaneToSoftware, AfterAReturnThatFailedTheEventComesAgain) {
  start();
  const auto frame = peer.frame({}, wire::kAck | wire::kFin);
  peer.send_frame(frame);
  expect_event(Cause::kPeerFin);
  ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = id()}).status, Status::kOk);
  ASSERT_EQ(box.call({.op = CommandOp::kActivate, .id = id()}).status, Status::kOk);
  expect_event(Cause::kPeerFin);
  expect_held(frame);
}

// Four timeouts in a row: the kernel goes on, which hears of a smaller path MTU.
TEST_F(LaneToSoftware, APeerThatDoesNotAnswerForAWhile) {
  start();
  program.write(conn, 100);
  std::vector<Event> events;
  Duration waited{};
  for (; waited < std::chrono::seconds(60) && events.empty(); waited += milliseconds(100)) {
    poll(milliseconds(100));
    got();
    events = box.events();
  }
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].cause, Cause::kTimeout);
  EXPECT_GE(box.conn(id()).tcb.retries, 4);
  EXPECT_LT(waited, std::chrono::seconds(60));
}

class LaneUserTimeout : public LaneToSoftware {
 protected:
  void wait_for_the_end() {
    Moved moved = idle();
    moved.min.user_timeout_ms = 3000;
    start(moved);
    program.write(conn, 100);
    std::vector<Event> events;
    for (int i = 0; i < 200 && events.empty(); ++i) {
      poll(milliseconds(100));
      got();
      events = box.events();
    }
    ASSERT_EQ(events.size(), 1U);
    EXPECT_EQ(events[0].cause, Cause::kTimeout);
  }
};

TEST_F(LaneUserTimeout, AnUnansweringPeer) {
  wait_for_the_end();
  ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = id()}).status, Status::kOk);
  EXPECT_EQ(box.call({.op = CommandOp::kExtract, .id = id()}).gave_up, 1U);
}

TEST_F(LaneUserTimeout, APeerThatAnswersAfterAll) {
  wait_for_the_end();
  peer.send({});
  poll();
  ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = id()}).status, Status::kOk);
  EXPECT_EQ(box.call({.op = CommandOp::kExtract, .id = id()}).gave_up, 0U);
}

TEST_F(LaneTest, AResetOutOfSequenceOnlyAsksForTheRightOne) {
  start();
  got();
  peer.send({}, wire::kRst, [](wire::Segment& segment) { segment.seq += 100; });
  poll();
  EXPECT_TRUE(box.events().empty());
  EXPECT_EQ(got().size(), 1U) << "challenge ACK";
}

// ---- Drain.

TEST_F(LaneTest, DrainOfAnIdleConnectionIsDoneAtOnce) {
  start();
  const Reply reply = box.call({.op = CommandOp::kDrain, .id = id(), .flag = 1});
  EXPECT_EQ(reply.drained, 1U);
  poll();
  EXPECT_TRUE(box.events().empty());
}

TEST_F(LaneTest, DrainWaitsForWhatIsOnItsWayAndSendsNothingNew) {
  start();
  program.write(conn, 1000);
  poll();
  const Reply reply = box.call({.op = CommandOp::kDrain, .id = id(), .flag = 1});
  EXPECT_EQ(reply.drained, 0U);
  program.write(conn, 1000);
  poll();
  EXPECT_EQ(got_bytes().size(), 1000U);
  EXPECT_TRUE(box.events().empty());
  peer.send({});
  poll();
  const auto events = box.events();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].type, EventType::kDrained);
  EXPECT_EQ(events[0].id, id());
  EXPECT_EQ(got_bytes().size(), 0U);
  // Called off: what waited goes.
  box.call({.op = CommandOp::kDrain, .id = id(), .flag = 0});
  poll();
  EXPECT_EQ(got_bytes().size(), 1000U);
}

// The peer does not answer: the driver's deadline passes and it takes the connection as it is, unacknowledged bytes
// too.
TEST_F(LaneTest, ADrainThatDoesNotEndGivesTheUnacknowledgedBytesOut) {
  start();
  program.write(conn, 1000);
  poll();
  box.call({.op = CommandOp::kDrain, .id = id(), .flag = 1});
  program.write(conn, 500);
  poll(milliseconds(60));
  const Moved moved = extract(box, program, conn);
  EXPECT_EQ(moved.min.snd_nxt - moved.min.snd_una, 1000U);
  EXPECT_EQ(moved.min.write_seq - moved.min.snd_una, 1500U);
  EXPECT_EQ(moved.send_queue, stream_bytes(conn.send_key, 0, 1500));
  EXPECT_EQ(program.arena().slot(5).tx_acked_bytes.load(), 1500U) << "given to the kernel";
  EXPECT_EQ(box.events().size(), 0U);
}

// ---- Flow control.

TEST_F(LaneTest, AProgramThatDoesNotReadClosesTheWindowAndOpensItAgain) {
  start();
  got();
  std::uint64_t offered = 0;
  for (int i = 0; i < 400; ++i) {
    const auto segments = got();
    if (!segments.empty()) {
      offered = std::uint64_t{segments.back().segment.window} << 7;
      if (offered < 1000) break;
    }
    peer.send(peer_bytes(1000));
    poll(milliseconds(1));
  }
  EXPECT_LT(offered, 1000U);
  program.pump();
  const std::uint64_t waiting = conn.unread_bytes;
  EXPECT_GE(waiting, 100'000U);
  EXPECT_EQ(program.read(conn), waiting);
  poll();
  const auto segments = got();
  ASSERT_FALSE(segments.empty()) << "window update";
  EXPECT_GE(segments.back().segment.window << 7, 64 << 10);
  EXPECT_EQ(program.wrong_pieces, 0U);
}

TEST_F(LaneTest, AClosedWindowOfThePeerIsProbedAndHoldsTheProgramBack) {
  start();
  peer.send(peer_bytes(1));
  peer.window = 0;  // a window that shrinks counts only on a newer segment
  peer.send(peer_bytes(1));
  poll();
  got();
  std::uint64_t written = 0;
  for (int i = 0; i < 10; ++i) {
    written += program.write(conn, 100'000);
    poll();
  }
  EXPECT_EQ(written, program.arena().slot(5).tx_limit_bytes.load());
  EXPECT_EQ(got_bytes().size(), 0U);
  std::size_t probes = 0;
  for (int i = 0; i < 30; ++i) {
    poll(milliseconds(100));
    for (const auto& segment : got()) {
      ++probes;
      EXPECT_EQ(segment.segment.seq, Seq(kOur - 1));
    }
  }
  EXPECT_GE(probes, 2U);
  EXPECT_EQ(program.arena().slot(5).want_tx_space.load(), 1U);
  peer.window = 512;
  std::vector<std::byte> all;
  for (int i = 0; i < 100 && all.size() < written; ++i) {
    peer.send({});
    poll(milliseconds(10));
    const auto more = got_bytes();
    all.insert(all.end(), more.begin(), more.end());
  }
  EXPECT_EQ(all, stream_bytes(conn.send_key, 0, written));
  EXPECT_EQ(program.arena().slot(5).want_tx_space.load(), 0U);
  EXPECT_GE(conn.sent_events, 1U) << "the program is told of the space";
}

// ---- What is no packet of ours.

TEST_F(LaneTest, PacketsOfNoConnectionAreTheKernels) {
  start();
  FlowKey other = reversed(flow_number(7));
  ++other.local_port;
  RawPeer stranger(*far, other, 1, 1);
  const auto frame = stranger.frame(stream_bytes(1, 0, 100));
  stranger.send_frame(frame);
  poll();
  EXPECT_TRUE(box.lane.take_signal());
  EXPECT_EQ(box.lane.take_stray(), frame);
  EXPECT_TRUE(box.lane.take_stray().empty());
  EXPECT_EQ(box.lane.counters().unknown_flow, 1U);
  got();
}

TEST_F(LaneTest, StraysAreBounded) {
  RawPeer stranger(*far, reversed(flow_number(8)), 1, 1);
  for (int i = 0; i < 400; ++i) {
    stranger.send({});
    poll();
  }
  EXPECT_EQ(box.lane.counters().stray_dropped, 400U - 256U);
  int strays = 0;
  while (!box.lane.take_stray().empty()) ++strays;
  EXPECT_EQ(strays, 256);
}

TEST_F(LaneTest, BadFramesAreCountedByVerdict) {
  start();
  const auto count = [&](wire::ParseVerdict verdict) {
    return box.lane.counters().frames[static_cast<std::size_t>(verdict)];
  };
  const auto send_spoiled = [&](const std::function<void(std::vector<std::byte>&)>& spoil) {
    auto frame = peer.frame(stream_bytes(1, 0, 50));
    spoil(frame);
    peer.send_frame(frame);
    poll();
  };
  const auto put16 = [](std::vector<std::byte>& frame, std::size_t at, unsigned value) {
    frame[at] = static_cast<std::byte>(value >> 8);
    frame[at + 1] = static_cast<std::byte>(value);
  };
  send_spoiled([](auto& frame) { frame.back() ^= std::byte{1}; });
  EXPECT_EQ(count(wire::ParseVerdict::kBadChecksum), 1U);
  send_spoiled([&](auto& frame) { put16(frame, 12, 0x0806); });
  EXPECT_EQ(count(wire::ParseVerdict::kNotIp), 1U);
  send_spoiled([](auto& frame) { frame.resize(30); });
  EXPECT_EQ(count(wire::ParseVerdict::kTruncated), 1U);
  send_spoiled([](auto& frame) { frame[24] ^= std::byte{1}; });
  EXPECT_EQ(count(wire::ParseVerdict::kBadIpHeader), 1U);
  EXPECT_EQ(conn.unread_bytes, 0U);
  EXPECT_TRUE(box.events().empty());
}

// ---- Next hops.

TEST_F(LaneTest, AChangedNextHopIsUsedAtOnce) {
  start();
  EXPECT_EQ(got().back().destination_mac, (nic::MacAddress{2, 0, 0, 0, 1, 0}));
  box.call({.op = CommandOp::kSetHop, .hop_index = 0, .hop = {.source = {}, .destination = {2, 9, 9, 9, 9, 9}}});
  program.write(conn, 10);
  poll();
  EXPECT_EQ(got().back().destination_mac, (nic::MacAddress{2, 9, 9, 9, 9, 9}));
  set_hop(box, 4);
  EXPECT_EQ(box.call({.op = CommandOp::kSetHopOf, .id = id(), .hop_index = 4}).status, Status::kOk);
  program.write(conn, 10);
  poll();
  EXPECT_EQ(got().back().destination_mac, (nic::MacAddress{2, 0, 0, 0, 1, 4}));
}

TEST_F(LaneTest, SegmentsFitThePathWhateverTheStateSays) {
  Moved moved = idle();
  moved.min.mss = 9000;
  start(moved);
  program.write(conn, 4000);
  poll();
  for (const auto& segment : got()) EXPECT_LE(segment.payload.size(), 1500U - 40 - 12);
  set_hop(box, 0, 1000);
  peer.send({});
  poll();
  program.write(conn, 4000);
  poll();
  for (const auto& segment : got()) EXPECT_LE(segment.payload.size(), 1000U - 40 - 12);
  EXPECT_EQ(peer.ack, Seq(kOur + 8000));
}

TEST_F(LaneTest, AnInstallWithoutItsNextHopIsRefused) {
  EXPECT_EQ(install(box, program, conn, idle(), 3), Status::kBadArgument);
}

}  // namespace
}  // namespace twinstack::engine
