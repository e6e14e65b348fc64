// Room for injected packets in a receive buffer that the program has fixed.
#include <gtest/gtest.h>
#include <linux/socket.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <memory>
#include <string>

#include "kernel/mover.h"
#include "kernel/sockopt.h"

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

// The program goes on with the socket when the service has ended.
TEST_F(ReceiveRoomTest, NothingIsLeftWhenTheDriverLetsGo) {
  fill();
  fix(kOwn / 2);
  ASSERT_TRUE(ok(conn().make_room(kPackets)));
  const UniqueFd given_up = conn().take_socket();
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
