// Socket options and TCP_INFO.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

#include "stack/test_support.h"
#include "tcp/congestion/congestion.h"

namespace twinstack::stack::test {
namespace {

struct OptionsTest : ::testing::Test, OneHost {
  SoftStack& s() { return *stack; }
  int get(SocketId id, int level, int name) {
    int value = -1;
    const int length = s().get_option(id, level, name, &value, now);
    EXPECT_GE(length, 0) << level << ' ' << name;
    return value;
  }
  int set(SocketId id, int level, int name, int value) { return s().set_option(id, level, name, value, now); }
  void ack(std::uint32_t ours, std::uint16_t window = 60000) {
    wire::Segment out = segment(wire::kAck, 1001, iss + ours);
    out.window = window;
    inject(out);
  }
  std::int64_t write(SocketId id, std::size_t count, int flags = 0) {
    return s().send(id, stream_bytes(1, 0, count), flags, now);
  }
};

struct Range {
  int level, name, good, bad;
};

TEST_F(OptionsTest, ValuesOutOfRangeAreRefusedAndOthersKept) {
  const SocketId id = establish();
  for (const Range& r : {Range{IPPROTO_TCP, TCP_KEEPIDLE, 5, 0}, Range{IPPROTO_TCP, TCP_KEEPIDLE, 32767, 32768},
                         Range{IPPROTO_TCP, TCP_KEEPINTVL, 1, -1}, Range{IPPROTO_TCP, TCP_KEEPCNT, 127, 128},
                         Range{IPPROTO_TCP, TCP_SYNCNT, 127, 0}, Range{IPPROTO_TCP, TCP_USER_TIMEOUT, 3000, -1},
                         Range{IPPROTO_TCP, 36, 1, 2}, Range{IPPROTO_IP, IP_TTL, 255, 256}}) {
    EXPECT_EQ(set(id, r.level, r.name, r.good), 0) << r.name;
    EXPECT_EQ(set(id, r.level, r.name, r.bad), -EINVAL) << r.name;
    EXPECT_EQ(get(id, r.level, r.name), r.good) << r.name;
  }
  EXPECT_EQ(set(id, IPPROTO_TCP, TCP_MAXSEG, 87), -EINVAL);
  EXPECT_EQ(set(id, IPPROTO_TCP, 999, 1), -ENOPROTOOPT);
  EXPECT_EQ(set(id, SOL_SOCKET, 999, 1), -ENOPROTOOPT);
  EXPECT_EQ(set(id, 77, 1, 1), -ENOPROTOOPT);
  const std::byte byte{1};
  EXPECT_EQ(s().set_option(id, IPPROTO_TCP, TCP_NODELAY, {&byte, 1}, now), -EINVAL);
  EXPECT_EQ(s().set_option(id, IPPROTO_IP, IP_TOS, {&byte, 1}, now), 0) << "the IP level takes bytes";
}

TEST_F(OptionsTest, DefaultsAreTheSysctls) {
  const SocketId id = s().socket(Family::kV4);
  EXPECT_EQ(get(id, IPPROTO_TCP, TCP_KEEPIDLE), 7200);
  EXPECT_EQ(get(id, IPPROTO_TCP, TCP_KEEPINTVL), 75);
  EXPECT_EQ(get(id, IPPROTO_TCP, TCP_KEEPCNT), 9);
  EXPECT_EQ(get(id, IPPROTO_TCP, TCP_LINGER2), 60);
  EXPECT_EQ(get(id, IPPROTO_TCP, TCP_SYNCNT), 6);
  EXPECT_EQ(get(id, IPPROTO_TCP, TCP_MAXSEG), 536);
  EXPECT_EQ(get(id, SOL_SOCKET, SO_SNDBUF), 16384);
  EXPECT_EQ(get(id, SOL_SOCKET, SO_RCVBUF), 131072);
  EXPECT_EQ(get(id, SOL_SOCKET, SO_RCVLOWAT), 1);
  EXPECT_EQ(get(id, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
  EXPECT_EQ(get(id, SOL_SOCKET, SO_ACCEPTCONN), 0);
  std::array<char, 16> name{};
  EXPECT_EQ(s().get_option(id, IPPROTO_TCP, TCP_CONGESTION, std::as_writable_bytes(std::span(name)), now), 16);
  EXPECT_STREQ(name.data(), "cubic");
}

TEST_F(OptionsTest, BuffersAreDoubledAndBounded) {
  const SocketId id = s().socket(Family::kV4);
  EXPECT_EQ(set(id, SOL_SOCKET, SO_SNDBUF, 21000), 0);
  EXPECT_EQ(get(id, SOL_SOCKET, SO_SNDBUF), 42000);
  set(id, SOL_SOCKET, SO_SNDBUF, 1);
  EXPECT_EQ(get(id, SOL_SOCKET, SO_SNDBUF), 4608);
  set(id, SOL_SOCKET, SO_SNDBUF, 1 << 30);
  EXPECT_EQ(get(id, SOL_SOCKET, SO_SNDBUF), 2 * 212992);
  set(id, SOL_SOCKET, SO_SNDBUFFORCE, 1 << 20);
  EXPECT_EQ(get(id, SOL_SOCKET, SO_SNDBUF), 2 << 20);
  set(id, SOL_SOCKET, SO_RCVBUF, 1);
  EXPECT_EQ(get(id, SOL_SOCKET, SO_RCVBUF), 2304);
}

TEST_F(OptionsTest, ASmallReceiveBufferMakesASmallWindow) {
  listener = s().socket(Family::kV4);
  s().bind(listener, {any_v4(), 80});
  set(listener, SOL_SOCKET, SO_RCVBUF, 3000);
  s().listen(listener, 8, now);
  inject(segment(wire::kSyn, 1000));
  EXPECT_EQ(take_one().segment.window, 2920) << "two segments of the half of 6000";
}

TEST_F(OptionsTest, CongestionControl) {
  const SocketId id = establish();
  const std::string_view reno = "reno";
  EXPECT_EQ(s().set_option(id, IPPROTO_TCP, TCP_CONGESTION, std::as_bytes(std::span(reno)), now), 0);
  EXPECT_EQ(s().connection(id)->cb.congestion_kind, tcp::congestion_kind("reno"));
  const std::string_view none = "nonesuch";
  EXPECT_EQ(s().set_option(id, IPPROTO_TCP, TCP_CONGESTION, std::as_bytes(std::span(none)), now), -ENOENT);
}

TEST_F(OptionsTest, NagleAndNoDelay) {
  const SocketId id = establish();
  write(id, 10);
  EXPECT_EQ(take().size(), 1U);
  write(id, 10);
  EXPECT_TRUE(take().empty());
  EXPECT_EQ(set(id, IPPROTO_TCP, TCP_NODELAY, 1), 0);
  EXPECT_EQ(take_one().payload.size(), 10U) << "what waited goes";
  write(id, 10);
  EXPECT_EQ(take().size(), 1U);
}

TEST_F(OptionsTest, CorkAndMore) {
  const SocketId id = establish();
  set(id, IPPROTO_TCP, TCP_CORK, 1);
  write(id, 40);
  write(id, 40);
  EXPECT_TRUE(take().empty());
  set(id, IPPROTO_TCP, TCP_CORK, 0);
  EXPECT_EQ(take_one().payload.size(), 80U);
  ack(81);
  write(id, 40, MSG_MORE);
  EXPECT_TRUE(take().empty());
  write(id, 40);
  EXPECT_EQ(take_one().payload.size(), 80U);
}

TEST_F(OptionsTest, ReceiveLowWater) {
  const SocketId id = establish();
  EXPECT_EQ(set(id, SOL_SOCKET, SO_RCVLOWAT, 10), 0);
  inject(segment(wire::kAck, 1001, iss + 1), "12345");
  EXPECT_EQ(s().poll(id) & POLLIN, 0U);
  inject(segment(wire::kAck, 1006, iss + 1), "67890");
  EXPECT_NE(s().poll(id) & POLLIN, 0U);
}

TEST_F(OptionsTest, NotSentLowWater) {
  const SocketId id = establish();
  EXPECT_EQ(set(id, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 4000), 0);
  EXPECT_EQ(write(id, 100'000), 14600 + 29200) << "what cwnd lets go, and a chunk of half a window";
  EXPECT_EQ(s().unsent_bytes(id), 29200);
  EXPECT_EQ(write(id, 100), -EAGAIN);
  EXPECT_EQ(s().poll(id) & POLLOUT, 0U);
  ack(14601);
  EXPECT_EQ(s().unsent_bytes(id), 0);
  EXPECT_NE(s().poll(id) & POLLOUT, 0U);
}

// A write may exceed the buffer by a chunk, here of 988 bytes (half a window); three have room in 4608 bytes.
TEST_F(OptionsTest, ASmallSendBufferTakesWholeChunks) {
  listener = s().socket(Family::kV4);
  s().bind(listener, {any_v4(), 80});
  s().listen(listener, 8, now);
  wire::Segment syn = segment(wire::kSyn, 1000);
  syn.window = 2000;
  syn.options.mss = 988;
  inject(syn);
  iss = take_one().segment.seq.raw();
  wire::Segment last = segment(wire::kAck, 1001, iss + 1);
  last.window = 2000;
  inject(last);
  const SocketId id = s().accept(listener, nullptr, now);
  set(id, SOL_SOCKET, SO_SNDBUF, 1000);
  EXPECT_EQ(write(id, 10'000), 2964);
}

TEST_F(OptionsTest, WindowClamp) {
  const SocketId id = establish();
  EXPECT_EQ(set(id, IPPROTO_TCP, TCP_WINDOW_CLAMP, 0), -EINVAL) << "not while connected";
  EXPECT_EQ(set(id, IPPROTO_TCP, TCP_WINDOW_CLAMP, 5000), 0);
  EXPECT_EQ(get(id, IPPROTO_TCP, TCP_WINDOW_CLAMP), 5000);
  set(id, IPPROTO_TCP, TCP_WINDOW_CLAMP, 1);
  EXPECT_EQ(get(id, IPPROTO_TCP, TCP_WINDOW_CLAMP), 1152);
}

// It counts from the first timeout on: 3.42 s on Linux, measured (200 ms to a loss probe, as much to the timeout).
TEST_F(OptionsTest, UserTimeout) {
  const SocketId id = establish();
  EXPECT_EQ(set(id, IPPROTO_TCP, TCP_USER_TIMEOUT, 3000), 0);
  write(id, 10);
  advance(milliseconds(3100));
  EXPECT_EQ(s().state(id), State::kEstablished);
  advance(milliseconds(400));
  EXPECT_EQ(s().state(id), State::kClosed);
  EXPECT_EQ(get(id, SOL_SOCKET, SO_ERROR), ETIMEDOUT);
}

TEST_F(OptionsTest, MaxSegmentBeforeTheHandshakeBoundsBoth) {
  const SocketId id = s().socket(Family::kV4);
  EXPECT_EQ(set(id, IPPROTO_TCP, TCP_MAXSEG, 1000), 0);
  EXPECT_EQ(get(id, IPPROTO_TCP, TCP_MAXSEG), 1000);
  s().connect(id, {v4(2), 5000}, now);
  const Seen syn = take_one();
  EXPECT_EQ(syn.segment.options.mss, 1000);
  inject(segment(wire::kSyn | wire::kAck, 1000, syn.segment.seq.raw() + 1), {}, syn.flow.remote_port);
  EXPECT_EQ(get(id, IPPROTO_TCP, TCP_MAXSEG), 1000);
}

TEST_F(OptionsTest, HopLimitAndTrafficClassAreSent) {
  const SocketId id = establish();
  set(id, IPPROTO_IP, IP_TTL, 7);
  set(id, IPPROTO_IP, IP_TOS, 0xff);
  EXPECT_EQ(get(id, IPPROTO_IP, IP_TOS), 0xfc) << "the ECN bits are not the program's";
  write(id, 10);
  EXPECT_EQ(take().size(), 1U);
}

TEST_F(OptionsTest, QuickAckSendsTheAckThatWaits) {
  const SocketId id = establish();
  write(id, 10);
  ack(11);
  inject(segment(wire::kAck, 1001, iss + 11), "question");
  take();
  write(id, 10);  // answers: interactive from here
  inject(segment(wire::kAck, 1009, iss + 21), "question");
  take();
  inject(segment(wire::kAck, 1017, iss + 21), "another");
  take();
  inject(segment(wire::kAck, 1024, iss + 21), "another");
  const bool waits = take().empty();
  EXPECT_EQ(set(id, IPPROTO_TCP, TCP_QUICKACK, 1), 0);
  EXPECT_EQ(take().size(), waits ? 1U : 0U);
  EXPECT_EQ(get(id, IPPROTO_TCP, TCP_QUICKACK), 1);
  set(id, IPPROTO_TCP, TCP_QUICKACK, 0);
  EXPECT_EQ(get(id, IPPROTO_TCP, TCP_QUICKACK), 0);
}

TEST_F(OptionsTest, InfoOfAnEstablishedConnection) {
  const SocketId id = establish();
  write(id, 3000);
  inject(segment(wire::kAck, 1001, iss + 1), "abc");
  advance(milliseconds(30));
  TcpInfo info;
  ASSERT_EQ(s().info(id, info, now), 0);
  EXPECT_EQ(info.state, 1);
  EXPECT_EQ(info.snd_mss, 1460U);
  EXPECT_EQ(info.advmss, 1460U);
  EXPECT_EQ(info.unacked, 3U);
  EXPECT_EQ(info.snd_cwnd, 10U);
  EXPECT_EQ(info.snd_ssthresh, 0x7fffffffU);
  EXPECT_EQ(info.bytes_sent, 3000U);
  EXPECT_EQ(info.bytes_received, 3U);
  EXPECT_EQ(info.data_segs_out, 3U);
  EXPECT_EQ(info.pmtu, 1500U);
  EXPECT_NEAR(static_cast<double>(info.busy_time_us), 30'000, 100);
  EXPECT_NEAR(static_cast<double>(info.last_data_recv_ms), 30, 1);
  std::array<std::byte, 20> little{};
  EXPECT_EQ(s().get_option(id, IPPROTO_TCP, TCP_INFO, little, now), 20) << "as much as there is room for";
}

TEST_F(OptionsTest, InfoTellsWhatHoldsTheSenderBack) {
  const SocketId id = establish();
  write(id, 10);
  ack(11, 1000);
  write(id, 5000);
  take();
  advance(milliseconds(100));
  ack(11, 60000);
  EXPECT_EQ(take().size(), 4U);
  TcpInfo info;
  s().info(id, info, now);
  EXPECT_NEAR(static_cast<double>(info.rwnd_limited_us), 100'000, 1000);
  EXPECT_GE(info.busy_time_us, info.rwnd_limited_us);
}

TEST_F(OptionsTest, AFullCongestionWindowIsNoReceiveLimit) {
  const SocketId id = establish();
  ack(1, 14'600);  // ten segments, as many as cwnd allows
  write(id, 30'000);
  EXPECT_EQ(take().size(), 10U);
  advance(milliseconds(100));
  TcpInfo info;
  s().info(id, info, now);
  EXPECT_EQ(info.snd_cwnd, 10U);
  EXPECT_EQ(info.rwnd_limited_us, 0U);
  EXPECT_NEAR(static_cast<double>(info.busy_time_us), 100'000, 1000);
}

TEST_F(OptionsTest, InfoOfAListener) {
  establish();
  TcpInfo info;
  s().info(listener, info, now);
  EXPECT_EQ(info.state, 10);
  EXPECT_EQ(info.unacked, 0U);
  EXPECT_EQ(info.sacked, 8U) << "the backlog";
}

}  // namespace
}  // namespace twinstack::stack::test
