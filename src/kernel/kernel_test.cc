// What of src/kernel needs no privileges and no network.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <set>

#include "kernel/address.h"
#include "kernel/doctor.h"
#include "kernel/kernel_conn.h"
#include "kernel/linux_kernel_conn.h"

namespace twinstack::kernel {
namespace {

TEST(Reason, EveryReasonHasItsOwnNameAndText) {
  std::set<std::string_view> names;
  std::set<std::string_view> texts;
  int count = 0;
  for (int value = 0; value <= static_cast<int>(Reason::kNoRoute); ++value, ++count) {
    names.insert(reason_name(static_cast<Reason>(value)));
    texts.insert(reason_text(static_cast<Reason>(value)));
  }
  EXPECT_EQ(names.size(), static_cast<std::size_t>(count));
  EXPECT_EQ(texts.size(), static_cast<std::size_t>(count));
  EXPECT_FALSE(names.contains("unknown"));
}

FlowKey round_trip(const IpAddress& address, std::uint16_t port, std::uint32_t scope, bool v6,
                   std::uint32_t& scope_out) {
  FlowKey key;
  EXPECT_TRUE(from_socket_address(to_socket_address(address, port, scope, v6), key.local, key.local_port, scope_out));
  return key;
}

TEST(Address, SurvivesSocketAddressesOfBothFamilies) {
  std::uint32_t scope = 99;
  const IpAddress v4 = IpAddress::from_v4({10, 1, 2, 3});
  EXPECT_EQ(round_trip(v4, 4711, 0, false, scope).local, v4);
  EXPECT_EQ(round_trip(v4, 4711, 0, true, scope).local, v4);  // mapped, on a v6 socket
  EXPECT_EQ(round_trip(v4, 4711, 0, true, scope).local_port, 4711);
  IpAddress link_local;
  link_local.bytes[0] = 0xfe;
  link_local.bytes[1] = 0xbf;
  link_local.bytes[15] = 1;
  EXPECT_EQ(round_trip(link_local, 1, 7, true, scope).local, link_local);
  EXPECT_EQ(scope, 7U);
  IpAddress global = link_local;
  global.bytes[1] = 0xc0;  // not link-local: fe80::/10 ends before
  static_cast<void>(round_trip(global, 1, 7, true, scope));
  EXPECT_EQ(scope, 0U);
}

TEST(Address, KnowsLoopback) {
  EXPECT_TRUE(is_loopback(IpAddress::from_v4({127, 9, 9, 9})));
  EXPECT_FALSE(is_loopback(IpAddress::from_v4({128, 0, 0, 1})));
  IpAddress one;
  one.bytes[15] = 1;
  EXPECT_TRUE(is_loopback(one));
  EXPECT_FALSE(is_loopback(IpAddress{}));
}

TEST(GracePeriod, BothWaitsEndAndLeaveTheAffinityAsItWas) {
  cpu_set_t before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  EXPECT_TRUE(wait_packets_in_flight().has_value());
  EXPECT_TRUE(wait_grace_period().has_value());
  cpu_set_t after;
  ASSERT_EQ(::sched_getaffinity(0, sizeof after, &after), 0);
  EXPECT_TRUE(CPU_EQUAL(&before, &after));
}

TEST(Doctor, EveryProbeSaysWhatItFoundAndABadOneHowToMendIt) {
  const auto probes = examine_system();
  std::set<std::string> names;
  for (const Probe& probe : probes) {
    names.insert(probe.name);
    EXPECT_FALSE(probe.detail.empty()) << probe.name;
    EXPECT_EQ(probe.ok, probe.mend.empty()) << probe.name;
    if (::geteuid() == 0 && probe.required) {
      EXPECT_TRUE(probe.ok) << probe.name << ": " << probe.detail;
    }
  }
  EXPECT_THAT(names, ::testing::IsSupersetOf({"kernel", "capabilities", "tcp-repair", "bpf", "af-xdp", "btf",
                                              "cwnd-restore", "memlock", "cgroup-v2", "bpf-jit"}));
}

}  // namespace
}  // namespace twinstack::kernel
