// ServiceProcess: a real service in a child process, for tests on a real link: interface ts-b0 of side B of a
// NetnsPair. Ends with the object by SIGTERM (and SIGKILL when that takes longer than the deadline).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "driver/control_client.h"
#include "driver/service.h"
#include "netns/netns_fixture.h"

namespace twinstack::testing {

class ServiceProcess {
 public:
  // Waits until it is ready. With fewer `capabilities` (a bit each) the process is in side B's namespace from its
  // beginning and has no others.
  static Result<std::unique_ptr<ServiceProcess>> start(const NetnsPair& pair,
                                                       driver::Policy policy = driver::Policy::kManual,
                                                       const driver::ServiceOptions& base = {},
                                                       std::uint64_t capabilities = ~std::uint64_t{0});
  ServiceProcess(const ServiceProcess&) = delete;
  ServiceProcess& operator=(const ServiceProcess&) = delete;
  ~ServiceProcess();

  [[nodiscard]] const std::string& socket_path() const noexcept { return path_; }
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  // {"cmd": cmd, "filter": filter}; aborts the test on failure.
  driver::Json ask(const std::string& cmd, const std::string& filter = "");
  // `ls` entry of the connection with this cookie; null when it is not known.
  driver::Json find(std::uint64_t cookie);
  // A counter of `stats` by name.
  std::uint64_t counter(const std::string& name);
  // SIGTERM, then waits; the exit status (128 + signal when killed).
  int stop();
  void kill();

 private:
  ServiceProcess() = default;

  pid_t pid_ = -1;
  std::string path_;
  std::string directory_;
};

}  // namespace twinstack::testing
