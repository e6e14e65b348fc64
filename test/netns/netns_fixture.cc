#include "netns_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace twinstack::testing {
namespace {

constexpr const char* kNetnsFolder = "/run/netns/";

Result<UniqueFd> open_namespace(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return system_error("open " + path);
  return fd;
}

// In the child, between fork and exec: only calls that are safe there.
[[noreturn]] void become(int namespace_fd, int output_fd, char* const* arguments) {
  const int null_fd = ::open("/dev/null", O_RDONLY);
  if (null_fd >= 0) ::dup2(null_fd, STDIN_FILENO);
  ::dup2(output_fd, STDOUT_FILENO);
  ::dup2(output_fd, STDERR_FILENO);
  if (namespace_fd >= 0 && ::setns(namespace_fd, CLONE_NEWNET) != 0) ::_exit(126);
  ::execvp(arguments[0], arguments);
  ::_exit(127);
}

Result<ChildProcess> start(int namespace_fd, const std::vector<std::string>& arguments) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return system_error("pipe2");
  UniqueFd read_end(ends[0]);
  const UniqueFd write_end(ends[1]);
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid < 0) return system_error("fork");
  if (pid == 0) become(namespace_fd, write_end.get(), argv.data());
  return ChildProcess(pid, std::move(read_end));
}

Result<std::string> shell_ok(int namespace_fd, const std::string& command) {
  ASSIGN_OR_RETURN(ChildProcess child, start(namespace_fd, {"sh", "-c", command}));
  CommandOutput output = child.wait();
  if (output.exit_status == 0) return std::move(output.text);
  return error(ErrorCode::kSystem, fmt::format("{} (exit {}): {}", command, output.exit_status, output.text));
}

// The process id in "ts-<pid>-a", 0 when the name is not one of ours.
pid_t owner_of(std::string_view name) {
  if (!name.starts_with("ts-")) return 0;
  char* end = nullptr;
  const std::string digits(name.substr(3));
  const long pid = std::strtol(digits.c_str(), &end, 10);
  const bool ours = end != digits.c_str() && end[0] == '-' && (end[1] == 'a' || end[1] == 'b');
  return ours && pid > 0 ? static_cast<pid_t>(pid) : 0;
}

// A crashed run leaves its namespaces behind (they are bind mounts, not tied to a process).
void remove_leftovers() {
  DIR* folder = ::opendir(kNetnsFolder);
  if (folder == nullptr) return;
  std::vector<std::string> stale;
  while (const dirent* entry = ::readdir(folder)) {
    const pid_t pid = owner_of(entry->d_name);
    if (pid != 0 && ::kill(pid, 0) != 0 && errno == ESRCH) stale.emplace_back(entry->d_name);
  }
  ::closedir(folder);
  // Another test may remove the same leftover at the same time: whoever comes second finds it gone, which is fine.
  for (const std::string& name : stale) static_cast<void>(shell_ok(-1, "ip netns del " + name));
}

}  // namespace

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), output_(std::move(other.output_)) {}

ChildProcess::~ChildProcess() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  int status = 0;
  ::waitpid(pid_, &status, 0);
}

