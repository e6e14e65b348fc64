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
  // At a restore from `snd_una` on.
  void expect(std::uint32_t bytes, std::uint32_t snd_una) noexcept {
    bytes_ = bytes;
    snd_una_ = snd_una;
  }
  // That stay has ended.
  void end() noexcept { bytes_ = 0; }
  // What was not counted before of what the stay has counted.
  [[nodiscard]] tcp::InfoCounters without(tcp::InfoCounters stay) const noexcept {
    return is_awaited(stay) ? stay : less(stay);
  }
  // What the stays before have counted, for whoever adds what this one counts. Never less than 0.
  [[nodiscard]] tcp::InfoCounters in_advance(const tcp::InfoCounters& past) const noexcept { return less(past); }
  // It has not come yet.
  [[nodiscard]] bool is_awaited(const tcp::InfoCounters& stay) const noexcept { return stay.bytes_acked < bytes_; }
  // Nothing else has been acknowledged in this stay.
  [[nodiscard]] bool is_all(const tcp::InfoCounters& stay) const noexcept { return stay.bytes_acked <= bytes_; }
  // The bytes are not in flight for anybody else. `stay` may have been read before the queue: the acknowledgement can
  // have come in between.
  void leave_out(const tcp::InfoCounters& stay, tcp::MinTcp& min, std::span<const std::byte>& unacked) const noexcept {
    if (!is_awaited(stay) || min.snd_una != snd_una_ || unacked.size() < bytes_) return;
    min.snd_una += bytes_;
    unacked = unacked.subspan(bytes_);
  }
  [[nodiscard]] std::uint32_t bytes() const noexcept { return bytes_; }

 private:
  [[nodiscard]] tcp::InfoCounters less(tcp::InfoCounters counters) const noexcept {
    if (bytes_ == 0) return counters;
    counters.bytes_acked -= std::min<std::uint64_t>(counters.bytes_acked, bytes_);
    counters.delivered -= std::min(counters.delivered, 1U);
    counters.segs_in -= std::min(counters.segs_in, 1U);
    return counters;
  }

  std::uint32_t bytes_ = 0;
  std::uint32_t snd_una_ = 0;
};

}  // namespace twinstack::kernel
