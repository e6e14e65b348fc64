// NetnsPair: the test bench of everything that needs a real link: two network namespaces, `a` and `b`, joined by veth
// pairs with any number of queues, with IPv4 and IPv6 addresses, and lo up in both.
//
//   interface of pair i:  ts-a<i> in `a`, ts-b<i> in `b`
//   addresses of pair i:  10.77.<i>.1/24 and fd77:<i>::1/64 in `a`, .2 and ::2 in `b` (no duplicate address detection)
//
// Namespaces are called ts-<pid>-a, ts-<pid>-b (a second bench of the same process: ts-<pid>-a2 ...). They go away with
// the object; leftovers of a process that no longer lives are removed by the next create(). Needs root and iproute2:
// call why_unavailable() first and skip the test with what it says.
//
// One thread at a time. in(), socket() move the calling thread into the namespace for the length of the call, by
// setns() alone, so mounts (cgroup v2, bpffs) stay visible; run() and spawn() do so in the child.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace twinstack::testing {

enum class Side { kA, kB };

[[nodiscard]] constexpr Side other(Side side) noexcept { return side == Side::kA ? Side::kB : Side::kA; }

struct NetnsOptions {
  unsigned pairs = 1;
  unsigned queues = 1;  // receive and transmit queues of each end, at most 64
  unsigned mtu_bytes = 1500;
};

struct CommandOutput {
  int exit_status = 0;  // 128 + signal when killed
  std::string text;     // standard output and standard error, as they came
};

// A child process in a namespace. Killed (SIGKILL) and reaped at the end if it still runs.
class ChildProcess {
 public:
  ChildProcess(pid_t pid, UniqueFd output) noexcept : pid_(pid), output_(std::move(output)) {}
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;
  ~ChildProcess();

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  // Reads the output to its end, then waits for the exit. Blocks.
  CommandOutput wait();
  // Sends a signal; does not wait.
  void kill(int signal_number) const;

 private:
  pid_t pid_ = -1;
  UniqueFd output_;  // standard output and standard error of the child
};

class NetnsPair {
 public:
  // Why namespaces cannot be had here ("not root"), empty when they can.
  [[nodiscard]] static std::string why_unavailable();

  static Result<std::unique_ptr<NetnsPair>> create(const NetnsOptions& options = {});
  NetnsPair(const NetnsPair&) = delete;
  NetnsPair& operator=(const NetnsPair&) = delete;
  ~NetnsPair();

  [[nodiscard]] const std::string& name(Side side) const { return side == Side::kA ? name_a_ : name_b_; }
  // A descriptor of the namespace, as for setns(); owned by the pair.
  [[nodiscard]] int fd(Side side) const { return side == Side::kA ? fd_a_.get() : fd_b_.get(); }
  [[nodiscard]] static std::string interface(Side side, unsigned pair = 0);
  [[nodiscard]] static std::string address_v4(Side side, unsigned pair = 0);  // without prefix length
  [[nodiscard]] static std::string address_v6(Side side, unsigned pair = 0);

  // Runs `command` by sh -c in the namespace and waits for it. An error only when it could not be started.
  Result<CommandOutput> run(Side side, const std::string& command) const;
  // The same, and a non-zero exit is an error that carries the output.
  Result<std::string> run_ok(Side side, const std::string& command) const;
  // Starts a program (looked up in PATH) in the namespace. standard input is /dev/null.
  Result<ChildProcess> spawn(Side side, const std::vector<std::string>& arguments) const;
  // Calls `fn` with the calling thread in the namespace; the thread is back afterwards.
  Result<> in(Side side, const std::function<void()>& fn) const;
  // A socket that belongs to the namespace, close-on-exec.
  Result<UniqueFd> socket(Side side, int family, int type, int protocol = 0) const;
  // Writes to a sysctl of the namespace: sysctl(side, "net/ipv4/tcp_sack", "0").
  Result<> sysctl(Side side, std::string_view path, std::string_view value) const;

 private:
  NetnsPair() = default;
  Result<> make_namespaces();
  Result<> make_veth(const NetnsOptions& options, unsigned pair) const;

  std::string name_a_;
  std::string name_b_;
  UniqueFd fd_a_;
  UniqueFd fd_b_;
};

}  // namespace twinstack::testing
