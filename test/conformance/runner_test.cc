// The runner against a host that does what the test tells it to: what it sees, what it lets pass, what it complains of.
#include "runner.h"

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <tuple>

#include "packet.h"
#include "parser.h"
#include "whole_info.h"

namespace twinstack::conformance {
namespace {

using std::chrono::milliseconds;

const IpAddress kHostIp = IpAddress::from_v4({10, 0, 0, 1});
const IpAddress kPeerIp = IpAddress::from_v4({10, 0, 0, 2});
const FlowKey kFlow{.local = kHostIp, .remote = kPeerIp, .local_port = 80, .remote_port = 5000};

// A host without a TCP: it sends what the test has laid ready, at the times that were given, and keeps what it gets.
class PuppetHost final : public Endpoint {
 public:
  Result<> start(std::span<const std::pair<std::string, std::string>> settings) override {
    if (!settings.empty()) return error(ErrorCode::kUnsupported, "no setting " + settings[0].first);
    return {};
  }
  void finish() override { finished = true; }
  Addresses addresses() const override { return {kHostIp, kPeerIp, 80, 81, 5000}; }
  Tolerance tolerance() const override { return {milliseconds(1), milliseconds(2), 0}; }
  Duration patience() const override { return Duration(0); }
  Time now() override { return now_; }
  void advance(Time until) override {
    if (!to_send.empty() && to_send.front().at <= now_) return;
    now_ = to_send.empty() ? until : std::min(until, to_send.front().at);
  }
  std::optional<SentPacket> take_sent() override {
    if (to_send.empty() || to_send.front().at > now_) return std::nullopt;
    SentPacket out = std::move(to_send.front());
    to_send.pop_front();
    return out;
  }
  void inject(ByteView packet) override {
    auto read = read_packet(packet);
    if (read.has_value()) got.push_back(std::move(*read));
  }
  CallResult socket() override { return 3; }
  CallResult listen(SocketId, int) override { return 0; }
  CallResult accept(SocketId) override { return accepts >= 0 ? accepts : -EAGAIN; }
  CallResult connect(SocketId, std::uint16_t) override { return -EINPROGRESS; }
  CallResult send(SocketId, ByteView bytes, int) override { return static_cast<CallResult>(bytes.size()); }
  CallResult receive(SocketId, std::span<std::byte> room, int) override {
    for (std::size_t i = 0; i < readable.size() && i < room.size(); ++i) room[i] = readable[i];
    return readable.empty() ? -EAGAIN : static_cast<CallResult>(readable.size());
  }
  CallResult shutdown(SocketId, int) override { return 0; }
  CallResult close(SocketId) override { return 0; }
  CallResult set_option(SocketId, std::string_view, std::int64_t, const std::string&) override { return -ENOSYS; }
  CallResult get_option(SocketId, std::string_view) override { return 7; }
  int poll(SocketId) override { return 0; }
  Result<Info> info(SocketId) override {
    Info out = fields;
    if (drained_until != 0) out = {{"unacked", got.size() % 4 <= drained_until ? 0 : 1}, {"notsent_bytes", 0}};
    out.merge(whole_info());
    return out;
  }

  Result<> move(SocketId socket, Stack to) override {
    moves.emplace_back(socket, to, got.size());
    if (refuses_moves) return error(ErrorCode::kNotEligible, "not now");
    if (!fields_after_move.empty()) fields = fields_after_move;
    return {};
  }
  Result<std::vector<std::string>> take_moves() override {
    if (breaks_moves) return error(ErrorCode::kBroken, "gone");
    return std::exchange(own_moves, {});
  }

