#include "nic/fault_link.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/assert.h"
#include "wire/build.h"

namespace twinstack::nic {
namespace {

constexpr std::size_t kPullFrames = 256;

}  // namespace

FaultLink::FaultLink(std::unique_ptr<Link> inner, const FaultOptions& options, std::uint64_t seed)
    : inner_(std::move(inner)), options_(options), rng_(seed) {
  ASSERT(inner_ != nullptr);
}

FaultLink::Buffer FaultLink::Direction::pop() {
  std::ranges::pop_heap(held, Later{});
  Buffer bytes = std::move(held.back().bytes);
  held.pop_back();
  return bytes;
}

void FaultLink::take_in(Direction& direction, const FaultRates& rates, Buffer frame) {
  if (rng_.chance_ppm(rates.drop_ppm)) {
    ++direction.counts.dropped;
    return;
  }
  if (rng_.chance_ppm(rates.duplicate_ppm)) {
    ++direction.counts.duplicated;
    hold(direction, rates, frame);
  }
  if (rng_.chance_ppm(rates.corrupt_ppm)) {
    ++direction.counts.corrupted;
    corrupt(frame);
  }
  hold(direction, rates, std::move(frame));
}

void FaultLink::corrupt(Buffer& frame) {
  const std::uint32_t bit = rng_.below(static_cast<std::uint32_t>(frame.size()) * 8);
  frame[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
}

void FaultLink::hold(Direction& direction, const FaultRates& rates, Buffer frame) {
  Time due = std::max(now_, direction.last_in_order);
  if (rng_.chance_ppm(rates.reorder_ppm)) {
    ++direction.counts.reordered;
    due += rates.reorder_by;
  } else {
    if (rates.delay_max > Duration(0) && rng_.chance_ppm(rates.delay_ppm)) {
      ++direction.counts.delayed;
      due = std::max(due, now_ + Duration(static_cast<std::int64_t>(
                                     rng_.next() % (static_cast<std::uint64_t>(rates.delay_max.count()) + 1))));
    }
    direction.last_in_order = due;
  }
  direction.held.push_back({due, next_number_++, std::move(frame)});
  std::ranges::push_heap(direction.held, Later{});
}

void FaultLink::pull_from_inner() {
  for (const RxFrame& frame : inner_->receive(kPullFrames)) {
    Buffer bytes(frame.length_bytes);
    Payload(frame.parts, 0, frame.length_bytes).copy_to(bytes);
    take_in(rx_, options_.rx, std::move(bytes));
  }
  inner_->release();
}

std::span<const RxFrame> FaultLink::receive(std::size_t max_frames) {
  ASSERT(received_.empty());
  pull_from_inner();
  while (received_.size() < max_frames && rx_.next() <= now_) received_.push_back(rx_.pop());
  parts_.assign(received_.begin(), received_.end());
  for (std::size_t i = 0; i < received_.size(); ++i) {
    frames_.push_back({std::span(parts_).subspan(i, 1), static_cast<std::uint32_t>(received_[i].size())});
  }
  return frames_;
}

void FaultLink::release() {
  received_.clear();
  parts_.clear();
  frames_.clear();
}

std::span<std::byte> FaultLink::allocate_tx() {
  if (!is_allocated_ && inner_->tx_room() == 0) return {};
  allocated_.resize(inner_->info().mtu_bytes + wire::kEthernetBytes);
  is_allocated_ = true;
  return allocated_;
}

void FaultLink::commit_tx(std::uint32_t length_bytes) {
  ASSERT(is_allocated_ && length_bytes > 0 && length_bytes <= allocated_.size());
  is_allocated_ = false;
  take_in(tx_, options_.tx, Buffer(allocated_.begin(), allocated_.begin() + length_bytes));
  push_to_inner();
}

// Frames whose time has come, as far as the inner link has room. True when some were handed over.
bool FaultLink::push_to_inner() {
  bool any = false;
  while (tx_.next() <= now_) {
    const std::span<std::byte> room = inner_->allocate_tx();
    if (room.empty()) break;  // the next flush() tries again
    const Buffer frame = tx_.pop();
    std::ranges::copy(frame, room.begin());
    inner_->commit_tx(static_cast<std::uint32_t>(frame.size()));
    any = true;
  }
  return any;
}

void FaultLink::flush() {
  push_to_inner();
  inner_->flush();
  // A duplicate may not have found room before.
  if (push_to_inner()) inner_->flush();
}

Time FaultLink::next_event() const { return std::min({inner_->next_event(), rx_.next(), tx_.next()}); }

void FaultLink::advance(Time now) {
  now_ = std::max(now_, now);
  inner_->advance(now);
  if (push_to_inner()) inner_->flush();
}

}  // namespace twinstack::nic
