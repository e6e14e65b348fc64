// RouteTable against the kernel's real tables, in namespaces.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <poll.h>

#include <map>
#include <vector>

#include "kernel/routes.h"
#include "netns/netns_fixture.h"

namespace twinstack::kernel {
namespace {

using twinstack::testing::NetnsPair;
using twinstack::testing::Side;
using Kind = RouteEvent::Kind;

IpAddress v4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d) {
  return IpAddress::from_v4({a, b, c, d});
}

IpAddress v6(std::uint8_t net, std::uint8_t host) {
  IpAddress address;
  address.bytes = {0xfd, 0x77, 0, net};
  address.bytes[15] = host;
  return address;
}

class RoutesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = NetnsPair::why_unavailable(); !reason.empty()) GTEST_SKIP() << reason;
    auto pair = NetnsPair::create({.pairs = 2});
    ASSERT_TRUE(pair.has_value()) << pair.error().message();
    pair_ = std::move(*pair);
    Result<std::unique_ptr<RouteTable>> made = error(ErrorCode::kNotFound, "not opened");
    ASSERT_TRUE(pair_->in(Side::kA, [&] { made = RouteTable::open(); }).has_value());
    ASSERT_TRUE(made.has_value()) << made.error().message();
    table_ = std::move(*made);
  }

  void run(Side side, const std::string& command) {
    const auto done = pair_->run_ok(side, command);
    ASSERT_TRUE(done.has_value()) << done.error().message();
  }

  std::vector<RouteEvent> drain() {
    std::vector<RouteEvent> events;
    const auto done = table_->process_events([&](const RouteEvent& event) { events.push_back(event); });
    EXPECT_TRUE(done.has_value()) << done.error().message();
    return events;
  }

  // The first event of this kind; waits for notices for up to 5 s.
  std::optional<RouteEvent> wait_for(Kind kind) {
    for (int turn = 0; turn < 50; ++turn) {
      for (const RouteEvent& event : drain()) {
        if (event.kind == kind) return event;
      }
      pollfd wait{.fd = table_->poll_fd(), .events = POLLIN, .revents = 0};
      ::poll(&wait, 1, 100);
    }
    return std::nullopt;
  }

  // Looks up until the neighbour has answered.
  NextHop resolve(const RouteQuery& query) {
    for (int turn = 0; turn < 50; ++turn) {
      const auto found = table_->lookup(query);
      EXPECT_TRUE(found.has_value()) << found.error().message();
      if (!found.has_value()) return {};
      if (found->has_value()) return **found;
      pollfd wait{.fd = table_->poll_fd(), .events = POLLIN, .revents = 0};
      ::poll(&wait, 1, 100);
      drain();
    }
    ADD_FAILURE() << "the neighbour never answered";
    return {};
  }

  // A router on the way to 10.99.0.1 answers a packet of `bytes` that the next link, of MTU 1300, does not take.
  void hear_of_a_smaller_mtu(const std::string& route_options, unsigned bytes) {
    run(Side::kB, "sysctl -qw net.ipv4.ip_forward=1; ip link set ts-b1 mtu 1300; ip route add 10.99.0.0/16 dev ts-b1");
    run(Side::kA, "ip route add 10.99.0.0/16 via 10.77.0.2 " + route_options);
    run(Side::kA, "bash -c 'head -c " + std::to_string(bytes) + " /dev/zero >/dev/udp/10.99.0.1/9'");
    run(Side::kA, "for i in $(seq 50); do ip route get 10.99.0.1 | grep expires && exit 0; sleep 0.1; done; exit 1");
  }

  std::string why_not(const RouteQuery& query) {
    const auto found = table_->lookup(query);
    if (found.has_value()) return "";
    EXPECT_EQ(found.error().code, ErrorCode::kNotEligible) << found.error().message();
    return found.error().message();
  }

  std::string mac_of(Side side, unsigned pair = 0) {
    const auto text = pair_->run_ok(side, "cat /sys/class/net/" + NetnsPair::interface(side, pair) + "/address");
    // sysfs shows the namespace of whoever mounted it; ask ip where it does not.
    if (text.has_value()) return text->substr(0, 17);
    const auto link = pair_->run_ok(side, "ip -o link show " + NetnsPair::interface(side, pair));
    const std::size_t at = link.has_value() ? link->find("link/ether ") : std::string::npos;
    return at == std::string::npos ? "" : link->substr(at + 11, 17);
  }

  static std::string text(const nic::MacAddress& mac) {
    char out[18];
    std::snprintf(out, sizeof out, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
    return out;
  }

  std::unique_ptr<NetnsPair> pair_;
  std::unique_ptr<RouteTable> table_;
};

const RouteQuery kDirectV4{.local = v4(10, 77, 0, 1), .remote = v4(10, 77, 0, 2)};

