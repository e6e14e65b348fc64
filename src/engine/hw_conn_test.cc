#include "engine/hw_conn.h"

#include <gtest/gtest.h>

#include "engine/region.h"

namespace twinstack::engine {
namespace {

TEST(HwConnId, TakesItsPartsApart) {
  const HwConnId id(7, 0x123456, 0x89abcdef);
  EXPECT_EQ(id.lane(), 7U);
  EXPECT_EQ(id.index(), 0x123456U);
  EXPECT_EQ(id.generation(), 0x89abcdefU);
  EXPECT_EQ(HwConnId(id.raw()), id);
}

TEST(HwConnId, HoldsTheLargestOfEach) {
  const HwConnId id(63, kMaxConnectionsPerLane - 1, 0xffffffffU);
  EXPECT_EQ(id.lane(), 63U);
  EXPECT_EQ(id.index(), kMaxConnectionsPerLane - 1);
  EXPECT_EQ(id.generation(), 0xffffffffU);
}

TEST(HwConnId, ZeroIsNone) {
  EXPECT_FALSE(HwConnId());
  EXPECT_FALSE(HwConnId(0));
  // The very first id of the first lane is one all the same: generations start at 1.
  EXPECT_TRUE(HwConnId(0, 0, 1));
}

TEST(HwConnId, AnotherGenerationIsAnotherId) { EXPECT_FALSE(HwConnId(0, 5, 1) == HwConnId(0, 5, 2)); }

TEST(HwConn, HotStateFitsInFiveCacheLines) {
  EXPECT_LE(sizeof(HwConn), 320U);
  EXPECT_EQ(alignof(HwConn), 64U);
}

// Looking for what is due, at a million connections, is waiting for memory.
TEST(HwConn, WhatIsDueIsSeenInOneLine) {
  const HwConn conn;
  const auto line = [&](const void* field) {
    return (static_cast<const char*>(field) - static_cast<const char*>(static_cast<const void*>(&conn))) / 64;
  };
  for (const void* field :
       {static_cast<const void*>(&conn.tcb.sender_deadline), static_cast<const void*>(&conn.tcb.ack_deadline),
        static_cast<const void*>(&conn.tcb.keepalive_deadline), static_cast<const void*>(&conn.tcb.state),
        static_cast<const void*>(&conn.tcb.sender_timer), static_cast<const void*>(&conn.state)})
    EXPECT_EQ(line(field), line(&conn.flags));
}

// All that grows with the number of connections, were HwConn as large as it may be.
TEST(HwConn, AnIdleConnectionTakesNoMoreThan512Bytes) {
  for (const std::uint32_t connections : {10'000U, 16'384U, (1U << 17) + 1, 1'000'000U}) {
    const std::size_t with = LaneRegion::bytes_needed({connections, 1024});
    const std::size_t without = LaneRegion::bytes_needed({1, 1024});
    const std::size_t spare = (320 - sizeof(HwConn)) * (connections - 1);
    EXPECT_LE((with - without + spare) / (connections - 1), 512U) << connections << " connections";
  }
}

}  // namespace
}  // namespace twinstack::engine
