// LaneFixture: one lane, one program, and at the other end of the wire a peer of bare segments for one connection.
#pragma once

#include <gtest/gtest.h>

#include "engine/test_support.h"

namespace twinstack::engine::test {

// One connection against a RawPeer at the other end of the wire.
class LaneFixture : public testing::Test {
 protected:
  explicit LaneFixture(const nic::MemoryWireOptions& options = {}) : wire(nic::MemoryWire::make(options)) {
    set_hop(box);
    box.lane.open_session(kSession, program.arena());
  }

  Moved idle(std::uint32_t number = 7) const {
    return {.min = idle_state(flow_number(number), kOur, kPeer), .send_queue = {}, .unread = {}, .frames = {}};
  }
  void start(const Moved& moved) {
    ASSERT_EQ(install(box, program, conn, moved), Status::kOk);
    poll();
  }
  void start() { start(idle()); }
  HwConnId id() const { return HwConnId(conn.hw); }
  // Polls until there is nothing to do; time moves on by `step`.
  void poll(Duration step = {}) {
    now += step;
    while (box.lane.poll(now)) {
    }
    program.pump();
  }
  std::vector<RawPeer::Got> got() { return peer.receive(now); }
  std::vector<std::byte> got_bytes() {
    std::vector<std::byte> all;
    for (const auto& segment : got()) all.insert(all.end(), segment.payload.begin(), segment.payload.end());
    return all;
  }
  std::vector<std::byte> peer_bytes(std::size_t count) {
    const auto bytes = stream_bytes(conn.receive_key, peer_sent, count);
    peer_sent += count;
    return bytes;
  }

  static constexpr std::uint32_t kOur = 0xfffffff0U;  // sequence numbers wrap early
  static constexpr std::uint32_t kPeer = 0x7ffffff0U;
  Time now = kStart;
  nic::MemoryWire wire;
  std::unique_ptr<nic::MemoryLink> far = std::move(wire.b);
  Program program;
  LaneBox box{std::move(wire.a), now};
  RawPeer peer{*far, reversed(flow_number(7)), kPeer, kOur};
  ProgramConn& conn = program.open(5);
  std::uint64_t peer_sent = 0;
};

}  // namespace twinstack::engine::test
