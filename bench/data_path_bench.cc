// Micro-benchmarks: the checksum, alone and with the copy, and a submission ring from push to pop. One thread, warm
// cache: the cost of the instructions, not of the memory.
#include <benchmark/benchmark.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "ipc/ring.h"
#include "wire/checksum.h"

namespace twinstack {
namespace {

std::vector<std::byte> random_bytes(std::size_t size) {
  Rng rng(size);
  std::vector<std::byte> bytes(size);
  for (std::byte& b : bytes) b = static_cast<std::byte>(rng.below(256));
  return bytes;
}

void checksum(benchmark::State& state) {
  const auto bytes = random_bytes(static_cast<std::size_t>(state.range(0)));
  for ([[maybe_unused]] auto unused : state) {
    wire::InternetSum sum;
    sum.add(ByteView(bytes));
    benchmark::DoNotOptimize(sum.checksum());
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(checksum)->Arg(20)->Arg(64)->Arg(1448)->Arg(65536);

void copy_with_checksum(benchmark::State& state) {
  const auto from = random_bytes(static_cast<std::size_t>(state.range(0)));
  std::vector<std::byte> to(from.size());
  for ([[maybe_unused]] auto unused : state) {
    wire::InternetSum sum;
    wire::copy_and_sum(to, from, sum);
    benchmark::DoNotOptimize(sum.checksum());
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(copy_with_checksum)->Arg(64)->Arg(1448)->Arg(65536);

// A batch of entries pushed, published, popped and released: both ends in turn.
void submission_ring(benchmark::State& state) {
  constexpr std::uint32_t kEntries = 1024;
  const auto header = std::make_unique<ipc::RingHeader>();
  std::vector<ipc::SubmitEntry> entries(kEntries);
  ipc::SubmitProducer producer(header->sq_tail, header->sq_head, header->sq_need_wakeup, entries.data(), kEntries);
  ipc::SubmitConsumer consumer(header->sq_tail, header->sq_head, header->sq_need_wakeup, entries.data(), kEntries);
  ipc::SubmitEntry entry{};
  for ([[maybe_unused]] auto unused : state) {
    for (std::int64_t i = 0; i < state.range(0); ++i) producer.push(entry);
    producer.publish();
    benchmark::DoNotOptimize(producer.take_wakeup());
    while (consumer.pop(entry) == ipc::SubmitConsumer::Pop::kEntry) benchmark::DoNotOptimize(entry);
    consumer.release();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(submission_ring)->Arg(1)->Arg(32);

}  // namespace
}  // namespace twinstack
