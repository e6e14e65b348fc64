#include "wire/flow.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "base/rng.h"

namespace twinstack {
namespace {

IpAddress v6(const char* text) {
  IpAddress out;
  EXPECT_EQ(inet_pton(AF_INET6, text, out.bytes.data()), 1) << text;
  return out;
}

TEST(IpAddress, MappedIsIpv4) {
  const IpAddress address = IpAddress::from_v4({10, 0, 0, 1});
  EXPECT_TRUE(address.is_v4());
  EXPECT_EQ(address.v4(), (std::array<std::uint8_t, 4>{10, 0, 0, 1}));
  EXPECT_EQ(address, v6("::ffff:10.0.0.1"));
  EXPECT_EQ(address.to_string(), "10.0.0.1");
  EXPECT_FALSE(v6("::fffe:10.0.0.1").is_v4());
  EXPECT_FALSE(v6("fd00::1").is_v4());
}

TEST(IpAddress, TextFollowsRfc5952) {
  for (const char* text : {"::", "::1", "fd00::1", "2001:db8::1:0:0:1", "2001:db8:0:1:1:1:1:1", "2001:0:0:1::1", "1::",
                           "fe80::200:5aee:feaa:20a2", "1:2:3:4:5:6:7:8", "1:0:3:0:5:0:7:0", "::2:3:4:5:6:7:8"}) {
    const std::string expected = std::string(text) == "::2:3:4:5:6:7:8" ? "0:2:3:4:5:6:7:8" : text;
    EXPECT_EQ(v6(text).to_string(), expected);
  }
}

TEST(IpAddress, TextReadsBackToTheSameBytes) {
  Rng rng(1);
  for (int i = 0; i < 20'000; ++i) {
    IpAddress address;
    for (auto& byte : address.bytes) byte = static_cast<std::uint8_t>(rng.below(3) == 0 ? rng.below(256) : 0);
    if (address.is_v4()) continue;
    EXPECT_EQ(v6(address.to_string().c_str()), address) << address.to_string();
  }
}

TEST(FlowKey, Text) {
  const FlowKey v4_flow{IpAddress::from_v4({10, 0, 0, 1}), IpAddress::from_v4({10, 0, 0, 2}), 80, 51000};
  EXPECT_EQ(v4_flow.to_string(), "10.0.0.1:80 10.0.0.2:51000");
  const FlowKey v6_flow{v6("fd00::1"), v6("fd00::2"), 80, 51000};
  EXPECT_EQ(v6_flow.to_string(), "[fd00::1]:80 [fd00::2]:51000");
}

TEST(FlowKey, HashSpreadsAndDependsOnEveryByteAndTheSecret) {
  const FlowKey base{v6("fd00::1"), v6("fd00::2"), 80, 51000};
  EXPECT_EQ(base.hash(7), base.hash(7));
  std::set<std::uint64_t> seen{base.hash(7), base.hash(8)};
  std::size_t expected = 2;
  for (std::size_t i = 0; i < sizeof(FlowKey); ++i) {
    FlowKey changed = base;
    reinterpret_cast<std::uint8_t*>(&changed)[i] ^= 1;
    seen.insert(changed.hash(7));
    ++expected;
  }
  EXPECT_EQ(seen.size(), expected);

  // 64 k connections of one client: buckets of a table of the same size are as full as chance makes them.
  std::vector<int> buckets(65536);
  for (unsigned port = 0; port < 65536; ++port) {
    FlowKey key = base;
    key.remote_port = static_cast<std::uint16_t>(port);
    ++buckets[key.hash(99) & 0xffffU];
  }
  EXPECT_LT(*std::ranges::max_element(buckets), 12);
}

}  // namespace
}  // namespace twinstack
