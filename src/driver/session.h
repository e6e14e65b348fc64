// Session: one application as the driver knows it: its unix socket, its arena, its connections. ManagedConnection: one
// connection of it. The driver's thread only.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "driver/interface.h"
#include "driver/lane_runner.h"
#include "driver/policy_look.h"
#include "handoff/connection.h"
#include "ipc/arena.h"
#include "ipc/messages.h"
#include "ipc/wake_event.h"
#include "kernel/linux_kernel_conn.h"

namespace twinstack::driver {

class Session;

struct ManagedConnection {
  enum class Stack : std::uint8_t {
    kKernel,
    kEngine,
    kDraining,  // in the engine, which sends nothing new: goes to the kernel when all is acknowledged
  };

  Session* session = nullptr;
  handoff::Connection move;
  kernel::LinuxKernelConn* linux_conn = nullptr;  // owned by move.kernel; nullptr when the socket cannot be managed
  Interface* interface = nullptr;                 // while in the engine; sticks to it afterwards
  Stack stack = Stack::kKernel;
  int program_fd = -1;
  std::string reason;          // why it stays, or of the last refusal that the kernel's check does not tell of
  std::string return_cause;    // of the return that is under way
  std::string last_return;     // of the last one that came about
  bool stays = false;          // never to be offloaded (again)
  bool closing = false;        // the program has closed it: finish it as the kernel would
  bool parked = false;         // the kernel socket is parked (while in the engine)
  bool upload_wanted = false;  // as soon as it is parked and drained
  std::uint64_t grace_ticket = 0;
  Time drain_deadline = kNever;
  bool is_reachable = false;      // its network namespace has an interface of the service
  PolicyLook look;                // of policy `auto`, while in the kernel
  Time not_before = Time::min();  // of the next attempt to offload by policy
  unsigned failed_uploads = 0;    // in a row
  std::string upload_failure;     // of the last of them
  Time orphan_since = kNever;     // closed by the program, and the return has failed

  std::uint64_t offloads = 0;
  std::uint64_t uploads = 0;

  [[nodiscard]] bool in_engine() const noexcept { return stack != Stack::kKernel; }
};

class Session {
 public:
  // `lanes`: all lanes of the service, in order; they outlive the session. `number` is the lanes' name for it.
  // Takes the socket only when it succeeds.
  static Result<std::unique_ptr<Session>> open(UniqueFd& socket, std::uint32_t number, std::uint64_t id,
                                               const ipc::Hello& hello, const std::vector<LaneRunner*>& lanes);
  // With neither socket nor lanes of its own: what welcome and end are for, the caller does (the simulator).
  static std::unique_ptr<Session> without_socket(std::uint32_t number, std::uint64_t id, ipc::Arena arena);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  // REQUIRES: no connection of it is in the engine.
  ~Session();

  [[nodiscard]] int socket() const noexcept { return socket_.get(); }
  [[nodiscard]] UniqueFd take_socket() noexcept { return std::move(socket_); }  // at its end
  [[nodiscard]] std::uint32_t number() const noexcept { return number_; }
  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
  [[nodiscard]] const ipc::Arena& arena() const noexcept { return arena_; }
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  [[nodiscard]] uid_t uid() const noexcept { return uid_; }
  [[nodiscard]] const std::string& program() const noexcept { return program_; }
  [[nodiscard]] std::uint32_t rings_per_lane() const noexcept {
    return arena_.geometry().ring_count / arena_.geometry().lane_count;
  }

  [[nodiscard]] bool has_refused(std::uint32_t slot) const { return slot < refused.size() && refused[slot]; }

  std::unordered_map<std::uint32_t, std::unique_ptr<ManagedConnection>> connections;  // by slot
  Time unresponsive_until = Time::min();                                              // it let a data call stand
  std::vector<bool> refused;  // by slot: not managed, as the user has too many; empty: none was
  bool ending = false;        // the application is gone: the session ends when its connections have gone home

 private:
  Session(std::uint32_t number, std::uint64_t id, ipc::Arena arena, const std::vector<LaneRunner*>& lanes);
  Result<> welcome(int socket, const std::vector<LaneRunner*>& lanes);

  UniqueFd socket_;
  std::uint32_t number_;
  std::uint64_t id_;
  ipc::Arena arena_;
  std::vector<ipc::WakeEvent> ring_events_;
  std::vector<UniqueFd> doorbells_;  // by lane
  std::vector<LaneRunner*> lanes_;
  pid_t pid_ = 0;
  uid_t uid_ = 0;
  std::string program_;
};

}  // namespace twinstack::driver
