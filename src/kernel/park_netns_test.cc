// The parked shell, late packets, and what happens when something is in the way.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <vector>

#include "kernel/mover.h"
#include "kernel/repair.h"
#include "kernel/sockopt.h"
#include "kernel/tcp_info.h"
#include "wire/seq.h"

namespace twinstack::kernel::testing {
namespace {

using ParkTest = MoveTest;

struct Caught {
  std::vector<std::byte> payload;
  std::vector<std::size_t> sizes;
  std::uint64_t cookie = 0;
};

Caught catch_late(LateFilter& filter) {
  Caught caught;
  const auto count = filter.poll([&](const LatePacket& packet) {
    const std::size_t header = (static_cast<std::size_t>(packet.tcp[12]) >> 4) * 4;
    const auto payload = packet.tcp.subspan(header);
    caught.payload.insert(caught.payload.end(), payload.begin(), payload.end());
    caught.sizes.push_back(payload.size());
    caught.cookie = packet.cookie;
  });
  EXPECT_TRUE(ok(count));
  return caught;
}

class LateTest : public MoveTest, public ::testing::WithParamInterface<Family> {};

// Small and large (GSO) packets, payload in page fragments as well, arrive whole and in order; the kernel sees nothing.
TEST_P(LateTest, PacketsAreHandedOverWhole) {
  Mover mover(*bench_);
  make(mover, GetParam());
  ASSERT_TRUE(ok(mover.conn->attach_late_filter()));
  PatternEnd peer(theirs(), 1, 0);
  const int one = 1;
  ASSERT_EQ(::setsockopt(theirs(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), 0);
  std::vector<std::byte> expected;
  std::size_t largest = 0;
  // The initial window of the peer: nothing is acknowledged.
  for (const std::size_t size : {std::size_t{1}, std::size_t{500}, std::size_t{8000}}) {
    const std::uint64_t from = peer.written();
    ASSERT_EQ(peer.write_some(size), static_cast<long>(size));
    for (std::uint64_t i = from; i < peer.written(); ++i) expected.push_back(pattern(i, 1));
    std::vector<std::byte> got;
    while (got.size() < size) {
      ASSERT_TRUE(wait_for(bench_->shared.late_filter->poll_fd(), POLLIN));
      const Caught caught = catch_late(*bench_->shared.late_filter);
      EXPECT_EQ(caught.cookie, mover.conn->cookie());
      got.insert(got.end(), caught.payload.begin(), caught.payload.end());
      for (const std::size_t bytes : caught.sizes) largest = std::max(largest, bytes);
    }
    got.resize(size);  // a retransmission may follow on a slow machine
    EXPECT_TRUE(std::equal(got.begin(), got.end(), expected.begin() + static_cast<std::ptrdiff_t>(from)));
  }
  EXPECT_GT(largest, 2000U);  // a super-packet was among them
  int readable = 0;
  ASSERT_EQ(::ioctl(ours(), FIONREAD, &readable), 0);
  EXPECT_EQ(readable, 0);
  EXPECT_EQ(bench_->shared.late_filter->stats().unreadable, 0U);
}

INSTANTIATE_TEST_SUITE_P(Families, LateTest, ::testing::Values(Family::kV4, Family::kV6),
                         [](const auto& test) { return std::string(test.param == Family::kV4 ? "V4" : "V6"); });

// sendfile() and MSG_ZEROCOPY leave payload in page fragments from the first byte on.
TEST_F(ParkTest, LargestSuperPacketsAreHandedOverWhole) {
  Mover mover(*bench_);
  make(mover);
  PatternEnd end(ours(), 0, 1);
  PatternEnd peer(theirs(), 1, 0);
  // Open the peer's window first, so that it sends packets as large as they come.
  while (peer.written() < (8U << 20)) {
    ASSERT_GE(peer.write_some(256U << 10), 0);
    ASSERT_GE(end.read_some(256U << 10), 0);
  }
  while (end.read() < peer.written()) ASSERT_GE(end.read_some(256U << 10), 0);
  ASSERT_TRUE(ok(mover.conn->attach_late_filter()));
  const std::uint64_t from = peer.written();
  ASSERT_GT(peer.write_some(256U << 10), 64 << 10);
  Caught caught;
  while (caught.payload.size() < (64U << 10)) {
    ASSERT_TRUE(wait_for(bench_->shared.late_filter->poll_fd(), POLLIN));
    const Caught more = catch_late(*bench_->shared.late_filter);
    caught.payload.insert(caught.payload.end(), more.payload.begin(), more.payload.end());
    caught.sizes.insert(caught.sizes.end(), more.sizes.begin(), more.sizes.end());
  }
  EXPECT_GT(*std::max_element(caught.sizes.begin(), caught.sizes.end()), 16'384U);
  for (std::size_t i = 0; i < (64U << 10); ++i) ASSERT_EQ(caught.payload[i], pattern(from + i, 1)) << i;
  EXPECT_EQ(bench_->shared.late_filter->stats().too_long, 0U);
}

TEST_F(ParkTest, FullRingDropsAndCounts) {
  auto small = LateFilter::load(1);  // the smallest: 256 KB
  ASSERT_TRUE(ok(small));
  bench_->shared.late_filter = small->get();
  Mover mover(*bench_);
  make(mover);
  ASSERT_TRUE(ok(mover.conn->attach_late_filter()));
  auto injector = WireInjector::open(bench_->pair());
  ASSERT_TRUE(ok(injector));
  PatternEnd peer(theirs(), 1, 0);
  ASSERT_EQ(peer.write_some(1000), 1000);
  ASSERT_TRUE(wait_for((*small)->poll_fd(), POLLIN));
  // One packet, given again and again without emptying the ring.
  std::vector<std::byte> ip;
  std::vector<std::byte> tcp;
  ASSERT_TRUE(ok((*small)->poll([&](const LatePacket& packet) {
    ip.assign(packet.ip_header.begin(), packet.ip_header.end());
    tcp.assign(packet.tcp.begin(), packet.tcp.end());
  })));
  constexpr std::uint64_t kPackets = 300;
  for (std::uint64_t i = 0; i < kPackets; ++i) {
    ASSERT_TRUE(ok((*injector)->inject(LatePacket{.cookie = 0, .ip_header = ip, .tcp = tcp})));
  }
  const auto settled = [&] {
    const LateFilterStats stats = (*small)->stats();
    return stats.packets + stats.ring_full >= kPackets;
  };
  for (int turn = 0; turn < 5000 && !settled(); ++turn) ::poll(nullptr, 0, 1);
  const LateFilterStats stats = (*small)->stats();
  EXPECT_GT(stats.ring_full, 0U);
  EXPECT_GT(stats.packets, 50U);
  const auto read = (*small)->poll([](const LatePacket&) {});
  ASSERT_TRUE(ok(read));
  EXPECT_GT(*read, 50U);
  ASSERT_TRUE(ok((*injector)->inject(LatePacket{.cookie = 0, .ip_header = ip, .tcp = tcp})));  // and it goes on
  EXPECT_TRUE(wait_for((*small)->poll_fd(), POLLIN));
}

TEST_F(ParkTest, ParkedShellAnswersNothingAndDrawsNoReset) {
  Mover mover(*bench_);
  make(mover);
  const int one = 1;
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one), 0);
  ASSERT_EQ(::setsockopt(ours(), IPPROTO_TCP, TCP_KEEPIDLE, &one, sizeof one), 0);  // it must not probe
  const auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  const auto late = mover.park(*frozen);
  ASSERT_TRUE(ok(late));
  mover.hold->set(false);  // everything reaches the shell
  const std::uint64_t sent_before = bench_->counter(Side::kA, "Tcp", "OutSegs");
  PatternEnd peer(theirs(), 1, 0);
  ASSERT_EQ(peer.write_some(5000), 5000);
  ASSERT_TRUE(wait_for(bench_->shared.late_filter->poll_fd(), POLLIN));
  // Longer than the keepalive time: the peer retransmits, the shell says nothing.
  ::poll(nullptr, 0, 1500);
  EXPECT_EQ(bench_->counter(Side::kA, "Tcp", "OutSegs"), sent_before);
  EXPECT_EQ(resets(), 0U);
  EXPECT_GT(bench_->counter(Side::kB, "Tcp", "RetransSegs"), 0U);
  ASSERT_TRUE(ok(mover.back(*frozen, *late)));
  PatternEnd end(ours(), 0, 1);
  while (end.read() < 5000) {
    ASSERT_TRUE(wait_for(ours(), POLLIN));
    ASSERT_GT(end.read_some(5000), 0);
  }
  EXPECT_EQ(end.wrong(), 0U);
  EXPECT_EQ(*get_option(ours(), SOL_SOCKET, SO_KEEPALIVE, "SO_KEEPALIVE"), 1);
}

TEST_F(ParkTest, ParkedShellRefusesStrayCallsAndTellsOfStrayWrites) {
  Mover mover(*bench_);
  make(mover);
  const auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  ASSERT_TRUE(ok(mover.park(*frozen)));
  char byte = 'x';
  EXPECT_EQ(::send(ours(), &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(::recv(ours(), &byte, 1, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EPERM);
  auto stray = mover.conn->stray_write_detected();
  ASSERT_TRUE(ok(stray));
  EXPECT_FALSE(*stray);
  EXPECT_EQ(*mover.conn->rcv_queue_seq(), frozen->min.rcv_nxt);
  // Only somebody with privileges who means it can get a byte in.
  ASSERT_TRUE(ok(repair::select_queue(ours(), repair::Queue::kSend)));
  ASSERT_EQ(::send(ours(), &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL), 1);
  stray = mover.conn->stray_write_detected();
  ASSERT_TRUE(ok(stray));
  EXPECT_TRUE(*stray);
}

// A packet that was past the filter: its bytes are handed over, none is lost.
TEST_F(ParkTest, BytesThatTheKernelTookInAfterTheSnapshotAreHandedOver) {
  Mover mover(*bench_);
  make(mover);
  PatternEnd peer(theirs(), 1, 0);
  ASSERT_EQ(peer.write_some(300), 300);
  ASSERT_TRUE(wait_for(ours(), POLLIN));
  const auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  // As if it had been past both: let it by.
  const int nothing = 0;
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_DETACH_BPF, &nothing, sizeof nothing), 0);
  mover.hold->set(false);
  ASSERT_EQ(peer.write_some(200), 200);
  int readable = 0;
  for (int turn = 0; turn < 5000 && readable < 500; ++turn) {
    ASSERT_EQ(::ioctl(ours(), FIONREAD, &readable), 0);
    ::poll(nullptr, 0, 1);
  }
  ASSERT_EQ(readable, 500);
  const int program = bench_->shared.late_filter->fd();
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof program), 0);
  const auto late = mover.park(*frozen);
  ASSERT_TRUE(ok(late));
  EXPECT_EQ(late->first_seq, frozen->min.rcv_nxt);
  ASSERT_EQ(late->bytes.size(), 200U);
  EXPECT_EQ(late->bytes[0], pattern(300, 1));
  ASSERT_TRUE(ok(mover.back(*frozen, *late)));
  PatternEnd end(ours(), 0, 1);
  EXPECT_EQ(end.read_some(1000), 500);
  EXPECT_EQ(end.wrong(), 0U);
}

class LateFin : public MoveTest, public ::testing::WithParamInterface<std::size_t> {};

TEST_P(LateFin, IsToldWithTheBytesBeforeIt) {
  const std::size_t bytes = GetParam();
  Mover mover(*bench_);
  make(mover);
  PatternEnd peer(theirs(), 1, 0);
  const auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  const int nothing = 0;
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_DETACH_BPF, &nothing, sizeof nothing), 0);
  mover.hold->set(false);
  if (bytes > 0) {
    ASSERT_EQ(peer.write_some(bytes), static_cast<long>(bytes));
  }
  ASSERT_EQ(::shutdown(theirs(), SHUT_WR), 0);
  pollfd ended{.fd = ours(), .events = POLLRDHUP, .revents = 0};
  ASSERT_EQ(::poll(&ended, 1, 5000), 1);
  const int program = bench_->shared.late_filter->fd();
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof program), 0);
  const auto late = mover.park(*frozen);
  ASSERT_TRUE(ok(late));
  EXPECT_TRUE(late->fin);
  EXPECT_EQ(late->bytes.size(), bytes);
  EXPECT_EQ(mover.conn->rcv_queue_seq().value_or(0), frozen->min.rcv_nxt + bytes) << "the FIN is to come again";
}

