// ICMP errors: which are believed, and what they do.
#include <sys/socket.h>

#include <cerrno>

#include "stack/test_support.h"
#include "wire/build.h"
#include "wire/icmp.h"

namespace twinstack::stack::test {
namespace {

using wire::IcmpKind;

struct Errors : ::testing::Test, OneHost {
  SoftStack& s() { return *stack; }
  void error(std::uint32_t quoted, IcmpKind kind, std::uint8_t code, std::uint32_t mtu = 0, std::uint16_t port = 80) {
    wire::IcmpError out{.flow = {v4(1), v4(2), port, 5000}, .seq = Seq(quoted), .mtu = mtu, .kind = kind, .code = code};
    s().on_icmp_error(out, now);
  }
  int take_error(SocketId id) {
    int value = 0;
    s().get_option(id, SOL_SOCKET, SO_ERROR, &value, now);
    return value;
  }
};

TEST_F(Errors, EndAnAttemptToConnect) {
  struct Case {
    std::uint8_t code;
    int error;
  };
  for (const Case& c : {Case{0, ENETUNREACH}, Case{1, EHOSTUNREACH}, Case{2, ENOPROTOOPT}, Case{3, ECONNREFUSED},
                        Case{13, EHOSTUNREACH}}) {
    const SocketId id = s().socket(Family::kV4);
    s().connect(id, {v4(2), 5000}, now);
    const Seen syn = take_one();
    error(syn.segment.seq.raw() + 1, IcmpKind::kUnreachable, c.code, 0, syn.flow.remote_port);
    EXPECT_EQ(s().state(id), State::kSynSent) << "quotes what was never sent";
    error(syn.segment.seq.raw(), IcmpKind::kUnreachable, c.code, 0, syn.flow.remote_port);
    EXPECT_EQ(s().state(id), State::kClosed);
    EXPECT_EQ(take_error(id), c.error);
    s().close(id, now);
  }
}

TEST_F(Errors, OfACodeThatNobodyHasDefinedMeanNothing) {
  const SocketId id = s().socket(Family::kV4);
  s().connect(id, {v4(2), 5000}, now);
  const Seen syn = take_one();
  error(syn.segment.seq.raw(), IcmpKind::kUnreachable, 16, 0, syn.flow.remote_port);
  EXPECT_EQ(s().state(id), State::kSynSent);
  EXPECT_EQ(s().stats().out_of_window_icmps, 1U);
}

TEST_F(Errors, ASmallerPathMtuIsNoError) {
  const SocketId id = establish();
  EXPECT_EQ(s().send(id, Bytes(1400), 0, now), 1400);
  take();
  error(iss + 1, IcmpKind::kTooBig, 4, 1000);
  EXPECT_EQ(s().stats().icmps, 1U);
  EXPECT_EQ(take_error(id), 0);
}

TEST_F(Errors, EndAHalfOpenConnection) {
  establish();
  inject(segment(wire::kSyn, 1000), {}, 80, 5000);
  take();
  inject(segment(wire::kSyn, 1000), {}, 80, 5001);
  const std::uint32_t number = take_one().segment.seq.raw();
  wire::IcmpError out{
      .flow = {v4(1), v4(2), 80, 5001}, .seq = Seq(number), .mtu = 0, .kind = IcmpKind::kUnreachable, .code = 1};
  s().on_icmp_error(out, now);
  EXPECT_EQ(s().half_open_count(), 0U);
}

TEST_F(Errors, OnlyExplainATimeoutOfAConnection) {
  config.tcp_retries2 = 3;
  const SocketId id = establish();
  s().send(id, stream_bytes(1, 0, 100), 0, now);
  error(iss + 1, IcmpKind::kUnreachable, 3);
  EXPECT_EQ(s().state(id), State::kEstablished) << "port unreachable: hard, and still not believed so far";
  error(iss + 1, IcmpKind::kUnreachable, 1);
  advance(seconds(60));
  EXPECT_EQ(s().state(id), State::kClosed);
  EXPECT_EQ(take_error(id), EHOSTUNREACH);
}

// Linux tcp_ack(): what went wrong before explains nothing any more.
TEST_F(Errors, AreForgottenWhenThePathWorksAgain) {
  config.tcp_retries2 = 3;
  const SocketId id = establish();
  for (const bool old : {false, true}) {
    s().send(id, stream_bytes(1, 0, 100), 0, now);
    s().send(id, stream_bytes(1, 100, 100), 0, now);
    const std::uint32_t first = s().connection(id)->cb.snd_una.raw();
    error(first, IcmpKind::kUnreachable, 1);
    inject(segment(wire::kAck, 1001, old ? first - 1 : first));
    EXPECT_EQ(take_error(id), old ? EHOSTUNREACH : 0);
    error(first, IcmpKind::kUnreachable, 1);
    inject(segment(wire::kAck, 1001, first + 100));
    EXPECT_EQ(take_error(id), 0);
    inject(segment(wire::kAck, 1001, first + 200));
  }
  s().send(id, stream_bytes(1, 0, 100), 0, now);
  const std::uint32_t first = s().connection(id)->cb.snd_una.raw();
  error(first, IcmpKind::kUnreachable, 1);
  inject(segment(wire::kAck, 1001, first));
  advance(seconds(60));
  EXPECT_EQ(s().state(id), State::kClosed);
  EXPECT_EQ(take_error(id), ETIMEDOUT);
}

TEST_F(Errors, OutOfTheFlightAreNotBelieved) {
  const SocketId id = establish();
  s().send(id, stream_bytes(1, 0, 5000), 0, now);
  take();
  error(iss + 6000, IcmpKind::kTooBig, 4, 1000);
  error(iss, IcmpKind::kTooBig, 4, 1000);
  EXPECT_TRUE(take().empty());
  EXPECT_EQ(s().stats().out_of_window_icmps, 2U);
}

TEST_F(Errors, TooBigLowersTheMssAndSendsAgain) {
  const SocketId id = establish();
  s().send(id, stream_bytes(1, 0, 2920), 0, now);
  EXPECT_EQ(take().size(), 2U);
  error(iss + 1, IcmpKind::kTooBig, 4, 1000);
  const auto again = take();
  ASSERT_EQ(again.size(), 4U);
  std::size_t total = 0;
  for (const Seen& seen : again) {
    EXPECT_LE(seen.payload.size(), 960U);
    total += seen.payload.size();
  }
  EXPECT_EQ(total, 2920U);
  EXPECT_EQ(s().connection(id)->cb.mss, 960);
  error(iss + 1, IcmpKind::kTooBig, 4, 1200);
  EXPECT_EQ(s().connection(id)->cb.mss, 960) << "larger: no news";
  error(iss + 1, IcmpKind::kTooBig, 4, 100);
  EXPECT_EQ(s().connection(id)->cb.mss, 960) << "once in a round trip";
  advance(std::chrono::milliseconds(1));
  error(iss + 1, IcmpKind::kTooBig, 4, 100);
  EXPECT_EQ(s().connection(id)->cb.mss, 512) << "not below min_pmtu";
}

TEST_F(Errors, ThePathMtuIsRememberedForAWhile) {
  const SocketId id = establish();
  s().send(id, stream_bytes(1, 0, 2920), 0, now);
  error(iss + 1, IcmpKind::kTooBig, 4, 1000);
  s().close(id, now);
  take();
  for (const int mss : {960, 1460}) {
    const SocketId next = s().socket(Family::kV4);
    s().connect(next, {v4(2), 5000}, now);
    const auto sent = take();
    const Seen& syn = sent.back();
    EXPECT_EQ(syn.segment.options.mss, 1460) << "what we announce is the interface's";
    inject(segment(wire::kSyn | wire::kAck, 1000, syn.segment.seq.raw() + 1), {}, syn.flow.remote_port);
    EXPECT_EQ(s().connection(next)->cb.mss, mss);
    advance(seconds(601));
    take();
  }
}

TEST_F(Errors, ComeAsPacketsToo) {
  const SocketId id = establish();
  s().send(id, stream_bytes(1, 0, 2920), 0, now);
  take();
  wire::Segment quoted = segment(wire::kAck, iss + 1, 1001);
  const FlowKey flow{v4(1), v4(2), 80, 5000};
  Bytes offending(wire::ip_packet_header_bytes(flow, quoted) + 1460);
  wire::write_ip_headers(offending, {}, flow, quoted, 1460);
  wire::fill_ip_checksum(offending);
  s().on_ip_packet(wire::make_icmp_error({.flow = {}, .seq = {}, .mtu = 1300, .kind = IcmpKind::kTooBig, .code = 4},
                                         IpAddress::from_v4({192, 0, 2, 1}), offending),
                   now);
  EXPECT_EQ(s().connection(id)->cb.mss, 1260);
  EXPECT_EQ(s().stats().icmps, 1U);
}

}  // namespace
}  // namespace twinstack::stack::test
