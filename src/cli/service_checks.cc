#include "cli/service_checks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/capability.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <fstream>

#include "base/unique_fd.h"
#include "driver/control_server.h"

namespace twinstack::cli {
namespace {

constexpr unsigned kOldestMajor = 5;
constexpr unsigned kOldestMinor = 18;

struct Capability {
  unsigned bit;
  const char* name;
};

constexpr std::uint64_t mask(unsigned bit) { return std::uint64_t{1} << bit; }

Result<std::uint64_t> effective_capabilities() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    constexpr std::string_view kKey = "CapEff:\t";
    if (!line.starts_with(kKey)) continue;
    std::uint64_t effective = 0;
    std::from_chars(line.data() + kKey.size(), line.data() + line.size(), effective, 16);
    return effective;
  }
  return error(ErrorCode::kSystem, "/proc/self/status has no CapEff: is /proc mounted?");
}

std::string pid_text(int connected_socket) {
  ucred peer{};
  socklen_t length = sizeof peer;
  const bool known = ::getsockopt(connected_socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.pid > 0;
  return known ? fmt::format(" (pid {})", peer.pid) : "";
}

// Connecting tells whether somebody still listens. `shown`: the path that the user knows.
Result<> clear_socket(const std::string& path, int type, const std::string& shown) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return error(ErrorCode::kInvalid, fmt::format("the socket path '{}' is empty or too long (at most {} bytes)", path,
                                                  sizeof address.sun_path - 1));
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0)
    return errno == ENOENT ? Result<>() : Result<>(system_error("looking at " + path));
  if (!S_ISSOCK(status.st_mode))
    return error(ErrorCode::kNoResource, fmt::format("{} is in the way: it is no socket; remove it", path));
  std::ranges::copy(path, address.sun_path);
  const UniqueFd socket(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return system_error("socket(AF_UNIX)");
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 || errno == EAGAIN)
    return error(ErrorCode::kNoResource,
                 fmt::format("a service runs at {} already{}: stop it, or take another --socket", shown,
                             pid_text(socket.get())));
  if (errno == EPROTOTYPE)
    return error(ErrorCode::kNoResource,
                 fmt::format("{} is the socket of another program: take another --socket", path));
  if (errno != ECONNREFUSED) return system_error("connect(" + path + ")");
  if (::unlink(path.c_str()) != 0) return system_error("removing the stale socket " + path);
  return {};
}

}  // namespace

Result<> check_kernel_release(std::string_view release) {
  unsigned major = 0;
  unsigned minor = 0;
  const char* end = release.data() + release.size();
  const auto first = std::from_chars(release.data(), end, major);
  if (first.ec != std::errc{} || first.ptr == end || *first.ptr != '.') return {};
  if (std::from_chars(first.ptr + 1, end, minor).ec != std::errc{}) return {};
  if (major > kOldestMajor || (major == kOldestMajor && minor >= kOldestMinor)) return {};
  return error(ErrorCode::kUnsupported, fmt::format("this kernel is {}; Twinstack needs Linux {}.{} or newer", release,
                                                    kOldestMajor, kOldestMinor));
}

std::vector<std::string> missing_capabilities(std::uint64_t effective, bool other_netns) {
  // CAP_SYS_ADMIN includes CAP_BPF, and setns() asks for it.
  if ((effective & mask(CAP_SYS_ADMIN)) != 0) effective |= mask(CAP_BPF);
  std::vector<Capability> needed = {
      {CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {CAP_NET_RAW, "CAP_NET_RAW"}, {CAP_BPF, "CAP_BPF"}};
  if (other_netns) needed.push_back({CAP_SYS_ADMIN, "CAP_SYS_ADMIN"});
  std::vector<std::string> missing;
  for (const Capability& one : needed) {
    if ((effective & mask(one.bit)) == 0) missing.emplace_back(one.name);
  }
  return missing;
}

Result<> check_capabilities(bool other_netns) {
  ASSIGN_OR_RETURN(const std::uint64_t effective, effective_capabilities());
  const std::vector<std::string> missing = missing_capabilities(effective, other_netns);
  if (missing.empty()) return {};
  return error(ErrorCode::kSystem, fmt::format("the service needs {}: start it as root (sudo twinstack service ...)",
                                               fmt::join(missing, ", ")));
}

Result<> clear_stale_sockets(const std::string& socket_path) {
  // The control socket first: looking at it does not disturb a service that runs.
  TRY(clear_socket(driver::control_path(socket_path), SOCK_STREAM, socket_path));
  return clear_socket(socket_path, SOCK_SEQPACKET, socket_path);
}

}  // namespace twinstack::cli
