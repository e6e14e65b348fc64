// The size of segments: next hops, routers that tell of a smaller MTU, and paths that swallow large segments in
// silence.
#include <gtest/gtest.h>

#include "engine/lane_fixture.h"

namespace twinstack::engine {
namespace {

using namespace test;
using std::chrono::milliseconds;
using std::chrono::seconds;

class LanePath : public LaneFixture {
 protected:
  void start_with(std::uint8_t mtu_probing, std::uint16_t mss_found = 0) {
    HostSettings settings;
    settings.tcp_mtu_probing = mtu_probing;
    box.lane.set_host_settings(settings);
    Moved moved = idle();
    moved.min.mss_found = mss_found;
    start(moved);
    got();
  }
  // Time goes on, and a path carries what is no longer than `largest`; the peer acknowledges that.
  void pass(Duration time, std::uint32_t largest) {
    for (const Time end = now + time; now < end; poll(milliseconds(10))) {
      const Seq before = peer.ack;
      const auto segments = got();
      peer.ack = before;
      for (const auto& segment : segments) {
        if (segment.payload.size() <= largest && segment.segment.seq == peer.ack) {
          peer.ack += static_cast<std::uint32_t>(segment.payload.size());
        }
      }
      if (peer.ack != before) peer.send({});
    }
  }
  std::uint32_t payload() const { return box.conn(id()).tcb.mss; }
  Status too_big(std::uint32_t mtu) {
    return box
        .call({.op = CommandOp::kPacketTooBig,
               .id = id(),
               .quoted_seq = box.conn(id()).tcb.snd_una.raw(),
               .path_mtu_bytes = mtu})
        .status;
  }
  tcp::MinTcp state() { return box.call({.op = CommandOp::kQuery, .id = id()}).state.min; }
};

// RFC 4821 7.7: what the engine itself can do it does before the kernel is asked.
TEST_F(LanePath, ABlackHoleIsFoundAndTheConnectionStays) {
  start_with(1);
  program.write(conn, 10'000);
  pass(seconds(20), 1100);
  EXPECT_EQ(peer.ack, Seq(kOur) + 10'000);
  EXPECT_EQ(payload(), 1024U);
  EXPECT_TRUE(box.events().empty());
  EXPECT_EQ(state().mss, 1460);
  EXPECT_EQ(state().mss_found, 1024 + 12) << "and goes with it";
}

TEST_F(LanePath, WhereNoSizeArrivesTheKernelGoesOn) {
  start_with(1);
  program.write(conn, 10'000);
  pass(seconds(5), 0);
  EXPECT_LT(payload(), 1448U);
  EXPECT_TRUE(box.events().empty());
  pass(seconds(15), 0);
  const auto events = box.events();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].cause, Cause::kTimeout);
  EXPECT_EQ(state().mss, 1460) << "nothing says that it was the size";
  EXPECT_EQ(state().mss_found, 0);
}

TEST_F(LanePath, WhatTheOtherStackHasFoundIsGoneOnWith) {
  start_with(1, 1112);
  EXPECT_EQ(payload(), 1100U);
  program.write(conn, 5000);
  poll();
  for (const auto& segment : got()) EXPECT_LE(segment.payload.size(), 1100U);
}

TEST_F(LanePath, AHostThatAlwaysProbesGoesOnWithItsSearchAndBeginsNone) {
  start_with(2, 1036);
  EXPECT_EQ(payload(), 1024U);
  EXPECT_EQ(state().mss_found, 1036);
}

TEST_F(LanePath, AMoveMakesNoSegmentsSmall) {
  start_with(2);
  EXPECT_EQ(payload(), 1448U);
}

TEST_F(LanePath, ARouterIsBelievedForTenMinutes) {
  start_with(1);
  program.write(conn, 5000);
  poll();
  got();
  EXPECT_EQ(too_big(1000), Status::kOk);
  EXPECT_EQ(too_big(1000), Status::kBadArgument) << "no news";
  EXPECT_EQ(payload(), 1000U - 52);
  pass(seconds(1), 1000 - 52);
  ASSERT_EQ(peer.ack, Seq(kOur) + 5000);
  set_hop(box, 0, 9000);
  EXPECT_EQ(payload(), 1000U - 52) << "that the first link takes more is no answer to a router";
  now += std::chrono::minutes(10);
  program.write(conn, 5000);
  pass(seconds(1), 1448);
  EXPECT_EQ(payload(), 1448U);
}

TEST_F(LanePath, ASmallerNextHopRepeatsWhatIsOut) {
  start_with(1);
  program.write(conn, 5000);
  poll();
  got();
  peer.ack = Seq(kOur);
  set_hop(box, 0, 1000);
  poll();
  const auto again = got();
  ASSERT_FALSE(again.empty());
  EXPECT_EQ(again[0].segment.seq, Seq(kOur));
  for (const auto& segment : again) EXPECT_LE(segment.payload.size(), 1000U - 52);
  set_hop(box, 0, 1500);
  EXPECT_EQ(payload(), 1448U);
}

TEST_F(LanePath, ALargerNextHopIsNoProofAgainstABlackHole) {
  start_with(1, 1112);
  set_hop(box, 0, 1400);
  EXPECT_EQ(payload(), 1100U);
  set_hop(box, 0, 1500);
  EXPECT_EQ(payload(), 1100U);
  set_hop(box, 0, 1100);
  EXPECT_EQ(payload(), 1100U - 52);
}

class LanePathV6 : public LanePath {};

// RFC 8201 4.
TEST_F(LanePathV6, LessThanTheLeastMtuIsDiscarded) {
  Moved moved = idle();
  moved.min.flow = flow_number(7, true);
  RawPeer other{*far, reversed(moved.min.flow), kPeer, kOur};
  start(moved);
  program.write(conn, 5000);
  poll();
  EXPECT_EQ(too_big(1279), Status::kBadArgument);
  EXPECT_EQ(too_big(1280), Status::kOk);
  EXPECT_EQ(payload(), 1280U - 60 - 12);
}

}  // namespace
}  // namespace twinstack::engine