INSTANTIATE_TEST_SUITE_P(Bytes, LateFin, ::testing::Values(0, 200));

// A listener of somebody else, and what happens when a holder of our socket goes for its port.
class Thief {
 public:
  explicit Thief(const NetnsPair& pair) {
    auto made = pair.socket(Side::kA, AF_INET, SOCK_STREAM);
    EXPECT_TRUE(ok(made));
    if (made) listener_ = std::move(*made);
    port_.sin_family = AF_INET;
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&port_), sizeof port_), 0);
    EXPECT_EQ(::listen(listener_.get(), 8), 0);
    socklen_t length = sizeof port_;
    EXPECT_EQ(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&port_), &length), 0);
  }
  // errno of the bind.
  [[nodiscard]] int try_with(int fd) const {
    sockaddr nowhere{};
    nowhere.sa_family = AF_UNSPEC;
    EXPECT_EQ(::connect(fd, &nowhere, sizeof nowhere), 0);
    return ::bind(fd, reinterpret_cast<const sockaddr*>(&port_), sizeof port_) == 0 ? 0 : errno;
  }

 private:
  UniqueFd listener_;
  sockaddr_in port_{};
};

// P2: whoever holds the descriptor finds no way to a port on which somebody else listens.
TEST_F(ParkTest, AFrozenSocketTakesNobodysPort) {
  const Thief thief(bench_->pair());
  Mover mover(*bench_);
  make(mover);
  ASSERT_TRUE(ok(mover.freeze()));
  EXPECT_EQ(thief.try_with(ours()), EADDRINUSE);
  mover.conn->reset();
}

