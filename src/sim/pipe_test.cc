#include "sim/pipe.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace twinstack::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Time kStart = Time(seconds(5));

Frame numbered(unsigned number, std::size_t bytes = 1000) {
  Frame frame(bytes);
  frame[0] = static_cast<std::byte>(number & 0xff);
  frame[1] = static_cast<std::byte>(number >> 8);
  return frame;
}

// Of TCP over IPv4, as far as a device looks.
Frame segment_of(std::size_t ip_bytes) {
  Frame frame(14 + ip_bytes);
  frame[12] = std::byte{0x08};
  frame[14] = std::byte{0x45};
  frame[23] = std::byte{6};
  return frame;
}

unsigned number_of(const Frame& frame) {
  return std::to_integer<unsigned>(frame[0]) | std::to_integer<unsigned>(frame[1]) << 8;
}

class PipeTest : public testing::Test {
 protected:
  void suffer(EventKind kind, std::uint32_t amount, Duration span = seconds(1000)) {
    Event event;
    event.kind = kind;
    event.amount = amount;
    event.span = span;
    event.seed = 7;
    pipe.begin(event, kStart);
  }
  void send(unsigned count, Duration apart = Duration(0), std::size_t bytes = 1000) {
    for (unsigned i = 0; i < count; ++i) pipe.send(numbered(i, bytes), kStart + apart * i);
  }
  std::vector<unsigned> arrived(Time when = kStart + seconds(2000)) {
    std::vector<unsigned> numbers;
    Frame frame;
    while (pipe.receive(when, frame)) numbers.push_back(number_of(frame));
    return numbers;
  }

  FramePool pool;
  Pipe pipe{{.delay = microseconds(100), .bits_per_second = 8'000'000, .queue_frames = 10}, pool, 1};
};

TEST_F(PipeTest, TakesDelayAndTimeOnTheWire) {
  pipe.send(numbered(1), kStart);
  pipe.send(numbered(2), kStart);
  EXPECT_EQ(pipe.next_arrival(), kStart + milliseconds(1) + microseconds(100));
  EXPECT_TRUE(arrived(kStart + milliseconds(1)).empty());
  EXPECT_EQ(arrived(kStart + microseconds(1100)), std::vector<unsigned>{1});
  EXPECT_EQ(arrived(kStart + microseconds(2100)), std::vector<unsigned>{2});
  EXPECT_EQ(pipe.next_arrival(), kNever);
}

TEST_F(PipeTest, DropsAtTheTailOfItsQueue) {
  send(30);
  EXPECT_EQ(arrived().size(), 10U);
  EXPECT_EQ(pipe.counters().queue_drops, 20U);
}

