// Test support of the hand-off: a host with both stacks in memory. The kernel's TCP is played by our own core behind
// the KernelConn interface, the steering map and the injector by a PacketPath that routes between them, and the peer is
// another lane at the far end of a wire. Virtual time, one thread. Not part of the library.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "engine/test_support.h"
#include "handoff/connection.h"
#include "kernel/repeated_ack.h"
#include "tcp/connection.h"
#include "tcp/timestamps.h"

namespace twinstack::handoff::test {

using Bytes = std::vector<std::byte>;

// The kernel's socket of one connection. Every call can be made to fail.
class FakeKernel final : public kernel::KernelConn {
 public:
  FakeKernel(const tcp::MinTcp& min, std::function<void(Bytes)> send, const Time& now);

  [[nodiscard]] std::uint64_t cookie() const noexcept override { return 4711; }
  [[nodiscard]] std::uint64_t netns_cookie() const noexcept override { return 1; }
  [[nodiscard]] const FlowKey& flow() const noexcept override { return min_.flow; }
  [[nodiscard]] int fd() const noexcept override { return -1; }
  [[nodiscard]] kernel::Phase phase() const noexcept override { return phase_; }
  Result<> check_eligible(const kernel::Limits& limits) override;
  [[nodiscard]] kernel::QueueSizes checked_queues() const noexcept override { return checked_queues_; }
  [[nodiscard]] kernel::Reason reason() const noexcept override { return kernel::Reason::kNone; }
  Result<> attach_late_filter() override;
  Result<> detach_late_filter() override;
  Result<kernel::Snapshot> freeze(const kernel::QueueRoom& room) override;
  Result<> thaw() override;
  Result<kernel::LateBytes> park(std::span<std::byte> room) override;
  Result<kernel::RestoreReport> restore(const tcp::MinTcp& min, const kernel::RestoreQueues& queues) override;
  Result<kernel::ReleaseReport> release(std::span<const std::byte> unsent, bool probe) override;
  void reset() noexcept override { on_reset(); }
  [[nodiscard]] tcp::InfoCounters past_counters() const noexcept override { return past; }
  Result<> expire() override {
    ++expired;
    return {};
  }
  Result<> make_room(std::uint32_t packets) override {
    room_made += packets;
    return {};
  }
  bool settle(bool /*in_any_case*/) override { return true; }
  [[nodiscard]] bool is_settled() const noexcept override { return true; }
  Result<std::uint32_t> timestamp_clock() override { return tcp::ts_clock(tcb_, now_); }
  Result<std::uint32_t> rcv_queue_seq() override { return min_.rcv_nxt; }
  Result<bool> stray_write_detected() override { return false; }

  std::function<void()> on_reset = [] {};
  int expired = 0;              // calls of expire()
  std::uint32_t room_made = 0;  // packets

  // The program's side.
  void write(std::span<const std::byte> bytes);
  [[nodiscard]] Bytes read(std::size_t most);
  // A frame that reached the kernel.
  void receive(const Bytes& frame);
  void on_time();
  [[nodiscard]] bool filter_on() const noexcept { return filter_on_; }
  [[nodiscard]] std::size_t unread_bytes() const noexcept { return unread_.size(); }
  [[nodiscard]] std::size_t send_queue_bytes() const noexcept { return sent_.size(); }
  [[nodiscard]] const tcp::ControlBlock& tcb() const noexcept { return tcb_; }

  // How often each call fails from now on.
  struct Failures {
    int check = 0;
    int attach = 0;
    int freeze = 0;
    int thaw = 0;
    int park = 0;
    kernel::Phase park_leaves = kernel::Phase::kFrozen;
    int restore = 0;
    int release = 0;
    std::size_t release_takes = SIZE_MAX;  // of the unsent bytes
    int release_socket_error = 0;
  } fail;

  std::vector<Bytes> late;          // what the filter caught
  Bytes taken_after_snapshot;       // bytes that "a packet past the filter" brought: park() finds them
  bool fin_after_snapshot = false;  // ... and behind them a FIN
  std::uint16_t stale_bytes = 0;    // acknowledged ones that the snapshot's peek finds before the send queue
  // Sends nothing new until the snapshot, which finds the window closed; then "a packet past the filter" opens it, and
  // all that may goes out.
  bool opens_after_snapshot = false;
  std::uint64_t frames = 0;       // processed
  std::uint64_t lost_frames = 0;  // that came when nobody could process them, or that it dropped (R20)
  int finished = 0;               // FIN or RST seen
  std::uint32_t drop_option = 0;  // options bits that freeze() adds, to have the install refused
  tcp::Counters counters;
  tcp::DeliveryRate delivery_rate;
  tcp::InfoCounters past{};  // what it says of past stays

