// Which segments carry PSH.
#include "tcp/burst.h"

#include <gtest/gtest.h>

#include "tcp/sender_fixture.h"

namespace twinstack::tcp::test {
namespace {

std::string pushes(const std::vector<SegmentPlan>& plans) {
  std::string out;
  for (const auto& plan : plans) out += plan.segment.has(wire::kPsh) ? 'P' : '.';
  return out;
}

struct Writer {
  explicit Writer(std::uint32_t rtt_us) : end(state(rtt_us), at_ms(0)) { end.poll(at_ms(0)); }
  static MinTcp state(std::uint32_t rtt_us) {
    MinTcp out = Sender::state(kOptSack);
    out.srtt_us = out.min_rtt_us = rtt_us;
    return out;
  }
  std::string send(std::uint32_t bytes, bool more = false) {
    end.write(bytes, at_ms(1), more);
    return pushes(end.poll(at_ms(1)));
  }
  TestEnd end;
};

TEST(Push, TheEndOfAWrite) {
  Writer w(10'000);
  EXPECT_EQ(w.send(100), "P");
}

TEST(Push, ALongRoundTripMakesBurstsOfTwo) {
  Writer w(10'000);
  EXPECT_EQ(w.send(8 * kMss), ".P.P.P.P");
}

TEST(Push, AShortOneLetsHalfTheWindowLeaveAsOne) {
  Writer w(100);
  EXPECT_EQ(w.send(10 * kMss), "....P....P") << "half of cwnd at a time (as Linux tcp_cwnd_test())";
}

TEST(Push, NotAfterAWriteThatMoreFollows) {
  Writer w(10'000);
  EXPECT_EQ(w.send(kMss, true), ".");
  EXPECT_EQ(w.send(100), "P");
}

TEST(Push, NotUnderTheCork) {
  Writer w(10'000);
  set_flags(w.end.cb, kFlagCork, at_ms(0));
  EXPECT_EQ(w.send(kMss + 10), ".");
  set_flags(w.end.cb, 0, at_ms(1));
  EXPECT_EQ(pushes(w.end.poll(at_ms(1))), "P");
}

TEST(Push, OfWhatTheCorkHeldBack) {
  Writer w(10'000);
  set_flags(w.end.cb, kFlagCork, at_ms(0));
  EXPECT_EQ(w.send(10), "");
  EXPECT_EQ(pushes(w.end.poll(w.end.fire(at_ms(1)))), "P") << "its limit has come";
}

// A program may end a record with each byte, while the peer's window is shut.
TEST(Records, TakeBoundedMemory) {
  Sender f(kOptSack, 10, 10);
  for (int i = 0; i < 5000; ++i) {
    f.end.write(1, at_ms(1));
    end_record(f.end.cb);
  }
  EXPECT_LE(f.end.cb.flight->record_ends.size(), 1024U);
}

TEST(Push, OfARetransmissionAsLongAsItsBurstIsWhole) {
  Sender f(kOptSack, 10, 10);
  const auto first = f.ack(0, {{2, 10}});  // segments 0 and 1 are lost
  ASSERT_EQ(f.what(first), (Sent{-1000, -1}));
  EXPECT_EQ(pushes(first), ".P");
}

TEST(Push, NotOfWhatIsLeftOfABurst) {
  Sender f(kOptSack, 10, 10);
  f.ack(1);
  const auto again = f.ack(1, {{2, 10}}, at_ms(20));
  ASSERT_EQ(f.what(again), Sent{-1});
  EXPECT_EQ(pushes(again), ".");
}

}  // namespace
}  // namespace twinstack::tcp::test
