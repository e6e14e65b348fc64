// Ports: bind()'s table of conflicts, and the choice of free ones.
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <set>

#include "stack/test_support.h"

namespace twinstack::stack::test {
namespace {

struct Ports : ::testing::Test, OneHost {
  SoftStack& s() { return *stack; }
  SocketId make(bool reuse, Family family = Family::kV4) {
    const SocketId id = s().socket(family);
    s().set_option(id, SOL_SOCKET, SO_REUSEADDR, reuse ? 1 : 0, now);
    return id;
  }
};

TEST_F(Ports, ReuseAddressNeedsBothAndNoListener) {
  for (const bool first : {false, true}) {
    for (const bool second : {false, true}) {
      const SocketId a = make(first);
      const SocketId b = make(second);
      EXPECT_EQ(s().bind(a, {v4(1), 80}), 0);
      EXPECT_EQ(s().bind(b, {v4(1), 80}), first && second ? 0 : -EADDRINUSE);
      if (first && second) {
        EXPECT_EQ(s().listen(a, 1, now), 0);
        EXPECT_EQ(s().listen(b, 1, now), -EADDRINUSE) << "one of them listens";
        EXPECT_EQ(s().bind(make(true), {any_v4(), 80}), -EADDRINUSE);
      }
      s().close(a, now);
      s().close(b, now);
    }
  }
}

TEST_F(Ports, WildcardsAndFamilies) {
  config.addresses = {v4(1), v4(3), v6(1)};
  struct Case {
    IpAddress first, second;
    Family first_family, second_family;
    bool first_v6_only;
    bool conflict;
  };
  const Family four = Family::kV4;
  const Family six = Family::kV6;
  for (const Case& c :
       {Case{v4(1), v4(3), four, four, false, false}, Case{v4(1), any_v4(), four, four, false, true},
        Case{any_v6(), any_v4(), six, four, false, true}, Case{any_v6(), any_v4(), six, four, true, false},
        Case{any_v6(), v4(1), six, four, false, true}, Case{v6(1), any_v4(), six, four, false, false},
        Case{v6(1), any_v6(), six, six, false, true}, Case{v4(1), any_v6(), six, six, false, true}}) {
    const SocketId a = make(false, c.first_family);
    const SocketId b = make(false, c.second_family);
    if (c.first_v6_only) s().set_option(a, IPPROTO_IPV6, IPV6_V6ONLY, 1, now);
    EXPECT_EQ(s().bind(a, {c.first, 80}), 0);
    EXPECT_EQ(s().bind(b, {c.second, 80}), c.conflict ? -EADDRINUSE : 0)
        << c.first.to_string() << ' ' << c.second.to_string();
    s().close(a, now);
    s().close(b, now);
  }
}

TEST_F(Ports, ConnectionsHoldTheListenersPort) {
  const SocketId id = establish();
  s().close(listener, now);
  const SocketId plain = make(false);
  EXPECT_EQ(s().bind(plain, {any_v4(), 80}), -EADDRINUSE);
  EXPECT_EQ(s().bind(make(true), {any_v4(), 80}), -EADDRINUSE) << "the connection was made without SO_REUSEADDR";
  s().close(id, now);
  inject(segment(wire::kFin | wire::kAck, 1001, iss + 2));
  EXPECT_EQ(s().time_wait_count(), 1U);
  EXPECT_EQ(s().bind(plain, {any_v4(), 80}), -EADDRINUSE);
  advance(seconds(61));
  EXPECT_EQ(s().bind(plain, {any_v4(), 80}), 0);
}

TEST_F(Ports, TimeWaitWithReuseAddressLetsAListenerBack) {
  listener = make(true);
  s().bind(listener, {any_v4(), 80});
  s().listen(listener, 8, now);
  const SocketId id = establish();
  s().close(id, now);
  inject(segment(wire::kFin | wire::kAck, 1001, iss + 2));
  s().close(listener, now);
  const SocketId again = make(true);
  EXPECT_EQ(s().bind(again, {any_v4(), 80}), 0);
  EXPECT_EQ(s().listen(again, 8, now), 0);
}

TEST_F(Ports, EphemeralPortsAreFreeAndRunOut) {
  config.ip_local_port_first = 40000;
  config.ip_local_port_last = 40009;
  std::set<std::uint16_t> seen;
  for (int i = 0; i < 10; ++i) {
    const SocketId id = make(false);
    ASSERT_EQ(s().bind(id, {any_v4(), 0}), 0);
    Address address;
    s().local_address(id, address);
    EXPECT_TRUE(address.port >= 40000 && address.port <= 40009);
    EXPECT_TRUE(seen.insert(address.port).second);
  }
  EXPECT_EQ(s().bind(make(false), {any_v4(), 0}), -EADDRINUSE);
  EXPECT_EQ(s().connect(make(false), {v4(2), 80}, now), -EADDRNOTAVAIL) << "bound ports are left alone";
}

TEST_F(Ports, ConnectSharesPortsBetweenPeers) {
  config.ip_local_port_first = 40000;
  config.ip_local_port_last = 40003;
  for (const std::uint16_t to : {std::uint16_t{80}, std::uint16_t{81}}) {
    for (int i = 0; i < 4; ++i) EXPECT_EQ(s().connect(make(false), {v4(2), to}, now), -EINPROGRESS);
    EXPECT_EQ(s().connect(make(false), {v4(2), to}, now), -EADDRNOTAVAIL);
  }
}

TEST(PortChoice, IsKeyedByTheSeedAndRepeatsWithIt) {
  const auto ports = [](std::uint64_t seed) {
    Config config = host_config(1);
    config.seed = seed;
    OneHost host(config);
    std::vector<std::uint16_t> out;
    for (int i = 0; i < 20; ++i) {
      host.stack->connect(host.stack->socket(Family::kV4), {v4(2), static_cast<std::uint16_t>(80 + i % 2)}, host.now);
      out.push_back(host.take_one().flow.remote_port);
    }
    return out;
  };
  EXPECT_EQ(ports(7), ports(7));
  EXPECT_NE(ports(7), ports(8));
  const auto seen = ports(7);
  EXPECT_GT(std::set<std::uint16_t>(seen.begin(), seen.end()).size(), 18U);
  EXPECT_NE(seen[0] + 2, seen[1]) << "two peers say nothing of each other";
}

}  // namespace
}  // namespace twinstack::stack::test
