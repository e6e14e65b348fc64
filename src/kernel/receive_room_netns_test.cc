// Room for injected packets in a receive buffer that the program has fixed.
#include <gtest/gtest.h>
#include <linux/socket.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <chrono>
#include <memory>
#include <string>

#include "kernel/mover.h"
#include "kernel/sockopt.h"
#include "tcp/tcp_info.h"

namespace twinstack::kernel::testing {
namespace {

constexpr int kOwn = 16384;  // what SO_RCVBUF reads after half of it was set
constexpr std::uint32_t kPackets = 50;

class ReceiveRoomTest : public MoveTest {
 protected:
  void SetUp() override {
    MoveTest::SetUp();
    if (IsSkipped()) return;
    make(mover());
  }
  void TearDown() override { mover_.reset(); }
  Mover& mover() {
    if (!mover_) mover_ = std::make_unique<Mover>(*bench_);
    return *mover_;
  }
  LinuxKernelConn& conn() { return *mover().conn; }
  void fix(int half) { ASSERT_TRUE(ok(set_option(ours(), SOL_SOCKET, SO_RCVBUF, half, "SO_RCVBUF"))); }
  int get(int name) { return get_option(ours(), SOL_SOCKET, name, "option").value_or(-1); }
  // More than the program's own buffer holds.
  void fill() {
    const std::string bytes(2 * kOwn, 'f');
    ASSERT_EQ(::send(theirs(), bytes.data(), bytes.size(), MSG_DONTWAIT), static_cast<ssize_t>(bytes.size()));
    const timeval limit{.tv_sec = 5, .tv_usec = 0};
    ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    std::string room(bytes.size(), '\0');
    ASSERT_EQ(::recv(ours(), room.data(), room.size(), MSG_PEEK | MSG_WAITALL), static_cast<ssize_t>(bytes.size()));
  }
  void read_all() {
    std::array<char, 4096> room;
    while (::recv(ours(), room.data(), room.size(), MSG_DONTWAIT) > 0) {
    }
  }
  // The peer sends as much as it can, for so long.
  void stream(std::chrono::milliseconds span, bool reading) {
    const std::string bytes(65536, 's');
    const auto end = std::chrono::steady_clock::now() + span;
    while (std::chrono::steady_clock::now() < end) {
      (void)::send(theirs(), bytes.data(), bytes.size(), MSG_DONTWAIT);
      if (reading) read_all();
    }
  }
  int clamp() { return get_option(ours(), IPPROTO_TCP, TCP_WINDOW_CLAMP, "TCP_WINDOW_CLAMP").value_or(-1); }
  // The window that the peer was offered last.
  int offered() {
    tcp::TcpInfo info;
    socklen_t length = sizeof info;
    EXPECT_EQ(::getsockopt(ours(), IPPROTO_TCP, TCP_INFO, &info, &length), 0);
    return static_cast<int>(info.rcv_wnd);
  }