// A server that makes its listener anew finds connections of the old one in every state of a move.
TEST_F(ParkTest, AListenerCanBeMadeAnewDuringAMove) {
  Mover mover(*bench_);
  make(mover, Family::kV4, true);
  const int one = 1;
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), 0);
  sockaddr_in local{};
  socklen_t length = sizeof local;
  ASSERT_EQ(::getsockname(ours(), reinterpret_cast<sockaddr*>(&local), &length), 0);
  const auto listen_again = [&]() -> int {
    auto socket = bench_->pair().socket(Side::kA, AF_INET, SOCK_STREAM);
    if (!socket) return -1;
    ::setsockopt(socket->get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (::bind(socket->get(), reinterpret_cast<const sockaddr*>(&local), sizeof local) != 0) return errno;
    return ::listen(socket->get(), 1) == 0 ? 0 : errno;
  };
  ASSERT_EQ(listen_again(), 0);
  const auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  EXPECT_EQ(listen_again(), 0) << "frozen";
  const auto late = mover.park(*frozen);
  ASSERT_TRUE(ok(late));
  EXPECT_EQ(listen_again(), 0) << "parked";
  ASSERT_TRUE(ok(mover.back(*frozen, *late, true)));
  EXPECT_EQ(listen_again(), 0) << "back";
}

