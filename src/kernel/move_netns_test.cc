// Moves under traffic on real connections between two namespaces: nothing lost, doubled or reordered, no RST.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cstring>

#include "kernel/mover.h"

namespace twinstack::kernel::testing {
namespace {

struct StreamParam {
  Family family;
  bool passive;
  unsigned moves;
  const char* name;
};

class MoveStreamTest : public MoveTest, public ::testing::WithParamInterface<StreamParam> {};

// Thousands of round trips under traffic in both directions, with data in every queue.
TEST_P(MoveStreamTest, StreamSurvivesManyRoundTrips) {
  const unsigned moves = GetParam().moves;
  Mover mover(*bench_);
  make(mover, GetParam().family, GetParam().passive);
  const int socket = ours();
  // Queues of some hundred KB: left alone they grow to megabytes, and copying them is all that the test would do.
  const int buffer_bytes = 300'000;
  ASSERT_EQ(::setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof buffer_bytes), 0);
  ASSERT_EQ(::setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes), 0);
  // And a peer whose window is much smaller than our send buffer, so that a full one has unsent bytes, however busy the
  // machine.
  const int peer_buffer_bytes = 60'000;
  ASSERT_EQ(::setsockopt(theirs(), SOL_SOCKET, SO_RCVBUF, &peer_buffer_bytes, sizeof peer_buffer_bytes), 0);
  PatternEnd end(socket, 0, 1);
  Peer peer(std::move(connection_.theirs), ~std::uint64_t{0}, 24U << 10);
  const std::uint64_t resets_before = resets();
  for (unsigned i = 0; mover.moves < moves; ++i) {
    // Uneven amounts, so that the queues are now full, now empty.
    const std::size_t out = 1 + i % 7 * 30'000;
    for (unsigned writes = i % 5 == 0 ? 16 : 1; writes > 0 && mover.write_pending(socket); --writes) {
      const long sent = end.write_some(writes > 1 ? 256U << 10 : out);
      ASSERT_GE(sent, 0);
      if (sent == 0) break;
    }
    // Much at times, a little else; never to the end, which a fast peer keeps out of reach.
    for (unsigned reads = i % 3 == 0 ? 32 : 1; reads > 0 && end.read_some(256U << 10) > 0; --reads) {
    }
    ASSERT_TRUE(ok(mover.round_trip())) << "move " << i;
  }
  while (!mover.write_pending(socket)) {
  }
  EXPECT_TRUE(peer.finish(end.written())) << "peer read " << peer.read() << " of " << end.written();
  while (end.read() < peer.written()) ASSERT_GE(end.read_some(1U << 20), 0);
  EXPECT_EQ(peer.wrong(), 0U);
  EXPECT_EQ(end.wrong(), 0U);
  EXPECT_EQ(peer.error(), 0);
  EXPECT_EQ(resets(), resets_before);
  EXPECT_EQ(mover.congestion_failed, 0U);
  EXPECT_GT(mover.with_unread, 0U);
  EXPECT_GT(mover.with_unacked, 0U);
  EXPECT_GT(mover.with_unsent, 0U);
  EXPECT_EQ(mover.hold->lost(), 0U);
  fmt::print("{} bytes out, {} in\n", end.written(), end.read());
  mover.print("under load");
}

INSTANTIATE_TEST_SUITE_P(Families, MoveStreamTest,
                         ::testing::Values(StreamParam{Family::kV4, true, 1000, "V4Passive"},
                                           StreamParam{Family::kV4, false, 300, "V4Active"},
                                           StreamParam{Family::kV6, true, 1000, "V6Passive"},
                                           StreamParam{Family::kV6LinkLocal, false, 300, "V6LinkLocalActive"},
                                           StreamParam{Family::kV4OnV6Socket, true, 300, "V4OnV6SocketPassive"}),
                         [](const auto& test) { return std::string(test.param.name); });

// Freeze and thaw under traffic: as if nothing had been.
TEST_P(MoveStreamTest, ThawLeavesTheConnectionAsItWas) {
  Mover mover(*bench_);
  make(mover, GetParam().family, GetParam().passive);
  PatternEnd end(ours(), 0, 1);
  Peer peer(std::move(connection_.theirs), ~std::uint64_t{0}, 64U << 10);
  for (unsigned thaws = 0; thaws < 500;) {
    ASSERT_GE(end.write_some(20'000), 0);
    ASSERT_GE(end.read_some(200'000), 0);
    const auto frozen = mover.freeze();
    if (frozen.has_value()) {
      ASSERT_TRUE(ok(mover.costs.time("thaw", [&] { return mover.conn->thaw(); })));
      ++thaws;
    } else {
      // kNoResource: more has arrived since the check than the room beyond the limit holds.
      const ErrorCode refused = frozen.error().code;
      ASSERT_TRUE(refused == ErrorCode::kNotEligible || refused == ErrorCode::kNoResource) << frozen.error().message();
      ASSERT_TRUE(ok(mover.conn->detach_late_filter()));
    }
    mover.inject_late();
  }
  EXPECT_TRUE(peer.finish(end.written()));
  while (end.read() < peer.written()) ASSERT_GE(end.read_some(1U << 20), 0);
  EXPECT_EQ(peer.wrong() + end.wrong(), 0U);
  EXPECT_EQ(resets(), 0U);
}

// One request and one answer at a time, a move between any two: nothing is sent twice, and what a move costs when the
// queues are short.
TEST_P(MoveStreamTest, QuietConnectionRetransmitsNothing) {
  const unsigned moves = 2 * GetParam().moves;
  Mover mover(*bench_);
  make(mover, GetParam().family, GetParam().passive);
  PatternEnd end(ours(), 0, 1);
  PatternEnd peer(theirs(), 1, 0);
  for (unsigned i = 0; mover.moves < moves; ++i) {
    ASSERT_EQ(peer.write_some(64), 64);
    ASSERT_TRUE(i % 2 == 0 || wait_for(ours(), POLLIN));  // every other move meets the request on its way
    ASSERT_TRUE(ok(mover.round_trip())) << "move " << i;
    ASSERT_TRUE(wait_for(ours(), POLLIN));
    ASSERT_EQ(end.read_some(64), 64);
    ASSERT_EQ(end.write_some(64), 64);
    ASSERT_TRUE(wait_for(theirs(), POLLIN));
    ASSERT_EQ(peer.read_some(64), 64);
  }
  EXPECT_EQ(end.wrong() + peer.wrong(), 0U);
  EXPECT_EQ(both("Tcp", "RetransSegs"), 0U);
  EXPECT_EQ(both("TcpExt", "TCPTimeouts"), 0U);
  EXPECT_EQ(both("TcpExt", "PAWSEstab"), 0U);
  EXPECT_EQ(resets(), 0U);
  EXPECT_EQ(mover.refusals, 0U);
  mover.print("quiet");
}

}  // namespace
}  // namespace twinstack::kernel::testing
