// The tables beside the hot state: what is kept for the kernel, what waits for a move when there is no room for it, and
// events that the driver is slow to take.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "engine/lane_fixture.h"

namespace twinstack::engine {
namespace {

using namespace test;

// ---- What the kernel gets back.

tcp::MinTcp with_every_field_its_own() {
  tcp::MinTcp min = idle_state(flow_number(7, true), 1000, 2000);
  min.scope_id = 0x10001;
  min.max_window = 70'000;
  min.mss = 1300;
  min.mss_clamp = 1399;
  min.advmss = 1388;
  min.flags = tcp::kFlagNoDelay | tcp::kFlagKeepalive;
  min.ts_recent = 77;
  min.srtt_us = 20'000;
  min.rttvar_us = 3000;
  min.rto_us = 220'000;
  min.min_rtt_us = 15'000;
  min.cwnd_segments = 23;
  min.ssthresh_segments = 17;
  min.reordering_segments = 300;
  std::memset(min.congestion.data(), 0, min.congestion.size());
  std::memcpy(min.congestion.data(), "reno", 4);
  min.snd_buf_bytes = 300'001;
  min.rcv_buf_bytes = 400'003;
  min.user_timeout_ms = 61'000;
  min.keepalive_idle_s = 7200;
  min.keepalive_interval_s = 75;
  min.keepalive_probes = 9;
  min.ttl = 61;
  min.traffic_class = 0x48;
  min.flow_label = 0xabcde;
  return min;
}

class LaneKept : public LaneFixture {
 protected:
  tcp::MinTcp back() { return box.call({.op = CommandOp::kQuery, .id = id()}).state.min; }
};

TEST_F(LaneKept, TheProgramSetsTheHeaderOfWhatFollows) {
  start();
  const auto set = [this](std::uint32_t fields, std::uint64_t hw) {
    program.submit(0, {.op = ipc::SubmitOp::kSetHeader,
                       .flags = 0,
                       .reserved0 = 0,
                       .slot = 0,
                       .hw_conn_id = hw,
                       .chunk = 0,
                       .offset = 0,
                       .length = fields,
                       .reserved1 = 0});
    poll();
  };
  set(ipc::header_fields(0x48, 7), id().raw());
  EXPECT_EQ(back().traffic_class, 0x48);
  EXPECT_EQ(back().ttl, 7);
  set(ipc::header_fields(0x10, 9), id().raw() + 1);
  EXPECT_EQ(back().ttl, 7) << "of a connection that is no more";
  set(ipc::header_fields(0x10, 0), id().raw());
  EXPECT_EQ(back().ttl, 7) << "a packet with it would go nowhere: the session is at its end";
}

TEST_F(LaneKept, WhatTheCoreDoesNotOwnComesBackAsItWas) {
  const tcp::MinTcp given = with_every_field_its_own();
  start({.min = given, .send_queue = {}, .unread = {}, .frames = {}});
  const tcp::MinTcp got = back();
  EXPECT_EQ(got.version, given.version);
  EXPECT_EQ(got.size_bytes, given.size_bytes);
  EXPECT_EQ(got.flow, given.flow);
  EXPECT_EQ(got.scope_id, given.scope_id);
  EXPECT_EQ(got.mss_clamp, given.mss_clamp);
  EXPECT_EQ(got.advmss, given.advmss);
  EXPECT_EQ(got.reordering_segments, given.reordering_segments);
  EXPECT_EQ(got.congestion, given.congestion);
  EXPECT_EQ(got.snd_buf_bytes, given.snd_buf_bytes);
  EXPECT_EQ(got.rcv_buf_bytes, given.rcv_buf_bytes);
  EXPECT_EQ(got.keepalive_idle_s, given.keepalive_idle_s);
  EXPECT_EQ(got.keepalive_interval_s, given.keepalive_interval_s);
  EXPECT_EQ(got.keepalive_probes, given.keepalive_probes);
  EXPECT_EQ(got.ttl, given.ttl);
  EXPECT_EQ(got.traffic_class, given.traffic_class);
  EXPECT_EQ(got.flow_label, given.flow_label);
}

TEST_F(LaneKept, WhatTheCoreOwnsComesBackToo) {
  const tcp::MinTcp given = with_every_field_its_own();
  start({.min = given, .send_queue = {}, .unread = {}, .frames = {}});
  const tcp::MinTcp got = back();
  EXPECT_EQ(got.snd_una, given.snd_una);
  EXPECT_EQ(got.rcv_nxt, given.rcv_nxt);
  EXPECT_EQ(got.copied_seq, given.rcv_nxt);
  EXPECT_EQ(got.max_window, given.max_window);
  EXPECT_EQ(got.mss, given.mss);
  EXPECT_EQ(got.options, given.options);
  EXPECT_EQ(got.flags, given.flags);
  EXPECT_EQ(got.snd_wscale, given.snd_wscale);
  EXPECT_EQ(got.rcv_wscale, given.rcv_wscale);
  EXPECT_EQ(got.ts_recent, given.ts_recent);
  EXPECT_EQ(got.srtt_us, given.srtt_us);
  EXPECT_EQ(got.min_rtt_us, given.min_rtt_us);
  EXPECT_EQ(got.cwnd_segments, given.cwnd_segments);
  EXPECT_EQ(got.ssthresh_segments, given.ssthresh_segments);
  EXPECT_EQ(got.user_timeout_ms, given.user_timeout_ms);
}

// The path's MTU bounds the MSS for as long as it is small; what the kernel had is not forgotten.
TEST_F(LaneKept, AMssThatThePathBoundedGrowsBackWithIt) {
  start();
  const std::uint16_t mss = back().mss;
  set_hop(box, 0, 1000);
  EXPECT_EQ(back().mss, 960);
  set_hop(box, 0, 1500);
  EXPECT_EQ(back().mss, mss);
}

TEST_F(LaneKept, AnotherConnectionInTheSameSlotKeepsNothingOfTheFirst) {
  start({.min = with_every_field_its_own(), .send_queue = {}, .unread = {}, .frames = {}});
  const std::uint32_t slot_of_lane = id().index();
  extract(box, program, conn);
  const tcp::MinTcp given = idle().min;
  start();
  ASSERT_EQ(id().index(), slot_of_lane);
  const tcp::MinTcp got = back();
  EXPECT_EQ(got.scope_id, 0U);
  EXPECT_EQ(got.flow, given.flow);
  EXPECT_EQ(got.congestion, given.congestion);
  EXPECT_EQ(got.reordering_segments, given.reordering_segments);
  EXPECT_EQ(got.flow_label, 0U);
}

// ---- What waits for a move.

// A lane of 2048 connections keeps what waits for 1024 of them.
class LaneWaiting : public LaneFixture {
 protected:
  LaneWaiting() {
    set_hop(large);
    large.lane.open_session(kSession, many.arena());
  }
  Command reserve_command(std::uint32_t number) const {
    return {.op = CommandOp::kReserve, .session = kSession, .slot = number % 64, .tag = 1, .flow = flow_number(number)};
  }
  void poll_large() {
    while (large.lane.poll(now)) {
    }
  }

