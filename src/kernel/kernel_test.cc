// What of src/kernel needs no privileges and no network.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <thread>

#include "base/monotonic.h"
#include "kernel/address.h"
#include "kernel/capabilities.h"
#include "kernel/congestion_hook.h"
#include "kernel/doctor.h"
#include "kernel/kernel_conn.h"
#include "kernel/late_filter.h"
#include "kernel/linux_kernel_conn.h"
#include "kernel/repeated_ack.h"

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

constexpr std::uint64_t bit(unsigned number) { return std::uint64_t{1} << number; }

constexpr std::uint64_t kTheList =
    bit(CAP_NET_ADMIN) | bit(CAP_NET_RAW) | bit(CAP_BPF) | bit(CAP_PERFMON) | bit(CAP_IPC_LOCK);

Privileges only(std::uint64_t effective) { return {.effective = effective, .unlimited_memlock = false}; }

TEST(Capabilities, WhatTheServiceNeedsIsNamed) {
  using ::testing::ElementsAre;
  EXPECT_THAT(missing_capabilities(only(~std::uint64_t{0}), true), ElementsAre());
  EXPECT_THAT(missing_capabilities(only(kTheList), false), ElementsAre());
  EXPECT_THAT(missing_capabilities(only(kTheList), true), ElementsAre("CAP_SYS_ADMIN"));
  EXPECT_THAT(missing_capabilities(only(0), false),
              ElementsAre("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON", "CAP_IPC_LOCK"));
  EXPECT_THAT(missing_capabilities(only(bit(CAP_SYS_ADMIN) | bit(CAP_NET_ADMIN)), true),
              ElementsAre("CAP_NET_RAW", "CAP_IPC_LOCK"));
  EXPECT_THAT(missing_capabilities({.effective = kTheList & ~bit(CAP_IPC_LOCK), .unlimited_memlock = true}, false),
              ElementsAre());
}

// A thread of its own, with these capabilities at most.
void with_capabilities(std::uint64_t most, const std::function<void()>& fn) {
  std::thread([&] {
    __user_cap_header_struct head{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    std::array<__user_cap_data_struct, 2> data{};
    ASSERT_EQ(::syscall(SYS_capget, &head, data.data()), 0);
    data[0].effective &= static_cast<std::uint32_t>(most);
    data[1].effective &= static_cast<std::uint32_t>(most >> 32);
    ASSERT_EQ(::syscall(SYS_capset, &head, data.data()), 0);
    fn();
  }).join();
}

TEST(Doctor, ExactlyTheListIsEnough) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  with_capabilities(kTheList, [] {
    for (const Probe& probe : examine_system(false)) EXPECT_TRUE(probe.ok || !probe.required) << probe.detail;
    EXPECT_TRUE(CongestionHook::load().has_value());
    const auto probes = examine_system(true);
    const auto found = std::ranges::find(probes, "capabilities", &Probe::name);
    ASSERT_NE(found, probes.end());
    EXPECT_EQ(found->detail, "missing: CAP_SYS_ADMIN");
  });
}

TEST(Doctor, UnprivilegedItIsRefusedInOurWordsAlone) {
  ::testing::internal::CaptureStderr();
  Result<std::unique_ptr<LateFilter>> filter;
  Result<std::unique_ptr<CongestionHook>> hook;
  with_capabilities(0, [&] {
    static_cast<void>(examine_system());
    filter = LateFilter::load();
    hook = CongestionHook::load();
  });
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  ASSERT_FALSE(filter.has_value() || hook.has_value());
  EXPECT_THAT(filter.error().message(), ::testing::HasSubstr("needs CAP_BPF, CAP_PERFMON"));
}

std::string congestion_controls() {
  std::ifstream file("/proc/sys/net/ipv4/tcp_available_congestion_control");
  std::string all;
  std::getline(file, all);
  return all;
}

