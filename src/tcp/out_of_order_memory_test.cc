// The memory that all connections share for what is out of order: who loses what when it is used up.
#include "tcp/out_of_order_memory.h"

#include <gtest/gtest.h>

#include <memory>

#include "tcp/test_support.h"

namespace twinstack::tcp::test {
namespace {

constexpr std::uint32_t kSegment = 1000;
constexpr std::uint64_t kLimit = 100'000;

IpAddress address(std::uint8_t last) { return IpAddress::from_v4({10, 0, 0, last}); }

// One connection whose peer may be anybody.
class Conn final : public Host {
 public:
  Conn(OutOfOrderMemory& memory, const IpAddress& peer) : Host(counts, rate), memory_(memory), peer_(peer) {
    MinTcp state = idle_state();
    state.options = kOptSack | kOptWindowScale;
    state.rcv_wscale = 7;
    state.rcv_wnd = kWindow << 4;
    EXPECT_TRUE(install(cb, state, at_ms(0)).has_value());
  }
  std::uint32_t deliver(const Payload& payload) override {
    std::vector<std::byte> bytes(payload.size());
    payload.copy_to(bytes);
    for (const std::byte byte : bytes) wrong += byte != stream_byte(2, received++) ? 1U : 0U;
    return payload.size();
  }
  std::uint32_t receive_space() override { return kWindow << 4; }
  OutOfOrderMemory* out_of_order_memory(IpAddress& peer) override {
    peer = peer_;
    return &memory_;
  }

  // Segment `index` of the stream.
  Arrival get(std::uint32_t index) {
    std::vector<std::byte> bytes(kSegment);
    for (std::uint32_t i = 0; i < kSegment; ++i) bytes[i] = stream_byte(2, index * kSegment + i);
    const ByteView view(bytes);
    return on_segment(cb, from_peer(kPeerSeq + index * kSegment), Payload(std::span(&view, 1), 0, kSegment), *this,
                      at_ms(1));
  }
  void get(std::uint32_t from, std::uint32_t to) {
    for (; from < to; ++from) get(from);
  }
  // How much of the stream is held, up to where, and what the next ACK would report of it.
  std::uint32_t held() const {
    std::uint32_t bytes = 0;
    if (cb.cold) {
      for (const auto& block : cb.cold->out_of_order) bytes += static_cast<std::uint32_t>(block.bytes.size());
    }
    return bytes;
  }
  std::uint32_t farthest() const {
    return held() == 0 ? 0 : bytes_between(Seq(kPeerSeq), cb.cold->out_of_order.back().end());
  }
  void expect_reports_to_be_true() {
    SegmentPlan plan;
    acknowledge_now(cb);
    ASSERT_TRUE(poll_transmit(cb, *this, at_ms(1), plan));
    for (std::uint32_t i = 0; i < plan.segment.options.sack_count; ++i) {
      const auto& range = plan.segment.options.sack[i];
      EXPECT_LE(range.right, max(Seq(kPeerSeq + farthest()), cb.rcv_nxt)) << "what lies below is a D-SACK";
      EXPECT_LT(range.left, range.right);
    }
  }

  Counters counts;
  DeliveryRate rate;
  ControlBlock cb;
  std::uint64_t received = 0;
  std::uint64_t wrong = 0;

