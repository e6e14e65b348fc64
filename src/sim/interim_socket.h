// InterimSocket: one connection of the InterimStack: our own core with the kernel's buffers, and what TCP_REPAIR does
// to it (freeze, park, restore), with the quirks of docs/kernel-facts.md that its methods name. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "kernel/kernel_conn.h"
#include "sim/byte_queue.h"
#include "sim/frame.h"
#include "sim/host_stack.h"
#include "tcp/connection.h"
#include "wire/packet.h"

namespace twinstack::sim {

class InterimSocket {
 public:
  // `send` takes finished frames. REQUIRES: `pool` outlives it.
  InterimSocket(const tcp::MinTcp& state, FramePool& pool, const std::function<void(Frame)>& send, Time now);

  // --- Packets and time
  void receive(const wire::TcpPacket& packet, Time now);
  void on_time(Time now);
  [[nodiscard]] Time next_deadline(Time now) const;

  // --- The program
  Moved write(ByteView bytes, bool more, Time now);
  Moved read(std::span<std::byte> room, Time now);
  int shutdown_send(Time now);
  void set_flags(std::uint16_t flags, Time now);
  [[nodiscard]] unsigned readiness() const;
  // The last descriptor goes. Linger time 0, or unread bytes: a reset (RFC 2525 2.17).
  void close(Time now);

  // --- The driver (KernelConn has the contracts)
  Result<> check(const kernel::Limits& limits, kernel::Reason& reason);
  Result<kernel::Snapshot> freeze(const kernel::QueueRoom& room, Time now);
  void thaw(Time now);
  Result<kernel::LateBytes> park(std::span<std::byte> room);
  void open_gap();
  void restore(const tcp::MinTcp& min, const kernel::RestoreQueues& queues, Time now);
  kernel::ReleaseReport release(ByteView unsent, bool probe, Time now);
  void reset(Time now);

  [[nodiscard]] const FlowKey& flow() const noexcept { return min_.flow; }
  [[nodiscard]] kernel::QueueSizes queue_sizes() const noexcept;
  [[nodiscard]] bool is_over(Time now) const;  // nothing is left of it but TIME_WAIT
  [[nodiscard]] SocketView view() const;
  [[nodiscard]] tcp::InfoCounters counters() const;

  std::uint64_t cookie = 0;
  unsigned references = 1;
  bool filter_on = false;
  bool abortive = false;
  kernel::Phase phase = kernel::Phase::kRunning;
  int error = 0;                 // errno that the program has not been told
  std::uint64_t met_nobody = 0;  // packets that came to a parked socket past the filter: must not happen

 private:
  class Host;
  void transmit(Time now);
  void send_segment(const wire::Segment& segment, ByteView payload);
  void send_probe(Time now);
  void send_reset();
  void fail(int error_number);
  void take_acknowledged(Seq una_before);
  [[nodiscard]] bool is_dead() const noexcept { return dead_; }
  [[nodiscard]] kernel::Reason why_not(const kernel::Limits& limits) const;
  [[nodiscard]] bool is_too_old(const wire::Segment& segment) const;
  [[nodiscard]] std::uint32_t timestamp_to_go_on_with(const tcp::MinTcp& min, Time now) const;

  tcp::MinTcp min_;
  FramePool& pool_;
  const std::function<void(Frame)>& send_;
  tcp::ControlBlock cb_;
  tcp::Counters counters_;
  ByteQueue sent_;  // from snd_una on
  ByteQueue unread_;
  bool dead_ = false;  // reset, timed out: no connection any more
  bool orphan_ = false;
  Time orphan_since_ = kNever;
  bool owes_late_end_ = false;  // an end of the stream came past the filter while it was frozen

  // Frozen.
  std::uint32_t frozen_rcv_nxt_ = 0;
  std::uint32_t frozen_snd_wnd_ = 0;
  std::uint32_t frozen_ts_val_ = 0;
  Time frozen_at_{};
  // Restored.
  bool is_restored_ = false;
  Seq restored_una_;
};

}  // namespace twinstack::sim
