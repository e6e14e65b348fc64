// Send queues of many small pieces: what goes again is found in a few steps, wherever it lies.
#include "engine/send_marks.h"

#include <gtest/gtest.h>

#include "engine/lane_fixture.h"

namespace twinstack::engine {
namespace {

using namespace test;

TEST(SendMarks, TheLastOneBeforeIsFound) {
  SendMarks marks;
  EXPECT_EQ(marks.last_before(3, Seq(100)).piece, kNone);
  for (std::uint32_t i = 0; i < 10; ++i) marks.add(3, {.piece = 50 + i, .start = Seq(0xffffffe0U) + i * 10});
  marks.add(4, {.piece = 7, .start = Seq(0)});
  EXPECT_EQ(marks.last_before(3, Seq(0xffffffdfU)).piece, kNone);
  EXPECT_EQ(marks.last_before(3, Seq(0xffffffe0U)).piece, 50U);
  EXPECT_EQ(marks.last_before(3, Seq(0xffffffffU)).piece, 53U);
  EXPECT_EQ(marks.last_before(3, Seq(8)).piece, 54U);
  EXPECT_EQ(marks.last_before(3, Seq(1000)).piece, 59U);
  for (int i = 0; i < 5; ++i) marks.pop_front(3);
  EXPECT_EQ(marks.last_before(3, Seq(8)).piece, kNone);
  for (int i = 0; i < 5; ++i) marks.pop_front(3);
  EXPECT_EQ(marks.last_before(3, Seq(1000)).piece, kNone);
  EXPECT_EQ(marks.last_before(4, Seq(1000)).piece, 7U);
}

// A program that queues single bytes, none beside the one before it, and a peer that wants the same ones again.
class LaneSendMarks : public LaneFixture {
 protected:
  static constexpr std::uint16_t kPayload = 52;  // of a segment
  static constexpr std::uint32_t kInFlight = 20;

  LaneSendMarks() {
    for (std::uint32_t chunk = 0; chunk < 128; ++chunk) fill_stream(chunk, 0, program.arena().chunk(chunk));
    Moved moved = idle();
    moved.min.mss = moved.min.mss_clamp = kPayload + 12;
    moved.min.cwnd_segments = kInFlight;
    EXPECT_EQ(install(box, program, conn, moved), Status::kOk);
  }
  void queue(std::uint32_t bytes) {
    for (; bytes > 0; --bytes, ++queued_) {
      if (program.room(0) == 0) box.lane.poll(now);
      program.submit(0, Program::send_entry(conn.hw, queued_ % 128, offset_of(queued_), 1));
    }
  }
  static std::uint32_t offset_of(std::uint32_t number) { return number * 2 % 4096; }
  void turn(Duration step) {
    now += step;
    while (box.lane.poll(now)) {
    }
    for (const auto& segment : got()) {
      if (!segment.payload.empty()) take(segment);
    }
  }
  void take(const RawPeer::Got& got) {
    const std::uint32_t first = bytes_between(Seq(kOur), got.segment.seq);
    for (std::uint32_t i = 0; i < got.payload.size(); ++i) {
      const auto chunk = program.arena().chunk((first + i) % 128);
      wrong_ += got.payload[i] != chunk[offset_of(first + i)] ? 1U : 0U;
    }
    const wire::SackBlock range{got.segment.seq, got.segment.seq + static_cast<std::uint32_t>(got.payload.size())};
    const bool again = !sent_.empty() && range.left < sent_.back().right;
    again_ += again ? 1U : 0U;
    if (!again) sent_.push_back(range);
  }
  // The peer has everything but two segments: the first, and one in the middle.
  void report_two_holes(std::size_t middle) {
    peer.send({}, wire::kAck, [&](wire::Segment& segment) {
      segment.ack = sent_.front().left;
      segment.options.sack_count = 2;
      segment.options.sack[0] = {sent_[middle].right, sent_.back().right};
      segment.options.sack[1] = {sent_.front().right, sent_[middle].left};
    });
    turn(std::chrono::milliseconds(10));
  }
  void acknowledge_all() {
    peer.ack = sent_.back().right;
    peer.ts_val += 10;
    sent_.clear();
    peer.send({});
    turn(std::chrono::milliseconds(10));
  }

  std::uint32_t queued_ = 0;
  std::uint32_t again_ = 0;            // segments that were repeated
  std::uint32_t wrong_ = 0;            // bytes
  std::vector<wire::SackBlock> sent_;  // and not acknowledged
};

TEST_F(LaneSendMarks, WhatGoesAgainIsFoundInAFewSteps) {
  for (int episode = 0; episode < 2; ++episode) {
    const std::uint64_t walked_before = box.lane.counters().pieces_walked;
    const std::uint32_t again_before = again_;
    queue(kInFlight * kPayload);
    turn({});
    const std::size_t in_flight = sent_.size();
    for (int round = 0; round < 10; ++round) {  // two repetitions, and something new
      queue(kPayload);
      report_two_holes(in_flight / 2);
    }
    const std::uint64_t walked = box.lane.counters().pieces_walked - walked_before;
    const std::uint64_t again = again_ - again_before;
    EXPECT_GT(in_flight, 8U);
    EXPECT_GE(sent_.size(), in_flight + 6);
    EXPECT_GE(again, 10U);
    // Once over all, and each segment's own pieces.
    EXPECT_LE(walked, in_flight * kPayload + (sent_.size() + again) * kPayload + again * SendMarks::kEvery);
    acknowledge_all();
    while (!sent_.empty()) acknowledge_all();
    EXPECT_EQ(box.lane.free_pieces(), 4096U);
  }
  EXPECT_EQ(wrong_, 0U);
}

}  // namespace
}  // namespace twinstack::engine
