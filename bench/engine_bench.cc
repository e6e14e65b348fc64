// What the engine costs without a device: request and response of 64 bytes, served by one lane over a link in memory,
// as a function of the number of connections; and the memory of an idle connection. Only the server's side is timed:
// frames in, rings to the program and back, frames out. One thread.
//
//   engine_bench                         Google Benchmark: ns of CPU time a pair, medians of several repetitions
//   engine_bench --pairs N BATCHES [alone]
//                                        serves BATCHES batches on N connections and prints how many pairs that were;
//                                        bench/engine_instructions runs it under callgrind and counts serve_batch()
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "engine_bench_peers.h"

namespace twinstack::engine::bench {
namespace {

using namespace test;

constexpr std::uint32_t kBatchesPerClock = 16;  // served between two readings of the clock
constexpr Duration kBetweenBatches = std::chrono::microseconds(25);

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

// A program without a stream of its own: each answer is the same 64 bytes of a chunk, each request goes back at once.
class LeanProgram {
 public:
  explicit LeanProgram(const ipc::Arena& arena)
      : submit_(arena.ring(0).sq_tail, arena.ring(0).sq_head, arena.ring(0).sq_need_wakeup, arena.sq(0),
                arena.geometry().sq_entries),
        complete_(arena.ring(0).cq_tail, arena.ring(0).cq_head, arena.ring(0).cq_need_wakeup, arena.cq(0),
                  arena.geometry().cq_entries) {}

  // Takes what was received, returns and answers it. The number of requests.
  std::uint32_t answer() {
    ipc::CompleteEntry entry;
    std::uint32_t requests = 0;
    while (complete_.pop(entry) == ipc::CompleteConsumer::Pop::kEntry) {
      if (entry.op != ipc::CompleteOp::kReceived) continue;
      ++requests;
      submit_.push(Program::return_entry(entry.hw_conn_id, entry.chunk, entry.length));
      const std::uint32_t place = entry.slot / 64 % 256 * kMessageBytes;
      submit_.push(Program::send_entry(entry.hw_conn_id, entry.slot % 64, place, kMessageBytes));
    }
    complete_.release();
    submit_.publish();
    return requests;
  }

 private:
  ipc::SubmitProducer submit_;
  ipc::CompleteConsumer complete_;
};

// Bytes that the heap of this process has given out.
std::int64_t heap_in_use() {
  const auto info = ::mallinfo2();
  return static_cast<std::int64_t>(info.uordblks + info.hblkhd);
}

class Server {
 public:
  Server(std::uint32_t connections, Acks acks)
      : memory_(arena_for(connections)),
        box_(make_peers(connections, acks), now_, {connections, 262144}),
        program_(memory_.arena()) {
    set_hop(box_);
    box_.lane.open_session(kSession, memory_.arena());
    const std::int64_t heap_before = heap_in_use();
    for (std::uint32_t i = 0; i < connections; ++i) connect(i);
    // Each connection once, so that none is at its beginning (RFC 5681 and delayed ACKs: the first answers differ).
    const std::uint32_t rounds = connections / (peers_->batch() * kBatchesPerClock) + 2;
    for (std::uint32_t i = 0; i < rounds; ++i) {
      write_requests();
      for (std::uint32_t k = 0; k < kBatchesPerClock; ++k) serve();
      peers_->check_answers();
    }
    come_to_rest();
    heap_grown_bytes_ = heap_in_use() - heap_before;
  }

  struct Ran {
    std::uint64_t pairs;
    std::int64_t cpu_ns;
  };
  // Some batches; only the server's side of them is timed.
  Ran run() {
    write_requests();
    std::uint64_t served = 0;
    const std::int64_t begin = cpu_ns();
    for (std::uint32_t i = 0; i < kBatchesPerClock; ++i) served += serve_batch();
    const std::int64_t end = cpu_ns();
    peers_->check_answers();
    return {served, end - begin};
  }
  LaneBox& box() { return box_; }
  Peers& peers() { return *peers_; }
  [[nodiscard]] Time now() const { return now_; }
  // By which the heap grew when the connections were made and had each answered a request.
  [[nodiscard]] std::int64_t heap_grown_bytes() const { return heap_grown_bytes_; }

