// Bookkeeping of bytes that a restore has put in flight though the peer has acknowledged them (RestoreQueues::
// acked_bytes), for whoever implements KernelConn. The acknowledgement that comes again is a packet and a byte that
// were counted before.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernel/kernel_conn.h"

namespace twinstack::kernel {

class RepeatedAck {
 public:
  // At a restore from `snd_una` on. `past`: what the stays before have counted; it never falls under 0, and then they
  // count twice.
  void expect(std::uint32_t bytes, std::uint32_t snd_una, tcp::InfoCounters& past) noexcept {
    bytes_ = bytes;
    snd_una_ = snd_una;
    taken_off_ = {};
    if (bytes_ == 0) return;
    taken_off_.bytes_acked = std::min<std::uint64_t>(past.bytes_acked, bytes_);
    taken_off_.delivered = std::min(past.delivered, 1U);
    taken_off_.segs_in = std::min(past.segs_in, 1U);
    past.bytes_acked -= taken_off_.bytes_acked;
    past.delivered -= taken_off_.delivered;
    past.segs_in -= taken_off_.segs_in;
  }
  // At the end of that stay, with what it has counted.
  void settle(const tcp::InfoCounters& stay, tcp::InfoCounters& past) noexcept {
    if (is_awaited(stay)) past += taken_off_;
    bytes_ = 0;
    taken_off_ = {};
  }
  // It has not come yet.
  [[nodiscard]] bool is_awaited(const tcp::InfoCounters& stay) const noexcept { return stay.bytes_acked < bytes_; }
  // Nothing else has been acknowledged in this stay.
  [[nodiscard]] bool is_all(const tcp::InfoCounters& stay) const noexcept { return stay.bytes_acked <= bytes_; }
  // The bytes are not in flight for anybody else. `stay` may have been read before the queue: the acknowledgement can
  // have come in between.
  void leave_out(const tcp::InfoCounters& stay, tcp::MinTcp& min, std::span<const std::byte>& unacked) const noexcept {
    if (!is_awaited(stay) || min.snd_una != snd_una_ || unacked.size() < bytes_) return;
    min.snd_una += bytes_;
    min.bytes_acked += bytes_;
    unacked = unacked.subspan(bytes_);
  }
  [[nodiscard]] std::uint32_t bytes() const noexcept { return bytes_; }

 private:
  std::uint32_t bytes_ = 0;
  std::uint32_t snd_una_ = 0;
  tcp::InfoCounters taken_off_{};
};

}  // namespace twinstack::kernel
