#include "moving/gated_link.h"

#include <gtest/gtest.h>

#include "nic/memory_link.h"

namespace twinstack::moving {
namespace {

TEST(GatedLink, TakesFramesOnlyWhileTheGateIsOpen) {
  nic::MemoryWire wire = nic::MemoryWire::make();
  bool open = false;
  GatedLink link(std::move(wire.a), [&open] { return open; });
  EXPECT_TRUE(link.allocate_tx().empty());
  EXPECT_EQ(link.tx_room(), 0U);
  open = true;
  EXPECT_GT(link.tx_room(), 0U);
  ASSERT_FALSE(link.allocate_tx().empty());
  link.commit_tx(60);
  link.flush();
  wire.b->advance(Time(Duration(1)));
  EXPECT_EQ(wire.b->receive(8).size(), 1U);
}

}  // namespace
}  // namespace twinstack::moving
