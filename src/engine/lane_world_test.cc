// Two lanes and their programs joined by a wire, in virtual time from one seed: echo, large transfers over a bad wire,
// and connections that are taken out of the engine and put back thousands of times while data flows both ways.
#include <gtest/gtest.h>

#include "engine/test_support.h"
#include "nic/fault_link.h"

namespace twinstack::engine {
namespace {

using namespace test;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

// Both programs write until `total` bytes each way, read what comes, and are watched.
struct Pair {
  explicit Pair(std::uint32_t chunk_bytes = 4096) : at_a(arena(chunk_bytes), 1), at_b(arena(chunk_bytes), 2) {}
  static ipc::ArenaConfig arena(std::uint32_t chunk_bytes) {
    ipc::ArenaConfig config = small_arena();
    config.chunk_bytes = chunk_bytes;
    return config;
  }

  Program at_a;
  Program at_b;
};

void open(World& world, Pair& pair) {
  world.a->lane.open_session(1, pair.at_a.arena());
  world.b->lane.open_session(2, pair.at_b.arena());
}

void expect_all_memory_is_back(World& world, Pair& pair) {
  EXPECT_EQ(world.a->lane.free_chunks(1), 256U);
  EXPECT_EQ(world.b->lane.free_chunks(2), 256U);
  EXPECT_EQ(world.a->lane.free_pieces(), 4096U);
  EXPECT_EQ(world.b->lane.free_pieces(), 4096U);
  EXPECT_EQ(pair.at_a.free_tx_chunks(), 128U);
  EXPECT_EQ(pair.at_b.free_tx_chunks(), 128U);
  EXPECT_EQ(pair.at_a.wrong_pieces + pair.at_b.wrong_pieces, 0U);
  EXPECT_EQ(pair.at_a.bad_completions + pair.at_b.bad_completions, 0U);
}

// One step of a program that sends `total` and reads everything, in pieces of changing size.
void step(Program& program, std::uint64_t total, Rng& rng) {
  program.pump();
  for (auto& [slot, conn] : program.conns) {
    if (conn.hw == 0) continue;
    if (conn.written < total) {
      const auto left = static_cast<std::uint32_t>(std::min<std::uint64_t>(total - conn.written, 40'000));
      program.write(conn, 1 + rng.below(left), 1 + rng.below(9000));
    }
    program.read(conn, 1 + rng.below(60'000));
  }
}

bool all_done(const Pair& pair, std::uint64_t total) {
  const auto done = [total](const Program& program) {
    return std::all_of(program.conns.begin(), program.conns.end(), [total](const auto& entry) {
      return entry.second.received == total && entry.second.in_flight.empty() && entry.second.written == total;
    });
  };
  return done(pair.at_a) && done(pair.at_b);
}

TEST(LaneWorld, EchoOverManyConnectionsOfBothFamilies) {
  World world({.delay = microseconds(50)});
  Pair pair;
  open(world, pair);
  constexpr std::uint32_t kConnections = 32;
  for (std::uint32_t i = 0; i < kConnections; ++i) world.connect(pair.at_a, pair.at_b, i, i % 2 == 1);
  // b sends back what it got; the keys are then the same in both directions.
  for (auto& [slot, conn] : pair.at_b.conns) conn.send_key = conn.receive_key;
  for (auto& [slot, conn] : pair.at_a.conns) conn.receive_key = conn.send_key;
  constexpr std::uint64_t kRounds = 100;
  const bool done = world.run(
      seconds(10),
      [&] {
        return std::all_of(pair.at_a.conns.begin(), pair.at_a.conns.end(),
                           [](const auto& entry) { return entry.second.received == kRounds * 64; });
      },
      [&] {
        pair.at_a.pump();
        pair.at_b.pump();
        for (auto& [slot, conn] : pair.at_a.conns) {
          pair.at_a.read(conn);
          if (conn.received == conn.written && conn.written < kRounds * 64) pair.at_a.write(conn, 64);
        }
        for (auto& [slot, conn] : pair.at_b.conns)
          if (const auto got = pair.at_b.read(conn); got > 0) pair.at_b.write(conn, static_cast<std::uint32_t>(got));
      });
  EXPECT_TRUE(done);
  world.run(
      seconds(1), [] { return false; },
      [&] {
        pair.at_a.pump();
        pair.at_b.pump();
      });
  expect_all_memory_is_back(world, pair);
  for (const auto& [slot, conn] : pair.at_a.conns)
    EXPECT_EQ(world.a->record(HwConnId(conn.hw)).counters.segs_retransmitted, 0U);
}

struct Faults {
  const char* name;
  nic::FaultRates rates;
};

class LaneFaults : public testing::TestWithParam<std::tuple<Faults, int>> {};

TEST_P(LaneFaults, LargeTransfersBothWaysArriveWhole) {
  const auto& [faults, seed] = GetParam();
  std::uint64_t link_seed = static_cast<std::uint64_t>(seed) * 2;
  World world({.delay = microseconds(300), .bandwidth_bits_per_second = 400'000'000, .queue_frames = 256},
              [&](std::unique_ptr<nic::Link> inner) {
                return std::make_unique<nic::FaultLink>(std::move(inner),
                                                        nic::FaultOptions{.rx = {}, .tx = faults.rates}, ++link_seed);
              });
  Pair pair;
  open(world, pair);
  for (std::uint32_t i = 0; i < 3; ++i) world.connect(pair.at_a, pair.at_b, i, i == 1);
  Rng rng(static_cast<std::uint64_t>(seed));
  constexpr std::uint64_t kTotal = 600'000;
  const bool done = world.run(
      seconds(600), [&] { return all_done(pair, kTotal); },
      [&] {
        step(pair.at_a, kTotal, rng);
        step(pair.at_b, kTotal, rng);
      });
  EXPECT_TRUE(done) << "no progress, seed " << seed;
  world.run(milliseconds(20), [] { return false; });
  expect_all_memory_is_back(world, pair);
  EXPECT_TRUE(world.a->events().empty());
  EXPECT_TRUE(world.b->events().empty());
}

INSTANTIATE_TEST_SUITE_P(
    Wires, LaneFaults,
    testing::Combine(testing::Values(Faults{"clean", {}}, Faults{"loss", {.drop_ppm = 20'000}},
                                     Faults{"duplication", {.duplicate_ppm = 100'000}},
                                     Faults{"reordering", {.reorder_ppm = 50'000, .reorder_by = milliseconds(1)}},
                                     Faults{"corruption", {.corrupt_ppm = 20'000}},
                                     Faults{"everything",
                                            {.drop_ppm = 10'000,
                                             .duplicate_ppm = 10'000,
                                             .corrupt_ppm = 10'000,
                                             .delay_ppm = 10'000,
                                             .delay_max = milliseconds(3),
                                             .reorder_ppm = 10'000,
                                             .reorder_by = milliseconds(2)}}),
                     testing::Range(1, 3)),
    [](const auto& tested) {
      return std::string(std::get<0>(tested.param).name) + "_" + std::to_string(std::get<1>(tested.param));
    });

class LaneMoves : public testing::TestWithParam<std::tuple<Faults, int>> {};

// Engine -> MinTcp and queues -> engine, again and again in the middle of the transfers; sometimes the return of a held
// connection is called off instead. Packets that come meanwhile are held and go along.
TEST_P(LaneMoves, RoundTripsInTheMiddleOfTransfersLoseNothing) {
  const auto& [faults, seed] = GetParam();
  std::uint64_t link_seed = static_cast<std::uint64_t>(seed) * 7;
  World world({.delay = microseconds(200), .bandwidth_bits_per_second = 200'000'000},
              [&](std::unique_ptr<nic::Link> inner) {
                return std::make_unique<nic::FaultLink>(std::move(inner),
                                                        nic::FaultOptions{.rx = {}, .tx = faults.rates}, ++link_seed);
              });
  Pair pair(16384);  // a whole send queue fits into the chunks of one command
  open(world, pair);
  for (std::uint32_t i = 0; i < 2; ++i) world.connect(pair.at_a, pair.at_b, i);
  Rng rng(static_cast<std::uint64_t>(seed));
  constexpr std::uint64_t kTotal = 1'500'000;
  std::uint64_t moves = 0;
  const auto move_one = [&](LaneBox& box, Program& program) {
    ProgramConn& conn = program.conns[rng.below(2)];
    // As the driver: a connection with a long send queue stays where it is.
    const auto& tcb = box.conn(HwConnId(conn.hw)).tcb;
    if (tcb.write_seq - tcb.snd_una > 500'000) return;
    if (rng.below(8) == 0) {
      // A return that is undone.
      ASSERT_EQ(box.call({.op = CommandOp::kHold, .id = HwConnId(conn.hw)}).status, Status::kOk);
      if (rng.below(2) == 0) {
        ASSERT_EQ(box.call({.op = CommandOp::kExtract, .id = HwConnId(conn.hw)}).status, Status::kOk);
      }
      ASSERT_EQ(box.call({.op = CommandOp::kActivate, .id = HwConnId(conn.hw)}).status, Status::kOk);
      return;
    }
    Moved moved = extract(box, program, conn);
    const Status status = install(box, program, conn, moved);
    ASSERT_EQ(status, Status::kOk) << to_string(status);
    ++moves;
  };
  std::uint32_t calls = 0;
  const bool done = world.run(
      seconds(600), [&] { return all_done(pair, kTotal); },
      [&] {
        step(pair.at_a, kTotal, rng);
        step(pair.at_b, kTotal, rng);
        if (++calls % 2 == 0) move_one(calls % 4 == 0 ? *world.a : *world.b, calls % 4 == 0 ? pair.at_a : pair.at_b);
      });
  EXPECT_TRUE(done) << "no progress, seed " << seed;
  EXPECT_GT(moves, 300U);
  world.run(milliseconds(20), [] { return false; });
  expect_all_memory_is_back(world, pair);
  EXPECT_TRUE(world.a->events().empty());
  EXPECT_TRUE(world.b->events().empty());
  EXPECT_TRUE(world.a->lane.take_stray().empty());
  EXPECT_EQ(world.a->lane.counters().held_dropped + world.b->lane.counters().held_dropped, 0U);
  if (std::string_view(faults.name) == "clean") {
    for (auto* box : {world.a.get(), world.b.get()})
      for (const auto& [slot, conn] : (box == world.a.get() ? pair.at_a : pair.at_b).conns)
        EXPECT_EQ(box->record(HwConnId(conn.hw)).counters.timeouts, 0U);
  }
}

INSTANTIATE_TEST_SUITE_P(Wires, LaneMoves,
                         testing::Combine(testing::Values(Faults{"clean", {}}, Faults{"loss", {.drop_ppm = 5'000}},
                                                          Faults{"reordering",
                                                                 {.duplicate_ppm = 5'000,
                                                                  .reorder_ppm = 20'000,
                                                                  .reorder_by = milliseconds(1)}}),
                                          testing::Range(1, 6)),
                         [](const auto& tested) {
                           return std::string(std::get<0>(tested.param).name) + "_" +
                                  std::to_string(std::get<1>(tested.param));
                         });

// An idle connection that moves thousands of times keeps its sequence numbers, and its peer hears no more than ACKs.
TEST(LaneWorld, AnIdleConnectionMovesThousandsOfTimesUnchanged) {
  World world;
  Pair pair;
  open(world, pair);
  world.connect(pair.at_a, pair.at_b, 1);
  ProgramConn& conn = pair.at_a.conns[1];
  world.run(milliseconds(10), [] { return false; });
  const tcp::MinTcp before = world.a->call({.op = CommandOp::kQuery, .id = HwConnId(conn.hw)}).state.min;
  std::uint64_t last = conn.hw;
  for (int i = 0; i < 5000; ++i) {
    const Moved moved = extract(*world.a, pair.at_a, conn);
    ASSERT_TRUE(moved.frames.empty());
    ASSERT_EQ(install(*world.a, pair.at_a, conn, moved), Status::kOk);
    ASSERT_NE(conn.hw, last) << "an id is never used twice";
    last = conn.hw;
    world.now += microseconds(100);
    world.b->lane.poll(world.now);
    world.a->lane.poll(world.now);
  }
  const tcp::MinTcp after = world.a->call({.op = CommandOp::kQuery, .id = HwConnId(conn.hw)}).state.min;
  EXPECT_EQ(before.snd_nxt, after.snd_nxt);
  EXPECT_EQ(before.rcv_nxt, after.rcv_nxt);
  EXPECT_EQ(before.cwnd_segments, after.cwnd_segments);
  EXPECT_EQ(before.ssthresh_segments, after.ssthresh_segments);
  EXPECT_EQ(before.mss, after.mss);
  EXPECT_EQ(before.rcv_wnd, after.rcv_wnd);
  expect_all_memory_is_back(world, pair);
}

}  // namespace
}  // namespace twinstack::engine
