#include "sim/lane_nic.h"

#include "base/assert.h"
#include "wire/build.h"

namespace twinstack::sim {

LaneNic::LaneNic(FramePool& pool, std::function<void(Frame)> send, std::uint32_t queue, std::uint32_t mtu_bytes)
    : pool_(pool), send_(std::move(send)) {
  info_.mtu_bytes = mtu_bytes;
  info_.queue = queue;
}

void LaneNic::push(Frame frame) {
  if (!is_full_ && waiting_.size() < kRxFrames) {
    waiting_.push_back(std::move(frame));
    return;
  }
  ++stats_.rx_dropped;
  pool_.give(std::move(frame));
}

std::span<const nic::RxFrame> LaneNic::receive(std::size_t max_frames) {
  ASSERT(received_.empty());
  while (received_.size() < max_frames && !waiting_.empty()) {
    received_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  parts_.assign(received_.begin(), received_.end());
  for (const ByteView& part : parts_) {
    frames_.push_back({{&part, 1}, static_cast<std::uint32_t>(part.size())});
    ++stats_.rx_frames;
    stats_.rx_bytes += part.size();
  }
  return frames_;
}

void LaneNic::release() {
  for (Frame& frame : received_) pool_.give(std::move(frame));
  received_.clear();
  parts_.clear();
  frames_.clear();
}

std::span<std::byte> LaneNic::allocate_tx() {
  if (committed_.size() >= kTxFrames) return {};
  if (allocated_.empty()) allocated_ = pool_.take(info_.mtu_bytes + wire::kEthernetBytes);
  return allocated_;
}

void LaneNic::commit_tx(std::uint32_t length_bytes) {
  ASSERT(length_bytes > 0 && length_bytes <= allocated_.size());
  allocated_.resize(length_bytes);
  committed_.push_back(std::exchange(allocated_, {}));
}

void LaneNic::flush() {
  for (Frame& frame : committed_) {
    ++stats_.tx_frames;
    stats_.tx_bytes += frame.size();
    send_(std::move(frame));
  }
  committed_.clear();
}

}  // namespace twinstack::sim