 private:
  std::unique_ptr<Peers> make_peers(std::uint32_t connections, Acks acks) {
    auto peers = std::make_unique<Peers>(connections, acks);
    peers_ = peers.get();
    return peers;
  }

  void connect(std::uint32_t i) {
    const Moved moved{.min = peers_->state_of(i, now_), .send_queue = {}, .unread = {}, .frames = {}};
    ProgramConn conn{.slot = i, .in_flight = {}, .unread = {}};
    ASSERT(install(box_, memory_, conn, moved) == Status::kOk);
    if (i % 64 == 0) settle();
  }
  // The first ACK of each.
  void settle() {
    while (box_.lane.poll(now_)) {
    }
    peers_->forget_sent();
  }

  // Everything is acknowledged, and no timer is due any more.
  void come_to_rest() {
    while (peers_->acknowledge_more(now_)) {
      serve();
      peers_->forget_sent();
    }
    peers_->forget_sent();
    now_ += std::chrono::seconds(1);
    while (box_.lane.poll(now_)) {
    }
  }

  void write_requests() {
    for (std::uint32_t i = 0; i < kBatchesPerClock; ++i) peers_->ask(now_ + i * kBetweenBatches);
  }

  // A function of its own, with nothing of the warming-up, so that callgrind can tell it from the rest.
  [[gnu::noinline]] std::uint32_t serve_batch() { return serve(); }
  std::uint32_t serve() {
    now_ += kBetweenBatches;
    peers_->arrive();
    do box_.lane.poll(now_);
    while (peers_->has_frames());
    const std::uint32_t answered = program_.answer();
    box_.lane.poll(now_);
    return answered;
  }

