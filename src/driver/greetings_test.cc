#include "driver/greetings.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <map>

#include "driver/test_users.h"

namespace twinstack::driver {
namespace {

constexpr Time kArrival = Time() + std::chrono::seconds(1000);

class GreetingsTest : public testing::Test {
 protected:
  // The number of the one that had to go, or -1.
  int add(uid_t uid, Time now = kArrival) {
    UniqueFd socket(::eventfd(0, EFD_CLOEXEC));
    fds_[next_] = socket.get();
    const auto displaced = greetings_.add(next_++, std::move(socket), uid, now);
    if (!displaced) return -1;
    const auto who = std::ranges::find(fds_, displaced->socket.get(), &std::pair<const std::uint32_t, int>::second);
    const auto number = static_cast<int>(who->first);
    fds_.erase(who);
    return number;
  }

  Greetings greetings_{{.all = 4, .of_one_user = 2, .patience = std::chrono::seconds(2)}};
  std::map<std::uint32_t, int> fds_;
  std::uint32_t next_ = 0;
};

TEST_F(GreetingsTest, WhoSaysHelloIsTakenOnce) {
  EXPECT_EQ(add(kAnna), -1);
  const auto taken = greetings_.take(0);
  ASSERT_TRUE(taken.has_value());
  EXPECT_EQ(taken->uid, kAnna);
  EXPECT_FALSE(greetings_.take(0).has_value());
}

TEST_F(GreetingsTest, AUserDisplacesHisOwnOldest) {
  EXPECT_EQ(add(kBert), -1);
  EXPECT_EQ(add(kAnna), -1);
  EXPECT_EQ(add(kAnna), -1);
  EXPECT_EQ(add(kAnna), 1);
  EXPECT_EQ(add(kAnna), 2);
  EXPECT_EQ(greetings_.size(), 3U);
}

TEST_F(GreetingsTest, AFullTableLosesItsOldest) {
  for (int i = 0; i < 4; ++i) EXPECT_EQ(add(kRoot), -1);
  EXPECT_EQ(add(kBert), 0);
  EXPECT_EQ(add(kRoot), 1);
  EXPECT_EQ(greetings_.size(), 4U);
}

TEST_F(GreetingsTest, TheSilentHaveTwoSeconds) {
  EXPECT_EQ(greetings_.next_deadline(), kNever);
  EXPECT_EQ(add(kAnna, kArrival), -1);
  EXPECT_EQ(add(kBert, kArrival + std::chrono::seconds(1)), -1);
  EXPECT_EQ(greetings_.next_deadline(), kArrival + std::chrono::seconds(2));
  EXPECT_TRUE(greetings_.expire(kArrival + std::chrono::milliseconds(1999)).empty());
  EXPECT_EQ(greetings_.expire(kArrival + std::chrono::seconds(2)).size(), 1U);
  EXPECT_EQ(greetings_.next_deadline(), kArrival + std::chrono::seconds(3));
  EXPECT_EQ(greetings_.expire(kArrival + std::chrono::seconds(5)).size(), 1U);
  // Nobody waits: nothing wakes the driver.
  EXPECT_EQ(greetings_.next_deadline(), kNever);
}

}  // namespace
}  // namespace twinstack::driver