 private:
  std::unique_ptr<Mover> mover_;
};

TEST_F(ReceiveRoomTest, IsLentUntilTheProgramHasRead) {
  fill();  // a window for that was offered before
  fix(kOwn / 2);
  ASSERT_TRUE(ok(conn().make_room(kPackets)));
  EXPECT_FALSE(conn().is_settled());
  EXPECT_GT(get(SO_RCVBUF), kOwn + static_cast<int>(kPackets * 4096));
  EXPECT_FALSE(conn().settle(false)) << "it lies there unread";
  read_all();
  EXPECT_TRUE(conn().settle(false));
  EXPECT_TRUE(conn().is_settled());
  EXPECT_EQ(get(SO_RCVBUF), kOwn);
  EXPECT_EQ(get(SO_BUF_LOCK), SOCK_RCVBUF_LOCK);
}

TEST_F(ReceiveRoomTest, IsLentOnceForManyInjections) {
  fix(kOwn / 2);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(ok(conn().make_room(kPackets)));
  EXPECT_TRUE(conn().settle(false));
  EXPECT_EQ(get(SO_RCVBUF), kOwn);
}

TEST_F(ReceiveRoomTest, GoesBackWithAMove) {
  fill();
  fix(kOwn / 2);
  ASSERT_TRUE(ok(conn().make_room(kPackets)));
  ASSERT_TRUE(ok(conn().check_eligible(mover().limits)));
  EXPECT_EQ(conn().program_options().receive_buffer_bytes, kOwn);
  ASSERT_TRUE(ok(mover().round_trip()));
  EXPECT_TRUE(conn().is_settled());
  EXPECT_EQ(get(SO_RCVBUF), kOwn);
  EXPECT_EQ(get(SO_BUF_LOCK), SOCK_RCVBUF_LOCK);
}

// The larger buffer has Linux offer a larger window. Taken back before the peer has used that, it would overflow.
TEST_F(ReceiveRoomTest, IsLentUntilTheWindowIsThatOfTheOwnBuffer) {
  constexpr int kLarger = 65536;
  fix(kLarger / 2);
  ASSERT_TRUE(ok(conn().make_room(80)));
  ASSERT_FALSE(conn().is_settled());
  stream(std::chrono::milliseconds(100), true);
  if (offered() == 0) GTEST_SKIP() << "this kernel does not tell the window (Linux 6.2)";
  EXPECT_GT(offered(), 2 * kLarger) << "nothing to be careful with";
  EXPECT_GT(clamp(), kLarger);
  const std::uint64_t pruned = both("TcpExt", "RcvPruned");
  for (int turn = 0; turn < 500 && !conn().settle(false); ++turn) stream(std::chrono::milliseconds(5), true);
  EXPECT_TRUE(conn().is_settled());
  EXPECT_EQ(get(SO_RCVBUF), kLarger);
  EXPECT_LE(offered(), kLarger);
  EXPECT_LE(clamp(), kLarger);
  EXPECT_GT(clamp(), kLarger / 2) << "as much as segments of this weight find room for";
  stream(std::chrono::milliseconds(200), false);
  EXPECT_EQ(both("TcpExt", "RcvPruned"), pruned);
}

TEST_F(ReceiveRoomTest, TheWindowClampIsTheProgramsOwnAfterAMove) {
  constexpr int kLarger = 65536;
  fix(kLarger / 2);
  ASSERT_TRUE(ok(conn().make_room(80)));
  stream(std::chrono::milliseconds(100), true);
  ASSERT_GT(clamp(), kLarger);
  ASSERT_TRUE(ok(conn().check_eligible(mover().limits)));
  EXPECT_LE(conn().program_options().window_clamp_bytes, kLarger);
}

// The program goes on with the socket when the service has ended.
TEST_F(ReceiveRoomTest, NothingIsLeftWhenTheDriverLetsGo) {
  fill();
  fix(kOwn / 2);
  ASSERT_TRUE(ok(conn().make_room(kPackets)));
  const UniqueFd given_up = conn().take_socket(true);
  EXPECT_EQ(get(SO_RCVBUF), kOwn);
}

TEST_F(ReceiveRoomTest, WhatTheProgramSetsMeanwhileStays) {
  fix(kOwn / 2);
  ASSERT_TRUE(ok(conn().make_room(kPackets)));
  fix(kOwn);
  EXPECT_TRUE(conn().settle(true));
  EXPECT_EQ(get(SO_RCVBUF), 2 * kOwn);
}

TEST_F(ReceiveRoomTest, ABufferThatTheKernelTunesIsLeftAlone) {
  const int before = get(SO_RCVBUF);
  ASSERT_TRUE(ok(conn().make_room(kPackets)));
  EXPECT_TRUE(conn().is_settled());
  EXPECT_EQ(get(SO_RCVBUF), before);
  EXPECT_EQ(get(SO_BUF_LOCK), 0);
}

}  // namespace
}  // namespace twinstack::kernel::testing