 private:
  OutOfOrderMemory& memory_;
  IpAddress peer_;
};

TEST(OutOfOrderMemory, WhatIsDeliveredOrEndsGoesBack) {
  OutOfOrderMemory memory(kLimit);
  {
    Conn a(memory, address(1));
    Conn b(memory, address(1));
    a.get(1, 11);
    b.get(5, 10);
    EXPECT_GE(memory.used(), 15U * kSegment);
    a.get(0);
    EXPECT_EQ(a.received, 11U * kSegment);
    EXPECT_GE(memory.used(), 5U * kSegment);
    EXPECT_LT(memory.used(), 12U * kSegment);
  }
  EXPECT_EQ(memory.used(), 0U);
  EXPECT_EQ(memory.pruned(), 0U);
}

TEST(OutOfOrderMemory, WhoHasMostLosesItsFarthest) {
  OutOfOrderMemory memory(kLimit);
  Conn hog(memory, address(1));
  Conn modest(memory, address(2));
  for (std::uint32_t i = 0; i < 80; ++i) hog.get(2 * i + 1);  // a block each
  const std::uint32_t before = hog.held();
  modest.get(1, 31);
  EXPECT_EQ(modest.held(), 30U * kSegment);
  EXPECT_LT(hog.held(), before);
  EXPECT_GT(hog.held(), 30U * kSegment);
  EXPECT_EQ(hog.farthest(), (2 * hog.held() / kSegment) * kSegment) << "the nearest are left";
  EXPECT_LE(memory.used(), kLimit);
  EXPECT_GT(memory.pruned(), 0U);
  hog.expect_reports_to_be_true();
  EXPECT_EQ(hog.cb.rcv_nxt, Seq(kPeerSeq));
  hog.get(0);  // what was given up comes again
  for (std::uint32_t i = 0; i < 160; ++i) hog.get(i);
  EXPECT_EQ(hog.received, 160U * kSegment);
  EXPECT_EQ(hog.wrong, 0U);
}

TEST(OutOfOrderMemory, ConnectionsOfOneAddressCountTogether) {
  OutOfOrderMemory memory(kLimit);
  std::vector<std::unique_ptr<Conn>> many;
  for (int i = 0; i < 20; ++i) many.push_back(std::make_unique<Conn>(memory, address(1)));
  for (auto& conn : many) conn->get(1, 5);
  Conn other(memory, address(2));
  other.get(1, 21);
  EXPECT_EQ(other.held(), 20U * kSegment) << "more than any of them, less than all";
  EXPECT_LE(memory.used(), kLimit);
}

TEST(OutOfOrderMemory, ANetworkOfIpv6IsOnePeer) {
  OutOfOrderMemory memory(kLimit);
  std::vector<std::unique_ptr<Conn>> many;
  for (std::uint8_t i = 0; i < 20; ++i) {
    IpAddress peer{{0xfd, 0, 0, 0, 0, 0, 0, 1}};
    peer.bytes[15] = i;
    many.push_back(std::make_unique<Conn>(memory, peer));
    many.back()->get(1, 5);
  }
  Conn other(memory, IpAddress{{0xfd, 0, 0, 0, 0, 0, 0, 2}});
  other.get(1, 21);
  EXPECT_EQ(other.held(), 20U * kSegment);
}

TEST(OutOfOrderMemory, TheNearerGoesBeforeTheFarther) {
  OutOfOrderMemory memory(kLimit);
  Conn conn(memory, address(1));
  Arrival last = Arrival::kAccepted;
  std::uint32_t index = 100;
  for (; last == Arrival::kAccepted && index < 1000; ++index) last = conn.get(2 * index);
  EXPECT_EQ(last, Arrival::kDroppedNoMemory) << "nothing lies farther";
  const std::uint32_t full = conn.farthest();
  EXPECT_EQ(conn.get(2 * 50), Arrival::kAccepted);
  EXPECT_LT(conn.farthest(), full);
  conn.expect_reports_to_be_true();
}

TEST(OutOfOrderMemory, IsScarceForWhoHoldsMuchOfIt) {
  OutOfOrderMemory memory(kLimit);
  Conn modest(memory, address(1));
  Conn hog(memory, address(2));
  modest.get(1, 11);
  EXPECT_FALSE(memory.is_scarce_for(modest.cb.cold->share));
  hog.get(1, 60);
  for (std::uint32_t i = 30; i < 45; ++i) hog.get(2 * i + 1);
  ASSERT_GT(memory.used(), kLimit - kLimit / 8);
  EXPECT_TRUE(memory.is_scarce_for(hog.cb.cold->share));
  EXPECT_FALSE(memory.is_scarce_for(modest.cb.cold->share));
}

TEST(OutOfOrderMemory, ARepetitionCostsNothing) {
  OutOfOrderMemory memory(kLimit);
  Conn conn(memory, address(1));
  for (std::uint32_t index = 1; conn.get(2 * index) == Arrival::kAccepted; ++index) {
  }
  const std::uint32_t before = conn.held();
  const std::uint64_t pruned = memory.pruned();
  EXPECT_EQ(conn.get(2), Arrival::kAccepted);
  EXPECT_EQ(conn.held(), before);
  EXPECT_EQ(memory.pruned(), pruned);
}

TEST(OutOfOrderMemory, ARepetitionMayLieInSeveralBlocks) {
  OutOfOrderMemory memory(10 * kLimit);
  Conn conn(memory, address(1));
  conn.get(1, 201);  // blocks of 64 KiB
  ASSERT_GT(conn.cb.cold->out_of_order.size(), 2U);
  std::vector<std::byte> bytes(100 * kSegment);
  const ByteView view(bytes);
  const Payload payload(std::span(&view, 1), 0, static_cast<std::uint32_t>(bytes.size()));
  EXPECT_EQ(on_segment(conn.cb, from_peer(kPeerSeq + 20 * kSegment), payload, conn, at_ms(1)), Arrival::kAccepted);
  EXPECT_TRUE(conn.cb.cold->dsack_due);
}

TEST(OutOfOrderMemory, WithoutAnyNothingIsHeld) {
  OutOfOrderMemory memory(10);
  Conn conn(memory, address(1));
  EXPECT_EQ(conn.get(1), Arrival::kDroppedNoMemory);
  EXPECT_EQ(conn.get(0), Arrival::kAccepted);
  EXPECT_EQ(conn.get(1), Arrival::kAccepted);
  EXPECT_EQ(memory.used(), 0U);
  conn.expect_reports_to_be_true();
}

TEST(OutOfOrderMemory, AnyOrderAndAnyEnd) {
  constexpr std::uint32_t kSegments = 60;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Rng rng(seed);
    OutOfOrderMemory memory(kLimit);
    std::vector<std::unique_ptr<Conn>> conns(8);
    for (int step = 0; step < 4000; ++step) {
      const auto which = static_cast<std::uint8_t>(rng.below(8));
      auto& conn = conns[which];
      if (conn == nullptr || rng.below(200) == 0) conn = std::make_unique<Conn>(memory, address(which / 2));
      const auto next = static_cast<std::uint32_t>(conn->received / kSegment);
      conn->get(std::min(next + static_cast<std::uint32_t>(rng.below(rng.below(4) == 0 ? 1 : 40)), kSegments - 1));
      ASSERT_EQ(conn->wrong, 0U);
      ASSERT_LE(memory.used(), kLimit + 2 * kMaxBlockBytes);
      std::uint64_t held = 0;
      for (const auto& each : conns) held += each ? each->held() : 0;
      ASSERT_GE(memory.used(), held);
      conn->expect_reports_to_be_true();
    }
    conns.clear();
    EXPECT_EQ(memory.used(), 0U);
  }
}

}  // namespace
}  // namespace twinstack::tcp::test