// A service that is killed has no time to tidy up.
TEST(CongestionHook, EndsWithItsProcess) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(CongestionHook::load().has_value() ? 0 : 1);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  std::array<char, 16> name{};
  std::snprintf(name.data(), name.size(), " ts%x_", static_cast<unsigned>(child));
  const Time end = monotonic_now() + std::chrono::seconds(5);  // the kernel frees it after a grace period
  while (congestion_controls().find(name.data()) != std::string::npos && monotonic_now() < end) ::usleep(10'000);
  EXPECT_EQ(congestion_controls().find(name.data()), std::string::npos);
}

// As `ip netns exec` leaves a program: another network namespace, another /sys.
TEST(Doctor, WhatCannotBeSeenFromANamespaceIsNoFault) {
  if (::geteuid() != 0 || std::system("unshare -mn true") != 0) GTEST_SKIP() << "not allowed to make namespaces";
  std::thread([] {
    ASSERT_EQ(::unshare(CLONE_NEWNET | CLONE_NEWNS), 0);
    ASSERT_EQ(::mount("", "/", nullptr, MS_REC | MS_SLAVE, nullptr), 0);
    ASSERT_EQ(::umount2("/sys", MNT_DETACH), 0);
    for (const Probe& probe : examine_system()) {
      if (probe.name != "bpf-jit" && probe.name != "cgroup-v2") continue;
      EXPECT_TRUE(probe.ok) << probe.name << ": " << probe.detail;
    }
  }).join();
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
                                              "congestion-hook", "memlock", "cgroup-v2", "bpf-jit"}));
}

struct Repeated {
  Repeated() {
    past.bytes_acked = 100;
    past.delivered = past.segs_in = 10;
    ack.expect(1, 999);
    min.snd_una = 999;
    min.snd_nxt = 1005;
  }
  // A freeze: `acked` bytes in this stay, as read at first; the send queue, read then, begins at `snd_una`.
  void freeze(std::uint64_t acked, std::uint32_t snd_una) {
    stay.bytes_acked = acked;
    min.snd_una = snd_una;
    unacked = std::span(queue).last(min.snd_nxt - snd_una);
    ack.leave_out(stay, min, unacked);
  }
  RepeatedAck ack;
  tcp::InfoCounters past{};
  tcp::InfoCounters stay{};
  tcp::MinTcp min;
  std::array<std::byte, 6> queue{};
  std::span<const std::byte> unacked;
};

TEST(RepeatedAck, CountsOnceWhenItHasCome) {
  Repeated r;
  r.freeze(1, 1000);
  EXPECT_EQ(r.min.snd_una, 1000U);
  EXPECT_EQ(r.unacked.size(), 5U);
  EXPECT_EQ(r.ack.without(r.stay).bytes_acked, 0U);
  EXPECT_EQ(r.ack.in_advance(r.past).bytes_acked + r.stay.bytes_acked, 100U) << "as one sees it meanwhile";
}

TEST(RepeatedAck, CountsOnceWhenItHasNot) {
  Repeated r;
  r.freeze(0, 999);
  EXPECT_EQ(r.min.snd_una, 1000U) << "the byte is not for the engine to repeat";
  EXPECT_EQ(r.unacked.size(), 5U);
  EXPECT_EQ(r.ack.without(r.stay).bytes_acked, 0U);
  EXPECT_EQ(r.ack.in_advance(r.past).delivered, 9U);
}

TEST(RepeatedAck, ThatComesBetweenTwoLooksTakesNothingElseWithIt) {
  Repeated r;
  r.freeze(0, 1000);
  EXPECT_EQ(r.min.snd_una, 1000U);
  EXPECT_EQ(r.unacked.size(), 5U) << "real bytes";
}

TEST(RepeatedAck, NothingFallsUnderZero) {
  Repeated r;
  EXPECT_EQ(r.ack.in_advance({}).bytes_acked, 0U);
  r.stay.bytes_acked = 1;  // nothing but the byte itself, of a connection that has only received
  EXPECT_EQ(r.ack.without(r.stay).bytes_acked, 0U);
  r.ack.end();
  EXPECT_EQ(r.ack.without(r.stay).bytes_acked, 1U);
}

}  // namespace
}  // namespace twinstack::kernel