  Time now_ = kStart;
  std::int64_t heap_grown_bytes_ = 0;
  Peers* peers_ = nullptr;  // the lane's link
  Program memory_;
  LaneBox box_;
  LeanProgram program_;
};

// Kept from one repetition to the next: a million connections take their time to be made.
Server& server_with(std::uint32_t connections, Acks acks) {
  static std::unique_ptr<Server> kept;
  static std::pair<std::uint32_t, Acks> kept_for;
  if (kept == nullptr || kept_for != std::pair{connections, acks}) {
    kept.reset();
    kept = std::make_unique<Server>(connections, acks);
    kept_for = {connections, acks};
  }
  return *kept;
}

void request_response(benchmark::State& state, Acks acks) {
  Server& server = server_with(static_cast<std::uint32_t>(state.range(0)), acks);
  const std::int64_t clock_cost = clock_cost_ns();
  std::uint64_t pairs = 0;
  for ([[maybe_unused]] auto _ : state) {
    const Server::Ran ran = server.run();
    pairs += ran.pairs;
    state.SetIterationTime(static_cast<double>(std::max<std::int64_t>(ran.cpu_ns - clock_cost, 1)) / 1e9);
  }
  state.counters["pair"] =
      benchmark::Counter(static_cast<double>(pairs), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

// The peer's ACK of a response comes with its next request.
void BM_RequestResponse(benchmark::State& state) { request_response(state, Acks::kWithNextRequest); }
// It comes by itself, one frame more a pair: peers that ask seldom, as each of a million must.
void BM_RequestResponseAck(benchmark::State& state) { request_response(state, Acks::kAlone); }

void repeat(benchmark::internal::Benchmark* b) {
  b->UseManualTime()->Repetitions(9)->ReportAggregatesOnly();
  b->ComputeStatistics("min", [](const std::vector<double>& v) { return *std::ranges::min_element(v); });
}
BENCHMARK(BM_RequestResponse)->Arg(1)->Arg(100)->Arg(10'000)->Apply(repeat);
BENCHMARK(BM_RequestResponseAck)->Arg(1)->Arg(100)->Arg(10'000)->Arg(1'000'000)->Apply(repeat);

// Bytes of the lane's own heap that grow with the size of its tables.
double table_heap_per_connection(std::uint32_t connections) {
  const auto heap_of = [](std::uint32_t count) {
    const std::int64_t before = heap_in_use();
    const LaneBox box(std::make_unique<Peers>(1, Acks::kAlone), kStart, {count, 1024});
    return static_cast<double>(heap_in_use() - before) - static_cast<double>(LaneRegion::bytes_needed({count, 1024}));
  };
  return (heap_of(2 * connections) - heap_of(connections)) / connections;
}

// An idle connection owns no piece and no chunk: what it has are its places in the tables, and of the heap next to
// nothing. The program's slot of its arena is not the engine's and is told apart.
void BM_MemoryOfAnIdleConnection(benchmark::State& state) {
  const auto connections = static_cast<std::uint32_t>(state.range(0));
  const auto each = [=](auto bytes) { return static_cast<double>(bytes) / connections; };
  const std::size_t tables = LaneRegion::bytes_needed({connections, 1024}) - LaneRegion::bytes_needed({1, 1024});
  const double flow_table = each(FlowTable::cells_for(connections) * sizeof(FlowTable::Cell));
  constexpr double kFixed = sizeof(HwConn) + sizeof(HwConnRecord) + sizeof(HwConnKept);
  for ([[maybe_unused]] auto _ : state) {
    const double table_heap = table_heap_per_connection(connections);  // first: the heap is in order
    const double heap = table_heap + each(server_with(connections, Acks::kAlone).heap_grown_bytes());
    state.counters["conn"] = sizeof(HwConn);
    state.counters["control_block"] = sizeof(tcp::ControlBlock);
    state.counters["record"] = sizeof(HwConnRecord);
    state.counters["kept"] = sizeof(HwConnKept);
    state.counters["flow_table"] = flow_table;
    state.counters["waiting"] = each(tables) - kFixed - flow_table;
    state.counters["heap"] = heap;
    state.counters["all"] = each(tables) + heap;
    state.counters["slot_of_program"] = sizeof(ipc::ConnSlot);
  }
}
BENCHMARK(BM_MemoryOfAnIdleConnection)->Arg(10'000)->Arg(1'000'000)->Iterations(1);

// A command of the driver: hold, extract and activate again.
void BM_HoldExtractActivate(benchmark::State& state) {
  Server& server = server_with(16, Acks::kWithNextRequest);
  LaneBox& box = server.box();
  const HwConnId id(0, 3, 1);
  for ([[maybe_unused]] auto _ : state) {
    ASSERT(box.call({.op = CommandOp::kHold, .id = id}).status == Status::kOk);
    ASSERT(box.call({.op = CommandOp::kExtract, .id = id}).status == Status::kOk);
    ASSERT(box.call({.op = CommandOp::kActivate, .id = id}).status == Status::kOk);
    server.peers().forget_sent();
  }
}
BENCHMARK(BM_HoldExtractActivate);

// A poll that finds nothing.
void BM_EmptyPoll(benchmark::State& state) {
  Server& server = server_with(static_cast<std::uint32_t>(state.range(0)), Acks::kWithNextRequest);
  for ([[maybe_unused]] auto _ : state) benchmark::DoNotOptimize(server.box().lane.poll(server.now()));
}
BENCHMARK(BM_EmptyPoll)->Arg(10'000);

int count_pairs(std::uint32_t connections, std::uint32_t batches, Acks acks) {
  Server server(connections, acks);
  std::uint64_t pairs = 0;
  for (std::uint32_t i = 0; i < batches; i += kBatchesPerClock) pairs += server.run().pairs;
  std::printf("pairs %llu\n", static_cast<unsigned long long>(pairs));
  return 0;
}

}  // namespace
}  // namespace twinstack::engine::bench

int main(int argc, char** argv) {
  using namespace twinstack::engine::bench;
  if (argc >= 4 && std::string_view(argv[1]) == "--pairs") {
    const bool alone = argc > 4 && std::string_view(argv[4]) == "alone";
    const auto number = [](const char* text) { return static_cast<std::uint32_t>(std::strtoul(text, nullptr, 10)); };
    if (number(argv[2]) == 0 || number(argv[3]) == 0) {
      std::fputs("usage: engine_bench --pairs CONNECTIONS BATCHES [alone]\n", stderr);
      return 2;
    }
    return count_pairs(number(argv[2]), number(argv[3]), alone ? Acks::kAlone : Acks::kWithNextRequest);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
