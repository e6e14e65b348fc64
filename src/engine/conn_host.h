// ConnHost: what the TCP core asks of the lane while it works on one connection.
#pragma once

#include "engine/lane.h"

namespace twinstack::engine {

class Lane::ConnHost final : public tcp::Host {
 public:
  ConnHost(Lane& lane, std::uint32_t index) noexcept
      : tcp::Host(lane.records_[index].counters, lane.kept_[index].delivery_rate, &lane.region_.flights()),
        lane_(lane),
        index_(index) {}

  std::uint32_t deliver(const Payload& payload) override { return lane_.deliver(index_, payload); }
  std::uint32_t receive_space() override { return lane_.receive_space(index_); }
  std::uint32_t receive_capacity() override { return lane_.receive_capacity(index_); }
  std::uint16_t announced_mss() override { return lane_.kept_[index_].receive.advmss; }
  bool all_read() override { return lane_.conns_[index_].unread_bytes == 0; }
  tcp::OutOfOrderMemory* out_of_order_memory(IpAddress& peer) override {
    peer = lane_.records_[index_].flow.remote;
    return &lane_.region_.out_of_order();
  }

 private:
  Lane& lane_;
  std::uint32_t index_;
};

}  // namespace twinstack::engine