  // The host sends this `after` the start; `seq` from its initial number 7000.
  void sends(Duration after, std::uint8_t flags, std::uint32_t seq, std::vector<std::byte> payload = {}) {
    wire::Segment segment;
    segment.flags = flags;
    segment.seq = Seq(7000 + seq);
    segment.ack = Seq(100'001);
    segment.window = 500;
    to_send.push_back({Time(after), make_packet(kFlow, segment, payload)});
  }

  std::deque<SentPacket> to_send;
  std::vector<ReadPacket> got;
  std::vector<std::byte> readable;
  Info fields;
  Info fields_after_move;
  std::vector<std::tuple<SocketId, Stack, std::size_t>> moves;  // socket, where to, segments injected by then
  bool refuses_moves = false;
  std::size_t drained_until = 0;
  std::vector<std::string> own_moves;
  bool breaks_moves = false;
  SocketId accepts = -1;
  bool finished = false;

 private:
  Time now_{};
};

Outcome run(PuppetHost& host, const std::string& events) {
  const auto script = parse_script("s", "rfc: 1 1\nwants: x\n" + events);
  EXPECT_TRUE(script.has_value()) << script.error().message();
  return run_script(script.value(), host);
}

std::string reason(PuppetHost& host, const std::string& events) {
  const Outcome outcome = run(host, events);
  EXPECT_EQ(outcome.verdict, Verdict::kFailed);
  return outcome.reason;
}

TEST(Inject, BuildsThePeersSegment) {
  PuppetHost host;
  EXPECT_EQ(run(host, "peer: mss 900 wscale 3 sack win 77\ninject S 0\ninject PA 1+5 ack 1 win 9 ect0\n").verdict,
            Verdict::kPassed);
  ASSERT_EQ(host.got.size(), 2U);
  const wire::Segment& syn = host.got[0].head.segment;
  EXPECT_EQ(syn.seq, Seq(100'000));
  EXPECT_EQ(syn.window, 77);
  EXPECT_EQ(syn.options.mss, 900);
  EXPECT_EQ(syn.options.window_scale, 3);
  EXPECT_TRUE(syn.options.sack_permitted);
  const wire::Segment& data = host.got[1].head.segment;
  EXPECT_EQ(data.seq, Seq(100'001));
  EXPECT_EQ(data.window, 9);
  EXPECT_EQ(data.ecn, wire::Ecn::kEct0);
  EXPECT_EQ(host.got[1].payload.size(), 5U);
  EXPECT_TRUE(host.finished);
}

TEST(Inject, RepeatsWithFollowingBytes) {
  PuppetHost host;
  run(host, "inject A 1+10 ack 1 x3\n");
  ASSERT_EQ(host.got.size(), 3U);
  EXPECT_EQ(host.got[2].head.segment.seq, Seq(100'021));
}

TEST(Expect, TakesSegmentsInOrder) {
  PuppetHost host;
  host.sends(milliseconds(0), wire::kSyn | wire::kAck, 0);
  host.sends(milliseconds(0), wire::kAck, 1);
  EXPECT_EQ(run(host, "expect SA 0 ack 1 win 500\nexpect A 1 ack 1\n").verdict, Verdict::kPassed);
}

TEST(Expect, NamesTheDifference) {
  PuppetHost host;
  host.sends(milliseconds(0), wire::kSyn | wire::kAck, 0);
  EXPECT_EQ(reason(host, "expect SA 0 ack 2\n"), "the host sent 'SA 0 ack 1 win 500': ack is 1, not 2");
}

TEST(Expect, WantsTheTime) {
  PuppetHost early;
  early.sends(milliseconds(20), wire::kSyn, 0);
  EXPECT_EQ(reason(early, "+30ms expect S 0\n"),
            "the host sent 'S 0 win 500' at 0.020000 s, not from 0.029000 to 0.032000 s");
  PuppetHost late;
  late.sends(milliseconds(40), wire::kSyn, 0);
  EXPECT_EQ(reason(late, "+30ms expect S 0\n"), "no segment came until 0.032000 s");
  PuppetHost right;
  right.sends(milliseconds(31), wire::kSyn, 0);
  EXPECT_EQ(run(right, "+30ms expect S 0\n").verdict, Verdict::kPassed);
}

TEST(Expect, CountsFromTheSegmentBefore) {
  PuppetHost host;
  host.sends(milliseconds(31), wire::kSyn, 0);
  host.sends(milliseconds(61), wire::kSyn, 0);
  EXPECT_EQ(run(host, "+30ms expect S 0\n+30ms~0ms expect S 0\n").verdict, Verdict::kPassed);
}

TEST(Expect, ComplainsOfWhatNobodyExpects) {
  PuppetHost host;
  host.sends(milliseconds(0), wire::kSyn, 0);
  host.sends(milliseconds(5), wire::kSyn, 0);
  EXPECT_EQ(reason(host, "expect S 0\n+10ms inject A 1 ack 1\n"),
            "the host sent 'S 0 win 500' at 0.005000 s, which is not expected before this event");
}

TEST(Expect, ComplainsOfWhatIsLeftAtTheEnd) {
  PuppetHost host;
  host.sends(milliseconds(0), wire::kSyn, 0);
  host.sends(milliseconds(0), wire::kSyn, 0);
  EXPECT_EQ(reason(host, "expect S 0\n"),
            "the host sent 'S 0 win 500' at 0.000000 s, which is not expected at the end");
}

TEST(Expect, NothingMeansNothing) {
  PuppetHost host;
  host.sends(milliseconds(5), wire::kSyn, 0);
  EXPECT_EQ(reason(host, "expect nothing for 10ms\n"),
            "the host sent 'S 0 win 500' at 0.005000 s, which is not expected now");
  PuppetHost later;
  later.sends(milliseconds(15), wire::kSyn, 0);
  EXPECT_EQ(run(later, "expect nothing for 10ms\n+5ms expect S 0\n").verdict, Verdict::kPassed);
}

TEST(Maybe, MayComeOrNot) {
  const std::string events = "maybe A 1 ack 1\nexpect S 0\n";
  PuppetHost with;
  with.sends(milliseconds(0), wire::kSyn, 0);
  with.sends(milliseconds(0), wire::kAck, 1);
  EXPECT_EQ(run(with, "expect S 0\nmaybe A 1 ack 1\nexpect nothing for 5ms\n").verdict, Verdict::kPassed);
  PuppetHost without;
  without.sends(milliseconds(0), wire::kSyn, 0);
  EXPECT_EQ(run(without, events).verdict, Verdict::kPassed);
}

TEST(Maybe, ComesOnce) {
  PuppetHost host;
  host.sends(milliseconds(0), wire::kSyn, 0);
  host.sends(milliseconds(0), wire::kAck, 1);
  host.sends(milliseconds(0), wire::kAck, 1);
  EXPECT_EQ(reason(host, "expect S 0\nmaybe A 1 ack 1\nexpect nothing for 5ms\n"),
            "the host sent 'A 1 ack 1 win 500' at 0.000000 s, which is not expected now");
}

TEST(InitialNumbers, OfTwoConnectionsAreNotTheSame) {
  const auto reason_of = [](std::uint32_t second) {
    PuppetHost host;
    host.sends(milliseconds(0), wire::kSyn, 0);
    FlowKey other = kFlow;
    other.remote_port = 5001;
    wire::Segment syn;
    syn.flags = wire::kSyn;
    syn.seq = Seq(7000 + second);
    host.to_send.push_back({Time{}, make_packet(other, syn, {})});
    return run(host, "numbers: apart\nflow: b\nexpect S 0\nexpect b: S 0\n").reason;
  };
  EXPECT_EQ(reason_of(5'000'000), "");
  EXPECT_NE(reason_of(0), "");
  EXPECT_NE(reason_of(300'000), "") << "the clock alone";
}

TEST(Payload, IsTheStream) {
  PuppetHost wrong;
  wrong.sends(milliseconds(0), wire::kSyn, 0);
  wrong.sends(milliseconds(0), wire::kAck, 1, std::vector<std::byte>(10));
  EXPECT_EQ(reason(wrong, "expect S 0\nexpect A 1+10 ack 1\n"),
            "the host sent 'A 1+10 ack 1 win 500': its bytes are not those of the stream");
}

TEST(Call, ResultIsCompared) {
  PuppetHost host;
  EXPECT_EQ(reason(host, "c = socket\nsend c 5 -> 4\n"), "send c gave 5");
  EXPECT_EQ(reason(host, "c = socket\nrecv c 5\n"), "recv c gave EAGAIN");
  EXPECT_EQ(run(host, "c = socket\nrecv c 5 -> EAGAIN\n").verdict, Verdict::kPassed);
}

TEST(Call, ReceivedBytesAreCompared) {
  PuppetHost host;
  host.readable.assign(5, std::byte{1});
  EXPECT_EQ(reason(host, "c = socket\nrecv c 5\n"), "what was received is not the peer's stream");
}

TEST(Check, NamesTheField) {
  PuppetHost host;
  host.fields = {{"state", 1}, {"snd_cwnd", 10}};
  EXPECT_EQ(run(host, "c = socket\ncheck c state established snd_cwnd 8..12\n").verdict, Verdict::kPassed);
  EXPECT_EQ(reason(host, "c = socket\ncheck c snd_cwnd 11\n"), "snd_cwnd is 10, not from 11 to 11");
  EXPECT_EQ(reason(host, "c = socket\ncheck c state listen\n"), "state is established, not listen");
  EXPECT_EQ(reason(host, "c = socket\ncheck c mood 1\n"), "no field of tcp_info is called mood");
}

Outcome run_moving(PuppetHost& host, MovePlan plan, const std::string& events) {
  const auto script = parse_script("s", "rfc: 1 1\nwants: x\n" + events);
  EXPECT_TRUE(script.has_value()) << script.error().message();
  return run_script(script.value(), host, {.moves = plan});
}

TEST(Moves, ComeBehindTheHandshakeAndInTheMiddleOfTheRest) {
  const std::string events =
      "l = socket\nc = accept l\ninject A 1 ack 1\ninject A 1 ack 1\ninject A 1 ack 1\ninject A 1 ack 1\n";
  PuppetHost there;
  there.accepts = 9;
  EXPECT_EQ(run_moving(there, MovePlan::kAfterHandshake, events).verdict, Verdict::kPassed);
  ASSERT_EQ(there.moves.size(), 1U);
  EXPECT_EQ(there.moves[0], std::make_tuple(9, Stack::kEngine, 0U));
  PuppetHost back;
  back.accepts = 9;
  EXPECT_EQ(run_moving(back, MovePlan::kRoundTrip, events).verdict, Verdict::kPassed);
  ASSERT_EQ(back.moves.size(), 3U) << "a run without the return looks for its time";
  EXPECT_EQ(back.moves[1], std::make_tuple(9, Stack::kEngine, 4U));
  EXPECT_EQ(back.moves[2], std::make_tuple(9, Stack::kKernel, 4U + 2U));
}

TEST(Moves, BackWhereAllIsAcknowledged) {
  PuppetHost host;
  host.accepts = 9;
  host.drained_until = 1;  // segments that it has got
  EXPECT_EQ(run_moving(host, MovePlan::kRoundTrip,
                       "l = socket\nc = accept l\ninject A 1 ack 1\ninject A 1 ack 1\ninject A 1 ack 1\n"
                       "inject A 1 ack 1\n")
                .verdict,
            Verdict::kPassed);
  ASSERT_EQ(host.moves.size(), 3U);
  EXPECT_EQ(host.moves[2], std::make_tuple(9, Stack::kKernel, 4U + 1U));
}

TEST(Moves, TellThePeerByAnAckThatNoScriptHasToExpect) {
  PuppetHost host;
  host.accepts = 9;
  host.sends(milliseconds(0), wire::kSyn | wire::kAck, 0);
  host.sends(milliseconds(0), wire::kAck, 1);
  host.to_send.back().cause = SendCause::kMove;
  EXPECT_EQ(run_moving(host, MovePlan::kAfterHandshake,
                       "l = socket\nexpect SA 0 ack 1\nc = accept l\nexpect nothing for 1ms\n")
                .verdict,
            Verdict::kPassed);
}

TEST(Moves, TakeNothingBack) {
  PuppetHost host;
  host.accepts = 9;
  host.sends(milliseconds(0), wire::kSyn | wire::kAck, 0);
  host.sends(milliseconds(0), wire::kAck, 2);
  host.to_send.back().cause = SendCause::kMove;
  EXPECT_EQ(run_moving(host, MovePlan::kAfterHandshake,
                       "l = socket\nexpect SA 0 ack 1\nc = accept l\nexpect nothing for 1ms\n")
                .reason,
            "a move has broken the connection: its sequence number lies beyond what was sent");
}

TEST(Moves, KeepWhatAProgramMayHoldUsTo) {
  const auto reason_of = [](const Info& before, const Info& after) {
    PuppetHost host;
    host.accepts = 9;
    host.fields = before;
    host.fields_after_move = after;
    return run_moving(host, MovePlan::kAfterHandshake, "l = socket\nc = accept l\ninject A 1 ack 1\n").reason;
  };
  const Info before = {{"snd_mss", 1000}, {"bytes_acked", 5}, {"rtt", 7}, {"options", 2}};
  EXPECT_EQ(reason_of(before, {{"snd_mss", 1000}, {"bytes_acked", 6}, {"rtt", 0}, {"options", 2 + 16}}), "");
  EXPECT_EQ(reason_of(before, {{"snd_mss", 988}, {"bytes_acked", 5}, {"rtt", 7}, {"options", 2}}),
            "a move has broken the connection: snd_mss was 1000 and is 988");
  EXPECT_EQ(reason_of(before, {{"snd_mss", 1000}, {"bytes_acked", 4}, {"rtt", 7}, {"options", 2}}),
            "a move has broken the connection: bytes_acked was 5 and is 4");
  EXPECT_EQ(reason_of(before, {{"snd_mss", 1000}, {"bytes_acked", 5}, {"rtt", 7}, {"options", 3}}),
            "a move has broken the connection: options was 2 and is 3");
}

// Each place is tried; what the script expects does not count.
TEST(Moves, Anywhere) {
  PuppetHost host;
  host.accepts = 9;
  const std::string events = "l = socket\nc = accept l\ninject A 1 ack 1\ninject A 1 ack 1\nexpect A 1 ack 1\n";
  EXPECT_EQ(run_moving(host, MovePlan::kAnywhere, events).verdict, Verdict::kPassed);
  ASSERT_EQ(host.moves.size(), 5U) << "back from the last place would be behind the end";
  EXPECT_EQ(std::get<1>(host.moves[0]), Stack::kEngine);
  EXPECT_EQ(std::get<1>(host.moves[1]), Stack::kKernel);
  PuppetHost damaged;
  damaged.accepts = 9;
  damaged.fields = {{"snd_mss", 1000}};
  damaged.fields_after_move = {{"snd_mss", 988}};
  EXPECT_EQ(run_moving(damaged, MovePlan::kAnywhere, events).reason,
            "moved before this line: snd_mss was 1000 and is 988");
}

TEST(Moves, AHostMayMakeItsOwn) {
  PuppetHost host;
  host.own_moves = {"back"};
  const Outcome outcome = run(host, "inject A 1 ack 1\n");
  ASSERT_EQ(outcome.trace.size(), 2U);
  EXPECT_TRUE(outcome.trace[1].ends_with("move  back")) << outcome.trace[1];
  host.breaks_moves = true;
  EXPECT_EQ(reason(host, "inject A 1 ack 1\n"), "a move has broken the connection: gone");
}

TEST(Moves, ARefusalLeavesTheConnectionWhereItIs) {
  PuppetHost host;
  host.accepts = 9;
  host.refuses_moves = true;
  EXPECT_EQ(run_moving(host, MovePlan::kAfterHandshake, "l = socket\nc = accept l\ninject A 1 ack 1\n").verdict,
            Verdict::kPassed);
}

TEST(Skip, WhatTheBackendLacks) {
  PuppetHost host;
  EXPECT_EQ(run(host, "set: tcp_new 1\nc = socket\n").verdict, Verdict::kSkipped);
  EXPECT_EQ(run(host, "c = socket\nsetsockopt c TCP_NODELAY 1\n").verdict, Verdict::kSkipped);
}

TEST(Outcome, TellsTheLine) {
  PuppetHost host;
  EXPECT_EQ(run(host, "c = socket\n\nsend c 5 -> 4\n").line, 5U);
}

}  // namespace
}  // namespace twinstack::conformance