  static constexpr std::uint32_t kPlaces = 1024;
  nic::MemoryWire other_wire = nic::MemoryWire::make();
  Program many;
  LaneBox large{std::move(other_wire.a), now, {2048, 4096}};
  RawPeer far_peer{*other_wire.b, reversed(flow_number(5000)), kPeer, kOur};
};

TEST_F(LaneWaiting, SoManyMovesAtOnceAndNoMore) {
  HwConnId first;
  for (std::uint32_t i = 0; i < kPlaces; ++i) {
    const Reply reply = large.call(reserve_command(i));
    ASSERT_EQ(reply.status, Status::kOk);
    if (i == 0) first = reply.id;
  }
  EXPECT_EQ(large.call(reserve_command(kPlaces)).status, Status::kNoPiece);
  EXPECT_EQ(large.lane.active_connections(), kPlaces) << "a refusal takes no slot";
  ASSERT_EQ(large.call({.op = CommandOp::kRelease, .id = first}).status, Status::kOk);
  EXPECT_EQ(large.call(reserve_command(kPlaces)).status, Status::kOk);
}

TEST_F(LaneWaiting, ConnectionsThatDoNotMoveTakeNoPlace) {
  for (std::uint32_t i = 0; i < kPlaces + 10; ++i) {
    ProgramConn mine{.slot = i % 64, .in_flight = {}, .unread = {}};
    ASSERT_EQ(install(large, many, mine, idle(i)), Status::kOk);
    poll_large();
    far_peer.receive(now);
  }
}

// The peer sends it again, and the driver hears of it all the same.
TEST_F(LaneWaiting, AFinThatFindsNoPlaceIsDroppedAndTheConnectionLeaves) {
  ProgramConn mine{.slot = 3, .in_flight = {}, .unread = {}};
  ASSERT_EQ(install(large, many, mine, idle(5000)), Status::kOk);
  poll_large();
  far_peer.receive(now);
  for (std::uint32_t i = 0; i < kPlaces; ++i) ASSERT_EQ(large.call(reserve_command(i)).status, Status::kOk);
  far_peer.send({}, wire::kFin | wire::kAck);
  poll_large();
  EXPECT_EQ(large.lane.counters().held_dropped, 1U);
  const auto events = large.events();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].cause, Cause::kPeerFin);
  const Moved moved = extract(large, many, mine);
  EXPECT_TRUE(moved.frames.empty());
}

