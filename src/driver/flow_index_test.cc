#include "driver/flow_index.h"

#include <gtest/gtest.h>

#include "driver/session.h"

namespace twinstack::driver {
namespace {

// Never looked into.
const Interface* interface(std::uintptr_t number) { return reinterpret_cast<const Interface*>(number * 64); }

TEST(FlowIndex, EqualFlowsOfTwoNamespacesAreTwo) {
  const FlowKey flow{.local = IpAddress::from_v4({10, 0, 0, 1}),
                     .remote = IpAddress::from_v4({10, 0, 0, 2}),
                     .local_port = 80,
                     .remote_port = 50'000};
  FlowIndex index;
  ManagedConnection one;
  ManagedConnection two;
  index.put(interface(1), flow, one);
  index.put(interface(2), flow, two);
  EXPECT_EQ(index.find(interface(1), flow), &one);
  EXPECT_EQ(index.find(interface(2), flow), &two);
  index.erase(interface(2), flow);
  EXPECT_EQ(index.find(interface(1), flow), &one);
  EXPECT_EQ(index.find(interface(2), flow), nullptr);
  FlowKey other = flow;
  other.remote_port = 50'001;
  EXPECT_EQ(index.find(interface(1), other), nullptr);
}

}  // namespace
}  // namespace twinstack::driver
