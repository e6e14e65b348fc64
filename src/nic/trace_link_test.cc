#include "nic/trace_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nic/memory_link.h"
#include "nic/test_frames.h"

namespace twinstack::nic {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;

TEST(TraceLink, OneLinePerFrame) {
  auto wire = MemoryWire::make();
  std::vector<std::string> lines;
  TraceLink link(std::move(wire.a), [&](std::string_view line) { lines.emplace_back(line); });
  wire::Segment segment;
  segment.seq = Seq(17);
  segment.ack = Seq(4242);
  segment.window = 501;
  segment.flags = wire::kAck | wire::kPsh;
  link.advance(Time(1234567ns));
  ASSERT_TRUE(commit(link, tcp_frame(test_flow(), segment, bytes_of("hello"))));
  link.flush();
  EXPECT_EQ(receive_all(*wire.b).size(), 1U);
  link.advance(Time(2s));
  ASSERT_TRUE(commit(*wire.b, tcp_frame(test_flow(true), segment, {})));
  ASSERT_TRUE(commit(*wire.b, Bytes(60)));
  wire.b->flush();
  EXPECT_EQ(receive_all(link).size(), 2U);
  EXPECT_THAT(lines, ElementsAre("0.001234567 tx 59 10.0.0.1:80 > 10.0.0.2:51000 PA seq 17 ack 4242 win 501 len 5",
                                 "2.000000000 rx 74 [fd77::1]:80 > [fd77::2]:51000 PA seq 17 ack 4242 win 501 len 0",
                                 "2.000000000 rx 60 not TCP over IP (" +
                                     std::string(wire::name(wire::ParseVerdict::kNotIp)) + ")"));
}

}  // namespace
}  // namespace twinstack::nic
