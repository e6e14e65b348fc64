// What the engine costs without a device: request and response of 64 bytes, served by one lane over the memory link, as
// a function of the number of connections. Only the server's side is timed: frames in, rings to the program and back,
// frames out. The other end is a lane too, outside the clock. Also prints the memory of an idle connection.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <memory>
#include <vector>

#include "base/assert.h"
#include "engine/test_support.h"

namespace twinstack::engine {
namespace {

using namespace test;

constexpr std::uint32_t kBatch = 32;  // requests that arrive together
constexpr std::uint32_t kRequestBytes = 64;

ipc::ArenaConfig arena_for(std::uint32_t connections) {
  return {.slot_count = connections,
          .rings_per_lane = 1,
          .lane_count = 1,
          .sq_entries = 16384,
          .cq_entries = 16384,
          .tx_chunk_count = 64,
          .rx_chunk_count = 512,
          .chunk_bytes = 16384};
}

// CPU time of this thread: other work on the machine does not count.
std::int64_t cpu_ns() {
  timespec ts{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
  return std::int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec;
}

// What reading that clock costs itself, to be taken off.
std::int64_t clock_cost_ns() {
  constexpr int kReads = 10'000;
  const std::int64_t begin = cpu_ns();
  for (int i = 0; i < kReads; ++i) benchmark::DoNotOptimize(cpu_ns());
  return (cpu_ns() - begin) / kReads;
}

// A program without a stream of its own: each message is the same 64 bytes of a chunk, each piece goes back at once.
class LeanProgram {
 public:
  explicit LeanProgram(const Program& program)
      : arena_(&program.arena()),
        submit_(ring().sq_tail, ring().sq_head, ring().sq_need_wakeup, arena_->sq(0), arena_->geometry().sq_entries),
        complete_(ring().cq_tail, ring().cq_head, ring().cq_need_wakeup, arena_->cq(0), arena_->geometry().cq_entries) {
  }

  void send(std::uint64_t hw, std::uint32_t slot) {
    submit_.push(Program::send_entry(hw, slot % 64, slot / 64 % 256 * kRequestBytes, kRequestBytes));
  }
  void publish() { submit_.publish(); }
  // Takes what was received, returns it, and answers when `answering`. The number of messages.
  std::uint32_t take_all(bool answering) {
    ipc::CompleteEntry entry;
    std::uint32_t messages = 0;
    while (complete_.pop(entry) == ipc::CompleteConsumer::Pop::kEntry) {
      if (entry.op != ipc::CompleteOp::kReceived) continue;
      ++messages;
      submit_.push(Program::return_entry(entry.hw_conn_id, entry.chunk, entry.length));
      if (answering) send(entry.hw_conn_id, entry.slot);
    }
    complete_.release();
    submit_.publish();
    return messages;
  }

 private:
  [[nodiscard]] ipc::RingHeader& ring() const { return arena_->ring(0); }

  const ipc::Arena* arena_;
  ipc::SubmitProducer submit_;
  ipc::CompleteConsumer complete_;
};

struct Pair {
  explicit Pair(std::uint32_t connections)
      : world({.queue_frames = 4096, .tx_frames = 4096}, {}, {connections, 65536}),
        client_memory(arena_for(connections), 1),
        server_memory(arena_for(connections), 2) {
    world.a->lane.open_session(1, client_memory.arena());
    world.b->lane.open_session(2, server_memory.arena());
    for (std::uint32_t i = 0; i < connections; ++i) connect(i);
    client = std::make_unique<LeanProgram>(client_memory);
    server = std::make_unique<LeanProgram>(server_memory);
    settle();
  }

  void connect(std::uint32_t i) {
    const FlowKey flow = flow_number(i);
    ProgramConn& at_client = client_memory.open(i);
    ProgramConn& at_server = server_memory.open(i);
    const Moved here{.min = idle_state(flow, i, i * 3), .send_queue = {}, .unread = {}, .frames = {}};
    const Moved there{.min = idle_state(reversed(flow), i * 3, i), .send_queue = {}, .unread = {}, .frames = {}};
    ASSERT(install(*world.a, client_memory, at_client, here) == Status::kOk);
    ASSERT(install(*world.b, server_memory, at_server, there) == Status::kOk);
    ids.push_back(at_client.hw);
    if (i % 256 == 0) settle();
  }

  void settle() {
    for (int i = 0; i < 8; ++i) {
      world.now += std::chrono::milliseconds(50);
      while (world.a->lane.poll(world.now) || world.b->lane.poll(world.now)) {
      }
    }
  }

  World world;
  Program client_memory;
  Program server_memory;
  std::vector<std::uint64_t> ids;
  std::unique_ptr<LeanProgram> client;
  std::unique_ptr<LeanProgram> server;
};

void BM_RequestResponse(benchmark::State& state) {
  const auto connections = static_cast<std::uint32_t>(state.range(0));
  Pair pair(connections);
  const std::int64_t clock_cost = clock_cost_ns();
  const std::uint32_t batch = std::min(connections, kBatch);
  std::uint32_t next = 0;
  std::uint64_t pairs = 0;
  for ([[maybe_unused]] auto _ : state) {
    pair.world.now += std::chrono::microseconds(20);
    for (std::uint32_t i = 0; i < batch; ++i, next = (next + 1) % connections) pair.client->send(pair.ids[next], next);
    pair.client->publish();
    pair.world.a->lane.poll(pair.world.now);

    const std::int64_t begin = cpu_ns();
    pair.world.b->lane.poll(pair.world.now);
    const std::uint32_t served = pair.server->take_all(true);
    pair.world.b->lane.poll(pair.world.now);
    state.SetIterationTime(static_cast<double>(std::max<std::int64_t>(cpu_ns() - begin - clock_cost, 1)) / 1e9);

    ASSERT(served == batch);
    pairs += served;
    pair.world.a->lane.poll(pair.world.now);
    ASSERT(pair.client->take_all(false) == batch);
    pair.world.a->lane.poll(pair.world.now);
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(pairs));
  state.counters["pair"] =
      benchmark::Counter(static_cast<double>(pairs), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_RequestResponse)->Arg(1)->Arg(100)->Arg(10000)->UseManualTime();

// Of the lane's region: tables only, since an idle connection owns no piece and no chunk.
void BM_MemoryOfAnIdleConnection(benchmark::State& state) {
  constexpr std::uint32_t kConnections = 1U << 16;
  const std::size_t with = LaneRegion::bytes_needed({2 * kConnections, 1024});
  const std::size_t without = LaneRegion::bytes_needed({kConnections, 1024});
  constexpr double kFlowTableBytes = 2.0 * 8;
  constexpr double kFreeListBytes = 4;
  for ([[maybe_unused]] auto _ : state) benchmark::DoNotOptimize(with);
  state.counters["hot_bytes"] = sizeof(HwConn);
  state.counters["all_bytes"] = static_cast<double>(with - without) / kConnections + kFlowTableBytes + kFreeListBytes;
}
BENCHMARK(BM_MemoryOfAnIdleConnection)->Iterations(1);

// A command of the driver: hold, extract and activate again.
void BM_HoldExtractActivate(benchmark::State& state) {
  Pair pair(16);
  const HwConnId id(pair.ids[3]);
  for ([[maybe_unused]] auto _ : state) {
    ASSERT(pair.world.a->call({.op = CommandOp::kHold, .id = id}).status == Status::kOk);
    ASSERT(pair.world.a->call({.op = CommandOp::kExtract, .id = id}).status == Status::kOk);
    ASSERT(pair.world.a->call({.op = CommandOp::kActivate, .id = id}).status == Status::kOk);
    state.PauseTiming();
    pair.world.b->lane.poll(pair.world.now);
    state.ResumeTiming();
  }
}
BENCHMARK(BM_HoldExtractActivate);

// A poll that finds nothing.
void BM_EmptyPoll(benchmark::State& state) {
  Pair pair(static_cast<std::uint32_t>(state.range(0)));
  for ([[maybe_unused]] auto _ : state) benchmark::DoNotOptimize(pair.world.a->lane.poll(pair.world.now));
}
BENCHMARK(BM_EmptyPoll)->Arg(10000);

}  // namespace
}  // namespace twinstack::engine
