// LinuxKernelConn: KernelConn on the kernel's own socket, by TCP_REPAIR. The same socket is kept for ever: it is
// silently closed and established again in place, so descriptor, duplicates, SO_COOKIE, `ss` line and epoll
// registrations stay. kernel-facts.md numbers the rules (F1, R5 ...) that the sources name.
//
// Split by duty: linux_kernel_conn.cc (identity, filter), eligibility.cc (may it move; program's options),
// snapshot.cc (freeze, thaw), park.cc (park, the shell), restore.cc (restore, release), counters.cc (what it carried).
//
// Never: a blocking call, a byte sent to the peer except the ACK of freeze() and what release() sends.
// Needs CAP_NET_ADMIN in the user namespace that owns the socket's network namespace.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "kernel/congestion_hook.h"
#include "kernel/expiry.h"
#include "kernel/kernel_conn.h"
#include "kernel/late_filter.h"
#include "kernel/receive_room.h"
#include "kernel/repeated_ack.h"
#include "kernel/sock_diag.h"

struct tcp_info;

namespace twinstack::kernel {

// What all connections of a service share. All pointers outlive the connections.
struct LinuxShared {
  LateFilter* late_filter = nullptr;     // required
  CongestionHook* congestion = nullptr;  // optional: without it cwnd and ssthresh are not restored, stamps estimated
  SockDiag* diag = nullptr;              // optional, of the socket's namespace: without it MD5 keys are not seen
};

// What the program has set and a move loses or must change meanwhile. Read by check_eligible(), put back by thaw() and
// release(). While the connection is parked the socket layer keeps it current through program_options().
struct ProgramOptions {
  int reuse_address = 0;         // SO_REUSEADDR: repair mode overwrites it
  int keepalive = 0;             // SO_KEEPALIVE: off while parked (F4)
  int peek_offset = -1;          // SO_PEEK_OFF: lost by the disconnect
  int window_clamp_bytes = 0;    // TCP_WINDOW_CLAMP: lost by the disconnect
  int send_buffer_bytes = 0;     // SO_SNDBUF as read
  int receive_buffer_bytes = 0;  // SO_RCVBUF as read
  int buffer_lock = 0;           // SO_BUF_LOCK
  int receive_low_water = 1;     // SO_RCVLOWAT
  int quick_ack = 1;             // TCP_QUICKACK as read: 0 while the kernel takes the connection for interactive
};

class LinuxKernelConn final : public KernelConn {
 public:
  // Takes the socket over. kInvalid when it is no connected TCP socket over IPv4 or IPv6.
  static Result<std::unique_ptr<LinuxKernelConn>> create(UniqueFd socket, const LinuxShared& shared);
  // Closes the descriptor; what that means for the connection is the other holders' business.
  ~LinuxKernelConn() override;

  [[nodiscard]] std::uint64_t cookie() const noexcept override { return cookie_; }
  [[nodiscard]] std::uint64_t netns_cookie() const noexcept override { return netns_cookie_; }
  [[nodiscard]] const FlowKey& flow() const noexcept override { return template_.flow; }
  [[nodiscard]] int fd() const noexcept override { return socket_.get(); }
  [[nodiscard]] Phase phase() const noexcept override { return phase_; }
  [[nodiscard]] Reason reason() const noexcept override { return reason_; }

  Result<> check_eligible(const Limits& limits) override;
  [[nodiscard]] QueueSizes checked_queues() const noexcept override { return checked_queues_; }
  Result<> attach_late_filter() override;
  Result<> detach_late_filter() override;
  Result<Snapshot> freeze(const QueueRoom& room) override;
  Result<> thaw() override;
  Result<LateBytes> park(std::span<std::byte> room) override;
  Result<RestoreReport> restore(const tcp::MinTcp& min, const RestoreQueues& queues) override;
  Result<ReleaseReport> release(std::span<const std::byte> unsent, bool probe = true) override;
  void reset() noexcept override;
  [[nodiscard]] tcp::InfoCounters past_counters() const noexcept override;
  // What the kernel has carried until now, in all its stays.
  [[nodiscard]] StreamBytes stream_bytes();
  Result<> expire() override;
  Result<> make_room(std::uint32_t packets) override;
  bool settle(bool in_any_case) override;
  [[nodiscard]] bool is_settled() const noexcept override { return !expiry_.is_on() && !receive_room_.is_lent(); }
  Result<std::uint32_t> timestamp_clock() override;
  Result<std::uint32_t> rcv_queue_seq() override;
  Result<bool> stray_write_detected() override;

