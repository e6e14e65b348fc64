// InterimStack: a software stack whose connections exist from the beginning (no listeners, no handshake). It stands in
// until src/stack does. Packets pass a short softirq queue first, so that one may be past the late filter when that
// comes on (kernel-facts.md, F2, F3). Virtual time; one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/rng.h"
#include "sim/host_stack.h"
#include "sim/interim_socket.h"

namespace twinstack::sim {

// Longest time that a packet is under way between device and socket.
inline constexpr Duration kLongestSoftirq = std::chrono::microseconds(150);

class InterimStack final : public HostStack {
 public:
  // `send` takes frames for the wire. REQUIRES: `pool` outlives the stack.
  InterimStack(FramePool& pool, std::function<void(Frame)> send, std::uint64_t seed);
  ~InterimStack() override;

  // A connection in this state, as if a handshake had just ended.
  SocketId adopt(const tcp::MinTcp& state, Time now);

  void receive(Frame frame, Time now) override;
  void on_time(Time now) override;
  [[nodiscard]] Time next_deadline(Time now) override;

  Moved send(SocketId socket, std::span<const std::byte> bytes, bool more, Time now) override;
  Moved receive(SocketId socket, std::span<std::byte> room, Time now) override;
  int shutdown_send(SocketId socket, Time now) override;
  void set_abortive(SocketId socket) override;
  void close(SocketId socket, Time now) override;
  void set_flags(SocketId socket, std::uint16_t min_tcp_flags, Time now) override;
  [[nodiscard]] unsigned readiness(SocketId socket) const override;
  [[nodiscard]] SocketView view(SocketId socket) const override;

  [[nodiscard]] std::unique_ptr<kernel::KernelConn> kernel_conn(SocketId socket) override;
  [[nodiscard]] kernel::LatePackets& late_packets() override { return late_; }
  [[nodiscard]] bool late_packets_wait() const override { return !late_.records.empty(); }
  [[nodiscard]] std::size_t open_sockets() const override;
  [[nodiscard]] std::uint64_t packets_that_met_nobody() const override { return met_nobody_; }
  void set_late_ring_full(bool full) override { late_.is_full = full; }

 private:
  friend class InterimConn;

  struct Waiting {
    Frame frame;
    Time due;
  };
  struct LateRing final : kernel::LatePackets {
    struct Record {
      std::uint64_t cookie;
      Frame frame;
    };
    Result<std::size_t> poll(const std::function<void(const kernel::LatePacket&)>& callback) override;
    std::deque<Record> records;
    bool is_full = false;
    std::uint64_t dropped = 0;
  };
  // Of a connection that has ended here and whose peer may not know: RFC 9293 3.10.7.4, TIME-WAIT.
  struct TimeWait {
    Seq snd_nxt;
    Seq rcv_nxt;
    std::uint16_t window;
    Time until;
  };

  void process(const Frame& frame, Time now);
  void answer_nobody(const wire::TcpPacket& packet, Time now);
  void touched(SocketId socket, Time now);
  void forget(SocketId socket, Time now);
  void answer(const FlowKey& flow, const wire::Segment& segment);
  void drop_reference(SocketId socket, Time now);

  struct FlowHash {
    std::size_t operator()(const FlowKey& flow) const noexcept { return flow.hash(0); }
  };

  FramePool& pool_;
  std::function<void(Frame)> send_;
  Rng rng_;
  std::vector<std::unique_ptr<InterimSocket>> sockets_;
  std::unordered_map<FlowKey, SocketId, FlowHash> by_flow_;
  std::vector<SocketId> live_;  // those of by_flow_
  std::unordered_map<FlowKey, TimeWait, FlowHash> time_wait_;
  std::deque<Waiting> softirq_;
  LateRing late_;
  Time deadline_ = kNever;
  bool deadline_known_ = false;
  Time now_{};  // for calls of the driver, which bring no time
  std::uint64_t met_nobody_ = 0;
};

}  // namespace twinstack::sim
