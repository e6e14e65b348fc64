// The end of a connection whose peer was silent for too long while the engine had it.
#include <gtest/gtest.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

#include "base/monotonic.h"
#include "kernel/mover.h"
#include "kernel/sockopt.h"

namespace twinstack::kernel::testing {
namespace {

constexpr int kMinuteMs = 60'000;

class ExpireTest : public MoveTest {
 protected:
  void SetUp() override {
    MoveTest::SetUp();
    if (!IsSkipped()) make(mover());
  }
  void TearDown() override { mover_.reset(); }
  Mover& mover() {
    if (!mover_) mover_ = std::make_unique<Mover>(*bench_);
    return *mover_;
  }
  void set(int level, int name, int value) { ASSERT_TRUE(ok(set_option(ours(), level, name, value, "option"))); }
  int get(int name) { return get_option(ours(), IPPROTO_TCP, name, "option").value_or(-1); }
  void silence_peer() { ASSERT_TRUE(ok(bench_->pair().run_ok(Side::kB, "ip route add blackhole 10.77.0.1/32"))); }
  // Until the connection is over: its error, and how long that took. -1 after 10 s.
  struct End {
    int error;
    Duration after;
  };
  End end() {
    const Time begin = monotonic_now();
    pollfd ready{.fd = ours(), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 10'000) != 1) return {.error = -1, .after = {}};
    const auto error = get_option(ours(), SOL_SOCKET, SO_ERROR, "SO_ERROR");
    return {.error = error.value_or(-1), .after = monotonic_now() - begin};
  }

 private:
  std::unique_ptr<Mover> mover_;
};

TEST_F(ExpireTest, UnacknowledgedDataEndsWithTheNextTimeout) {
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, kMinuteMs);
  silence_peer();
  ASSERT_EQ(::send(ours(), "lost", 4, MSG_DONTWAIT), 4);
  ASSERT_TRUE(ok(mover().round_trip()));
  ASSERT_TRUE(ok(mover().conn->expire()));
  const End over = end();
  EXPECT_EQ(over.error, ETIMEDOUT);
  EXPECT_LT(over.after, std::chrono::seconds(6));  // it knows no round trip: a probe after one, a timeout after three
}

TEST_F(ExpireTest, AKeptConnectionEndsWithTheSecondProbe) {
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 60);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 60);
  silence_peer();
  ASSERT_TRUE(ok(mover().round_trip()));
  ASSERT_TRUE(ok(mover().conn->expire()));
  const End over = end();
  EXPECT_EQ(over.error, ETIMEDOUT);
  EXPECT_LT(over.after, std::chrono::seconds(3));
}

TEST_F(ExpireTest, APeerThatAnswersAfterAllKeepsTheConnection) {
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, kMinuteMs);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 50);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 7);
  ASSERT_EQ(::send(ours(), "heard", 5, MSG_DONTWAIT), 5);
  ASSERT_TRUE(ok(mover().round_trip()));
  ASSERT_TRUE(ok(mover().conn->expire()));
  EXPECT_FALSE(mover().conn->settle(false));
  set(IPPROTO_TCP, TCP_KEEPINTVL, 9);  // the program, meanwhile
  pollfd ready{.fd = ours(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(::poll(&ready, 1, 3000), 0);
  EXPECT_TRUE(mover().conn->settle(false)) << "a probe was answered";
  EXPECT_EQ(get(TCP_USER_TIMEOUT), kMinuteMs);
  EXPECT_EQ(get(TCP_KEEPIDLE), 50);
  EXPECT_EQ(get(TCP_KEEPINTVL), 9);
  EXPECT_EQ(resets(), 0U);
}

TEST_F(ExpireTest, ItMovesNoMoreUntilThePeerIsHeardOf) {
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, kMinuteMs);
  ASSERT_TRUE(ok(mover().round_trip()));
  ASSERT_TRUE(ok(mover().conn->expire()));
  EXPECT_FALSE(mover().conn->check_eligible(mover().limits).has_value());
  EXPECT_EQ(get(TCP_USER_TIMEOUT), 1);
  ::usleep(30'000);  // longer than what the return injects counts as no news (Expiry)
  ASSERT_EQ(::send(theirs(), "x", 1, MSG_DONTWAIT), 1);
  ASSERT_TRUE(wait_for(ours(), POLLIN));
  EXPECT_TRUE(ok(mover().conn->check_eligible(mover().limits)));
  EXPECT_EQ(get(TCP_USER_TIMEOUT), kMinuteMs);
}

}  // namespace
}  // namespace twinstack::kernel::testing
