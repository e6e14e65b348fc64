// VirtualTimeConn: a KernelConn of Linux, seen from virtual time. Linux has measured the handshake, and stamped it, by
// the real clock; the script meant the virtual one. So what of the first snapshot is time is put right: the round trip
// of the handshake, the timeout that follows from it, the timestamp clock. All else passes through.
//
// And a return to the kernel asks for no window probe: it would be a packet that no script expects.
#pragma once

#include <memory>
#include <optional>

#include "kernel/kernel_conn.h"
#include "virtual_clock.h"

namespace twinstack::packetdrill {

// What the object saw of a handshake on the wire.
struct HandshakeTimes {
  std::optional<Duration> round_trip;  // from our last SYN or SYN-ACK to what answered it; none when it was repeated
  std::optional<std::uint32_t> last_ts_val;  // of the last segment that Linux sent ...
  Time last_sent{};                          // ... at this time
};

class VirtualTimeConn final : public kernel::KernelConn {
 public:
  VirtualTimeConn(std::unique_ptr<kernel::KernelConn> real, const HandshakeTimes& times, const VirtualClock& clock)
      : real_(std::move(real)), times_(times), clock_(clock) {}

  [[nodiscard]] std::uint64_t cookie() const noexcept override { return real_->cookie(); }
  [[nodiscard]] std::uint64_t netns_cookie() const noexcept override { return real_->netns_cookie(); }
  [[nodiscard]] const FlowKey& flow() const noexcept override { return real_->flow(); }
  [[nodiscard]] int fd() const noexcept override { return real_->fd(); }
  [[nodiscard]] kernel::Phase phase() const noexcept override { return real_->phase(); }
  Result<> check_eligible(const kernel::Limits& limits) override { return real_->check_eligible(limits); }
  [[nodiscard]] kernel::QueueSizes checked_queues() const noexcept override { return real_->checked_queues(); }
  [[nodiscard]] kernel::Reason reason() const noexcept override { return real_->reason(); }
  Result<> attach_late_filter() override { return real_->attach_late_filter(); }
  Result<> detach_late_filter() override { return real_->detach_late_filter(); }
  Result<kernel::Snapshot> freeze(const kernel::QueueRoom& room) override;
  Result<> thaw() override { return real_->thaw(); }
  Result<kernel::LateBytes> park(std::span<std::byte> room) override { return real_->park(room); }
  Result<kernel::RestoreReport> restore(const tcp::MinTcp& min, const kernel::RestoreQueues& queues) override {
    return real_->restore(min, queues);
  }
  Result<kernel::ReleaseReport> release(std::span<const std::byte> unsent, bool /*probe*/) override {
    return real_->release(unsent, false);
  }
  void reset() noexcept override { real_->reset(); }
  [[nodiscard]] tcp::InfoCounters past_counters() const noexcept override { return real_->past_counters(); }
  Result<> expire() override { return real_->expire(); }
  Result<> make_room(std::uint32_t packets) override { return real_->make_room(packets); }
  bool settle(bool in_any_case) override { return real_->settle(in_any_case); }
  [[nodiscard]] bool is_settled() const noexcept override { return real_->is_settled(); }
  Result<std::uint32_t> timestamp_clock() override { return real_->timestamp_clock(); }
  Result<std::uint32_t> rcv_queue_seq() override { return real_->rcv_queue_seq(); }
  Result<bool> stray_write_detected() override { return real_->stray_write_detected(); }

 private:
  std::unique_ptr<kernel::KernelConn> real_;
  HandshakeTimes times_;
  const VirtualClock& clock_;
};

}  // namespace twinstack::packetdrill