TEST_F(ParkTest, AParkedSocketTakesNobodysPort) {
  const Thief thief(bench_->pair());
  Mover mover(*bench_);
  make(mover);
  const auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  ASSERT_TRUE(ok(mover.park(*frozen)));
  EXPECT_EQ(thief.try_with(ours()), EINVAL);
  mover.conn->reset();
}

// A port of the thief's own choice is noticed, and the connection not continued.
TEST_F(ParkTest, ASocketThatSomebodyBoundElsewhereIsBroken) {
  Mover mover(*bench_);
  make(mover);
  const auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  sockaddr nowhere{};
  nowhere.sa_family = AF_UNSPEC;
  ASSERT_EQ(::connect(ours(), &nowhere, sizeof nowhere), 0);
  sockaddr_in any{};
  any.sin_family = AF_INET;
  ASSERT_EQ(::bind(ours(), reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
  const auto late = mover.park(*frozen);
  ASSERT_FALSE(late.has_value());
  mover.conn->reset();
}

// Both queues of the send side exceed the buffer: it is raised for the unacknowledged bytes, and once more for the
// unsent ones.
TEST_F(ParkTest, TheSendBufferIsRaisedForBothQueues) {
  Mover mover(*bench_);
  make(mover);
  PatternEnd end(ours(), 0, 1);
  end.fill();
  auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  ASSERT_TRUE(ok(mover.park(*frozen)));
  const int small = 4608;
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  // All that is queued counts as sent, some hundred KB; what follows it in the stream is longer than that twice.
  tcp::MinTcp min = frozen->min;
  min.snd_nxt = min.write_seq;
  const std::span<const std::byte> unacked(frozen->unacked.data(), frozen->unacked.size() + frozen->unsent.size());
  ASSERT_GT(unacked.size(), 100'000U);
  std::vector<std::byte> unsent(8 * unacked.size());
  std::uint64_t at = end.written();
  for (std::byte& byte : unsent) byte = pattern(at++, 0);
  ASSERT_TRUE(ok(mover.conn->restore(min, {.unread = frozen->unread, .unacked = unacked})));
  const auto released = mover.conn->release(unsent);
  ASSERT_TRUE(ok(released));
  EXPECT_EQ(released->unsent_taken_bytes, unsent.size());
  mover.inject_late();
  Peer peer(std::move(connection_.theirs), 0, 256U << 10);
  EXPECT_TRUE(peer.finish(at));
  EXPECT_EQ(peer.wrong(), 0U);
}

// R18: a kernel without memory for a segment has closed its window under a snd_wl1 that lies beyond it now.
TEST_F(ParkTest, AWindowUpdateFromBeyondTheReceiveWindowComesBack) {
  Mover mover(*bench_);
  make(mover);
  auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  const auto late = mover.park(*frozen);
  ASSERT_TRUE(ok(late));
  frozen->min.rcv_wup = frozen->min.rcv_nxt;
  frozen->min.rcv_wnd = 0;
  frozen->min.snd_wl1 = frozen->min.rcv_nxt + 3072;
  ASSERT_TRUE(ok(mover.back(*frozen, *late)));
  PatternEnd end(ours(), 0, 1);
  PatternEnd peer(theirs(), 1, 0);
  ASSERT_EQ(peer.write_some(100), 100);
  ASSERT_TRUE(wait_for(ours(), POLLIN));
  EXPECT_EQ(end.read_some(100), 100);
  ASSERT_EQ(end.write_some(100), 100);
  ASSERT_TRUE(wait_for(theirs(), POLLIN));
  EXPECT_EQ(peer.read_some(100), 100);
}

// More than the send buffer holds: it is raised for the purpose and put back.
TEST_F(ParkTest, QueuesLargerThanTheBuffersComeBack) {
  Mover mover(*bench_);
  make(mover);
  PatternEnd end(ours(), 0, 1);
  PatternEnd peer(theirs(), 1, 0);
  end.fill();
  peer.fill();
  auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  ASSERT_GT(frozen->unread.size(), 20'000U);
  ASSERT_GT(frozen->unacked.size() + frozen->unsent.size(), 20'000U);
  const auto late = mover.park(*frozen);
  ASSERT_TRUE(ok(late));
  const int small = 4608;
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
  const int send_buffer = *get_option(ours(), SOL_SOCKET, SO_SNDBUF, "SO_SNDBUF");
  const int receive_buffer = *get_option(ours(), SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF");
  ASSERT_TRUE(ok(mover.back(*frozen, *late)));
  EXPECT_TRUE(mover.pending.empty());
  EXPECT_EQ(*get_option(ours(), SOL_SOCKET, SO_SNDBUF, "SO_SNDBUF"), send_buffer);
  EXPECT_EQ(*get_option(ours(), SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF"), receive_buffer);
  EXPECT_EQ(*get_option(ours(), SOL_SOCKET, SO_BUF_LOCK, "SO_BUF_LOCK"), 3);
  Peer rest(std::move(connection_.theirs), 0, 256U << 10);
  while (end.read() < peer.written()) ASSERT_GE(end.read_some(1U << 20), 0);
  EXPECT_TRUE(rest.finish(end.written()));
  EXPECT_EQ(rest.wrong() + end.wrong(), 0U);
}

// The engine's auto-tuning has offered the peer more than the kernel's socket had room for.
TEST_F(ParkTest, ALargerReceiveBufferOfTheEngineIsTakenOver) {
  Mover mover(*bench_);
  make(mover);
  auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  const auto late = mover.park(*frozen);
  ASSERT_TRUE(ok(late));
  frozen->min.rcv_buf_bytes = 1U << 20;
  ASSERT_TRUE(ok(mover.back(*frozen, *late)));
  EXPECT_EQ(*get_option(ours(), SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF"), 1 << 20);
  EXPECT_GE(*get_option(ours(), IPPROTO_TCP, TCP_WINDOW_CLAMP, "TCP_WINDOW_CLAMP"), 1 << 19);
  EXPECT_EQ(*get_option(ours(), SOL_SOCKET, SO_BUF_LOCK, "SO_BUF_LOCK"), 0) << "the kernel's auto-tuning goes on";
}

// TCP_NOTSENT_LOWAT would keep release() from writing it all.
TEST_F(ParkTest, UnsentBytesGoInWhateverTheLowWaterMark) {
  Mover mover(*bench_);
  make(mover);
  PatternEnd end(ours(), 0, 1);
  end.fill();
  auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  ASSERT_GT(frozen->unsent.size(), 50'000U);
  const auto late = mover.park(*frozen);
  ASSERT_TRUE(ok(late));
  const int low = 20'000;
  ASSERT_EQ(::setsockopt(ours(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &low, sizeof low), 0);
  ASSERT_TRUE(ok(mover.back(*frozen, *late)));
  EXPECT_TRUE(mover.pending.empty());
  EXPECT_EQ(*get_option(ours(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, "TCP_NOTSENT_LOWAT"), low);
  Peer peer(std::move(connection_.theirs), 0, 256U << 10);
  EXPECT_TRUE(peer.finish(end.written()));
  EXPECT_EQ(peer.wrong(), 0U);
}

// A reset that came before the unsent bytes were written: the error is reported, for the program to be told once.
TEST_F(ParkTest, ErrorOfTheConnectionAtReleaseIsReported) {
  Mover mover(*bench_);
  make(mover);
  PatternEnd end(ours(), 0, 1);
  end.fill();
  const auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  ASSERT_TRUE(ok(mover.park(*frozen)));
  ASSERT_TRUE(ok(mover.conn->restore(frozen->min, {.unread = {}, .unacked = frozen->unacked})));
  // The filter away and a RST in, before release() gets to write.
  const int nothing = 0;
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_DETACH_BPF, &nothing, sizeof nothing), 0);
  mover.hold->set(false);
  const linger now{.l_onoff = 1, .l_linger = 0};
  ASSERT_EQ(::setsockopt(theirs(), SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
  connection_.theirs.reset();
  ASSERT_TRUE(wait_for(ours(), POLLHUP));
  const int program = bench_->shared.late_filter->fd();
  ASSERT_EQ(::setsockopt(ours(), SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof program), 0);
  const auto released = mover.conn->release(frozen->unsent);
  ASSERT_TRUE(ok(released));
  EXPECT_EQ(released->unsent_taken_bytes, 0U);
  EXPECT_EQ(released->socket_error, ECONNRESET);
}

TEST_F(ParkTest, RoomTooSmallLeavesTheConnectionRunning) {
  Mover mover(*bench_);
  make(mover);
  PatternEnd peer(theirs(), 1, 0);
  ASSERT_EQ(peer.write_some(5000), 5000);
  ASSERT_TRUE(wait_for(ours(), POLLIN));
  ASSERT_TRUE(ok(mover.conn->check_eligible(mover.limits)));
  ASSERT_TRUE(ok(mover.conn->attach_late_filter()));
  std::vector<std::byte> tiny(100);
  const auto frozen = mover.conn->freeze({tiny, mover.send_room});
  ASSERT_FALSE(frozen.has_value());
  EXPECT_EQ(frozen.error().code, ErrorCode::kNoResource);
  EXPECT_EQ(mover.conn->phase(), Phase::kRunning);
  ASSERT_TRUE(ok(mover.conn->detach_late_filter()));
  EXPECT_EQ(*get_option(ours(), IPPROTO_TCP, TCP_REPAIR, "TCP_REPAIR"), 0);
  PatternEnd end(ours(), 0, 1);
  EXPECT_EQ(end.read_some(10'000), 5000);
  EXPECT_EQ(end.wrong(), 0U);
}

// No route at the moment of the return: the kernel refuses, and takes the connection when there is one again.
TEST_F(ParkTest, RestoreCanBeTriedAgainFromTheGap) {
  Mover mover(*bench_);
  make(mover);
  const auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  const auto late = mover.park(*frozen);
  ASSERT_TRUE(ok(late));
  ASSERT_TRUE(ok(bench_->pair().run_ok(Side::kA, "ip link set ts-a0 down")));
  const auto refused = mover.conn->restore(frozen->min, {});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(mover.conn->phase(), Phase::kGap);
  ASSERT_TRUE(ok(bench_->pair().run_ok(Side::kA, "ip link set ts-a0 up")));
  ASSERT_TRUE(ok(mover.back(*frozen, *late)));
  PatternEnd end(ours(), 0, 1);
  PatternEnd peer(theirs(), 1, 0);
  ASSERT_EQ(end.write_some(100), 100);
  ASSERT_TRUE(wait_for(theirs(), POLLIN));
  EXPECT_EQ(peer.read_some(100), 100);
  EXPECT_EQ(resets(), 0U);
}

// The service died; its successor has the socket and what the shared memory says.
TEST_F(ParkTest, AParkedSocketCanBeAdopted) {
  Mover mover(*bench_);
  make(mover);
  const auto frozen = mover.freeze();
  ASSERT_TRUE(ok(frozen));
  const auto late = mover.park(*frozen);
  ASSERT_TRUE(ok(late));
  auto successor = bench_->take(ours());
  ASSERT_TRUE(ok(successor));
  (*successor)->adopt_parked();
  (*successor)->program_options() = mover.conn->program_options();
  mover.conn = std::move(*successor);
  ASSERT_TRUE(ok(mover.back(*frozen, *late)));
  PatternEnd end(ours(), 0, 1);
  PatternEnd peer(theirs(), 1, 0);
  ASSERT_EQ(peer.write_some(100), 100);
  ASSERT_TRUE(wait_for(ours(), POLLIN)) << "the filter of the predecessor is still on";
  EXPECT_EQ(end.read_some(100), 100);
}

}  // namespace
}  // namespace twinstack::kernel::testing