CommandOutput ChildProcess::wait() {
  CommandOutput result;
  char buffer[4096];
  while (output_) {
    const ssize_t got = ::read(output_.get(), buffer, sizeof buffer);
    if (got > 0) {
      result.text.append(buffer, static_cast<std::size_t>(got));
    } else if (got == 0 || errno != EINTR) {
      output_.reset();
    }
  }
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  result.exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

void ChildProcess::kill(int signal_number) const {
  if (pid_ > 0) ::kill(pid_, signal_number);
}

std::string NetnsPair::why_unavailable() {
  if (::geteuid() != 0) return "needs root to make network namespaces";
  if (!shell_ok(-1, "command -v ip").has_value()) return "needs iproute2 (ip)";
  // Root of a container without CAP_SYS_ADMIN: try in a child, so that this process stays where it is.
  if (!shell_ok(-1, "unshare -n true").has_value()) return "not allowed to make network namespaces here";
  return {};
}

Result<std::unique_ptr<NetnsPair>> NetnsPair::create(const NetnsOptions& options) {
  remove_leftovers();
  std::unique_ptr<NetnsPair> pair(new NetnsPair);
  TRY(pair->make_namespaces());
  for (unsigned i = 0; i < options.pairs; ++i) TRY(pair->make_veth(options, i));
  return pair;
}

NetnsPair::~NetnsPair() {
  for (const std::string& name : {name_a_, name_b_}) {
    if (!name.empty()) static_cast<void>(shell_ok(-1, "ip netns del " + name));
  }
}

Result<> NetnsPair::make_namespaces() {
  static std::atomic<unsigned> benches = 0;
  const unsigned number = ++benches;
  const std::string suffix = number == 1 ? "" : std::to_string(number);
  for (const Side side : {Side::kA, Side::kB}) {
    const std::string name = fmt::format("ts-{}-{}{}", ::getpid(), side == Side::kA ? "a" : "b", suffix);
    TRY(shell_ok(-1, "ip netns add " + name));
    (side == Side::kA ? name_a_ : name_b_) = name;
    ASSIGN_OR_RETURN(UniqueFd fd, open_namespace(kNetnsFolder + name));
    (side == Side::kA ? fd_a_ : fd_b_) = std::move(fd);
    TRY(run_ok(side, "ip link set lo up"));
  }
  return {};
}

Result<> NetnsPair::make_veth(const NetnsOptions& options, unsigned pair) const {
  const auto end = [&](Side side) {
    return fmt::format("{} netns {} mtu {} numrxqueues {} numtxqueues {}", interface(side, pair), name(side),
                       options.mtu_bytes, options.queues, options.queues);
  };
  TRY(shell_ok(-1, fmt::format("ip link add {} type veth peer name {}", end(Side::kA), end(Side::kB))));
  // Both ends up before any address: a neighbour solicitation into a link that is half up is lost and costs a second.
  for (const Side side : {Side::kA, Side::kB}) TRY(run_ok(side, "ip link set " + interface(side, pair) + " up"));
  for (const Side side : {Side::kA, Side::kB}) {
    TRY(run_ok(side, fmt::format("ip addr add {0}/24 dev {2} && ip addr add {1}/64 dev {2} nodad",
                                 address_v4(side, pair), address_v6(side, pair), interface(side, pair))));
  }
  return {};
}

std::string NetnsPair::interface(Side side, unsigned pair) {
  return fmt::format("ts-{}{}", side == Side::kA ? "a" : "b", pair);
}

std::string NetnsPair::address_v4(Side side, unsigned pair) {
  return fmt::format("10.77.{}.{}", pair, side == Side::kA ? 1 : 2);
}

std::string NetnsPair::address_v6(Side side, unsigned pair) {
  return fmt::format("fd77:{:x}::{}", pair, side == Side::kA ? 1 : 2);
}

Result<CommandOutput> NetnsPair::run(Side side, const std::string& command) const {
  ASSIGN_OR_RETURN(ChildProcess child, start(fd(side), {"sh", "-c", command}));
  return child.wait();
}

Result<std::string> NetnsPair::run_ok(Side side, const std::string& command) const {
  return shell_ok(fd(side), command);
}

Result<ChildProcess> NetnsPair::spawn(Side side, const std::vector<std::string>& arguments) const {
  return start(fd(side), arguments);
}

Result<> NetnsPair::in(Side side, const std::function<void()>& fn) const {
  ASSIGN_OR_RETURN(const UniqueFd home, open_namespace("/proc/thread-self/ns/net"));
  if (::setns(fd(side), CLONE_NEWNET) != 0) return system_error("setns " + name(side));
  fn();
  if (::setns(home.get(), CLONE_NEWNET) != 0) return system_error("setns back");
  return {};
}

Result<UniqueFd> NetnsPair::socket(Side side, int family, int type, int protocol) const {
  UniqueFd made;
  int failed_with = 0;
  TRY(in(side, [&] {
    made.reset(::socket(family, type | SOCK_CLOEXEC, protocol));
    failed_with = errno;
  }));
  if (!made) return system_error("socket in " + name(side), failed_with);
  return made;
}

Result<> NetnsPair::sysctl(Side side, std::string_view path, std::string_view value) const {
  TRY(run_ok(side, fmt::format("echo '{}' > /proc/sys/{}", value, path)));
  return {};
}

}  // namespace twinstack::testing