// ---- Events that find the ring full.

class LaneEvents : public LaneFixture {
 protected:
  LaneEvents() {
    set_hop(narrow);
    narrow.lane.open_session(kSession, many.arena());
    for (std::uint32_t i = 0; i < kConnections; ++i) {
      mine.push_back({.slot = i, .in_flight = {}, .unread = {}});
      EXPECT_EQ(install(narrow, many, mine[i], idle(i)), Status::kOk);
    }
    poll_narrow();
  }
  void poll_narrow() {
    while (narrow.lane.poll(now)) {
    }
  }
  void every_peer_closes() {
    for (std::uint32_t i = 0; i < kConnections; ++i)
      RawPeer(*other_wire.b, reversed(flow_number(i)), kPeer, kOur).send({}, wire::kFin | wire::kAck);
    poll_narrow();
  }
  // All that come, as a driver takes them that is told of each batch.
  std::vector<std::uint32_t> slots_told() {
    std::vector<std::uint32_t> slots;
    while (narrow.lane.take_signal()) {
      for (const Event& event : narrow.events()) slots.push_back(event.slot);
      now += std::chrono::milliseconds(1);
      poll_narrow();
    }
    return slots;
  }

  static constexpr std::uint32_t kConnections = 40;
  nic::MemoryWire other_wire = nic::MemoryWire::make();
  Program many;
  LaneBox narrow{std::move(other_wire.a), now, {64, 4096, 16}};
  std::vector<ProgramConn> mine;
};

TEST_F(LaneEvents, WaitAndComeInTheirOrder) {
  every_peer_closes();
  std::vector<std::uint32_t> expected(kConnections);
  std::iota(expected.begin(), expected.end(), 0U);
  EXPECT_EQ(slots_told(), expected);
  EXPECT_EQ(narrow.lane.next_deadline(), kNever) << "nothing waits any more";
}

TEST_F(LaneEvents, ASleepingLaneWakesToOfferThem) {
  every_peer_closes();
  EXPECT_LE(narrow.lane.next_deadline(), now + std::chrono::milliseconds(1));
  EXPECT_TRUE(narrow.lane.prepare_sleep()) << "but it need not spin";
}

TEST_F(LaneEvents, OfConnectionsThatHaveGoneAreNotTold) {
  every_peer_closes();
  for (std::uint32_t i = 20; i < 30; ++i) extract(narrow, many, mine[i]);
  const auto told = slots_told();
  EXPECT_EQ(told.size(), kConnections - 10);
  EXPECT_TRUE(std::ranges::none_of(told, [](std::uint32_t slot) { return slot >= 20 && slot < 30; }));
}

}  // namespace
}  // namespace twinstack::engine
