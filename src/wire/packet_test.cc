// build.h and packet.h together: exact bytes, round trips, and frames that are not what they seem.
#include "wire/packet.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include "base/rng.h"
#include "wire/build.h"

namespace twinstack::wire {
namespace {

using Bytes = std::vector<std::byte>;

const PathHeader kPath = {{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, 64, 0, 0};

FlowKey v4_flow() { return {IpAddress::from_v4({10, 0, 0, 1}), IpAddress::from_v4({10, 0, 0, 2}), 80, 51000}; }

FlowKey v6_flow() {
  FlowKey flow{{}, {}, 80, 51000};
  flow.local.bytes[0] = flow.remote.bytes[0] = 0xfd;
  flow.local.bytes[15] = 1;
  flow.remote.bytes[15] = 2;
  return flow;
}

Segment plain_segment() {
  Segment segment;
  segment.seq = Seq(0x01020304);
  segment.ack = Seq(0x05060708);
  segment.flags = kAck | kPsh;
  segment.window = 0x1234;
  return segment;
}

Bytes frame_of(const FlowKey& flow, const Segment& segment, std::string_view payload, const PathHeader& path = kPath) {
  Bytes frame(header_bytes(flow, segment) + payload.size());
  const auto head = write_headers(frame, path, flow, segment, static_cast<std::uint32_t>(payload.size()));
  EXPECT_EQ(head, header_bytes(flow, segment));
  if (!payload.empty()) std::memcpy(frame.data() + head, payload.data(), payload.size());
  fill_checksum(frame);
  return frame;
}

FlowKey seen_by_peer(const FlowKey& flow) { return {flow.remote, flow.local, flow.remote_port, flow.local_port}; }

ParseVerdict parse(const Bytes& frame, TcpPacket& out, ChecksumMode mode = ChecksumMode::kVerify) {
  static ByteView part;
  part = frame;
  return parse_frame(std::span(&part, 1), static_cast<std::uint32_t>(frame.size()), mode, out);
}

std::string text_of(const Payload& payload) {
  std::string out;
  payload.for_each([&](ByteView piece) { out.append(reinterpret_cast<const char*>(piece.data()), piece.size()); });
  return out;
}

void fill_checksum_of(Bytes& frame, std::size_t tcp_offset) {
  std::memset(frame.data() + tcp_offset + 16, 0, 2);
  fill_checksum(frame);
}

Bytes from_hex(std::string_view hex) {
  Bytes out;
  std::string digits;
  for (const char c : hex) {
    if (c != ' ') digits += c;
  }
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2) {
    out.push_back(static_cast<std::byte>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  }
  return out;
}

// Checksums of the expected bytes were computed by hand.
TEST(Build, ExactBytesOfAnIpv4Segment) {
  EXPECT_EQ(frame_of(v4_flow(), plain_segment(), "abc"),
            from_hex("020000000002 020000000001 0800 4500002b 00004000 400626cb 0a000001 0a000002"
                     "0050c738 01020304 05060708 50181234 ed930000 616263"));
}

TEST(Build, ExactHeadersOfAnIpv6SegmentWithTimestamps) {
  Segment segment = plain_segment();
  segment.ecn = Ecn::kEct0;
  segment.options.has_timestamps = true;
  segment.options.ts_val = 1;
  segment.options.ts_ecr = 2;
  PathHeader path = kPath;
  path.traffic_class = 0xb9;  // its ECN bits give way to the segment's
  path.flow_label = 0xabcde;
  path.ttl = 9;
  const Bytes frame = frame_of(v6_flow(), segment, "", path);
  const Bytes expected = from_hex(
      "020000000002 020000000001 86dd 6baabcde 0020 06 09 fd000000000000000000000000000001"
      "fd000000000000000000000000000002 0050c738 01020304 05060708 80181234");
  ASSERT_EQ(frame.size(), 86U);
  EXPECT_EQ(Bytes(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(expected.size())), expected);
  EXPECT_EQ(Bytes(frame.begin() + 74, frame.end()), from_hex("0101080a 00000001 00000002"));
}

Segment random_segment(Rng& rng) {
  Segment segment;
  segment.seq = Seq(static_cast<std::uint32_t>(rng.next()));
  segment.ack = Seq(static_cast<std::uint32_t>(rng.next()));
  segment.flags = static_cast<std::uint8_t>(rng.next());
  segment.window = static_cast<std::uint16_t>(rng.next());
  segment.urgent = static_cast<std::uint16_t>(rng.next());
  segment.ecn = static_cast<Ecn>(rng.below(4));
  segment.options.has_timestamps = rng.below(2) == 0;
  if (segment.options.has_timestamps) segment.options.ts_val = static_cast<std::uint32_t>(rng.next());
  segment.options.sack_count = static_cast<std::uint8_t>(rng.below(4));
  for (std::uint32_t i = 0; i < segment.options.sack_count; ++i) {
    segment.options.sack[i] = {Seq(i * 100), Seq(i * 100 + 50)};
  }
  return segment;
}

TEST(Build, HeadersWithTheSumOfThePayloadAreTheSame) {
  Rng rng(7);
  for (int i = 0; i < 2000; ++i) {
    const FlowKey flow = i % 2 == 0 ? v4_flow() : v6_flow();
    const Segment segment = random_segment(rng);
    std::string payload(rng.below(300), 'x');
    for (char& c : payload) c = static_cast<char>(rng.next());
    const Bytes expected = frame_of(flow, segment, payload);
    Bytes frame(expected.size());
    InternetSum sum;
    const HeaderShape shape = shape_of(flow, segment);
    EXPECT_EQ(shape.bytes(), header_bytes(flow, segment));
    copy_and_sum(std::span(frame).subspan(shape.bytes()), std::as_bytes(std::span(payload)), sum);
    write_headers(frame, kPath, flow, segment, shape, static_cast<std::uint32_t>(payload.size()), sum);
    ASSERT_EQ(frame, expected);
  }
}

void expect_same(const TcpPacket& a, const TcpPacket& b) {
  EXPECT_EQ(a.flow, b.flow);
  EXPECT_EQ(a.segment, b.segment);
  EXPECT_EQ(text_of(a.payload), text_of(b.payload));
  EXPECT_EQ(std::tuple(a.source_mac, a.destination_mac, a.vlan_tci, a.has_vlan, a.partial_checksum, a.ttl),
            std::tuple(b.source_mac, b.destination_mac, b.vlan_tci, b.has_vlan, b.partial_checksum, b.ttl));
  EXPECT_EQ(std::tuple(a.traffic_class, a.ip_offset, a.ip_header_bytes, a.tcp_offset, a.tcp_header_bytes, a.ip_bytes),
            std::tuple(b.traffic_class, b.ip_offset, b.ip_header_bytes, b.tcp_offset, b.tcp_header_bytes, b.ip_bytes));
}

// The short way that parse_frame() takes with plain frames says of each frame what the long one does, whatever byte of
// it is wrong, whatever stood in `out` before, and however much of it is there.
TEST(Parse, TheShortWayIsTheLongOne) {
  Rng rng(11);
  std::size_t parsed = 0;
  TcpPacket quick;
  for (int round = 0; round < 50'000; ++round) {
    Segment segment = random_segment(rng);
    segment.options = {};
    segment.options.has_timestamps = rng.below(8) != 0;
    segment.options.ts_val = static_cast<std::uint32_t>(rng.next());
    if (rng.below(8) == 0) segment.options.sack_count = 1;
    Bytes frame = frame_of(rng.below(8) == 0 ? v6_flow() : v4_flow(), segment, std::string(rng.below(100), 'x'));
    if (rng.below(4) == 0) frame.resize(frame.size() + rng.below(20));  // padding
    if (rng.below(8) == 0) frame.resize(rng.below(static_cast<std::uint32_t>(frame.size())));
    const bool spoilt = !frame.empty() && rng.below(2) == 0;
    if (spoilt) frame[rng.below(static_cast<std::uint32_t>(std::min<std::size_t>(frame.size(), 70)))] ^= std::byte{1};
    if (spoilt && frame.size() > 80 && rng.below(2) == 0) fill_checksum_of(frame, 34);
    const auto mode = rng.below(2) == 0 ? ChecksumMode::kVerify : ChecksumMode::kAcceptPartial;
    const ByteView part = frame;
    const auto length = static_cast<std::uint32_t>(frame.size());
    TcpPacket steps;
    const ParseVerdict verdict = parse_frame(std::span(&part, 1), length, mode, quick);
    ASSERT_EQ(verdict, parse_frame_in_steps(std::span(&part, 1), length, mode, steps)) << round;
    if (verdict != ParseVerdict::kOk) continue;
    expect_same(quick, steps);
    ASSERT_FALSE(HasFailure()) << round;
    ++parsed;
  }
  EXPECT_GT(parsed, 20'000U);
}

TEST(Parse, ReadsBackWhatBuildWrites) {
  Rng rng(1);
  for (int round = 0; round < 20'000; ++round) {
    const FlowKey flow = rng.below(2) == 0 ? v4_flow() : v6_flow();
    const Segment segment = random_segment(rng);
    const std::string payload(rng.below(2000), static_cast<char>('a' + rng.below(26)));
    Bytes frame = frame_of(flow, segment, payload);
    const std::size_t wire_bytes = frame.size();
    frame.resize(frame.size() + rng.below(3) * 7, std::byte{0xee});  // Ethernet padding
    TcpPacket packet;
    ASSERT_EQ(parse(frame, packet), ParseVerdict::kOk);
    ASSERT_EQ(packet.flow, seen_by_peer(flow));
    ASSERT_EQ(packet.segment, segment);
    ASSERT_EQ(text_of(packet.payload), payload);
    ASSERT_EQ(packet.ip_bytes, wire_bytes - kEthernetBytes);
    ASSERT_EQ(packet.source_mac, kPath.source_mac);
    ASSERT_EQ(packet.destination_mac, kPath.destination_mac);
    ASSERT_EQ(packet.ttl, 64);
  }
}

TEST(Build, AnotherAckKeepsTheChecksumRightAndAWrongOneWrong) {
  Rng rng(7);
  for (const FlowKey& flow : {v4_flow(), v6_flow()}) {
    for (int i = 0; i < 1000; ++i) {
      Bytes frame = frame_of(flow, plain_segment(), "payload");
      TcpPacket packet;
      ASSERT_EQ(parse(frame, packet), ParseVerdict::kOk);
      const Seq ack(i == 0 ? 0 : i == 1 ? 0xffffffffU : static_cast<std::uint32_t>(rng.next()));
      const auto window = static_cast<std::uint16_t>(rng.next());
      replace_ack(frame, packet, ack, window);
      ASSERT_EQ(parse(frame, packet), ParseVerdict::kOk) << ack.raw();
      EXPECT_EQ(packet.segment.ack, ack);
      EXPECT_EQ(packet.segment.window, window);
      EXPECT_EQ(text_of(packet.payload), "payload");
      frame.back() ^= std::byte{1};
      replace_ack(frame, packet, ack + 77, window);
      EXPECT_EQ(parse(frame, packet), ParseVerdict::kBadChecksum);
    }
  }
}

TEST(Build, AMarkedPacketIsWholeAndSaysSo) {
  for (const FlowKey& flow : {v4_flow(), v6_flow()}) {
    Bytes frame = frame_of(flow, plain_segment(), "x");
    const std::span<std::byte> ip = std::span(frame).subspan(kEthernetBytes);
    EXPECT_FALSE(is_ecn_capable(ip));
    wire::Segment capable = plain_segment();
    capable.ecn = Ecn::kEct0;
    frame = frame_of(flow, capable, "x");
    const std::span<std::byte> marked = std::span(frame).subspan(kEthernetBytes);
    ASSERT_TRUE(is_ecn_capable(marked));
    mark_congestion(marked);
    TcpPacket packet;
    ASSERT_EQ(parse(frame, packet), ParseVerdict::kOk);
    EXPECT_EQ(packet.segment.ecn, Ecn::kCe);
    if (!flow.is_v4()) continue;
    InternetSum header;
    header.add(marked.first(kIpv4Bytes));
    EXPECT_EQ(header.checksum(), 0) << "it covers the mark";
  }
}

TEST(Parse, SuperPacketInManyParts) {
  std::string payload;
  for (int i = 0; i < 64000; ++i) payload += static_cast<char>(i * 7);
  const Bytes frame = frame_of(v4_flow(), plain_segment(), payload);
  std::vector<ByteView> parts;
  for (std::size_t at = 0; at < frame.size();) {
    const std::size_t length = std::min<std::size_t>(at == 0 ? 1791 : 1793, frame.size() - at);
    parts.push_back(ByteView(frame).subspan(at, length));
    at += length;
  }
  TcpPacket packet;
  ASSERT_EQ(parse_frame(parts, static_cast<std::uint32_t>(frame.size()), ChecksumMode::kVerify, packet),
            ParseVerdict::kOk);
  EXPECT_EQ(text_of(packet.payload), payload);
}

TEST(Parse, IpPacketWithoutEthernetHeader) {
  const Bytes frame = frame_of(v6_flow(), plain_segment(), "late");
  const ByteView ip = ByteView(frame).subspan(kEthernetBytes);
  TcpPacket packet;
  ASSERT_EQ(parse_ip_packet(std::span(&ip, 1), static_cast<std::uint32_t>(ip.size()), ChecksumMode::kVerify, packet),
            ParseVerdict::kOk);
  EXPECT_EQ(text_of(packet.payload), "late");
  EXPECT_EQ(packet.ip_offset, 0);
  EXPECT_EQ(packet.tcp_offset, kIpv6Bytes);
}

TEST(Parse, OneVlanTag) {
  Bytes frame = frame_of(v4_flow(), plain_segment(), "x");
  const Bytes tag = from_hex("8100 2064");
  frame.insert(frame.begin() + 12, tag.begin(), tag.end());
  TcpPacket packet;
  ASSERT_EQ(parse(frame, packet), ParseVerdict::kOk);
  EXPECT_TRUE(packet.has_vlan);
  EXPECT_EQ(packet.vlan_tci, 0x2064);
  EXPECT_EQ(packet.ip_offset, 18);
  Bytes padded = frame;
  padded.resize(padded.size() + 10, std::byte{0x55});
  replace_ack(padded, packet, Seq(99), 5);
  ASSERT_EQ(parse(padded, packet), ParseVerdict::kOk);
  EXPECT_EQ(packet.segment.ack, Seq(99));
  frame.insert(frame.begin() + 12, tag.begin(), tag.end());
  EXPECT_EQ(parse(frame, packet), ParseVerdict::kNotIp);
}

// What Linux leaves in the field of a frame of a local peer.
void make_partial(Bytes& frame, const FlowKey& flow, std::size_t tcp_offset) {
  InternetSum sum;
  sum.add_pseudo_header(flow, static_cast<std::uint32_t>(frame.size() - tcp_offset));
  const std::uint16_t folded = sum.folded();
  std::memcpy(frame.data() + tcp_offset + 16, &folded, sizeof folded);
}

TEST(Parse, PartialChecksumOnlyWhereItIsAllowed) {
  for (const FlowKey& flow : {v4_flow(), v6_flow()}) {
    Bytes frame = frame_of(flow, plain_segment(), "some payload");
    make_partial(frame, flow, flow.is_v4() ? 34 : 54);
    TcpPacket packet;
    EXPECT_EQ(parse(frame, packet), ParseVerdict::kBadChecksum);
    EXPECT_EQ(parse(frame, packet, ChecksumMode::kAcceptPartial), ParseVerdict::kOk);
    EXPECT_TRUE(packet.partial_checksum);
    replace_ack(frame, packet, Seq(0xfedcba98U), 17);
    EXPECT_EQ(parse(frame, packet, ChecksumMode::kAcceptPartial), ParseVerdict::kOk);
    EXPECT_TRUE(packet.partial_checksum);
    EXPECT_EQ(packet.segment.ack, Seq(0xfedcba98U));
    fill_checksum_of(frame, flow.is_v4() ? 34 : 54);
    EXPECT_EQ(parse(frame, packet, ChecksumMode::kAcceptPartial), ParseVerdict::kOk);
    EXPECT_FALSE(packet.partial_checksum);
    frame.back() ^= std::byte{1};
    EXPECT_EQ(parse(frame, packet, ChecksumMode::kAcceptPartial), ParseVerdict::kBadChecksum);
  }
}

// An IPv4 frame with one thing changed and its header checksum made right again.
Bytes altered_v4(const std::function<void(Bytes&)>& change) {
  Bytes frame = frame_of(v4_flow(), plain_segment(), "payload");
  change(frame);
  std::memset(frame.data() + 24, 0, 2);
  InternetSum sum;
  sum.add(ByteView(frame).subspan(
      14, std::min<std::size_t>(static_cast<std::size_t>(frame[14]) % 16 * 4, frame.size() - 14)));
  const std::uint16_t checksum = sum.checksum();
  std::memcpy(frame.data() + 24, &checksum, sizeof checksum);
  return frame;
}

struct Malformed {
  const char* what;
  ParseVerdict verdict;
  std::function<void(Bytes&)> change;
};

TEST(Parse, MalformedIpv4) {
  const auto set = [](std::size_t at, int value) { return [=](Bytes& f) { f[at] = static_cast<std::byte>(value); }; };
  const std::vector<Malformed> corpus = {
      {"header length 4", ParseVerdict::kBadIpHeader, set(14, 0x44)},
      {"version 6 in an IPv4 frame", ParseVerdict::kBadIpHeader, set(14, 0x65)},
      {"version 0", ParseVerdict::kBadIpHeader, set(14, 0x05)},
      {"options", ParseVerdict::kIpOptions, set(14, 0x46)},
      {"total length beyond the frame", ParseVerdict::kTruncated, set(16, 0x10)},
      {"total length under the header", ParseVerdict::kBadIpHeader, set(17, 19)},
      {"no room for a TCP header", ParseVerdict::kBadTcpHeader, set(17, 39)},
      {"more fragments", ParseVerdict::kFragment, set(20, 0x20)},
      {"fragment offset", ParseVerdict::kFragment, set(21, 1)},
      {"UDP", ParseVerdict::kNotTcp, set(23, 17)},
      {"another address, checksum stale", ParseVerdict::kBadChecksum, set(33, 77)},
      {"data offset 4", ParseVerdict::kBadTcpHeader, set(46, 0x40)},
      {"data offset beyond the packet", ParseVerdict::kBadTcpHeader, set(46, 0xf0)},
      {"payload bit", ParseVerdict::kBadChecksum, set(54, 0)},
      {"ARP", ParseVerdict::kNotIp, set(13, 6)},
  };
  for (const Malformed& one : corpus) {
    TcpPacket packet;
    EXPECT_EQ(parse(altered_v4(one.change), packet), one.verdict) << one.what;
  }
  Bytes bad_checksum = frame_of(v4_flow(), plain_segment(), "payload");
  bad_checksum[24] ^= std::byte{1};
  TcpPacket packet;
  EXPECT_EQ(parse(bad_checksum, packet), ParseVerdict::kBadIpHeader);
}

TEST(Parse, MalformedIpv6) {
  const auto set = [](std::size_t at, int value) { return [=](Bytes& f) { f[at] = static_cast<std::byte>(value); }; };
  const std::vector<Malformed> corpus = {
      {"version 4 in an IPv6 frame", ParseVerdict::kBadIpHeader, set(14, 0x45)},
      {"payload length beyond the frame", ParseVerdict::kTruncated, set(18, 1)},
      {"payload length under a TCP header", ParseVerdict::kBadTcpHeader, set(19, 19)},
      {"hop-by-hop options", ParseVerdict::kIpOptions, set(20, 0)},
      {"routing header", ParseVerdict::kIpOptions, set(20, 43)},
      {"destination options", ParseVerdict::kIpOptions, set(20, 60)},
      {"fragment", ParseVerdict::kFragment, set(20, 44)},
      {"UDP", ParseVerdict::kNotTcp, set(20, 17)},
      {"no next header", ParseVerdict::kNotTcp, set(20, 59)},
      {"checksum", ParseVerdict::kBadChecksum, set(60, 0xff)},
      {"mapped source", ParseVerdict::kBadIpHeader,
       [](Bytes& f) {
         std::memset(f.data() + 22, 0, 10);
         std::memset(f.data() + 32, 0xff, 2);
       }},
  };
  for (const Malformed& one : corpus) {
    Bytes frame = frame_of(v6_flow(), plain_segment(), "payload");
    one.change(frame);
    TcpPacket packet;
    EXPECT_EQ(parse(frame, packet), one.verdict) << one.what;
  }
}

TEST(Parse, EveryTruncationIsRefused) {
  for (const FlowKey& flow : {v4_flow(), v6_flow()}) {
    const Bytes frame = frame_of(flow, plain_segment(), "payload");
    for (std::size_t length = 0; length < frame.size(); ++length) {
      TcpPacket packet;
      EXPECT_NE(parse(Bytes(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(length)), packet),
                ParseVerdict::kOk);
    }
  }
}

TEST(Parse, HeadersBeyondTheFirstPartAreTruncated) {
  const Bytes frame = frame_of(v6_flow(), plain_segment(), "payload");
  for (std::size_t cut = 0; cut < 74; ++cut) {
    const std::array<ByteView, 2> parts = {ByteView(frame).first(cut), ByteView(frame).subspan(cut)};
    TcpPacket packet;
    EXPECT_EQ(parse_frame(parts, static_cast<std::uint32_t>(frame.size()), ChecksumMode::kVerify, packet),
              ParseVerdict::kTruncated);
  }
}

TEST(Parse, PartsShorterThanTheLengthSaidAreTruncated) {
  const Bytes frame = frame_of(v4_flow(), plain_segment(), "payload");
  const ByteView part = ByteView(frame).first(60);
  TcpPacket packet;
  EXPECT_EQ(parse_frame(std::span(&part, 1), static_cast<std::uint32_t>(frame.size()), ChecksumMode::kVerify, packet),
            ParseVerdict::kTruncated);
  EXPECT_EQ(parse_frame({}, 0, ChecksumMode::kVerify, packet), ParseVerdict::kTruncated);
}

// Flips bits of good frames; ASan watches. What is still accepted must lie inside the frame.
TEST(Parse, MutationsAreSafe) {
  Rng rng(5);
  for (int round = 0; round < 200'000; ++round) {
    Bytes frame = frame_of(round % 2 == 0 ? v4_flow() : v6_flow(), plain_segment(), "some payload to read");
    for (std::uint32_t i = 0; i <= rng.below(4); ++i) {
      frame[rng.below(static_cast<std::uint32_t>(frame.size()))] = static_cast<std::byte>(rng.next());
    }
    frame.resize(rng.below(4) == 0 ? rng.below(static_cast<std::uint32_t>(frame.size())) : frame.size());
    TcpPacket packet;
    const ParseVerdict verdict = parse(frame, packet, ChecksumMode::kAcceptPartial);
    ASSERT_LT(static_cast<std::size_t>(verdict), kParseVerdicts);
    if (verdict != ParseVerdict::kOk) continue;
    ASSERT_LE(text_of(packet.payload).size(), frame.size());
    ASSERT_LE(packet.ip_offset + packet.ip_bytes, frame.size());
  }
}

TEST(Parse, VerdictsHaveNames) {
  for (std::size_t i = 0; i < kParseVerdicts; ++i) EXPECT_NE(name(static_cast<ParseVerdict>(i)), "unknown");
}

}  // namespace
}  // namespace twinstack::wire
