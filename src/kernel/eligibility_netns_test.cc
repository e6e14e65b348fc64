// Every reason for which a connection may not move, one by one.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/in6.h>
#include <linux/net_tstamp.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "kernel/mover.h"
#include "kernel/repair.h"
#include "kernel/sockopt.h"
#include "kernel/tcp_info.h"

namespace twinstack::kernel::testing {
namespace {

class EligibilityTest : public MoveTest {
 protected:
  // What the check says about `mover` now.
  static Reason reason(Mover& mover) {
    const auto checked = mover.conn->check_eligible(mover.limits);
    if (checked.has_value()) {
      EXPECT_EQ(mover.conn->reason(), Reason::kNone);
      return Reason::kNone;
    }
    EXPECT_EQ(checked.error().code, ErrorCode::kNotEligible) << checked.error().message();
    EXPECT_EQ(checked.error().message(), reason_text(mover.conn->reason()));
    return mover.conn->reason();
  }

  // After a check that allowed it: the freeze refuses for this reason, and the connection runs on in the kernel.
  static void expect_freeze_refuses(Mover& mover, Reason expected) {
    ASSERT_TRUE(ok(mover.conn->attach_late_filter()));
    const auto frozen = mover.conn->freeze({mover.receive_room, mover.send_room});
    ASSERT_FALSE(frozen.has_value());
    EXPECT_EQ(frozen.error().code, ErrorCode::kNotEligible) << frozen.error().message();
    EXPECT_EQ(mover.conn->reason(), expected) << reason_name(mover.conn->reason());
    EXPECT_EQ(mover.conn->phase(), Phase::kRunning);
    ASSERT_TRUE(ok(mover.conn->detach_late_filter()));
  }