 private:
  class Host;
  void transmit();
  void send(const tcp::SegmentPlan& plan);

  tcp::MinTcp min_;
  std::function<void(Bytes)> send_;
  const Time& now_;
  tcp::ControlBlock tcb_;
  kernel::Phase phase_ = kernel::Phase::kRunning;
  bool filter_on_ = false;
  bool checked_ = false;  // since the last freeze
  kernel::QueueSizes checked_queues_;
  bool is_restored_ = false;
  kernel::RepeatedAck repeated_ack_;
  Seq restored_una_;            // snd_una of the last restore ...
  Seq frozen_una_;              // ... and of the last snapshot
  std::deque<std::byte> sent_;  // from snd_una on
  std::deque<std::byte> unread_;
};

// Steering map and injector.
class FakePath final : public PacketPath {
 public:
  explicit FakePath(std::function<void(const Bytes&)> to_kernel) : to_kernel_(std::move(to_kernel)) {}

  Result<> steer(const FlowKey& flow, std::uint32_t generation) override;
  Result<> unsteer(const FlowKey& flow) override;
  Result<> inject(std::span<const nic::RxFrame> frames) override;
  [[nodiscard]] bool steers(const FlowKey& flow) const;
  [[nodiscard]] std::size_t entries() const noexcept { return flows_.size(); }

  int fail_steer = 0;
  int fail_inject = 0;
  std::uint64_t injected = 0;
  std::function<void()> before_inject;  // of each packet

 private:
  std::function<void(const Bytes&)> to_kernel_;
  std::vector<FlowKey> flows_;
};

// Host a, both stacks, one connection and its program; host b, the peer.
class TwoHosts {
 public:
  explicit TwoHosts(const ipc::ArenaConfig& arena = default_arena());
  [[nodiscard]] static ipc::ArenaConfig default_arena();

  // The program of host a, through whichever stack owns the connection.
  void program_writes(std::uint32_t bytes);
  void program_reads(std::uint64_t bytes = UINT64_MAX);
  // As the socket layer does it.
  void program_sets_option();
  // The peer's program.
  void peer_writes(std::uint32_t bytes);
  void peer_reads();

  // check(), then offload().
  Result<MoveReport> move_to_engine();

  // Frames go where they belong, both stacks and the peer work, until nothing moves at this instant.
  void settle();
  // Time goes on, with programs reading (both) when `reading`.
  void run(Duration span, bool reading = true);
  // What the driver does with frames that nobody took over.
  void forward_strays();
  void deliver_late();

  // Everything written has arrived on both sides, byte by byte, without a retransmission of the peer.
  void expect_stream_is_whole();
  // The connection is the kernel's and nothing of it is left in the engine.
  void expect_in_kernel();
  void expect_in_engine();
  // Every packet of the peer has been processed once, by one of the stacks.
  void expect_no_packet_lost();

  [[nodiscard]] ipc::Owner owner() const { return conn.gate().owner(); }

  Time now = engine::test::kStart;
  nic::MemoryWire outer;  // between the hosts
  nic::MemoryWire inner;  // between host a's demultiplexer and its lane
  engine::test::Program program;
  engine::test::Program peer_program;
  std::unique_ptr<nic::MemoryLink> lane_end;  // the demultiplexer's end of `inner`
  std::unique_ptr<engine::test::LaneBox> lane;
  std::unique_ptr<engine::test::LaneBox> peer;
  FlowKey flow;
  FakeKernel* kernel = nullptr;  // conn.kernel
  std::unique_ptr<FakePath> path;
  Connection conn;
  MoveTools tools;
  engine::test::ProgramConn& mine;
  engine::test::ProgramConn& theirs;

 private:
  void demultiplex();
  void forward_from_lane();
  void to_wire(const Bytes& frame);

  Bytes receive_room_;
  Bytes send_room_;
};

}  // namespace twinstack::handoff::test
