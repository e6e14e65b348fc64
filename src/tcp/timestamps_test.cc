// Which of the peer's timestamps is echoed (RFC 7323 4.3).
#include "tcp/timestamps.h"

#include <gtest/gtest.h>

#include "tcp/receive.h"
#include "tcp/test_support.h"

namespace twinstack::tcp::test {
namespace {

// As Linux tcp_ack(): the stamp of an ACK that others have overtaken is not echoed; its data is taken all the same.
TEST(Timestamps, AnOldAckDoesNotChangeWhatIsEchoed) {
  MinTcp state = idle_state();
  state.options = kOptTimestamps;
  state.ts_recent = 1000;
  TestEnd end(state, at_ms(0));
  end.write(100, at_ms(0));
  end.poll(at_ms(0));
  const auto get = [&](std::uint32_t offset, std::uint32_t acked, std::uint32_t ts_val, std::string_view text) {
    wire::Segment segment = from_peer(kPeerSeq + offset, kOurSeq + acked);
    segment.options.has_timestamps = true;
    segment.options.ts_val = ts_val;
    return end.receive(segment, text, at_ms(1));
  };
  EXPECT_EQ(get(0, 100, 1010, ""), Arrival::kAccepted);
  EXPECT_EQ(end.cb.ts_recent, 1010U);
  EXPECT_EQ(get(0, 0, 2000, "overtaken"), Arrival::kAccepted);
  EXPECT_EQ(end.received, 9U);
  EXPECT_EQ(end.cb.ts_recent, 1010U);
  acknowledge_now(end.cb);
  const SegmentPlan ack = end.poll_one(at_ms(1));
  EXPECT_EQ(ack.segment.ack, Seq(kPeerSeq + 9));
  EXPECT_EQ(ack.segment.options.ts_ecr, 1010U);
  EXPECT_EQ(get(9, 100, 2000, "newer"), Arrival::kAccepted);
  EXPECT_EQ(end.cb.ts_recent, 2000U);
}

}  // namespace
}  // namespace twinstack::tcp::test
