// What scripts say and how mistakes in them are told.
#include "parser.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>

namespace twinstack::conformance {
namespace {

constexpr std::string_view kHead = "rfc: 9293 3.1\nwants: something\n";

Script parsed(const std::string& events) {
  auto script = parse_script("s", std::string(kHead) + events);
  EXPECT_TRUE(script.has_value()) << script.error().message();
  return script.value_or(Script{});
}

// The error of a script whose third line is `event`.
std::string mistake(const std::string& event) {
  const auto script = parse_script("s", std::string(kHead) + event);
  return script.has_value() ? "none" : script.error().what;
}

template <typename T>
T only(const std::string& event) {
  const Script script = parsed(event);
  EXPECT_EQ(script.events.size(), 1U);
  if (script.events.size() != 1 || !std::holds_alternative<T>(script.events[0].what)) {
    ADD_FAILURE() << event;
    return {};
  }
  return std::get<T>(script.events[0].what);
}

// The event behind a line that makes the socket `c`.
template <typename T>
T behind_socket(const std::string& event) {
  const Script script = parsed("c = socket\n" + event);
  EXPECT_EQ(script.events.size(), 2U);
  if (script.events.size() != 2 || !std::holds_alternative<T>(script.events[1].what)) {
    ADD_FAILURE() << event;
    return {};
  }
  return std::get<T>(script.events[1].what);
}

TEST(Header, SaysWhatIsTried) {
  const auto script = parse_script("rfc1/x",
                                   "rfc: 9293 3.10.7.4\n"
                                   "wants: one thing\n"
                                   "wants: and another\n"
                                   "departs: as Linux\n"
                                   "linux: differs (why)\n"
                                   "core: no (this is why)\n"
                                   "set: tcp_rmem 1 2 3\n"
                                   "peer: ts wscale 7 win 1000 iss 4294967295\n"
                                   "flow: b closed-port\n"
                                   "ip: 6\n"
                                   "inject b: S 0\n");
  ASSERT_TRUE(script.has_value()) << script.error().message();
  EXPECT_EQ(script->clause, "RFC 9293 3.10.7.4");
  EXPECT_EQ(script->wants, "one thing and another");
  EXPECT_EQ(script->departs, "as Linux");
  EXPECT_EQ(script->on_linux.applies, Applies::kDiffers);
  EXPECT_EQ(script->on_linux.reason, "why");
  EXPECT_EQ(script->core.applies, Applies::kNo);
  EXPECT_EQ(script->core.reason, "this is why");
  ASSERT_EQ(script->settings.size(), 1U);
  EXPECT_EQ(script->settings[0].second, "1 2 3");
  EXPECT_EQ(script->only_ip, 6);
  ASSERT_EQ(script->flows.size(), 2U);
  EXPECT_TRUE(script->flows[1].closed_port);
  const Peer& peer = script->peer;
  EXPECT_TRUE(peer.timestamps);
  EXPECT_FALSE(peer.sack);  // a line 'peer:' says what there is
  EXPECT_EQ(peer.window_scale, 7);
  EXPECT_EQ(peer.window, 1000);
  EXPECT_EQ(peer.initial_seq, 4294967295U);
  EXPECT_EQ(peer.mss, 1000);
}

TEST(Header, MistakesAreTold) {
  EXPECT_EQ(mistake("linux: differs\n"), "s:3: a mark needs its reason in parentheses");
  EXPECT_EQ(mistake("linux: perhaps (x)\n"), "s:3: a mark is to be 'no (reason)' or 'differs (reason)'");
  EXPECT_EQ(mistake("peer: tall\n"), "s:3: 'tall' says nothing about a peer");
  EXPECT_EQ(mistake("peer: win 65536\n"), "s:3: win is to be from 0 to 65535");
  EXPECT_EQ(mistake("ip: 5\n"), "s:3: ip is to be 4 or 6");
  EXPECT_EQ(mistake("set: mtu\n"), "s:3: a setting is to be a name and a value");
  EXPECT_EQ(mistake("c = socket\nset: mtu 5\n"), "s:4: 'set:' is to stand before the first event");
  EXPECT_EQ(mistake(""), "s: every event is missing");
  EXPECT_EQ(parse_script("s", "c = socket\n").error().what, "s: the line 'rfc:' is missing");
}

TEST(Times, AreRelativeOrAbsolute) {
  const Script script =
      parsed("expect S 0\n+20ms expect S 0\n@1.5s expect S 0\n+20ms~5ms expect S 0\n+0..60ms expect S 0\n");
  using std::chrono::milliseconds;
  ASSERT_EQ(script.events.size(), 5U);
  EXPECT_EQ(script.events[0].when.latest, milliseconds(0));
  EXPECT_EQ(script.events[1].when.earliest, milliseconds(20));
  EXPECT_FALSE(script.events[1].when.strict);
  EXPECT_TRUE(script.events[2].when.absolute);
  EXPECT_EQ(script.events[2].when.latest, milliseconds(1500));
  EXPECT_EQ(script.events[3].when.earliest, milliseconds(15));
  EXPECT_EQ(script.events[3].when.latest, milliseconds(25));
  EXPECT_TRUE(script.events[3].when.strict);
  EXPECT_EQ(script.events[4].when.earliest, milliseconds(0));
  EXPECT_EQ(script.events[4].when.latest, milliseconds(60));
}

TEST(Times, MistakesAreTold) {
  const std::string form = "the time is to be like +20ms, +20ms~5ms, +20..30ms or @1.5s, not ";
  EXPECT_EQ(mistake("+20 expect S 0"), "s:3: " + form + "'+20'");
  EXPECT_EQ(mistake("+x expect S 0"), "s:3: " + form + "'+x'");
  EXPECT_EQ(mistake("+30..20ms expect S 0"), "s:3: " + form + "'+30..20ms'");
  EXPECT_EQ(mistake("+1..2ms inject S 0"), "s:3: only what is expected may have a range of times");
}

TEST(Segments, ToInject) {
  const auto segment =
      only<Inject>("inject UPA 1+1000 ack 501 win 300 urgent 7 sack 2001-3001,4001-5001 ts 7/* ce corrupt x3 each 5")
          .segment;
  EXPECT_EQ(segment.flags, wire::kUrg | wire::kPsh | wire::kAck);
  EXPECT_EQ(segment.seq.value, Match::exactly(1));
  EXPECT_EQ(segment.bytes, Match::exactly(1000));
  EXPECT_EQ(segment.ack.value, Match::exactly(501));
  EXPECT_EQ(segment.window, Match::exactly(300));
  EXPECT_EQ(segment.urgent, Match::exactly(7));
  ASSERT_EQ(segment.sack.size(), 2U);
  EXPECT_EQ(segment.sack[1], (SackRange{4001, 5001}));
  ASSERT_TRUE(segment.timestamps.has_value());
  EXPECT_EQ(segment.timestamps->value.value, Match::exactly(7));
  EXPECT_FALSE(segment.timestamps->echo.value.is_exact());
  EXPECT_EQ(segment.ecn, wire::Ecn::kCe);
  EXPECT_TRUE(segment.corrupt);
  EXPECT_EQ(segment.repeat, 3U);
  EXPECT_EQ(segment.ack_step, 5U);
}

TEST(Segments, ToExpect) {
  const auto segment = only<Expect>("expect SA =0 ack 1..5 win >=100 wscale <=14 mss * no-ts sack *").segment;
  EXPECT_TRUE(segment.seq.raw);
  EXPECT_TRUE(segment.ack.value.accepts(5));
  EXPECT_FALSE(segment.ack.value.accepts(6));
  EXPECT_FALSE(segment.window->accepts(99));
  EXPECT_FALSE(segment.window_scale->accepts(15));
  EXPECT_TRUE(segment.mss->accepts(1));
  EXPECT_EQ(segment.absent, kNoTimestamps);
  EXPECT_TRUE(segment.any_sack);
}

TEST(Segments, RawOptions) {
  EXPECT_EQ(only<Inject>("inject S 0 option 0101fe02").segment.raw_options, (std::vector<std::uint8_t>{1, 1, 0xfe, 2}));
  EXPECT_EQ(mistake("inject S 0 option 01fe02"),
            "s:3: option is to be bytes in hexadecimal, a multiple of four of them, not '01fe02'");
}

TEST(Segments, MistakesAreTold) {
  EXPECT_EQ(mistake("inject XA 1"), "s:3: flags are to be letters of SFRPAUEC or -, not 'XA'");
  EXPECT_EQ(mistake("inject A 1"), "s:3: 'ack' goes with the flag A, and needs a number");
  EXPECT_EQ(mistake("inject A 1 ack *"), "s:3: 'ack' goes with the flag A, and needs a number");
  EXPECT_EQ(mistake("inject A 1 ack 1 win >5"), "s:3: a segment to inject needs exact numbers");
  EXPECT_EQ(mistake("inject S x"), "s:3: sequence number and length are to be like 1, 1+1000 or =0, not 'x'");
  EXPECT_EQ(mistake("inject S 0 sack 5"), "s:3: SACK blocks are to be like 2001-3001,4001-5001 or *, not '5'");
  EXPECT_EQ(mistake("inject S 0 ts 5"), "s:3: timestamps are to be like 100/20, */20 or */*, not '5'");
  EXPECT_EQ(mistake("inject S 0 size 7"), "s:3: 'size' is no field of a segment");
  EXPECT_EQ(mistake("expect S 0 win"), "s:3: win is to be a number, a range like 1..5, a bound like >=3 or *, not ''");
  EXPECT_EQ(mistake("inject b: S 0"), "s:3: no flow is called 'b' (line 'flow:')");
}

TEST(Segments, NothingIsExpectedForATime) {
  EXPECT_EQ(only<ExpectNothing>("expect nothing for 50ms").lasting, std::chrono::milliseconds(50));
  EXPECT_EQ(mistake("expect nothing 50ms"), "s:3: expect nothing 'for' how long");
  EXPECT_EQ(mistake("expect nothing for 50"), "s:3: how long is to be a time like 20ms, 1.5s or 300us, not '50'");
}

TEST(Icmp, QuotesASegment) {
  const auto icmp = only<InjectIcmp>("inject icmp fragmentation-needed mtu 1000 seq 5");
  EXPECT_EQ(icmp.kind, IcmpKind::kFragmentationNeeded);
  EXPECT_EQ(icmp.mtu_bytes, 1000U);
  EXPECT_EQ(icmp.quoted_seq.value, Match::exactly(5));
  EXPECT_EQ(mistake("inject icmp weather seq 1"), "s:3: 'weather' is no ICMP error");
  EXPECT_EQ(mistake("inject icmp host-unreachable"), "s:3: an ICMP error quotes a segment: 'seq N'");
}

TEST(Calls, SayWhatTheyReturn) {
  EXPECT_EQ(behind_socket<Call>("send c 100").result, Match::exactly(100));
  EXPECT_EQ(behind_socket<Call>("send c 100 more oob -> 50").flags, MSG_MORE | MSG_OOB);
  EXPECT_EQ(behind_socket<Call>("recv c 100 -> EAGAIN").result, Match::exactly(-EAGAIN));
  EXPECT_EQ(behind_socket<Call>("connect c").result, Match::exactly(-EINPROGRESS));
  EXPECT_EQ(behind_socket<Call>("shutdown c wr").number, SHUT_WR);
  EXPECT_EQ(behind_socket<Call>("poll c -> in+rdhup").result, Match::exactly(POLLIN | POLLRDHUP));
  EXPECT_EQ(behind_socket<Call>("poll c -> none").result, Match::exactly(0));
  EXPECT_EQ(behind_socket<Call>("setsockopt c TCP_CONGESTION reno").text, "reno");
  EXPECT_EQ(behind_socket<Call>("getsockopt c SO_ERROR -> 1..5").result.high, 5);
  EXPECT_EQ(behind_socket<Call>("accept c -> EAGAIN").kind, CallKind::kAccept);
  EXPECT_EQ(behind_socket<Call>("d = accept c").made, "d");
}

TEST(Calls, MistakesAreTold) {
  EXPECT_EQ(mistake("dance c"), "s:3: 'dance' is no event");
  EXPECT_EQ(mistake("send c 100"), "s:3: no socket is called 'c' yet");
  EXPECT_EQ(mistake("socket"), "s:3: socket needs a name: 'c = socket ...'");
  EXPECT_EQ(mistake("c = socket\nd = send c 5"), "s:4: send makes no socket that 'd' could name");
  EXPECT_EQ(mistake("c = socket\nsend c 5 loudly"), "s:4: 'loudly' is no flag of a message");
  EXPECT_EQ(mistake("c = socket\nsend c 5 -> EWHAT"), "s:4: 'EWHAT' is no result: a number, a range or an error");
  EXPECT_EQ(mistake("c = socket\ngetsockopt c SO_ERROR"), "s:4: getsockopt needs a result: '-> ...'");
  EXPECT_EQ(mistake("c = socket\nclose c now"), "s:4: 'now' is too much here");
  EXPECT_EQ(mistake("c = socket\npoll c -> out+of+luck"),
            "s:4: 'out+of+luck' is no set of events like in+out, or none");
}

TEST(Handshakes, HaveARoundTrip) {
  const auto active = only<Open>("c = connected rtt 100ms");
  EXPECT_TRUE(active.active);
  EXPECT_EQ(active.round_trip, std::chrono::milliseconds(100));
  EXPECT_FALSE(only<Open>("c = accepted").active);
  EXPECT_EQ(mistake("c = accepted soon"), "s:3: 'soon' is too much here");
}

TEST(Checks, KnowWordsAndUnits) {
  const auto check =
      behind_socket<Check>("check c state close-wait ca_state recovery rtt 90..110ms rto >=1s snd_cwnd 10");
  ASSERT_EQ(check.fields.size(), 5U);
  EXPECT_EQ(check.fields[0].second, Match::exactly(8));
  EXPECT_EQ(check.fields[1].second, Match::exactly(3));
  EXPECT_EQ(check.fields[2].second, (Match{90'000, 110'000}));
  EXPECT_EQ(check.fields[3].second.low, 1'000'000);
  EXPECT_EQ(check.fields[4].second, Match::exactly(10));
  EXPECT_EQ(mistake("c = socket\ncheck c"), "s:4: nothing to check");
}

TEST(Lines, MayBeCommentsAndBlank) {
  const Script script = parsed("\n# a comment\n   \nc = socket  # behind an event\n");
  ASSERT_EQ(script.events.size(), 1U);
  EXPECT_EQ(script.events[0].line, 6U);
}

}  // namespace
}  // namespace twinstack::conformance