  [[nodiscard]] bool is_untouched() const noexcept override { return phase_ == Phase::kRunning && !filter_on_; }
  [[nodiscard]] RouteHints route_hints() const noexcept override {
    return {.scope_id = template_.scope_id, .mark = mark_, .bound_interface = bound_interface_};
  }
  void prepare_close(bool unread) noexcept override;
  [[nodiscard]] ProgramOptions& program_options() noexcept { return options_; }
  // Gives the descriptor up, with nothing of ours left on it, to somebody who may sleep in its close. Nothing but the
  // destructor may follow.
  [[nodiscard]] UniqueFd take_socket(bool program_goes_on) noexcept;
  // For a creator that learns netns_cookie() only afterwards: what the connections of that namespace share.
  void set_shared(const LinuxShared& shared) noexcept { shared_ = shared; }

  // A socket whose service died while it was parked (its filter is still on): what follows is program_options() as the
  // predecessor had them, and restore() with what the shared memory says. REQUIRES: fresh from create().
  void adopt_parked() noexcept {
    phase_ = Phase::kGap;
    filter_on_ = true;
  }

 private:
  explicit LinuxKernelConn(UniqueFd socket, const LinuxShared& shared) : socket_(std::move(socket)), shared_(shared) {}
  Result<> read_identity();
  bool relent(bool in_any_case);
  void leave_nothing(bool program_goes_on) noexcept;
  [[nodiscard]] bool has_known_peer() const noexcept;

  std::unexpected<Error> refuse(Reason reason);
  Result<> check_state();
  Result<> check_live_state(const tcp_info& info);
  Result<> check_options();
  Result<> check_extensions(const Limits& limits);
  Result<> check_queues(const Limits& limits);
  Result<bool> out_of_order_may_be_held();
  Result<> read_program_options();
  Result<> read_settings_for_engine();

  Result<Snapshot> take_snapshot(const QueueRoom& room);
  Result<> check_still_eligible(const tcp_info& info);
  Result<std::span<const std::byte>> take_receive_queue(std::span<std::byte> room, tcp::MinTcp& min);
  void take_estimates(const tcp_info& info, tcp::MinTcp& min) const;
  Result<> take_timestamp(const tcp_info& info, tcp::MinTcp& min);
  Result<std::span<const std::byte>> take_send_queue(std::uint32_t waiting, std::span<std::byte> room,
                                                     tcp::MinTcp& min);
  [[nodiscard]] std::uint32_t stalled_us(const tcp::MinTcp& min) const;
  void take_measured_path(tcp::MinTcp& min) const;
  Result<> take_windows_and_close(tcp::MinTcp& min);
  Result<> reopen_window();
  Result<> leave_repair();

  [[nodiscard]] std::uint64_t acked_control(const tcp::InfoCounters& stay, std::uint32_t in_flight) const noexcept;
  void end_stay(const LateBytes& late) noexcept;  // by a park
  void end_stay() noexcept;                       // by a reset
  void leave(const tcp::InfoCounters& counted, std::uint32_t in_flight) noexcept;

  Result<LateBytes> take_late_bytes(std::span<std::byte> room);
  Result<> make_shell(std::uint32_t rcv_nxt);
  Result<> silent_disconnect();
  Result<> bind_local();
  [[nodiscard]] Result<> check_local_port() const;
  Result<> establish_in_place(const tcp::MinTcp& min, std::uint32_t send_seq, std::uint32_t receive_seq);
  Result<> put_negotiated_options(const tcp::MinTcp& min);

