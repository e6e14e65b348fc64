// ControlClient: the command's side of the control socket (control_server.h has the protocol). Blocks, with a deadline
// per request. One thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "driver/view_json.h"

namespace twinstack::driver {

class ControlClient {
 public:
  // To the service of this applications' socket. kNotFound: no service runs there (the message says what to do);
  // kSystem: otherwise.
  static Result<ControlClient> connect(std::string_view socket_path);

  // Sends one request and waits for its reply. A reply {"ok":false} comes back as kInvalid with the service's words;
  // kTimeout; kProtocol: the service closed or answered something else. After an error make a new client.
  Result<Json> ask(const Json& request, std::chrono::milliseconds patience = std::chrono::seconds(30));

  [[nodiscard]] pid_t service_pid() const noexcept { return service_pid_; }  // 0: not known

 private:
  ControlClient(UniqueFd socket, pid_t service_pid) noexcept : socket_(std::move(socket)), service_pid_(service_pid) {}
  Result<> send_line(std::string line);
  Result<std::string> read_line(std::chrono::steady_clock::time_point deadline);

  UniqueFd socket_;
  pid_t service_pid_ = 0;
};

}  // namespace twinstack::driver
