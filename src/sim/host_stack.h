// HostStack: a host's software stack as the simulator sees it: packets in and out, time, sockets that programs use
// without blocking, and for the moving host the driver's handle of a socket. Virtual time; one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/clock.h"
#include "kernel/kernel_conn.h"
#include "kernel/late_packets.h"
#include "sim/frame.h"
#include "tcp/control_block.h"
#include "tcp/min_tcp.h"

namespace twinstack::sim {

// A socket of a stack: what a descriptor is in a kernel.
using SocketId = std::int32_t;

// Bytes moved, 0 at the end of the stream, or -errno (-EAGAIN: not now).
using Moved = std::int64_t;

// What a checker may know of a socket.
struct SocketView {
  const tcp::ControlBlock* cb = nullptr;  // nullptr: no connection, or not its own master (parked)
  kernel::Phase phase = kernel::Phase::kRunning;
  std::size_t unread_bytes = 0;
  std::size_t send_queue_bytes = 0;
};

struct MoveFaults;

class HostStack {
 public:
  virtual ~HostStack() = default;

  // A frame from the wire, or one that was injected.
  virtual void receive(Frame frame, Time now) = 0;
  virtual void on_time(Time now) = 0;
  [[nodiscard]] virtual Time next_deadline() = 0;

  // Sockets; none of the calls waits.
  [[nodiscard]] virtual SocketId listen(std::uint16_t port, bool v6, Time now) = 0;
  // The next connection and its flow; below 0 when none waits.
  // Whether accept() may have something; asking takes the answer.
  [[nodiscard]] virtual bool take_accept_ready() = 0;
  [[nodiscard]] virtual SocketId accept(SocketId listener, FlowKey& flow, Time now) = 0;
  // From the flow's local address and port.
  [[nodiscard]] virtual SocketId connect(const FlowKey& flow, Time now) = 0;
  // 0: the connection is there; -EAGAIN: not yet; else why not.
  [[nodiscard]] virtual int connected(SocketId socket, Time now) = 0;
  virtual Moved send(SocketId socket, std::span<const std::byte> bytes, bool more, Time now) = 0;
  virtual Moved receive(SocketId socket, std::span<std::byte> room, Time now) = 0;
  virtual int shutdown_send(SocketId socket, Time now) = 0;
  // SO_LINGER with a time of 0: the close is a reset.
  virtual void set_abortive(SocketId socket, Time now) = 0;
  // A program has one reference, the driver another; with the last one the socket is closed as Linux would.
  virtual void close(SocketId socket, Time now) = 0;
  virtual void set_flags(SocketId socket, std::uint16_t min_tcp_flags, Time now) = 0;
  // Called when a socket may have become ready.
  std::function<void(SocketId)> on_ready = [](SocketId) {};
  // Called when a frozen socket has taken in so many bytes past the filter, which the driver is to hand to the engine.
  std::function<void(SocketId, std::size_t)> on_late_bytes = [](SocketId, std::size_t) {};
  // Called when a connection came back without its congestion state.
  std::function<void(SocketId)> on_congestion_forgotten = [](SocketId) {};
  // Called when the driver resets a connection whose stream cannot be kept.
  std::function<void(SocketId)> on_driver_reset = [](SocketId) {};

  // The driver's. REQUIRES: `faults` outlives the handle.
  [[nodiscard]] virtual std::unique_ptr<kernel::KernelConn> kernel_conn(SocketId socket, MoveFaults& faults) = 0;
  [[nodiscard]] virtual kernel::LatePackets& late_packets() = 0;
  [[nodiscard]] virtual bool late_packets_wait() const = 0;

  // Checkers and faults.
  [[nodiscard]] virtual SocketView view(SocketId socket) const = 0;
  [[nodiscard]] virtual const char* broken_invariant() const = 0;
  [[nodiscard]] virtual std::size_t open_sockets() const = 0;
  virtual void set_late_ring_full(bool full) = 0;
};

}  // namespace twinstack::sim