  // A fresh connection may move; with the option set it may not, for this reason; and without it, it may again.
  template <typename T>
  void expect_reason(int level, int name, const T& on, const T& off, Reason expected, Family family = Family::kV4) {
    Mover mover(*bench_);
    make(mover, family);
    EXPECT_EQ(reason(mover), Reason::kNone);
    ASSERT_EQ(::setsockopt(ours(), level, name, &on, sizeof on), 0) << std::strerror(errno);
    EXPECT_EQ(reason(mover), expected) << reason_name(mover.conn->reason());
    ASSERT_EQ(::setsockopt(ours(), level, name, &off, sizeof off), 0) << std::strerror(errno);
    EXPECT_EQ(reason(mover), Reason::kNone) << reason_name(mover.conn->reason());
  }
};

TEST_F(EligibilityTest, Zerocopy) { expect_reason(SOL_SOCKET, SO_ZEROCOPY, 1, 0, Reason::kZerocopy); }

TEST_F(EligibilityTest, Timestamping) {
  expect_reason(SOL_SOCKET, SO_TIMESTAMPING, int{SOF_TIMESTAMPING_SOFTWARE}, 0, Reason::kTimestamping);
}

// What a listener hands on to its connections, or a program sets before connect().
TEST_F(EligibilityTest, Timestamps) { expect_reason(SOL_SOCKET, SO_TIMESTAMP, 1, 0, Reason::kTimestamping); }
TEST_F(EligibilityTest, TimestampsInNs) { expect_reason(SOL_SOCKET, SO_TIMESTAMPNS, 1, 0, Reason::kTimestamping); }
TEST_F(EligibilityTest, Inq) { expect_reason(IPPROTO_TCP, TCP_INQ, 1, 0, Reason::kControlData); }
TEST_F(EligibilityTest, LowWater) { expect_reason(SOL_SOCKET, SO_RCVLOWAT, 2, 1, Reason::kLowWater); }

TEST_F(EligibilityTest, MinHops) { expect_reason(IPPROTO_IP, IP_MINTTL, 255, 0, Reason::kMinHops); }

TEST_F(EligibilityTest, MinHopsV6) {
  expect_reason(IPPROTO_IPV6, IPV6_MINHOPCOUNT, 255, 0, Reason::kMinHops, Family::kV6);
}

TEST_F(EligibilityTest, Transparent) { expect_reason(IPPROTO_IP, IP_TRANSPARENT, 1, 0, Reason::kTransparent); }

TEST_F(EligibilityTest, TransparentV6) {
  constexpr int kIpv6Transparent = 75;
  expect_reason(IPPROTO_IPV6, kIpv6Transparent, 1, 0, Reason::kTransparent, Family::kV6);
}

TEST_F(EligibilityTest, Pacing) {
  expect_reason(SOL_SOCKET, SO_MAX_PACING_RATE, std::uint64_t{1'000'000}, ~std::uint64_t{0}, Reason::kPacing);
}

TEST_F(EligibilityTest, RepairOn) { expect_reason(IPPROTO_TCP, TCP_REPAIR, 1, -1, Reason::kRepairOn); }

TEST_F(EligibilityTest, IpOptions) {
  Mover mover(*bench_);
  make(mover);
  const std::array<unsigned char, 4> no_operation = {1, 1, 1, 0};
  ASSERT_EQ(::setsockopt(ours(), IPPROTO_IP, IP_OPTIONS, no_operation.data(), no_operation.size()), 0);
  EXPECT_EQ(reason(mover), Reason::kIpOptions);
  ASSERT_EQ(::setsockopt(ours(), IPPROTO_IP, IP_OPTIONS, nullptr, 0), 0);
  EXPECT_EQ(reason(mover), Reason::kNone);
}

TEST_F(EligibilityTest, ExtensionHeaders) {
  Mover mover(*bench_);
  make(mover, Family::kV6);
  EXPECT_EQ(reason(mover), Reason::kNone);
  const std::array<unsigned char, 8> padding = {0, 0, 1, 4, 0, 0, 0, 0};  // PadN
  ASSERT_EQ(::setsockopt(ours(), IPPROTO_IPV6, IPV6_DSTOPTS, padding.data(), padding.size()), 0);
  EXPECT_EQ(reason(mover), Reason::kIpOptions);
}

TEST_F(EligibilityTest, SocketFilterOfTheProgram) {
  Mover mover(*bench_);
  make(mover);
  sock_filter pass = {.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = 0xffffffff};
  const sock_fprog program{.len = 1, .filter = &pass};
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program), 0);
  EXPECT_EQ(reason(mover), Reason::kSocketFilter);
  const int ebpf = bench_->shared.late_filter->fd();  // any eBPF program
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_ATTACH_BPF, &ebpf, sizeof ebpf), 0);
  EXPECT_EQ(reason(mover), Reason::kSocketFilter);
  const int nothing = 0;
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_DETACH_BPF, &nothing, sizeof nothing), 0);
  EXPECT_EQ(reason(mover), Reason::kNone);
  ASSERT_TRUE(ok(mover.conn->attach_late_filter()));  // our own does not count
  EXPECT_EQ(reason(mover), Reason::kNone);
}

TEST_F(EligibilityTest, Md5Keys) {
  Mover mover(*bench_);
  make(mover);
  tcp_md5sig key{};
  sockaddr_in peer{};
  socklen_t length = sizeof peer;
  ASSERT_EQ(::getpeername(ours(), reinterpret_cast<sockaddr*>(&peer), &length), 0);
  std::memcpy(&key.tcpm_addr, &peer, sizeof peer);
  key.tcpm_keylen = 3;
  std::memcpy(key.tcpm_key, "abc", 3);
  if (::setsockopt(ours(), IPPROTO_TCP, TCP_MD5SIG, &key, sizeof key) != 0) {
    GTEST_SKIP() << "this kernel has no TCP MD5: " << std::strerror(errno);
  }
  EXPECT_EQ(reason(mover), Reason::kMd5);
}

TEST_F(EligibilityTest, UpperLayerProtocol) {
  Mover mover(*bench_);
  make(mover);
  // A kernel built without kTLS has no protocol that could be attached, and none may be seen.
  const bool attached = ::setsockopt(ours(), IPPROTO_TCP, TCP_ULP, "tls", 3) == 0;
  ASSERT_TRUE(attached || errno == ENOENT) << std::strerror(errno);
  EXPECT_EQ(reason(mover), attached ? Reason::kUlp : Reason::kNone);
}

TEST_F(EligibilityTest, CongestionControlWithoutALike) {
  Mover mover(*bench_);
  make(mover);
  ASSERT_EQ(::setsockopt(ours(), IPPROTO_TCP, TCP_CONGESTION, "reno", 4), 0);
  mover.limits.congestion_controls = {"cubic", "bbr"};
  EXPECT_EQ(reason(mover), Reason::kCongestionControl);
  mover.limits.congestion_controls = {"reno"};
  EXPECT_EQ(reason(mover), Reason::kNone);
}

