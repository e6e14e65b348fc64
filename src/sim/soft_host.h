// SoftHost: a host whose kernel is the portable software stack (src/stack): HostStack on a SoftStack. Packets pass a
// short softirq queue first, so that one may be past the late filter when that comes on (kernel-facts.md, F2, F3).
// Virtual time; one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/rng.h"
#include "sim/faulty_conn.h"
#include "sim/host_stack.h"
#include "stack/soft_kernel_conn.h"
#include "stack/stack.h"

namespace twinstack::sim {

// Longest time that a packet is under way between device and socket.
inline constexpr Duration kLongestSoftirq = std::chrono::microseconds(150);

class SoftHostConn;

class SoftHost final : public HostStack, private stack::Outlet, private stack::Watcher {
 public:
  // `send` takes frames for the wire. REQUIRES: `pool` outlives the host.
  SoftHost(stack::Config config, FramePool& pool, std::function<void(Frame)> send, std::uint64_t seed);
  ~SoftHost() override;

  void receive(Frame frame, Time now) override;
  void on_time(Time now) override;
  [[nodiscard]] Time next_deadline() override;

  SocketId listen(std::uint16_t port, bool v6, Time now) override;
  [[nodiscard]] bool take_accept_ready() override { return std::exchange(accept_ready_, false); }
  SocketId accept(SocketId listener, FlowKey& flow, Time now) override;
  SocketId connect(const FlowKey& flow, Time now) override;
  [[nodiscard]] int connected(SocketId socket, Time now) override;

  Moved send(SocketId socket, std::span<const std::byte> bytes, bool more, Time now) override;
  Moved receive(SocketId socket, std::span<std::byte> room, Time now) override;
  int shutdown_send(SocketId socket, Time now) override;
  void set_abortive(SocketId socket, Time now) override;
  void close(SocketId socket, Time now) override;
  void set_flags(SocketId socket, std::uint16_t min_tcp_flags, Time now) override;
  [[nodiscard]] SocketView view(SocketId socket) const override;

  [[nodiscard]] std::unique_ptr<kernel::KernelConn> kernel_conn(SocketId socket, MoveFaults& faults) override;
  [[nodiscard]] kernel::LatePackets& late_packets() override { return late_; }
  [[nodiscard]] bool late_packets_wait() const override { return !late_.packets.empty(); }
  [[nodiscard]] std::size_t open_sockets() const override { return stack_.socket_count(); }
  void set_late_ring_full(bool full) override { late_.is_full = full; }
  void run_out_of_memory(SocketId socket, Time now) {
    advance(now);
    stack_.run_out_of_memory(socket, now_);
  }
  // Without it a restore forgets the congestion window and threshold.
  void set_congestion_hook(bool there) noexcept { has_congestion_hook_ = there; }
  // ICMP errors that concerned a connection.
  [[nodiscard]] std::uint64_t errors_believed() const noexcept { return stack_.stats().icmps; }
  [[nodiscard]] const char* broken_invariant() const override { return stack_.broken_invariant(); }

 private:
  friend class SoftHostConn;

  struct Waiting {
    Frame frame;
    Time due;
  };
  struct LateRing final : kernel::LatePackets {
    Result<std::size_t> poll(const std::function<void(const kernel::LatePacket&)>& callback) override;
    std::deque<stack::LatePacket> packets;
    bool is_full = false;
    std::uint64_t dropped = 0;
  };
  struct FlowHash {
    std::size_t operator()(const FlowKey& flow) const noexcept { return flow.hash(0); }
  };

  void transmit(ByteView ip_packet) override;
  void wake(stack::SocketId id, std::uint32_t events) override;
  void take_late();
  [[nodiscard]] bool owes_ack(SocketId socket) const;
  void advance(Time now) noexcept { now_ = std::max(now_, now); }

  stack::Config config_;
  FramePool& pool_;
  std::function<void(Frame)> send_;
  Rng rng_;
  Time now_{};  // for calls of the driver, which bring no time
  stack::SoftStack stack_;
  std::deque<Waiting> softirq_;
  LateRing late_;
  std::vector<SocketId> listeners_;
  bool accept_ready_ = false;
  bool has_congestion_hook_ = true;
  std::unordered_map<FlowKey, SoftHostConn*, FlowHash> filtered_;
  std::unordered_map<SocketId, const kernel::KernelConn*> handles_;  // the driver's
};

}  // namespace twinstack::sim
