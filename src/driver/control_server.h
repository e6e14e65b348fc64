// ControlServer: the service's side of the control socket: newline-delimited JSON requests in, one line of JSON per
// request out, over a SOCK_STREAM unix socket of its own (socket_path + ".control").
//
//   ASSIGN_OR_RETURN(auto control, ControlServer::create(control_path(options.socket_path), target));
//   ... add control->epoll_fd() to the loop's epoll set (EPOLLIN, level-triggered); when it is readable:
//   control->process();
//
//   {"cmd":"ls","filter":"dport 80"}                          -> {"ok":true,"connections":[...]}
//   {"cmd":"offload"|"upload","filter":"all"}                 ->
//   {"ok":true,"matched":1,"moved":1,"already":0,"refused":[]}
//   {"cmd":"stats"}                                           -> {"ok":true,"sessions":1,...}
//   {"cmd":"churn","interval_ms":100,"duration_ms":5000}      -> {"ok":true}
//   anything else                                             -> {"ok":false,"error":"..."}
//
// Who may do what goes by the peer's uid (SO_PEERCRED, taken at connect): root everything; others see, offload and
// upload connections of their own uid only and may not churn.
//
// Hostile clients: lines, clients (in all and per uid), requests and bytes per call of process(), waiting replies and
// the time that a half line or an unread reply may stand are bounded; who breaks a bound is closed. Requests of other
// users than root get at most a fifth of the thread's time.
//
// One thread: the driver's. process() calls the ControlTarget on it, never blocks, and does a bounded amount of work;
// epoll_fd() stays readable while there is more.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "driver/control_target.h"

namespace twinstack::driver {

// The path of the control socket that belongs to the applications' socket.
[[nodiscard]] std::string control_path(std::string_view socket_path);

struct ControlLimits {
  std::size_t line_bytes = std::size_t{64} * 1024;
  std::size_t clients = 64;
  std::size_t clients_per_uid = 16;                                  // of a uid other than root
  std::size_t waiting_reply_bytes = std::size_t{256} * 1024 * 1024;  // of all clients together
  std::chrono::milliseconds patience{10'000};                        // for a half line or an unread reply
  std::chrono::milliseconds idle{60'000};                            // between requests
};

class ControlServer {
 public:
  // Listens at `path`, mode 0666. Errors: kInvalid (path too long), kSystem (bind: EADDRINUSE when
  // the file exists). `target` must outlive the server.
  static Result<std::unique_ptr<ControlServer>> create(std::string_view path, ControlTarget& target,
                                                       const ControlLimits& limits = {});
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;
  ~ControlServer();  // closes all clients and removes the socket file

  [[nodiscard]] int epoll_fd() const noexcept;
  void process();

 private:
  class Impl;
  explicit ControlServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace twinstack::driver