TEST_F(EligibilityTest, PeerHasFinished) {
  Mover mover(*bench_);
  make(mover);
  ASSERT_EQ(::shutdown(theirs(), SHUT_WR), 0);
  ASSERT_TRUE(wait_for(ours(), POLLRDHUP));
  EXPECT_EQ(reason(mover), Reason::kNotEstablished);
}

TEST_F(EligibilityTest, WeHaveFinished) {
  Mover mover(*bench_);
  make(mover);
  ASSERT_EQ(::shutdown(ours(), SHUT_WR), 0);
  EXPECT_EQ(reason(mover), Reason::kNotEstablished);
}

TEST_F(EligibilityTest, PeerHasReset) {
  Mover mover(*bench_);
  make(mover);
  const linger now{.l_onoff = 1, .l_linger = 0};
  ASSERT_EQ(::setsockopt(theirs(), SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
  connection_.theirs.reset();
  ASSERT_TRUE(wait_for(ours(), POLLIN));
  EXPECT_EQ(reason(mover), Reason::kNotEstablished);
}

TEST_F(EligibilityTest, UrgentDataPendingAndReadOutOfBand) {
  Mover mover(*bench_);
  make(mover);
  ASSERT_EQ(::send(theirs(), "abcU", 4, MSG_OOB), 4);
  ASSERT_TRUE(wait_for(ours(), POLLPRI));
  EXPECT_EQ(reason(mover), Reason::kUrgentData);
  std::array<char, 8> bytes{};
  ASSERT_EQ(::recv(ours(), bytes.data(), bytes.size(), MSG_OOB), 1);
  ASSERT_EQ(::send(theirs(), "def", 3, 0), 3);
  for (int turn = 0; turn < 5000 && reason(mover) == Reason::kNone; ++turn) ::poll(nullptr, 0, 1);
  EXPECT_EQ(reason(mover), Reason::kUrgentData);  // the mark hides what follows it (S3)
  while (::recv(ours(), bytes.data(), bytes.size(), MSG_DONTWAIT) > 0) {
  }
  EXPECT_EQ(reason(mover), Reason::kNone);
}

TEST_F(EligibilityTest, ErrorQueue) {
  Mover mover(*bench_);
  make(mover);
  const int on = 1;
  const int off = 0;
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on), 0);
  static const std::array<char, 100> kBytes{};
  ASSERT_EQ(::send(ours(), kBytes.data(), kBytes.size(), MSG_ZEROCOPY), 100);
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_ZEROCOPY, &off, sizeof off), 0);
  ASSERT_TRUE(wait_for(ours(), 0));  // POLLERR: the completion
  EXPECT_EQ(reason(mover), Reason::kErrorQueue);
}

TEST_F(EligibilityTest, QueueLimits) {
  Mover mover(*bench_);
  make(mover);
  PatternEnd end(ours(), 0, 1);
  PatternEnd peer(theirs(), 1, 0);
  ASSERT_EQ(peer.write_some(2000), 2000);
  ASSERT_TRUE(wait_for(ours(), POLLIN));
  mover.limits.receive_queue_bytes = 1999;
  EXPECT_EQ(reason(mover), Reason::kReceiveQueueLimit);
  mover.limits.receive_queue_bytes = 2000;
  EXPECT_EQ(reason(mover), Reason::kNone);
  for (long sent = 1; sent > 0;) sent = end.write_some(256U << 10);
  mover.limits.send_queue_bytes = 1000;
  EXPECT_EQ(reason(mover), Reason::kSendQueueLimit);
}

