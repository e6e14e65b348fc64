#include "nic/memory_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nic/test_frames.h"

namespace twinstack::nic {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(MemoryLink, FramesGoBothWaysInOrder) {
  auto wire = MemoryWire::make();
  ASSERT_TRUE(commit(*wire.a, bytes_of("one")));
  ASSERT_TRUE(commit(*wire.a, bytes_of("two")));
  ASSERT_TRUE(commit(*wire.b, bytes_of("back")));
  EXPECT_THAT(receive_all(*wire.b), IsEmpty());  // not before flush()
  wire.a->flush();
  wire.b->flush();
  EXPECT_EQ(wire.b->waiting(), 2U);
  EXPECT_THAT(receive_all(*wire.b), ElementsAre(bytes_of("one"), bytes_of("two")));
  EXPECT_THAT(receive_all(*wire.a), ElementsAre(bytes_of("back")));
  EXPECT_EQ(wire.a->stats().tx_frames, 2U);
  EXPECT_EQ(wire.a->stats().tx_bytes, 6U);
  EXPECT_EQ(wire.b->stats().rx_frames, 2U);
  EXPECT_EQ(wire.a->info().mac, (MacAddress{2, 0, 0, 0, 0, 0x0a}));
}

TEST(MemoryLink, ReceiveTakesAtMostWhatWasAskedFor) {
  auto wire = MemoryWire::make();
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(commit(*wire.a, bytes_of("frame")));
  wire.a->flush();
  EXPECT_EQ(wire.b->receive(3).size(), 3U);
  wire.b->release();
  EXPECT_EQ(wire.b->receive(3).size(), 2U);
  wire.b->release();
}

TEST(MemoryLink, DelayIsVirtualTime) {
  auto wire = MemoryWire::make({.delay = 5ms});
  ASSERT_TRUE(commit(*wire.a, bytes_of("late")));
  wire.a->flush();
  EXPECT_EQ(wire.b->next_event(), at(5ms));
  EXPECT_EQ(wire.a->next_event(), kNever);
  wire.b->advance(at(5ms - 1ns));
  EXPECT_THAT(receive_all(*wire.b), IsEmpty());
  wire.a->advance(at(5ms));  // either end moves the time of both
  EXPECT_EQ(wire.b->next_event(), kNever);
  EXPECT_THAT(receive_all(*wire.b), ElementsAre(bytes_of("late")));
}

TEST(MemoryLink, BandwidthSpacesFrames) {
  auto wire = MemoryWire::make({.delay = 1ms, .bandwidth_bits_per_second = 8'000'000});  // a byte is a microsecond
  const Bytes frame(1000);
  ASSERT_TRUE(commit(*wire.a, frame));
  ASSERT_TRUE(commit(*wire.a, frame));
  wire.a->flush();
  EXPECT_EQ(wire.b->next_event(), at(2ms));
  wire.b->advance(at(2ms));
  EXPECT_EQ(wire.b->waiting(), 1U);
  EXPECT_EQ(wire.b->next_event(), at(3ms));
  // The wire was idle meanwhile: the next frame starts when it is given.
  wire.b->advance(at(10ms));
  ASSERT_TRUE(commit(*wire.a, frame));
  wire.a->flush();
  EXPECT_EQ(wire.b->next_event(), at(12ms));
}

TEST(MemoryLink, FullQueueDropsAtItsTail) {
  auto wire = MemoryWire::make({.bandwidth_bits_per_second = 8'000'000, .queue_frames = 3});
  for (char i = '0'; i < '5'; ++i) ASSERT_TRUE(commit(*wire.a, Bytes(100, static_cast<std::byte>(i))));
  wire.a->flush();
  EXPECT_EQ(wire.a->stats().tx_dropped, 2U);
  wire.b->advance(at(1s));
  EXPECT_THAT(receive_all(*wire.b),
              ElementsAre(Bytes(100, std::byte{'0'}), Bytes(100, std::byte{'1'}), Bytes(100, std::byte{'2'})));
}

TEST(MemoryLink, FramesOnTheirWayFillNoQueue) {
  auto wire = MemoryWire::make({.delay = 1s, .queue_frames = 2});
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(commit(*wire.a, bytes_of("x")));
    wire.a->flush();
  }
  EXPECT_EQ(wire.a->stats().tx_dropped, 0U);
  wire.b->advance(at(1s));
  EXPECT_EQ(wire.b->waiting(), 100U);
  ASSERT_TRUE(commit(*wire.a, bytes_of("too many wait for receive()")));
  wire.a->flush();
  EXPECT_EQ(wire.a->stats().tx_dropped, 1U);
}

TEST(MemoryLink, RoomIsBoundedUntilFlush) {
  auto wire = MemoryWire::make({.mtu_bytes = 9000, .tx_frames = 2});
  EXPECT_EQ(wire.a->tx_room(), 2U);
  const auto room = wire.a->allocate_tx();
  EXPECT_EQ(room.size(), 9014U);
  EXPECT_EQ(wire.a->allocate_tx().data(), room.data());
  wire.a->commit_tx(60);
  ASSERT_TRUE(commit(*wire.a, bytes_of("x")));
  EXPECT_EQ(wire.a->tx_room(), 0U);
  EXPECT_TRUE(wire.a->allocate_tx().empty());
  wire.a->flush();
  EXPECT_EQ(wire.a->allocate_tx().size(), 9014U);
}

TEST(MemoryLink, PartsOfAGivenSize) {
  auto wire = MemoryWire::make({.mtu_bytes = 65535, .part_bytes = 1000});
  const Bytes large = counting_bytes(2500);
  const Bytes exact = counting_bytes(2000);
  ASSERT_TRUE(commit(*wire.a, large));
  ASSERT_TRUE(commit(*wire.a, exact));
  wire.a->flush();
  const auto frames = wire.b->receive(8);
  ASSERT_EQ(frames.size(), 2U);
  EXPECT_EQ(frames[0].parts.size(), 3U);
  EXPECT_EQ(frames[0].parts[2].size(), 500U);
  EXPECT_EQ(frames[1].parts.size(), 2U);
  EXPECT_EQ(flat(frames[0]), large);
  EXPECT_EQ(flat(frames[1]), exact);
  wire.b->release();
}

TEST(MemoryLink, OneEndMayOutliveTheOther) {
  auto wire = MemoryWire::make();
  ASSERT_TRUE(commit(*wire.a, bytes_of("last words")));
  wire.a->flush();
  wire.a.reset();
  EXPECT_THAT(receive_all(*wire.b), ElementsAre(bytes_of("last words")));
}

}  // namespace
}  // namespace twinstack::nic
