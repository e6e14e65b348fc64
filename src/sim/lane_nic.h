// LaneNic: a lane's queue of the simulated device: frames that the steering sent here come in, frames that the lane
// sends go to the wire. One thread.
#pragma once

#include <deque>
#include <functional>
#include <utility>
#include <vector>

#include "nic/link.h"
#include "sim/frame.h"

namespace twinstack::sim {

class LaneNic final : public nic::Link {
 public:
  // REQUIRES: `pool` outlives it.
  LaneNic(FramePool& pool, std::function<void(Frame)> send, std::uint32_t queue, std::uint32_t mtu_bytes);

  // A frame for this queue; dropped when no buffer is free.
  void push(Frame frame);
  [[nodiscard]] bool has_frames() const noexcept { return !waiting_.empty(); }
  void set_full(bool full) noexcept { is_full_ = full; }

  std::span<const nic::RxFrame> receive(std::size_t max_frames) override;
  void release() override;
  std::span<std::byte> allocate_tx() override;
  void commit_tx(std::uint32_t length_bytes) override;
  std::size_t tx_room() override { return kTxFrames - committed_.size(); }
  void flush() override;
  [[nodiscard]] int poll_fd() const override { return -1; }
  [[nodiscard]] const nic::LinkInfo& info() const override { return info_; }
  [[nodiscard]] nic::LinkStats stats() const override { return stats_; }

 private:
  static constexpr std::size_t kRxFrames = 1024;
  static constexpr std::size_t kTxFrames = 256;

  FramePool& pool_;
  std::function<void(Frame)> send_;
  nic::LinkInfo info_;
  nic::LinkStats stats_;
  std::deque<Frame> waiting_;
  bool is_full_ = false;
  std::vector<Frame> received_;
  std::vector<ByteView> parts_;
  std::vector<nic::RxFrame> frames_;
  Frame allocated_;
  std::vector<Frame> committed_;
};

}  // namespace twinstack::sim
