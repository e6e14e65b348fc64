// IcmpErrors: what is heard of what a router says, and how much of it at a time.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <vector>

#include "kernel/address.h"
#include "kernel/icmp_errors.h"
#include "netns/netns_fixture.h"
#include "wire/build.h"

namespace twinstack::kernel {
namespace {

using twinstack::testing::NetnsPair;
using twinstack::testing::Side;

constexpr std::uint8_t kUdp = 17;
constexpr Time kNow{std::chrono::seconds(100)};

// The errors reach `a`, sent by `b`, whom it takes for a router.
class IcmpErrorsTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (const std::string reason = NetnsPair::why_unavailable(); !reason.empty()) GTEST_SKIP() << reason;
    auto pair = NetnsPair::create();
    ASSERT_TRUE(pair.has_value()) << pair.error().message();
    pair_ = std::move(*pair);
    Result<IcmpErrors> made = error(ErrorCode::kNotFound, "not opened");
    ASSERT_TRUE(pair_->in(Side::kA, [&] { made = IcmpErrors::open(); }).has_value());
    ASSERT_TRUE(made.has_value()) << made.error().message();
    errors_.emplace(std::move(*made));
    const int protocol = v4() ? int{IPPROTO_RAW} : int{IPPROTO_ICMPV6};
    auto raw = pair_->socket(Side::kB, v4() ? AF_INET : AF_INET6, SOCK_RAW, protocol);
    ASSERT_TRUE(raw.has_value()) << raw.error().message();
    raw_ = std::move(*raw);
  }
  static bool v4() { return GetParam(); }
  static IpAddress address(Side side) {
    const std::string text = v4() ? NetnsPair::address_v4(side) : NetnsPair::address_v6(side);
    std::array<std::uint8_t, 16> bytes{};
    EXPECT_EQ(::inet_pton(v4() ? AF_INET : AF_INET6, text.c_str(), bytes.data()), 1);
    if (v4()) return IpAddress::from_v4({bytes[0], bytes[1], bytes[2], bytes[3]});
    IpAddress out;
    out.bytes = bytes;
    return out;
  }
  // "Too big" about a packet from `a`, of TCP or another protocol.
  void send(std::uint8_t protocol = IPPROTO_TCP) {
    const FlowKey flow{address(Side::kA), address(Side::kB), 4000, 5000};
    wire::Segment segment;
    segment.seq = Seq(7);
    segment.flags = wire::kAck;
    std::vector<std::byte> quoted(wire::ip_packet_header_bytes(flow, segment));
    wire::write_ip_headers(quoted, {}, flow, segment, 0);
    quoted[v4() ? 9 : 6] = std::byte{protocol};
    const wire::IcmpError error{.flow = {}, .seq = {}, .mtu = 1300, .kind = wire::IcmpKind::kTooBig, .code = 4};
    const auto packet = wire::make_icmp_error(error, address(Side::kB), quoted);
    const auto sent = ByteView(packet).subspan(v4() ? 0 : 40);  // of IPv6 the kernel writes the header
    const SocketAddress to = to_socket_address(address(Side::kA), 0, 0, !v4());
    ASSERT_EQ(::sendto(raw_.get(), sent.data(), sent.size(), 0, to.get(), to.length),
              static_cast<ssize_t>(sent.size()));
  }
  bool readable(int timeout_ms = 0) const {
    pollfd waits{.fd = errors_->poll_fd(), .events = POLLIN, .revents = 0};
    return ::poll(&waits, 1, timeout_ms) == 1;
  }
  int heard(Time now) {
    int count = 0;
    errors_->poll(now, [&](const wire::IcmpError& message) {
      EXPECT_EQ(message.mtu, 1300U);
      EXPECT_EQ(message.seq, Seq(7));
      ++count;
    });
    return count;
  }

  std::unique_ptr<NetnsPair> pair_;
  std::optional<IcmpErrors> errors_;
  UniqueFd raw_;
};

TEST_P(IcmpErrorsTest, WhatQuotesTcpIsHeardAndNothingElseWakes) {
  send(kUdp);
  EXPECT_FALSE(readable());
  send();
  EXPECT_TRUE(readable(5000));
  EXPECT_EQ(heard(kNow), 1);
  EXPECT_FALSE(readable());
  EXPECT_EQ(errors_->rests_until(), kNever);
}

TEST_P(IcmpErrorsTest, AFloodIsReadInTurns) {
  constexpr int kTurns = 3;
  for (int i = 0; i < kTurns * IcmpErrors::kMessagesPerTurn; ++i) send();
  Time now = kNow;
  for (int turn = 0; turn < kTurns; ++turn) {
    EXPECT_EQ(heard(now), IcmpErrors::kMessagesPerTurn);
    EXPECT_EQ(errors_->rests_until(), now + IcmpErrors::kTurn);
    EXPECT_EQ(heard(now), 0) << "the same turn";
    send();
    EXPECT_FALSE(readable()) << "nobody is woken in vain";
    now += IcmpErrors::kTurn;
  }
  EXPECT_EQ(heard(now), kTurns);
  EXPECT_EQ(errors_->rests_until(), kNever);
  send();
  EXPECT_TRUE(readable(5000));
}

INSTANTIATE_TEST_SUITE_P(Families, IcmpErrorsTest, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "V4" : "V6"; });

}  // namespace
}  // namespace twinstack::kernel