TEST_F(PipeTest, LosesAboutAsManyAsItIsTold) {
  suffer(EventKind::kLoss, 200'000);
  send(1000, milliseconds(1));
  EXPECT_NEAR(static_cast<double>(arrived().size()), 800, 50);
}

TEST_F(PipeTest, LosesInBursts) {
  suffer(EventKind::kBurst, 20'000);
  send(2000, milliseconds(1));
  const auto numbers = arrived();
  std::size_t gaps = 0;
  for (std::size_t i = 1; i < numbers.size(); ++i) gaps += numbers[i] != numbers[i - 1] + 1 ? 1 : 0;
  const std::size_t lost = 2000 - numbers.size();
  EXPECT_GT(lost, 80U);
  EXPECT_LT(gaps * 3, lost * 2) << "they come one by one";
}

TEST_F(PipeTest, SendsACopy) {
  suffer(EventKind::kDuplicate, 1'000'000);
  send(5, milliseconds(2));
  EXPECT_EQ(arrived().size(), 10U);
}

TEST_F(PipeTest, JitterKeepsTheOrderAndReorderingDoesNot) {
  suffer(EventKind::kJitter, 5000);
  send(500, microseconds(1000));
  auto numbers = arrived();
  ASSERT_EQ(numbers.size(), 500U);
  EXPECT_TRUE(std::ranges::is_sorted(numbers));
  pipe.end_faults();
  suffer(EventKind::kReorder, 300'000);
  for (unsigned i = 0; i < 500; ++i) pipe.send(numbered(i), kStart + seconds(10) + microseconds(1000) * i);
  numbers = arrived();
  ASSERT_EQ(numbers.size(), 500U);
  EXPECT_FALSE(std::ranges::is_sorted(numbers));
}

TEST_F(PipeTest, TurnsOneBitAndNeverInTheEthernetHeader) {
  suffer(EventKind::kCorrupt, 1'000'000);
  suffer(EventKind::kCorrupt, 1'000'000);
  for (int i = 0; i < 100; ++i) {
    const Frame sent(80, std::byte{0});
    pipe.send(sent, kStart + milliseconds(2) * i);
    Frame got;
    ASSERT_TRUE(pipe.receive(kStart + milliseconds(2) * (i + 1), got));
    unsigned turned = 0;
    for (std::size_t at = 0; at < got.size(); ++at) {
      const int bits = std::popcount(std::to_integer<unsigned>(got[at]));
      if (at < 14) {
        EXPECT_EQ(bits, 0);
      }
      turned += static_cast<unsigned>(bits);
    }
    EXPECT_EQ(turned, 1U);
  }
}

TEST_F(PipeTest, SwallowsWhatIsTooLarge) {
  suffer(EventKind::kBlackHole, 500);
  pipe.send(numbered(1, 514), kStart);
  pipe.send(numbered(2, 515), kStart);
  EXPECT_EQ(arrived(), std::vector<unsigned>{1});
}

TEST_F(PipeTest, RefusesWhatIsTooLargeAndMostlyTells) {
  suffer(EventKind::kTooBig, 600);
  suffer(EventKind::kTooBig, 900);
  std::vector<Refusal> told;
  pipe.on_too_big = [&](const Frame& frame, const Refusal& how) {
    EXPECT_GT(frame.size(), 614U);
    told.push_back(how);
  };
  for (int i = 0; i < 400; ++i) pipe.send(segment_of(1000), kStart + milliseconds(2) * i);
  pipe.send(segment_of(600), kStart + seconds(1));
  EXPECT_EQ(arrived().size(), 1U);
  EXPECT_NEAR(static_cast<double>(told.size()), 300, 40) << "some answers are lost";
  const auto is_late = [](const Refusal& how) { return how.later > Duration::zero(); };
  EXPECT_NEAR(static_cast<double>(std::ranges::count_if(told, is_late)), 75, 30);
  EXPECT_NEAR(static_cast<double>(std::ranges::count(told, false, &Refusal::tells)), 37, 20);
  EXPECT_TRUE(std::ranges::all_of(told, [](const Refusal& how) { return how.mtu_bytes == 600; })) << "the smaller one";
}

TEST_F(PipeTest, NoRouterAnswersWhatIsLostOrDamagedBefore) {
  suffer(EventKind::kTooBig, 600);
  suffer(EventKind::kCorrupt, 1'000'000);
  pipe.on_too_big = [](const Frame&, const Refusal&) { FAIL(); };
  for (int i = 0; i < 50; ++i) pipe.send(segment_of(1000), kStart);
  suffer(EventKind::kLinkDown, 0);
  for (int i = 0; i < 50; ++i) pipe.send(segment_of(1000), kStart);
}

TEST_F(PipeTest, AFaultEndsByItself) {
  suffer(EventKind::kLinkDown, 0, milliseconds(3));
  send(6, milliseconds(1));
  EXPECT_EQ(arrived(), (std::vector<unsigned>{3, 4, 5}));
  EXPECT_FALSE(pipe.suffers(EventKind::kLinkDown, kStart + milliseconds(3)));
}

TEST(PipeMarks, CongestionIsMarkedWhereTheSenderCan) {
  FramePool pool;
  Pipe pipe({.delay = Duration(0), .bits_per_second = 8'000'000, .queue_frames = 10, .mark_frames = 1}, pool, 1);
  Frame capable(60, std::byte{0});
  capable[12] = std::byte{0x08};
  capable[14] = std::byte{0x45};
  capable[15] = std::byte{0x02};
  pipe.send(capable, kStart);
  pipe.send(capable, kStart);
  Frame got;
  ASSERT_TRUE(pipe.receive(kStart + seconds(1), got));
  EXPECT_EQ(got[15], std::byte{0x02});
  ASSERT_TRUE(pipe.receive(kStart + seconds(1), got));
  EXPECT_EQ(got[15], std::byte{0x03});
  EXPECT_EQ(pipe.counters().marked, 1U);
}

}  // namespace
}  // namespace twinstack::sim
