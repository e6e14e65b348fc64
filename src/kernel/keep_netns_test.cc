// What a move must leave as it was: the descriptor and everything that hangs on it, the program's options, what was
// negotiated, the congestion window.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <tuple>
#include <vector>

#include "kernel/mover.h"
#include "kernel/sockopt.h"
#include "kernel/tcp_info.h"

namespace twinstack::kernel::testing {
namespace {

using KeepTest = MoveTest;

int option(int fd, int level, int name) {
  const auto value = get_option(fd, level, name, "option");
  EXPECT_TRUE(ok(value)) << level << "/" << name;
  return value.value_or(-12345);
}

tcp_info info_of(int fd) {
  const auto info = read_tcp_info(fd);
  EXPECT_TRUE(ok(info));
  return info.value_or(tcp_info{});
}

UniqueFd epoll_on(int fd, std::uint32_t events) {
  UniqueFd made(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{.events = events, .data = {.u64 = 77}};
  EXPECT_EQ(::epoll_ctl(made.get(), EPOLL_CTL_ADD, fd, &event), 0);
  return made;
}

std::uint32_t epoll_events(const UniqueFd& set, int timeout_ms) {
  epoll_event event{};
  if (::epoll_wait(set.get(), &event, 1, timeout_ms) != 1) return 0;
  const std::uint64_t tag = event.data.u64;  // epoll_event is packed
  EXPECT_EQ(tag, 77U);
  return event.events;
}

TEST_F(KeepTest, DescriptorDuplicateCookieAndEpollSurvive) {
  Mover mover(*bench_);
  make(mover);
  const UniqueFd duplicate(::dup(ours()));
  const UniqueFd level = epoll_on(ours(), EPOLLIN);
  const std::uint64_t cookie = mover.conn->cookie();
  const auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  const auto late = mover.park(*frozen);
  ASSERT_TRUE(ok(late));
  // Parked: nothing to see for a program that polls, no error, no hang-up.
  pollfd parked{.fd = ours(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(::poll(&parked, 1, 0), 0) << parked.revents;
  EXPECT_EQ(info_of(ours()).tcpi_state, kTcpEstablished);
  ASSERT_TRUE(ok(mover.back(*frozen, *late)));

  EXPECT_EQ(*get_option<std::uint64_t>(ours(), SOL_SOCKET, SO_COOKIE, "SO_COOKIE"), cookie);
  EXPECT_EQ(option(ours(), SOL_SOCKET, SO_ERROR), 0);
  EXPECT_EQ(epoll_events(level, 0), 0U);
  PatternEnd peer(theirs(), 1, 0);
  PatternEnd end(duplicate.get(), 0, 1);
  ASSERT_EQ(peer.write_some(1000), 1000);
  EXPECT_EQ(epoll_events(level, 5000), EPOLLIN);
  EXPECT_EQ(end.read_some(1000), 1000);
  EXPECT_EQ(end.write_some(1000), 1000);
  ASSERT_TRUE(wait_for(theirs(), POLLIN));
  EXPECT_EQ(peer.read_some(1000), 1000);
  EXPECT_EQ(peer.wrong() + end.wrong(), 0U);
}

TEST_F(KeepTest, EdgeTriggeredEpollIsToldOfRestoredBytes) {
  Mover mover(*bench_);
  make(mover);
  const UniqueFd edge = epoll_on(ours(), EPOLLIN | EPOLLET);
  PatternEnd peer(theirs(), 1, 0);
  ASSERT_EQ(peer.write_some(500), 500);
  ASSERT_EQ(epoll_events(edge, 5000), EPOLLIN);
  ASSERT_TRUE(ok(mover.round_trip()));
  ASSERT_EQ(mover.moves, 1U);
  EXPECT_EQ(epoll_events(edge, 5000), EPOLLIN);
  PatternEnd end(ours(), 0, 1);
  EXPECT_EQ(end.read_some(1000), 500);
  EXPECT_EQ(end.wrong(), 0U);
}

TEST_F(KeepTest, OptionsOfTheProgramSurvive) {
  const std::vector<std::tuple<int, int, int>> options = {{SOL_SOCKET, SO_REUSEADDR, 1},
                                                          {SOL_SOCKET, SO_KEEPALIVE, 1},
                                                          {SOL_SOCKET, SO_RCVBUF, 300'000},
                                                          {SOL_SOCKET, SO_SNDBUF, 200'000},
                                                          {SOL_SOCKET, SO_PRIORITY, 5},
                                                          {SOL_SOCKET, SO_MARK, 9},
                                                          {SOL_SOCKET, SO_OOBINLINE, 1},
                                                          {IPPROTO_TCP, TCP_NODELAY, 1},
                                                          {IPPROTO_TCP, TCP_CORK, 1},
                                                          {IPPROTO_TCP, TCP_KEEPIDLE, 1234},
                                                          {IPPROTO_TCP, TCP_KEEPINTVL, 12},
                                                          {IPPROTO_TCP, TCP_KEEPCNT, 4},
                                                          {IPPROTO_TCP, TCP_USER_TIMEOUT, 99},
                                                          {IPPROTO_TCP, TCP_LINGER2, 7},
                                                          {IPPROTO_TCP, TCP_NOTSENT_LOWAT, 5555},
                                                          {IPPROTO_TCP, TCP_SYNCNT, 3},
                                                          {IPPROTO_TCP, TCP_WINDOW_CLAMP, 60'000},
                                                          {IPPROTO_IP, IP_TTL, 33},
                                                          {IPPROTO_IP, IP_TOS, 0x28},
                                                          {SOL_SOCKET, SO_PEEK_OFF, 2}};
  Mover mover(*bench_);
  make(mover);
  for (const auto& [level, name, value] : options) {
    EXPECT_EQ(::setsockopt(ours(), level, name, &value, sizeof value), 0) << level << "/" << name;
  }
  ASSERT_EQ(::setsockopt(ours(), IPPROTO_TCP, TCP_CONGESTION, "reno", 4), 0);
  std::vector<int> before;
  for (const auto& [level, name, value] : options) before.push_back(option(ours(), level, name));
  before.push_back(option(ours(), SOL_SOCKET, SO_BUF_LOCK));
  for (int turn = 0; turn < 3; ++turn) ASSERT_TRUE(ok(mover.round_trip()));
  ASSERT_EQ(mover.moves, 3U);
  std::size_t index = 0;
  for (const auto& [level, name, value] : options) {
    EXPECT_EQ(option(ours(), level, name), before[index++]) << level << "/" << name;
  }
  EXPECT_EQ(option(ours(), SOL_SOCKET, SO_BUF_LOCK), before[index]);
  std::array<char, 17> name{};
  socklen_t length = name.size() - 1;
  ASSERT_EQ(::getsockopt(ours(), IPPROTO_TCP, TCP_CONGESTION, name.data(), &length), 0);
  EXPECT_STREQ(name.data(), "reno");
}

TEST_F(KeepTest, ThawPutsReuseAddressAndPeekOffsetBack) {
  Mover mover(*bench_);
  make(mover);
  const int one = 1;
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), 0);
  const int offset = 3;
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset), 0);
  PatternEnd peer(theirs(), 1, 0);
  ASSERT_EQ(peer.write_some(10), 10);
  ASSERT_TRUE(wait_for(ours(), POLLIN));
  const auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  ASSERT_EQ(frozen->unread.size(), 10U);  // from the beginning, whatever the offset
  EXPECT_EQ(frozen->unread[0], pattern(0, 1));
  ASSERT_TRUE(ok(mover.conn->thaw()));
  mover.inject_late();
  EXPECT_EQ(option(ours(), SOL_SOCKET, SO_REUSEADDR), 1);
  EXPECT_EQ(option(ours(), SOL_SOCKET, SO_PEEK_OFF), 3);
  EXPECT_EQ(option(ours(), IPPROTO_TCP, TCP_REPAIR), 0);
  PatternEnd end(ours(), 0, 1);
  EXPECT_EQ(end.read_some(100), 10);
  EXPECT_EQ(end.wrong(), 0U);
}

struct Negotiated {
  const char* sysctl;
  const char* value;
  const char* name;
};

class NegotiatedTest : public MoveTest, public ::testing::WithParamInterface<Negotiated> {};

// Whatever the handshake agreed on is in force after the move, also where the peer lacks an option.
TEST_P(NegotiatedTest, SurvivesAMove) {
  if (GetParam().sysctl[0] != '\0') {
    ASSERT_TRUE(ok(bench_->pair().sysctl(Side::kB, GetParam().sysctl, GetParam().value)));
  }
  Mover mover(*bench_);
  make(mover);
  PatternEnd end(ours(), 0, 1);
  PatternEnd peer(theirs(), 1, 0);
  const tcp_info before = info_of(ours());
  for (int turn = 0; turn < 20; ++turn) {
    ASSERT_EQ(end.write_some(3000), 3000);
    ASSERT_TRUE(ok(mover.round_trip()));
    for (std::size_t got = 0; got < 3000;) {
      ASSERT_TRUE(wait_for(theirs(), POLLIN));
      const long more = peer.read_some(3000);
      ASSERT_GT(more, 0);
      got += static_cast<std::size_t>(more);
    }
  }
  const tcp_info after = info_of(ours());
  EXPECT_EQ(after.tcpi_options & ~TCPI_OPT_ECN_SEEN, before.tcpi_options & ~TCPI_OPT_ECN_SEEN);
  EXPECT_EQ(after.tcpi_snd_wscale, before.tcpi_snd_wscale);
  EXPECT_EQ(after.tcpi_rcv_wscale, before.tcpi_rcv_wscale);
  // The kernel allows for timestamps here until the path changes, and yet sends full segments.
  const bool timestamps = (before.tcpi_options & TCPI_OPT_TIMESTAMPS) != 0;
  EXPECT_EQ(after.tcpi_snd_mss, timestamps ? before.tcpi_snd_mss : before.tcpi_snd_mss - 12);
  const auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  EXPECT_EQ(frozen->min.mss, 1460);
  ASSERT_TRUE(ok(mover.conn->thaw()));
  mover.inject_late();
  EXPECT_EQ(peer.wrong(), 0U);
  EXPECT_EQ(both("TcpExt", "PAWSEstab"), 0U);
  EXPECT_EQ(both("Tcp", "RetransSegs"), 0U);
}

INSTANTIATE_TEST_SUITE_P(Peers, NegotiatedTest,
                         ::testing::Values(Negotiated{"", "", "AllOptions"},
                                           Negotiated{"net/ipv4/tcp_timestamps", "0", "NoTimestamps"},
                                           Negotiated{"net/ipv4/tcp_sack", "0", "NoSack"},
                                           Negotiated{"net/ipv4/tcp_window_scaling", "0", "NoWindowScale"},
                                           Negotiated{"net/ipv4/tcp_ecn", "1", "Ecn"}),
                         [](const auto& test) { return std::string(test.param.name); });

class CongestionTest : public MoveTest, public ::testing::WithParamInterface<const char*> {};

// cwnd and ssthresh are what they were, are no cap, and the real congestion control goes on from there.
TEST_P(CongestionTest, WindowAndThresholdSurviveAndGrowOn) {
  Mover mover(*bench_);
  make(mover);
  const std::string name = GetParam();
  ASSERT_EQ(::setsockopt(ours(), IPPROTO_TCP, TCP_CONGESTION, name.data(), static_cast<socklen_t>(name.size())), 0);
  for (const auto& [cwnd, ssthresh] : {std::pair{37U, 29U}, std::pair{123U, 0x7fffffffU}, std::pair{5U, 200U}}) {
    auto frozen = mover.freeze();
    ASSERT_TRUE(ok(frozen));
    frozen->min.cwnd_segments = cwnd;
    frozen->min.ssthresh_segments = ssthresh;
    const auto late = mover.park(*frozen);
    ASSERT_TRUE(ok(late));
    ASSERT_TRUE(ok(mover.back(*frozen, *late)));
    const tcp_info restored = info_of(ours());
    EXPECT_EQ(restored.tcpi_snd_cwnd, cwnd);
    EXPECT_EQ(restored.tcpi_snd_ssthresh, name == "bbr" ? 0x7fffffffU : ssthresh);  // bbr has none of its own
  }
  EXPECT_EQ(mover.congestion_failed, 0U);
  PatternEnd end(ours(), 0, 1);
  {
    Peer peer(std::move(connection_.theirs), 0, 256U << 10);
    while (end.written() < (20U << 20)) {
      ASSERT_TRUE(wait_for(ours(), POLLOUT));
      ASSERT_GE(end.write_some(64U << 10), 0);
    }
    EXPECT_TRUE(peer.finish(end.written()));
    EXPECT_EQ(peer.wrong(), 0U);
    const auto frozen = mover.freeze();
    ASSERT_TRUE(ok(frozen));
    EXPECT_EQ(frozen->min.measured.bbr_bandwidth > 1'000'000, name == "bbr") << "what it has measured goes along";
    EXPECT_EQ(frozen->min.measured.bbr_cwnd_gain > 256, name == "bbr");
    ASSERT_TRUE(ok(mover.conn->thaw()));
  }
  // bbr sets it by the rate that it measures, up or down; the others must have grown above the 5 they were given last.
  if (name != "bbr") {
    EXPECT_GT(info_of(ours()).tcpi_snd_cwnd, 8U);
  }
  std::array<char, 17> now{};
  socklen_t length = now.size() - 1;
  ASSERT_EQ(::getsockopt(ours(), IPPROTO_TCP, TCP_CONGESTION, now.data(), &length), 0);
  EXPECT_STREQ(now.data(), name.c_str());
}

INSTANTIATE_TEST_SUITE_P(Controls, CongestionTest, ::testing::Values("cubic", "reno", "bbr"),
                         [](const auto& test) { return std::string(test.param); });

TEST_F(KeepTest, CostOfSettingTheWindow) {
  Mover mover(*bench_);
  make(mover);
  for (std::uint32_t cwnd = 10; cwnd < 1010; ++cwnd) {
    const auto applied =
        mover.costs.time("apply", [&] { return bench_->shared.congestion->apply(ours(), cwnd, 2 * cwnd, "cubic"); });
    ASSERT_TRUE(ok(applied));
    ASSERT_EQ(info_of(ours()).tcpi_snd_cwnd, cwnd);
    ASSERT_EQ(info_of(ours()).tcpi_snd_ssthresh, 2 * cwnd);
  }
  mover.costs.print("congestion window by struct_ops");
}

TEST_F(KeepTest, WithoutTheHookTheConnectionIsWholeAndTheReportSaysSo) {
  bench_->shared.congestion = nullptr;
  Mover mover(*bench_);
  make(mover);
  ASSERT_TRUE(ok(mover.round_trip()));
  EXPECT_EQ(mover.congestion_failed, 1U);
  PatternEnd end(ours(), 0, 1);
  PatternEnd peer(theirs(), 1, 0);
  ASSERT_EQ(end.write_some(100), 100);
  ASSERT_TRUE(wait_for(theirs(), POLLIN));
  EXPECT_EQ(peer.read_some(100), 100);
}

// R21: the kernel sends segments as small as a search of the engine has found, and the next snapshot tells of both
// sizes. When they have grown again, so do the kernel's.
TEST_F(KeepTest, TheSegmentSizeThatASearchHasFoundIsKept) {
  Mover mover(*bench_);
  make(mover);
  PatternEnd end(ours(), 0, 1);
  PatternEnd peer(theirs(), 1, 0);
  for (const std::uint16_t found : {std::uint16_t{1100}, std::uint16_t{0}}) {
    auto frozen = mover.freeze();
    ASSERT_TRUE(ok(frozen));
    EXPECT_EQ(frozen->min.mss, 1460);
    EXPECT_EQ(frozen->min.mss_found, found == 0 ? 1100 : 0) << "as it was left the last time";
    const auto late = mover.park(*frozen);
    ASSERT_TRUE(ok(late));
    frozen->min.mss_found = found;
    ASSERT_TRUE(ok(mover.back(*frozen, *late)));
    const std::uint32_t payload = (found == 0 ? 1460U : 1100U) - 12;
    EXPECT_EQ(info_of(ours()).tcpi_snd_mss, payload);
    ASSERT_EQ(end.write_some(5000), 5000);
    ASSERT_TRUE(wait_for(theirs(), POLLIN));
    EXPECT_GT(peer.read_some(5000), 0);
    EXPECT_LE(info_of(theirs()).tcpi_rcv_mss, payload);
    EXPECT_EQ(info_of(ours()).tcpi_snd_mss, payload) << "after ACKs with larger windows as well";
  }
}

TEST_F(KeepTest, SnapshotSaysWhatTheKernelKnows) {
  Mover mover(*bench_);
  make(mover);
  const int one = 1;
  ASSERT_EQ(::setsockopt(ours(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), 0);
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one), 0);
  PatternEnd end(ours(), 0, 1);
  PatternEnd peer(theirs(), 1, 0);
  ASSERT_EQ(peer.write_some(700), 700);
  ASSERT_TRUE(wait_for(ours(), POLLIN));
  ASSERT_EQ(end.read_some(300), 300);
  const tcp_info info = info_of(ours());
  const auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  const tcp::MinTcp& min = frozen->min;
  EXPECT_EQ(min.version, tcp::kMinTcpVersion);
  EXPECT_EQ(min.size_bytes, sizeof min);
  EXPECT_EQ(min.flow, mover.conn->flow());
  EXPECT_EQ(min.rcv_nxt - min.copied_seq, 400U);
  EXPECT_EQ(frozen->unread.size(), 400U);
  EXPECT_EQ(frozen->unread[0], pattern(300, 1));
  EXPECT_EQ(min.snd_una, min.snd_nxt);
  EXPECT_EQ(min.snd_nxt, min.write_seq);
  EXPECT_EQ(min.mss_clamp, 1460);
  EXPECT_EQ(min.mss, info.tcpi_snd_mss + 12);
  EXPECT_EQ(min.cwnd_segments, info.tcpi_snd_cwnd);
  EXPECT_EQ(min.ssthresh_segments, info.tcpi_snd_ssthresh);
  EXPECT_EQ(min.options & (tcp::kOptTimestamps | tcp::kOptSack | tcp::kOptWindowScale),
            tcp::kOptTimestamps | tcp::kOptSack | tcp::kOptWindowScale);
  EXPECT_EQ(min.flags, tcp::kFlagNoDelay | tcp::kFlagKeepalive);
  EXPECT_GT(min.snd_wnd, 0U);
  EXPECT_GE(min.max_window, min.snd_wnd);
  EXPECT_GT(min.rcv_wnd, 0U);
  EXPECT_NE(min.ts_val, 0U);
  EXPECT_EQ(min.ttl, 64);
  EXPECT_EQ(min.bytes_acked, info.tcpi_bytes_acked);
  EXPECT_EQ(min.window_clamp_bytes, 0U) << "the system's own";
  ASSERT_TRUE(ok(mover.conn->thaw()));
}

TEST_F(KeepTest, TheSnapshotHasTheProgramsClamp) {
  Mover mover(*bench_);
  make(mover);
  const int clamp = 20'000;
  ASSERT_EQ(::setsockopt(ours(), IPPROTO_TCP, TCP_WINDOW_CLAMP, &clamp, sizeof clamp), 0);
  const auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  EXPECT_EQ(frozen->min.window_clamp_bytes, 20'000U);
  EXPECT_NE(frozen->min.flags & tcp::kFlagFixedReceiveBuffer, 0);
  ASSERT_TRUE(ok(mover.conn->thaw()));
}

}  // namespace
}  // namespace twinstack::kernel::testing