TEST_F(RoutesTest, ResolvesANeighbourOnTheLinkInBothFamilies) {
  for (const RouteQuery& query : {kDirectV4, RouteQuery{.local = v6(0, 1), .remote = v6(0, 2)}}) {
    const NextHop hop = resolve(query);
    EXPECT_EQ(text(hop.source_mac), mac_of(Side::kA));
    EXPECT_EQ(text(hop.destination_mac), mac_of(Side::kB));
    EXPECT_EQ(hop.mtu_bytes, 1500U);
    EXPECT_EQ(hop.neighbour, query.remote);
    EXPECT_FALSE(hop.via_gateway);
  }
}

TEST_F(RoutesTest, FirstLookupOfAnUnknownNeighbourSaysNotYetAndStartsResolution) {
  const auto first = table_->lookup(kDirectV4);
  ASSERT_TRUE(first.has_value()) << first.error().message();
  EXPECT_FALSE(first->has_value());
  const auto changed = wait_for(Kind::kChanged);
  ASSERT_TRUE(changed.has_value());
  EXPECT_EQ(text(changed->next_hop.destination_mac), mac_of(Side::kB));
}

TEST_F(RoutesTest, CachedLookupAsksTheKernelNothing) {
  const NextHop hop = resolve(kDirectV4);
  const std::uint64_t before = table_->stats().kernel_requests;
  for (int i = 0; i < 100; ++i) {
    const auto again = table_->lookup(kDirectV4);
    ASSERT_TRUE(again.has_value() && again->has_value());
    EXPECT_EQ(**again, hop);
  }
  EXPECT_EQ(table_->stats().kernel_requests, before);
  table_->forget(hop.id);
  EXPECT_EQ(table_->size(), 0U);
}

TEST_F(RoutesTest, GoesThroughAGatewayAndTakesTheMtuOfTheRoute) {
  run(Side::kA, "ip route add 10.99.0.0/16 via 10.77.0.2 mtu 1300");
  const NextHop hop = resolve({.local = v4(10, 77, 0, 1), .remote = v4(10, 99, 1, 1)});
  EXPECT_TRUE(hop.via_gateway);
  EXPECT_EQ(hop.neighbour, v4(10, 77, 0, 2));
  EXPECT_EQ(hop.mtu_bytes, 1300U);
}

// The kernel forgets it after ten minutes and tells nobody.
TEST_F(RoutesTest, WhatARouterHasSaidIsNotTheRoutes) {
  hear_of_a_smaller_mtu("", 1400);
  EXPECT_EQ(resolve({.local = v4(10, 77, 0, 1), .remote = v4(10, 99, 0, 1)}).mtu_bytes, 1500U);
}

TEST_F(RoutesTest, TheMtuOfTheRouteHoldsBehindWhatARouterHasSaid) {
  hear_of_a_smaller_mtu("mtu 1400", 1350);
  EXPECT_EQ(resolve({.local = v4(10, 77, 0, 1), .remote = v4(10, 99, 0, 1)}).mtu_bytes, 1400U);
}

TEST_F(RoutesTest, OnLinkRouteResolvesThePeerItself) {
  run(Side::kA, "ip route add 10.98.0.5/32 via 10.77.0.2 dev ts-a0 onlink");
  EXPECT_EQ(resolve({.local = v4(10, 77, 0, 1), .remote = v4(10, 98, 0, 5)}).neighbour, v4(10, 77, 0, 2));
}

TEST_F(RoutesTest, LinkLocalGoesByItsScope) {
  run(Side::kA, "ip addr add fe80::a/64 dev ts-a1 nodad");
  run(Side::kB, "ip addr add fe80::b/64 dev ts-b1 nodad");
  IpAddress local;
  local.bytes[0] = 0xfe;
  local.bytes[1] = 0x80;
  local.bytes[15] = 0xa;
  IpAddress remote = local;
  remote.bytes[15] = 0xb;
  unsigned index = 0;
  ASSERT_TRUE(pair_->in(Side::kA, [&] { index = ::if_nametoindex("ts-a1"); }).has_value());
  const NextHop hop = resolve({.local = local, .remote = remote, .scope_id = index});
  EXPECT_EQ(hop.interface_index, index);
}

TEST_F(RoutesTest, RuleByMarkIsFollowed) {
  run(Side::kA, "ip route add 10.97.0.0/16 via 10.77.0.2 table 77 && ip rule add fwmark 7 table 77");
  const RouteQuery marked{.local = v4(10, 77, 0, 1), .remote = v4(10, 97, 0, 1), .mark = 7};
  EXPECT_EQ(resolve(marked).neighbour, v4(10, 77, 0, 2));
  EXPECT_NE(why_not({.local = v4(10, 77, 0, 1), .remote = v4(10, 97, 0, 1)}), "");
  run(Side::kA, "ip rule del fwmark 7 table 77");
  const auto lost = wait_for(Kind::kLost);
  ASSERT_TRUE(lost.has_value());
}

