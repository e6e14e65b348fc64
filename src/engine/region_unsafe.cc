// The casts of the lane's memory stand here and nowhere else.
#include <algorithm>
#include <memory>
#include <new>

#include "base/assert.h"
#include "engine/region.h"

namespace twinstack::engine {
namespace {

// Moves go one after another; but many peers may close at once, and each FIN waits for its connection's return.
std::uint32_t waiting_entries(const LaneCapacity& capacity) noexcept {
  const std::uint32_t some = std::max(capacity.connections / 4, std::min(capacity.connections, 1024U));
  return std::min(some, std::uint32_t{kNoWaiting} - 1);
}

// Cuts arrays off a run of bytes, each on a 64-byte boundary; with a null base it only counts.
class Cutter {
 public:
  explicit Cutter(std::byte* base) noexcept : base_(base) {}

  template <typename T>
  std::span<T> cut(std::size_t count) noexcept {
    const std::size_t at = used_;
    used_ = (used_ + count * sizeof(T) + 63) / 64 * 64;
    if (base_ == nullptr) return {};
    T* first = reinterpret_cast<T*>(base_ + at);
    std::uninitialized_default_construct_n(first, count);
    return {first, count};
  }
  [[nodiscard]] std::size_t used() const noexcept { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

}  // namespace

std::size_t LaneRegion::bytes_needed(const LaneCapacity& capacity) noexcept {
  Cutter cutter(nullptr);
  cutter.cut<HwConn>(capacity.connections);
  cutter.cut<HwConnRecord>(capacity.connections);
  cutter.cut<HwConnKept>(capacity.connections);
  cutter.cut<FlowTable::Cell>(FlowTable::cells_for(capacity.connections));
  cutter.cut<Waiting>(waiting_entries(capacity));
  cutter.cut<Piece>(capacity.pieces);
  cutter.cut<Control>(1);
  cutter.cut<Command>(kCommandEntries);
  cutter.cut<Reply>(kCommandEntries);
  cutter.cut<Event>(capacity.events);
  return cutter.used();
}

LaneRegion::LaneRegion(std::span<std::byte> memory, const LaneCapacity& capacity) noexcept {
  ASSERT(memory.size() >= bytes_needed(capacity));
  ASSERT(capacity.connections > 0 && capacity.connections <= kMaxConnectionsPerLane);
  ASSERT(capacity.events > 0 && (capacity.events & (capacity.events - 1)) == 0);
  Cutter cutter(memory.data());
  conns_ = cutter.cut<HwConn>(capacity.connections);
  records_ = cutter.cut<HwConnRecord>(capacity.connections);
  kept_ = cutter.cut<HwConnKept>(capacity.connections);
  flow_cells_ = cutter.cut<FlowTable::Cell>(FlowTable::cells_for(capacity.connections));
  waiting_ = cutter.cut<Waiting>(waiting_entries(capacity));
  pieces_ = cutter.cut<Piece>(capacity.pieces);
  control_ = cutter.cut<Control>(1).data();
  commands_ = cutter.cut<Command>(kCommandEntries);
  replies_ = cutter.cut<Reply>(kCommandEntries);
  events_ = cutter.cut<Event>(capacity.events);
}

LaneRegion::~LaneRegion() { std::destroy(conns_.begin(), conns_.end()); }

ipc::RingProducer<Command> LaneRegion::command_producer() const noexcept {
  auto& i = control_->command;
  return {i.tail, i.head, i.need_wakeup, commands_.data(), kCommandEntries};
}
ipc::RingConsumer<Command> LaneRegion::command_consumer() const noexcept {
  auto& i = control_->command;
  return {i.tail, i.head, i.need_wakeup, commands_.data(), kCommandEntries};
}
ipc::RingProducer<Reply> LaneRegion::reply_producer() const noexcept {
  auto& i = control_->reply;
  return {i.tail, i.head, i.need_wakeup, replies_.data(), kCommandEntries};
}
ipc::RingConsumer<Reply> LaneRegion::reply_consumer() const noexcept {
  auto& i = control_->reply;
  return {i.tail, i.head, i.need_wakeup, replies_.data(), kCommandEntries};
}
ipc::RingProducer<Event> LaneRegion::event_producer() const noexcept {
  auto& i = control_->event;
  return {i.tail, i.head, i.need_wakeup, events_.data(), static_cast<std::uint32_t>(events_.size())};
}
ipc::RingConsumer<Event> LaneRegion::event_consumer() const noexcept {
  auto& i = control_->event;
  return {i.tail, i.head, i.need_wakeup, events_.data(), static_cast<std::uint32_t>(events_.size())};
}

}  // namespace twinstack::engine
