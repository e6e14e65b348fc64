// SoftKernelConn: KernelConn on an established socket of a SoftStack, for simulations: it stands where Linux's socket
// stands, with the quirks that docs/kernel-facts.md lists (their marks stand at the lines). What Linux leaves to
// chance, and every refusal, is the caller's to order (Quirks, Failures). Not pure: an Error has words.
//
// Packets that were past the late filter when it was attached are given to SoftStack::on_packet_past_filter() until the
// caller thinks that the grace period has ended; what the filter catches is in SoftStack::take_late_packets().
#pragma once

#include <functional>

#include "kernel/expiry.h"
#include "kernel/kernel_conn.h"
#include "kernel/repeated_ack.h"
#include "stack/stack.h"

namespace twinstack::stack {

class SoftKernelConn final : public kernel::KernelConn {
 public:
  // Holds a descriptor of its own of `id`. `stack` outlives it. `now`: the clock.
  SoftKernelConn(SoftStack& stack, SocketId id, std::function<Time()> now);
  ~SoftKernelConn() override;

  [[nodiscard]] std::uint64_t cookie() const noexcept override { return cookie_; }
  [[nodiscard]] std::uint64_t netns_cookie() const noexcept override { return 1; }
  [[nodiscard]] const FlowKey& flow() const noexcept override { return flow_; }
  [[nodiscard]] int fd() const noexcept override { return id_; }  // the SocketId
  [[nodiscard]] kernel::Phase phase() const noexcept override { return phase_; }
  Result<> check_eligible(const kernel::Limits& limits) override;
  [[nodiscard]] kernel::QueueSizes checked_queues() const noexcept override { return checked_queues_; }
  [[nodiscard]] kernel::Reason reason() const noexcept override { return reason_; }
  Result<> attach_late_filter() override;
  Result<> detach_late_filter() override;
  Result<kernel::Snapshot> freeze(const kernel::QueueRoom& room) override;
  Result<> thaw() override;
  Result<kernel::LateBytes> park(std::span<std::byte> room) override;
  Result<kernel::RestoreReport> restore(const tcp::MinTcp& min, const kernel::RestoreQueues& queues) override;
  Result<kernel::ReleaseReport> release(std::span<const std::byte> unsent, bool probe) override;
  void reset() noexcept override;
  [[nodiscard]] tcp::InfoCounters past_counters() const noexcept override;
  Result<> expire() override;
  bool settle(bool in_any_case) override;
  [[nodiscard]] bool is_settled() const noexcept override { return !expiry_.is_on(); }
  Result<std::uint32_t> timestamp_clock() override;
  Result<std::uint32_t> rcv_queue_seq() override;
  Result<bool> stray_write_detected() override;

  // How often each call fails from now on.
  struct Failures {
    int check = 0;
    int attach = 0;
    int detach = 0;
    int freeze = 0;
    int thaw = 0;
    int park = 0;
    kernel::Phase park_leaves = kernel::Phase::kFrozen;  // or kGap
    int purge = 0;  // park(): bytes come in between the last look and the disconnect (F2): kBroken
    int restore = 0;
    int release = 0;
    std::size_t release_takes = SIZE_MAX;  // of the unsent bytes (R7)
  } fail;

  struct Quirks {
    bool restores_congestion = true;    // the congestion hook is there
    bool forgets = true;                // R5, R10: round trip times, timeout, ts_recent, reordering
    bool loses_delayed_ack = false;     // F5 not obeyed: the ACK that waits at the freeze is lost
    bool marks_unsent = false;          // A3: a freeze that is undone leaves unsent bytes counted as sent
    bool opens_after_snapshot = false;  // R16, R17: an ACK past the filter opens the window, and unsent bytes leave
    std::uint16_t stale_bytes = 0;      // S8: the peek of the send queue begins so many before snd_una
  } quirks;

  // Called by park() between its last look and the disconnect (F2): what the stack is given here and acknowledges is
  // thrown away.
  std::function<void()> meanwhile = [] {};

 private:
  [[nodiscard]] Socket* socket() const;
  [[nodiscard]] Socket* live() const;
  Result<> refuse(kernel::Reason reason);
  Result<int> option(int level, int name);
  Result<> set_option(int level, int name, int value);
  Result<> check_live_state(const Socket& socket);
  void take_min(const Socket& socket, tcp::MinTcp& min) const;
  void take_queues(const Socket& socket, const kernel::QueueRoom& room, kernel::Snapshot& snapshot) const;
  Result<kernel::LateBytes> take_late_bytes(const Socket& socket, std::span<std::byte> room) const;
  void disconnect(Socket& socket);
  Result<> establish(Socket& socket, const tcp::MinTcp& min);
  void leave_repair(Socket& socket, bool probe);
  [[nodiscard]] tcp::InfoCounters counters_of(const Connection& conn) const noexcept;

  SoftStack& stack_;
  SocketId id_;
  std::function<Time()> now_;
  std::uint64_t cookie_;
  FlowKey flow_;
  kernel::Phase phase_ = kernel::Phase::kRunning;
  kernel::Reason reason_ = kernel::Reason::kNone;
  kernel::Limits limits_;
  kernel::QueueSizes checked_queues_;
  bool checked_ = false;  // since the last freeze
  bool filter_on_ = false;
  tcp::MinTcp frozen_;
  tcp::MinTcp restored_;  // of the last restore: estimates while nothing new was measured (R10)
  kernel::Expiry expiry_;
  kernel::RepeatedAck repeated_ack_;
  Time frozen_at_{};
  bool unread_restored_ = false;
  tcp::InfoCounters past_{};
  tcp::InfoCounters frozen_counters_{};
  std::uint32_t shell_rcv_nxt_ = 0;
  std::uint32_t shell_write_seq_ = 0;
};

}  // namespace twinstack::stack