TEST_F(RoutesTest, SaysWhyThereIsNoNextHop) {
  EXPECT_THAT(why_not({.local = v4(10, 77, 0, 1), .remote = v4(192, 0, 2, 1)}), ::testing::HasSubstr("no route"));
  EXPECT_THAT(why_not({.local = v4(10, 77, 0, 1), .remote = v4(10, 77, 0, 1)}), ::testing::HasSubstr("this host"));
  EXPECT_THAT(why_not({.local = v4(127, 0, 0, 1), .remote = v4(127, 0, 0, 1)}), ::testing::HasSubstr("this host"));
  run(Side::kA, "ip route add 10.96.0.0/16 via inet6 fd77:0::2 dev ts-a0");
  EXPECT_THAT(why_not({.local = v4(10, 77, 0, 1), .remote = v4(10, 96, 0, 1)}), ::testing::HasSubstr("other address"));
  run(Side::kA, "ip route add blackhole 10.95.0.0/16");
  EXPECT_NE(why_not({.local = v4(10, 77, 0, 1), .remote = v4(10, 95, 0, 1)}), "");
  run(Side::kA, "ip tuntap add dev ts-tun mode tun && ip addr add 10.94.0.1/24 dev ts-tun && ip link set ts-tun up");
  EXPECT_THAT(why_not({.local = v4(10, 94, 0, 1), .remote = v4(10, 94, 0, 2)}), ::testing::HasSubstr("not Ethernet"));
}

TEST_F(RoutesTest, ReportsAReplacedRoute) {
  run(Side::kA, "ip route add 10.99.0.0/16 via 10.77.0.2");
  const NextHop before = resolve({.local = v4(10, 77, 0, 1), .remote = v4(10, 99, 1, 1)});
  resolve({.local = v4(10, 77, 1, 1), .remote = v4(10, 77, 1, 2)});
  drain();
  run(Side::kA, "ip route replace 10.99.0.0/16 via 10.77.1.2");
  const auto changed = wait_for(Kind::kChanged);
  ASSERT_TRUE(changed.has_value());
  EXPECT_EQ(changed->id, before.id);
  EXPECT_NE(changed->next_hop.interface_index, before.interface_index);
  EXPECT_EQ(text(changed->next_hop.destination_mac), mac_of(Side::kB, 1));
}

TEST_F(RoutesTest, ReportsAnotherMacOfTheNeighbour) {
  const NextHop before = resolve(kDirectV4);
  drain();
  run(Side::kA, "ip neigh replace 10.77.0.2 lladdr 02:00:00:00:00:99 dev ts-a0 nud permanent");
  const auto changed = wait_for(Kind::kChanged);
  ASSERT_TRUE(changed.has_value());
  EXPECT_EQ(changed->id, before.id);
  EXPECT_EQ(text(changed->next_hop.destination_mac), "02:00:00:00:00:99");
}

TEST_F(RoutesTest, ADroppedNeighbourIsResolvedAgain) {
  resolve(kDirectV4);
  drain();
  run(Side::kA, "ip neigh del 10.77.0.2 dev ts-a0");
  ASSERT_TRUE(wait_for(Kind::kUnresolved).has_value());
  const auto changed = wait_for(Kind::kChanged);
  ASSERT_TRUE(changed.has_value());
  EXPECT_EQ(text(changed->next_hop.destination_mac), mac_of(Side::kB));
}

TEST_F(RoutesTest, LinkDownAndRouteGoneAreLost) {
  run(Side::kA, "ip route add 10.99.0.0/16 via 10.77.1.2");
  const NextHop direct = resolve(kDirectV4);
  const NextHop routed = resolve({.local = v4(10, 77, 1, 1), .remote = v4(10, 99, 1, 1)});
  drain();
  run(Side::kA, "ip link set ts-a0 down");
  const auto down = wait_for(Kind::kLost);
  ASSERT_TRUE(down.has_value());
  EXPECT_EQ(down->id, direct.id);
  EXPECT_FALSE(down->why.empty());
  run(Side::kA, "ip route del 10.99.0.0/16");
  const auto gone = wait_for(Kind::kLost);
  ASSERT_TRUE(gone.has_value());
  EXPECT_EQ(gone->id, routed.id);
  EXPECT_EQ(table_->size(), 0U);
}

TEST_F(RoutesTest, CarrierLossIsLost) {
  const NextHop direct = resolve(kDirectV4);
  drain();
  run(Side::kB, "ip link set ts-b0 down");
  const auto down = wait_for(Kind::kLost);
  ASSERT_TRUE(down.has_value());
  EXPECT_EQ(down->id, direct.id);
}

TEST_F(RoutesTest, MtuChangeIsReported) {
  resolve(kDirectV4);
  drain();
  run(Side::kA, "ip link set ts-a0 mtu 1400");
  const auto changed = wait_for(Kind::kChanged);
  ASSERT_TRUE(changed.has_value());
  EXPECT_EQ(changed->next_hop.mtu_bytes, 1400U);
}

}  // namespace
}  // namespace twinstack::kernel
