#include "nic/fault_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>

#include "nic/memory_link.h"
#include "nic/test_frames.h"

namespace twinstack::nic {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAreArray;

constexpr std::uint32_t kAlways = 1'000'000;

struct Bench {
  std::unique_ptr<FaultLink> faulty;
  std::unique_ptr<MemoryLink> peer;

  explicit Bench(const FaultOptions& options, std::uint64_t seed = 1) {
    auto wire = MemoryWire::make({.queue_frames = 1U << 20, .tx_frames = 4096});
    faulty = std::make_unique<FaultLink>(std::move(wire.a), options, seed);
    peer = std::move(wire.b);
  }
};

Bytes numbered(std::uint32_t number) {
  Bytes frame(60);
  std::memcpy(frame.data(), &number, sizeof number);
  return frame;
}

std::vector<Bytes> send_numbered(Link& link, std::uint32_t count) {
  std::vector<Bytes> sent;
  for (std::uint32_t i = 0; i < count; ++i) {
    sent.push_back(numbered(i));
    EXPECT_TRUE(commit(link, sent.back()));
    link.flush();
  }
  return sent;
}

TEST(FaultLink, WithoutFaultsNothingChanges) {
  Bench bench({});
  const auto sent = send_numbered(*bench.faulty, 100);
  EXPECT_THAT(receive_all(*bench.peer), ElementsAreArray(sent));
  const auto back = send_numbered(*bench.peer, 100);
  EXPECT_THAT(receive_all(*bench.faulty), ElementsAreArray(back));
  EXPECT_EQ(bench.faulty->next_event(), kNever);
}

TEST(FaultLink, DropsInTheDirectionAskedFor) {
  Bench bench({.rx = {}, .tx = {.drop_ppm = kAlways}});
  send_numbered(*bench.faulty, 10);
  EXPECT_THAT(receive_all(*bench.peer), IsEmpty());
  EXPECT_EQ(bench.faulty->tx_counts().dropped, 10U);
  const auto back = send_numbered(*bench.peer, 10);
  EXPECT_THAT(receive_all(*bench.faulty), ElementsAreArray(back));
  EXPECT_EQ(bench.faulty->rx_counts().dropped, 0U);
}

TEST(FaultLink, RatesAreProbabilities) {
  Bench bench({.rx = {.drop_ppm = 100'000}, .tx = {}});
  send_numbered(*bench.peer, 10'000);
  const std::size_t arrived = receive_all(*bench.faulty).size();
  EXPECT_NEAR(static_cast<double>(arrived), 9000, 150);  // five standard deviations
  EXPECT_EQ(arrived + bench.faulty->rx_counts().dropped, 10'000U);
}

TEST(FaultLink, SameSeedSameFaults) {
  const FaultOptions options{.rx = {},
                             .tx = {.drop_ppm = 50'000,
                                    .duplicate_ppm = 50'000,
                                    .corrupt_ppm = 50'000,
                                    .reorder_ppm = 50'000,
                                    .reorder_by = 1ms}};
  const auto run = [&](std::uint64_t seed) {
    Bench bench(options, seed);
    send_numbered(*bench.faulty, 1000);
    bench.faulty->advance(at(1s));
    return receive_all(*bench.peer);
  };
  EXPECT_EQ(run(7), run(7));
  EXPECT_NE(run(7), run(8));
}

TEST(FaultLink, Duplicates) {
  Bench bench({.rx = {.duplicate_ppm = kAlways}, .tx = {}});
  send_numbered(*bench.peer, 2);
  EXPECT_THAT(receive_all(*bench.faulty), ElementsAre(numbered(0), numbered(0), numbered(1), numbered(1)));
}

TEST(FaultLink, CorruptsOneBit) {
  Bench bench({.rx = {.corrupt_ppm = kAlways}, .tx = {}});
  send_numbered(*bench.peer, 20);
  const auto received = receive_all(*bench.faulty);
  ASSERT_EQ(received.size(), 20U);
  for (std::uint32_t i = 0; i < 20; ++i) {
    const Bytes expected = numbered(i);
    ASSERT_EQ(received[i].size(), expected.size());
    int different_bits = 0;
    for (std::size_t j = 0; j < expected.size(); ++j) {
      different_bits += std::popcount(std::to_integer<unsigned>(received[i][j] ^ expected[j]));
    }
    EXPECT_EQ(different_bits, 1);
  }
}

TEST(FaultLink, DelayKeepsTheOrder) {
  Bench bench({.rx = {}, .tx = {.delay_ppm = 500'000, .delay_max = 10ms}});
  const auto sent = send_numbered(*bench.faulty, 50);
  std::vector<Bytes> received = receive_all(*bench.peer);
  EXPECT_LT(received.size(), 50U);
  while (bench.faulty->next_event() != kNever) {
    ASSERT_LE(bench.faulty->next_event(), at(10ms));
    bench.faulty->advance(bench.faulty->next_event());
    for (Bytes& frame : receive_all(*bench.peer)) received.push_back(std::move(frame));
  }
  EXPECT_THAT(received, ElementsAreArray(sent));
}

TEST(FaultLink, ReorderedFramesAreOvertaken) {
  Bench bench({.rx = {.reorder_ppm = 200'000, .reorder_by = 3ms}, .tx = {}});
  const auto sent = send_numbered(*bench.peer, 50);
  auto received = receive_all(*bench.faulty);
  const std::uint64_t held = bench.faulty->rx_counts().reordered;
  EXPECT_GT(held, 0U);
  EXPECT_EQ(received.size(), 50U - held);
  EXPECT_EQ(bench.faulty->next_event(), at(3ms));
  bench.faulty->advance(at(3ms));
  for (Bytes& frame : receive_all(*bench.faulty)) received.push_back(std::move(frame));
  EXPECT_NE(received, sent);
  EXPECT_THAT(received, UnorderedElementsAreArray(sent));
}

TEST(FaultLink, HeldFramesComeAfterFaultsStop) {
  Bench bench({.rx = {.reorder_ppm = kAlways, .reorder_by = 3ms}, .tx = {}});
  send_numbered(*bench.peer, 1);
  EXPECT_THAT(receive_all(*bench.faulty), IsEmpty());
  bench.faulty->set_options({});
  bench.faulty->advance(at(3ms));
  EXPECT_THAT(receive_all(*bench.faulty), ElementsAre(numbered(0)));
}

TEST(FaultLink, FramesWithoutRoomWaitForTheNextFlush) {
  auto wire = MemoryWire::make({.tx_frames = 1});
  FaultLink faulty(std::move(wire.a), {.rx = {}, .tx = {.duplicate_ppm = kAlways}}, 1);
  ASSERT_TRUE(commit(faulty, numbered(0)));  // two frames, room for one
  faulty.flush();
  EXPECT_THAT(receive_all(*wire.b), ElementsAre(numbered(0), numbered(0)));
}

}  // namespace
}  // namespace twinstack::nic
