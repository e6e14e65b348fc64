// icmp.h: round trips through builder and parser, a message of Linux byte for byte, and messages that lie.
#include "wire/icmp.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "wire/build.h"

namespace twinstack::wire {
namespace {

using Bytes = std::vector<std::byte>;

FlowKey flow_of(bool v4) {
  FlowKey flow{IpAddress::from_v4({10, 0, 0, 1}), IpAddress::from_v4({10, 0, 0, 2}), 80, 51000};
  if (v4) return flow;
  flow.local = flow.remote = {};
  flow.local.bytes[0] = flow.remote.bytes[0] = 0xfd;
  flow.remote.bytes[15] = 2;
  return flow;
}

IpAddress router(bool v4) {
  if (v4) return IpAddress::from_v4({192, 0, 2, 9});
  IpAddress out;
  out.bytes[0] = 0xfd;
  out.bytes[15] = 9;
  return out;
}

Bytes offending(bool v4, std::size_t payload = 1000) {
  Segment segment;
  segment.seq = Seq(0x01020304);
  segment.flags = kAck;
  Bytes packet(ip_packet_header_bytes(flow_of(v4), segment) + payload);
  write_ip_headers(packet, {}, flow_of(v4), segment, static_cast<std::uint32_t>(payload));
  fill_ip_checksum(packet);
  return packet;
}

Bytes message(bool v4, IcmpKind kind = IcmpKind::kUnreachable, std::uint8_t code = 1, std::uint32_t mtu = 0) {
  return make_icmp_error({.flow = {}, .seq = {}, .mtu = mtu, .kind = kind, .code = code}, router(v4), offending(v4));
}

TEST(Icmp, WhatIsBuiltIsRead) {
  for (const bool v4 : {true, false}) {
    for (const IcmpKind kind :
         {IcmpKind::kUnreachable, IcmpKind::kTooBig, IcmpKind::kTimeExceeded, IcmpKind::kParameterProblem}) {
      const auto error = parse_icmp_error(message(v4, kind, 1, 1300));
      ASSERT_TRUE(error.has_value());
      EXPECT_EQ(error->kind, kind);
      EXPECT_EQ(error->flow, flow_of(v4));
      EXPECT_EQ(error->seq, Seq(0x01020304));
      EXPECT_EQ(error->mtu, kind == IcmpKind::kTooBig ? 1300U : 0U);
    }
  }
}

TEST(Icmp, AShortQuotationSuffices) {
  const Bytes packet = offending(true);
  const auto error =
      parse_icmp_error(make_icmp_error({}, router(true), ByteView(packet).first(28)));  // header and eight bytes
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error->seq, Seq(0x01020304));
  EXPECT_FALSE(parse_icmp_error(make_icmp_error({}, router(true), ByteView(packet).first(27))).has_value());
}

TEST(Icmp, ADamagedMessageIsNone) {
  for (const bool v4 : {true, false}) {
    const Bytes good = message(v4);
    for (std::size_t at = 0; at < good.size(); ++at) {
      Bytes bad = good;
      bad[at] ^= std::byte{0x10};
      if (!v4 && at < 8 && at != 0 && at != 6) continue;  // not covered: flow label, length, hop limit
      EXPECT_FALSE(parse_icmp_error(bad).has_value()) << v4 << ' ' << at;
    }
  }
}

TEST(Icmp, OneThatIsNotForTheQuotedSenderIsNone) {
  Bytes lie = message(false);
  lie[39] = std::byte{7};  // destination; the checksum made right again below
  const std::uint16_t before = 0;
  std::memcpy(lie.data() + 42, &before, 2);
  InternetSum sum;
  sum.add(ByteView(lie).subspan(8, 32));
  sum.add_field(static_cast<std::uint16_t>(lie.size() - 40));
  sum.add_field(58);
  sum.add(ByteView(lie).subspan(40));
  const std::uint16_t checksum = sum.checksum();
  std::memcpy(lie.data() + 42, &checksum, 2);
  EXPECT_FALSE(parse_icmp_error(lie).has_value());
}

TEST(Icmp, CutAnywhereItIsNone) {
  for (const bool v4 : {true, false}) {
    const Bytes good = message(v4);
    for (std::size_t length = 0; length < good.size(); ++length) {
      const Bytes cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length));  // exact, for the sanitizers
      EXPECT_FALSE(parse_icmp_error(cut).has_value());
    }
  }
}

TEST(Icmp, RandomBytesDoNoHarm) {
  Rng rng(7);
  for (int round = 0; round < 20000; ++round) {
    Bytes packet = message(rng.below(2) == 0);
    const std::uint32_t changes = rng.below(6);
    for (std::uint32_t i = 0; i < changes; ++i) {
      packet[rng.below(static_cast<std::uint32_t>(packet.size()))] = static_cast<std::byte>(rng.next());
    }
    packet.resize(rng.below(static_cast<std::uint32_t>(packet.size()) + 1));
    (void)parse_icmp_error(packet);
  }
}

}  // namespace
}  // namespace twinstack::wire