TEST_F(EligibilityTest, OutOfOrderDataUntilItIsCertainlyGone) {
  Mover mover(*bench_);
  make(mover);
  const int on = 1;
  ASSERT_EQ(::setsockopt(theirs(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
  PatternEnd end(ours(), 0, 1);
  PatternEnd peer(theirs(), 1, 0);
  mover.hold->set(true);
  ASSERT_EQ(peer.write_some(100), 100);  // kept back
  mover.hold->set(false);
  ASSERT_EQ(peer.write_some(100), 100);  // overtakes
  for (int turn = 0; turn < 5000 && reason(mover) == Reason::kNone; ++turn) ::poll(nullptr, 0, 1);
  EXPECT_EQ(reason(mover), Reason::kOutOfOrder);
  mover.inject_late();  // the hole is closed; Linux does not say so while there is something to read
  ASSERT_TRUE(wait_for(ours(), POLLIN));
  while (end.read() < 200) ASSERT_GE(end.read_some(200), 0);
  EXPECT_EQ(reason(mover), Reason::kNone);
  EXPECT_EQ(end.wrong(), 0U);
  ASSERT_EQ(peer.write_some(100), 100);
  ASSERT_TRUE(wait_for(ours(), POLLIN));
  EXPECT_EQ(reason(mover), Reason::kNone);  // and it is remembered
}

TEST_F(EligibilityTest, LossRecovery) {
  Mover mover(*bench_);
  make(mover);
  PatternEnd end(ours(), 0, 1);
  mover.hold->set(true);  // no ACK comes in
  ASSERT_EQ(end.write_some(5000), 5000);
  for (int turn = 0; turn < 10'000 && reason(mover) == Reason::kNone; ++turn) ::poll(nullptr, 0, 1);
  EXPECT_EQ(reason(mover), Reason::kLossRecovery);
  mover.limits.allow_loss_recovery = true;
  EXPECT_EQ(reason(mover), Reason::kNone);
}

TEST_F(EligibilityTest, NotTcpAndMptcpAndLoopback) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(9);
  to.sin_addr.s_addr = htonl(0x0a4d0002);  // 10.77.0.2
  auto udp = bench_->pair().socket(Side::kA, AF_INET, SOCK_DGRAM);
  ASSERT_TRUE(ok(udp));
  ASSERT_EQ(::connect(udp->get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  Mover mover(*bench_);
  auto conn = bench_->take(udp->get());
  ASSERT_FALSE(conn.has_value());
  EXPECT_EQ(conn.error().what, "not a TCP socket");

  for (const int protocol : {IPPROTO_MPTCP, IPPROTO_TCP}) {
    auto listener = bench_->pair().socket(Side::kA, AF_INET, SOCK_STREAM);
    auto dialler = bench_->pair().socket(Side::kA, AF_INET, SOCK_STREAM, protocol);
    ASSERT_TRUE(ok(listener));
    if (!dialler.has_value()) continue;  // a kernel without MPTCP
    ASSERT_EQ(::listen(listener->get(), 1), 0);
    socklen_t length = sizeof to;
    ASSERT_EQ(::getsockname(listener->get(), reinterpret_cast<sockaddr*>(&to), &length), 0);
    to.sin_addr.s_addr = htonl(0x0a4d0001);  // our own
    ASSERT_EQ(::connect(dialler->get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    conn = bench_->take(dialler->get());
    ASSERT_TRUE(ok(conn));
    mover.conn = std::move(*conn);
    EXPECT_EQ(reason(mover), protocol == IPPROTO_TCP ? Reason::kLoopback : Reason::kMptcp);
  }
}

TEST_F(EligibilityTest, WhatIsNoConnectionCannotBeTaken) {
  auto fresh = bench_->pair().socket(Side::kA, AF_INET, SOCK_STREAM);
  ASSERT_TRUE(ok(fresh));
  EXPECT_FALSE(bench_->take(fresh->get()).has_value());
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
  const auto unix_socket = bench_->take(ends[0]);
  ASSERT_FALSE(unix_socket.has_value());
  EXPECT_EQ(unix_socket.error().code, ErrorCode::kInvalid);
  ::close(ends[0]);
  ::close(ends[1]);
}

// The world changes between the check and the freeze: the freeze says so and the connection goes on.
TEST_F(EligibilityTest, FreezeNoticesAFinSinceTheCheck) {
  Mover mover(*bench_);
  make(mover);
  EXPECT_EQ(reason(mover), Reason::kNone);
  ASSERT_EQ(::shutdown(theirs(), SHUT_WR), 0);
  ASSERT_TRUE(wait_for(ours(), POLLRDHUP));
  expect_freeze_refuses(mover, Reason::kNotEstablished);
  EXPECT_EQ(*get_option(ours(), IPPROTO_TCP, TCP_REPAIR, "TCP_REPAIR"), 0);
  char byte = 0;
  EXPECT_EQ(::recv(ours(), &byte, 1, 0), 0);  // the end of the stream, as it should be
}

TEST_F(EligibilityTest, FreezeNoticesUrgentDataSinceTheCheck) {
  Mover mover(*bench_);
  make(mover);
  EXPECT_EQ(reason(mover), Reason::kNone);
  ASSERT_EQ(::send(theirs(), "abcU", 4, MSG_OOB), 4);
  ASSERT_TRUE(wait_for(ours(), POLLPRI));
  expect_freeze_refuses(mover, Reason::kUrgentData);
  std::array<char, 8> bytes{};
  EXPECT_EQ(::recv(ours(), bytes.data(), bytes.size(), MSG_OOB), 1);
  EXPECT_EQ(bytes[0], 'U');
}

TEST_F(EligibilityTest, FreezeNoticesALossSinceTheCheck) {
  Mover mover(*bench_);
  make(mover);
  EXPECT_EQ(reason(mover), Reason::kNone);
  PatternEnd end(ours(), 0, 1);
  mover.hold->set(true);  // no ACK comes in
  ASSERT_EQ(end.write_some(5000), 5000);
  for (int turn = 0; turn < 10'000 && read_tcp_info(ours())->tcpi_ca_state < TCP_CA_Recovery; ++turn)
    ::poll(nullptr, 0, 1);
  expect_freeze_refuses(mover, Reason::kLossRecovery);
  mover.inject_late();
}

TEST_F(EligibilityTest, FreezeNoticesOutOfOrderDataSinceTheCheck) {
  Mover mover(*bench_);
  make(mover);
  const int on = 1;
  ASSERT_EQ(::setsockopt(theirs(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
  EXPECT_EQ(reason(mover), Reason::kNone);
  PatternEnd peer(theirs(), 1, 0);
  mover.hold->set(true);
  ASSERT_EQ(peer.write_some(100), 100);  // kept back
  mover.hold->set(false);
  ASSERT_EQ(peer.write_some(100), 100);  // overtakes
  for (int turn = 0; turn < 5000 && read_tcp_info(ours())->tcpi_rcv_ooopack == 0; ++turn) ::poll(nullptr, 0, 1);
  expect_freeze_refuses(mover, Reason::kOutOfOrder);
}

TEST_F(EligibilityTest, FreezeNoticesQueuesThatHaveGrownSinceTheCheck) {
  Mover mover(*bench_);
  make(mover);
  PatternEnd end(ours(), 0, 1);
  PatternEnd peer(theirs(), 1, 0);
  mover.limits.receive_queue_bytes = 1999;
  EXPECT_EQ(reason(mover), Reason::kNone);
  ASSERT_EQ(peer.write_some(2000), 2000);
  ASSERT_TRUE(wait_for(ours(), POLLIN));
  expect_freeze_refuses(mover, Reason::kReceiveQueueLimit);
  while (end.read() < 2000) ASSERT_GE(end.read_some(2000), 0);
  mover.limits.send_queue_bytes = 100'000;
  EXPECT_EQ(reason(mover), Reason::kNone);
  for (long sent = 1; sent > 0;) sent = end.write_some(256U << 10);
  expect_freeze_refuses(mover, Reason::kSendQueueLimit);
  while (peer.read() < end.written()) ASSERT_GE(peer.read_some(1U << 20), 0);
  EXPECT_EQ(end.wrong() + peer.wrong(), 0U);
}

// By a system call that nobody has counted: nothing is lost.
TEST_F(EligibilityTest, FreezeNoticesAPeekOffsetSinceTheCheck) {
  Mover mover(*bench_);
  make(mover);
  PatternEnd end(ours(), 0, 1);
  PatternEnd peer(theirs(), 1, 0);
  ASSERT_EQ(peer.write_some(100), 100);
  ASSERT_TRUE(wait_for(ours(), POLLIN));
  EXPECT_EQ(reason(mover), Reason::kNone);
  const int offset = 10;
  if (::setsockopt(ours(), SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset) != 0) GTEST_SKIP() << "before Linux 6.9";
  expect_freeze_refuses(mover, Reason::kUrgentData);
  EXPECT_EQ(end.read_some(100), 100);
  EXPECT_EQ(end.wrong(), 0U);
}

}  // namespace
}  // namespace twinstack::kernel::testing
