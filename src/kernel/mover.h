// Mover: one connection of the side under test, what its driver would hold for it, and whole moves through the kernel
// socket (kernel -> parked -> kernel) as the hand-off will make them. MoveTest: the fixture around it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernel/linux_kernel_conn.h"
#include "kernel/netns_bench.h"

namespace twinstack::kernel::testing {

// The success of a Result<>, or the message of its error.
template <typename T>
::testing::AssertionResult ok(const Result<T>& result) {
  if (result.has_value()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << result.error().message();
}

struct Mover {
  explicit Mover(Bench& the_bench) : bench(the_bench) {}

  // check_eligible, filter, hold, freeze.
  Result<Snapshot> freeze();
  // ... wait, park.
  Result<LateBytes> park(const Snapshot& frozen);
  // restore, release, injection.
  Result<> back(const Snapshot& frozen, const LateBytes& late, bool probe = true);
  // All of it, with whatever is in the queues. A refusal leaves the connection in the kernel and is counted.
  Result<> round_trip(bool probe = true);
  // What the filter and the hold have caught goes to the kernel; the hold is off.
  void inject_late();
  // What release() did not take. True when nothing is left of it.
  bool write_pending(int fd);
  void print(const std::string& title);

  static constexpr std::uint64_t kMaxRefusals = 20'000;
  Bench& bench;
  std::unique_ptr<LinuxKernelConn> conn;
  std::unique_ptr<WireInjector> injector;
  std::unique_ptr<IngressHold> hold;
  Limits limits{.receive_queue_bytes = 8U << 20, .send_queue_bytes = 8U << 20};
  std::vector<std::byte> receive_room = std::vector<std::byte>(9U << 20);
  std::vector<std::byte> send_room = std::vector<std::byte>(9U << 20);
  std::vector<std::byte> unread;
  std::vector<std::byte> pending;
  Costs costs;
  unsigned moves = 0;
  std::uint64_t late_packets = 0;
  std::uint64_t late_bytes = 0;
  std::uint64_t held_packets = 0;
  std::uint64_t refusals = 0;
  std::map<std::string, int> reasons;
  std::uint64_t with_unread = 0;
  std::uint64_t with_unacked = 0;
  std::uint64_t with_unsent = 0;
  std::uint64_t congestion_failed = 0;
};

class MoveTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void make(Mover& mover, Family family = Family::kV4, bool passive = true);
  // RSTs that either side has sent. Not EstabResets: that counts every silent disconnect.
  [[nodiscard]] std::uint64_t resets() const;
  // Of both sides together.
  [[nodiscard]] std::uint64_t both(const std::string& group, const std::string& name) const;
  [[nodiscard]] int ours() const { return connection_.ours.get(); }
  [[nodiscard]] int theirs() const { return connection_.theirs.get(); }
  // Waits (5 s at most) until `fd` shows one of `events`.
  static bool wait_for(int fd, short events);

  std::unique_ptr<Bench> bench_;
  Connection connection_;
};

}  // namespace twinstack::kernel::testing
