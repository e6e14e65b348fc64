#include "nic/memory_link.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "wire/build.h"

namespace twinstack::nic {
namespace {

constexpr std::uint32_t kMinPartBytes = 128;

Duration time_on_wire(std::size_t bytes, std::uint64_t bits_per_second) {
  if (bits_per_second == 0) return Duration(0);
  return Duration(static_cast<std::int64_t>(bytes * 8 * 1'000'000'000 / bits_per_second));
}

}  // namespace

MemoryWire MemoryWire::make(const MemoryWireOptions& options) {
  ASSERT(options.part_bytes == 0 || options.part_bytes >= kMinPartBytes);
  auto shared = std::make_shared<MemoryLink::Shared>();
  shared->options = options;
  return {std::unique_ptr<MemoryLink>(new MemoryLink(shared, true)),
          std::unique_ptr<MemoryLink>(new MemoryLink(shared, false))};
}

MemoryLink::MemoryLink(std::shared_ptr<Shared> shared, bool is_a) : shared_(std::move(shared)), is_a_(is_a) {
  const MemoryWireOptions& options = shared_->options;
  info_.mac = is_a ? options.mac_a : options.mac_b;
  info_.mtu_bytes = options.mtu_bytes;
  info_.checksum = options.checksum;
}

std::span<const RxFrame> MemoryLink::receive(std::size_t max_frames) {
  ASSERT(received_.empty());
  Path& path = incoming();
  while (received_.size() < max_frames && !path.frames.empty() && path.frames.front().arrives <= shared_->now) {
    received_.push_back(std::move(path.frames.front().bytes));
    path.frames.pop_front();
  }
  // Views only after all parts are known to stay where they are.
  std::size_t parts = 0;
  const std::size_t part_bytes = shared_->options.part_bytes;
  for (const Buffer& frame : received_) parts += part_bytes == 0 ? 1 : frame.size() / part_bytes + 1;
  parts_.reserve(parts);
  for (const Buffer& frame : received_) view(frame);
  return frames_;
}

void MemoryLink::view(const Buffer& frame) {
  const std::size_t first = parts_.size();
  const std::size_t step = shared_->options.part_bytes == 0 ? frame.size() : shared_->options.part_bytes;
  for (std::size_t at = 0; at < frame.size(); at += step) {
    parts_.push_back(ByteView(frame).subspan(at, std::min(step, frame.size() - at)));
  }
  frames_.push_back({std::span(parts_).subspan(first), static_cast<std::uint32_t>(frame.size())});
  ++stats_.rx_frames;
  stats_.rx_bytes += frame.size();
}

void MemoryLink::release() {
  for (Buffer& frame : received_) shared_->spare.push_back(std::move(frame));
  received_.clear();
  parts_.clear();
  frames_.clear();
}

MemoryLink::Buffer MemoryLink::take_buffer() {
  Buffer buffer;
  if (!shared_->spare.empty()) {
    buffer = std::move(shared_->spare.back());
    shared_->spare.pop_back();
  }
  buffer.resize(shared_->options.mtu_bytes + wire::kEthernetBytes);
  return buffer;
}

std::span<std::byte> MemoryLink::allocate_tx() {
  if (committed_.size() >= shared_->options.tx_frames) return {};
  if (allocated_.empty()) allocated_ = take_buffer();
  return allocated_;
}

void MemoryLink::commit_tx(std::uint32_t length_bytes) {
  ASSERT(length_bytes > 0 && length_bytes <= allocated_.size());
  allocated_.resize(length_bytes);
  committed_.push_back(std::exchange(allocated_, {}));
}

std::size_t MemoryLink::tx_room() { return shared_->options.tx_frames - committed_.size(); }

void MemoryLink::flush() {
  for (Buffer& frame : committed_) send(std::move(frame));
  committed_.clear();
}

void MemoryLink::send(Buffer frame) {
  Path& path = outgoing();
  ++stats_.tx_frames;
  stats_.tx_bytes += frame.size();
  if (queue_is_full(path)) {
    ++stats_.tx_dropped;
    shared_->spare.push_back(std::move(frame));
    return;
  }
  const MemoryWireOptions& options = shared_->options;
  path.free_at = std::max(path.free_at, shared_->now) + time_on_wire(frame.size(), options.bandwidth_bits_per_second);
  path.frames.push_back({path.free_at, path.free_at + options.delay, std::move(frame)});
}

// What is on its way waits nowhere: only frames not yet sent, and frames not yet fetched, fill a queue.
bool MemoryLink::queue_is_full(const Path& path) const {
  const Time now = shared_->now;
  const auto& frames = path.frames;
  const auto first_unsent = std::ranges::partition_point(frames, [&](const InFlight& f) { return f.sent <= now; });
  const auto first_on_way = std::ranges::partition_point(frames, [&](const InFlight& f) { return f.arrives <= now; });
  const auto limit = static_cast<std::ptrdiff_t>(shared_->options.queue_frames);
  return frames.end() - first_unsent >= limit || first_on_way - frames.begin() >= limit;
}

Time MemoryLink::next_event() const {
  const auto& frames = incoming().frames;
  const auto next = std::ranges::partition_point(frames, [&](const InFlight& f) { return f.arrives <= shared_->now; });
  return next == frames.end() ? kNever : next->arrives;
}

void MemoryLink::advance(Time now) { shared_->now = std::max(shared_->now, now); }

std::size_t MemoryLink::waiting() const {
  const auto& frames = incoming().frames;
  const auto next = std::ranges::partition_point(frames, [&](const InFlight& f) { return f.arrives <= shared_->now; });
  return static_cast<std::size_t>(next - frames.begin());
}

}  // namespace twinstack::nic
