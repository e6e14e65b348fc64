// LayerBridge: the product's socket layer (src/sockets) on the simulated host: its real calls (g_real) go to a
// HostStack, its doorbells to SimLanes. One bridge at a time in a process, as the layer is one object. AppProcess: a
// program that the layer serves, with its session. Calls never wait: who would have to gets EAGAIN. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "sim/endpoint.h"
#include "sim/host_stack.h"
#include "sim/sim_driver.h"
#include "sockets/session.h"

namespace twinstack::sim {

class LayerBridge {
 public:
  // REQUIRES: stack and world_now outlive the bridge. `now`: the host's clock, which may jump.
  LayerBridge(HostStack& stack, std::function<Time()> now, const Time& world_now);
  ~LayerBridge();
  LayerBridge(const LayerBridge&) = delete;
  LayerBridge& operator=(const LayerBridge&) = delete;

  // A descriptor for a socket; a number that no real one has and that is not used again soon.
  [[nodiscard]] int open(SocketId socket);
  // kNoSocket: none of ours, or closed.
  [[nodiscard]] SocketId socket_of(int fd) const noexcept;
  void forget(int fd) noexcept;
  static constexpr SocketId kNoSocket = -1;
  void add_doorbell(int fd, std::function<void()> rung) { doorbells_[fd] = std::move(rung); }

  // What the real calls come to.
  [[nodiscard]] HostStack& stack() noexcept { return stack_; }
  [[nodiscard]] Time now() const { return now_(); }
  [[nodiscard]] Time world_now() const { return world_now_; }
  void ring(int fd);

 private:
  HostStack& stack_;
  std::function<Time()> now_;
  const Time& world_now_;
  std::vector<SocketId> sockets_;  // by descriptor
  std::unordered_map<int, std::function<void()>> doorbells_;
};

class AppProcess {
 public:
  // `doorbells`: what to do when lane i's is rung.
  AppProcess(LayerBridge& bridge, std::uint32_t number, Welcome welcome, std::vector<std::function<void()>> doorbells);
  ~AppProcess();
  AppProcess(const AppProcess&) = delete;
  AppProcess& operator=(const AppProcess&) = delete;

  // A connection that is established; the service has yet to be told.
  [[nodiscard]] std::unique_ptr<Endpoint> open(SocketId socket, std::uint32_t ring_hint);
  // The slot of the connection opened last.
  [[nodiscard]] std::uint32_t last_slot() const noexcept { return last_slot_; }
  [[nodiscard]] std::uint32_t last_tag() const noexcept { return last_tag_; }

  // Before the program sleeps. False: there is something, do not sleep.
  [[nodiscard]] bool may_sleep();
  // Has a call that spins come to an end; nothing works afterwards.
  void abort_calls();
  // SIGKILL: its descriptors are closed, its memory is gone.
  void die();
  [[nodiscard]] bool is_dead() const noexcept { return session_ == nullptr; }
  [[nodiscard]] sockets::Session& session() noexcept { return *session_; }
  [[nodiscard]] std::uint32_t number() const noexcept { return number_; }
  // A message for the service may be under way.
  std::function<void()> on_message = [] {};

 private:
  friend class LayerEndpoint;

  LayerBridge& bridge_;
  std::uint32_t number_;
  std::unique_ptr<sockets::Session> session_;
  std::vector<int> open_;  // descriptors
  std::uint32_t last_slot_ = 0;
  std::uint32_t last_tag_ = 0;
};

}  // namespace twinstack::sim
