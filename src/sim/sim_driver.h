// SimDriver: the service of the moving host: the product's Mover, and around it what Service::Impl does with sessions
// and messages (src/driver/service_sessions.cc), by the same rules, without descriptors of programs, control socket and
// policy. Virtual time; one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/unique_fd.h"
#include "driver/mover.h"
#include "sim/faulty_conn.h"
#include "sim/host_stack.h"
#include "sim/sim_interface.h"

namespace twinstack::sim {

// Grace periods in virtual time, one after the other as src/driver/parker.h has them.
class SimGrace final : public driver::GracePeriods {
 public:
  SimGrace(Duration length, std::function<Time()> now) : length_(length), now_(std::move(now)) {}

  [[nodiscard]] std::uint64_t request() override;
  [[nodiscard]] std::uint64_t completed() override { return completed_; }
  // True when a period has ended.
  bool on_time(Time now);
  [[nodiscard]] Time due() const noexcept { return running_ ? ends_ : kNever; }

 private:
  void start(Time now);

  Duration length_;
  std::function<Time()> now_;
  std::uint64_t started_ = 0;
  std::uint64_t wanted_ = 0;
  std::uint64_t completed_ = 0;
  bool running_ = false;
  Time ends_{};
};

// What a program gets when it says hello.
struct Welcome {
  UniqueFd socket;
  UniqueFd arena;
  ipc::ArenaGeometry geometry;
  std::vector<UniqueFd> fds;  // a doorbell for each lane, an event for each ring
};

// Thrown through a move by whoever kills the service in its midst; nothing but SimDriver::run() and its commands catch
// it, and the product's own undoing on the way finds a world that does not answer any more (SimInterface::is_dead).
struct ServiceDied {};

class SimDriver {
 public:
  using Closed = std::function<void(std::uint32_t session, std::uint32_t slot)>;

  // REQUIRES: interface and stack outlive it.
  SimDriver(SimInterface& interface, HostStack& stack, std::function<Time()> now, Duration grace);
  ~SimDriver();
  SimDriver(const SimDriver&) = delete;
  SimDriver& operator=(const SimDriver&) = delete;

  [[nodiscard]] Welcome open_session(std::uint32_t number, const ipc::ArenaConfig& config);
  // The program has announced a connection. `faults` outlives it.
  driver::ManagedConnection& register_connection(std::uint32_t session, std::uint32_t slot, std::uint32_t tag,
                                                 SocketId socket, MoveFaults& faults);
  [[nodiscard]] driver::ManagedConnection* find(std::uint32_t session, std::uint32_t slot);

  Result<> offload(driver::ManagedConnection& conn);
  void upload(driver::ManagedConnection& conn);

  // A program has written to its socket, or died.
  void messages_wait() noexcept { messages_wait_ = true; }
  // The lanes have something to tell.
  void signal() noexcept { events_wait_ = true; }
  [[nodiscard]] Time due(Time now) const;
  void run(Time now);
  void stall_until(Time until) noexcept { stalled_until_ = until; }

  // SIGKILL. Owner records stay as they were at that instant.
  void die();
  [[nodiscard]] bool is_dead() const noexcept { return interface_.is_dead; }
  [[nodiscard]] bool is_busy() const noexcept { return is_busy_; }

  [[nodiscard]] driver::Mover& mover() noexcept { return *mover_; }
  [[nodiscard]] std::map<std::uint32_t, std::unique_ptr<driver::Session>>& sessions() noexcept { return sessions_; }
  // A connection is the driver's no more.
  Closed on_closed = [](std::uint32_t, std::uint32_t) {};

 private:
  template <typename Work>
  void guarded(const Work& work);
  void loop(Time now);
  void serve(driver::Session& session);
  Result<> handle(driver::Session& session, std::span<const std::byte> bytes);
  void end_session(driver::Session& session);
  void connection_closed(driver::ManagedConnection& conn);
  void bury_sessions();
  void take_engine_events();
  void drop_kernel_handles();

  SimInterface& interface_;
  HostStack& stack_;
  std::function<Time()> now_;
  SimGrace grace_;
  std::map<std::uint32_t, std::unique_ptr<driver::Session>> sessions_;
  std::map<std::uint32_t, UniqueFd> sockets_;  // of the sessions
  std::vector<std::uint32_t> finished_;
  std::unique_ptr<driver::Mover> mover_;
  bool messages_wait_ = false;
  bool events_wait_ = false;
  bool is_busy_ = false;
  Time stalled_until_ = Time::min();
  std::vector<std::pair<ipc::ConnSlot*, std::uint32_t>> words_at_death_;
};

}  // namespace twinstack::sim