  Result<RestoreReport> put_state(const tcp::MinTcp& min, const RestoreQueues& queues);
  [[nodiscard]] std::uint32_t timestamp_to_go_on_with(const tcp::MinTcp& min) const;
  Result<> put_receive_queue(std::span<const std::byte> bytes);
  Result<> put_send_queue(const RestoreQueues& queues);
  Result<> put_sent(std::span<const std::byte> bytes);
  Result<> put_window(const tcp::MinTcp& min);
  bool put_congestion(const tcp::MinTcp& min);
  Result<> put_lost_options();
  ReleaseReport write_unsent(std::span<const std::byte> unsent);
  Result<> announce_unread();
  Result<> remember_buffer_sizes();
  Result<> raise_send_buffer(std::size_t bytes);
  Result<> take_over_receive_buffer(std::uint32_t bytes);
  Result<> raise_receive_buffer(std::size_t bytes);
  Result<> put_buffer_sizes_back();

  UniqueFd socket_;
  LinuxShared shared_;
  std::uint64_t cookie_ = 0;
  std::uint64_t netns_cookie_ = 0;
  tcp::MinTcp template_;  // what does not change while the connection lives, and the program's settings
  ProgramOptions options_;
  std::uint32_t mark_ = 0;
  std::uint32_t bound_interface_ = 0;
  struct OutOfOrder {
    std::uint32_t packets = 0;            // tcpi_rcv_ooopack at the last check
    std::uint64_t at_received_bytes = 0;  // tcpi_bytes_received when that was first seen
    bool gone = true;                     // none of them is held any more
  };
  OutOfOrder out_of_order_;
  std::uint64_t received_bytes_ = 0;  // tcpi_bytes_received at the last check
  QueueSizes checked_queues_;
  struct Limited {
    std::uint32_t receive_queue_bytes = 0;
    std::uint32_t send_queue_bytes = 0;
    bool allow_loss_recovery = false;
  };
  Limited limited_;     // of the last check, for the freeze
  tcp::MinTcp frozen_;  // of the last freeze()
  tcp::InfoCounters frozen_counters_{};
  tcp::InfoCounters past_{};  // of the stays that a park, or a reset, has ended
  StreamBytes past_stream_;
  bool has_left_ = false;
  // Of the send queue, by the last freeze(), though it never left (A3).
  std::uint32_t marked_as_sent_ = 0;
  tcp::MinTcp restored_;  // of the last restore()
  RepeatedAck repeated_ack_;
  // As of that: since when there has been unacknowledged data (MinTcp::stalled_us).
  Time stalled_since_ = kNever;
  Time frozen_at_{};                   // when the last freeze() read the timestamp; the epoch when there was none
  std::uint32_t shell_rcv_nxt_ = 0;    // what park() set
  std::uint32_t shell_write_seq_ = 0;  // what park() set
  Phase phase_ = Phase::kRunning;
  Reason reason_ = Reason::kNone;
  bool is_v6_socket_ = false;
  Expiry expiry_;
  ReceiveRoom receive_room_;
  bool checked_ = false;
  // The send window that freeze() closed, for thaw().
  bool window_closed_ = false;
  std::uint32_t closed_snd_wnd_ = 0;
  std::uint32_t closed_snd_wl1_ = 0;
  std::uint32_t closed_to_wl1_ = 0;
  bool filter_on_ = false;
  bool bound_ = false;  // by us: the port then outlives every disconnect
  bool send_buffer_raised_ = false;
  bool receive_buffer_raised_ = false;
  bool unread_restored_ = false;  // release() must make the socket readable again
};

// Waits until every packet that was already past the late filter when it was attached has been processed: one RCU
// grace period (membarrier). Milliseconds: never inside a freeze; one wait serves many connections. Any thread.
Result<> wait_grace_period();

// The same promise, sooner (here 80 us instead of 8-20 ms): the calling thread runs once on every CPU. Packets are
// processed with bottom halves disabled, which nothing preempts outside PREEMPT_RT, so having run on a CPU proves that
// what was under way there is done. On PREEMPT_RT, or when a CPU cannot be visited, wait_grace_period(). Not for a
// machine where a real-time thread keeps a CPU to itself: this waits for as long as that runs. Sets the affinity of the
// calling thread meanwhile and puts it back.
Result<> wait_packets_in_flight();

}  // namespace twinstack::kernel
