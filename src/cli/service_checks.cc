#include "cli/service_checks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <thread>

#include "driver/control_server.h"

namespace twinstack::cli {
namespace {

constexpr unsigned kOldestMajor = 5;
constexpr unsigned kOldestMinor = 18;

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

Result<> check_capabilities(const kernel::Privileges& held, bool other_netns) {
  const std::vector<std::string> missing = kernel::missing_capabilities(held, other_netns);
  if (missing.empty()) return {};
  return error(ErrorCode::kSystem,
               fmt::format("the service needs {}: start it as root (sudo twinstack service ...), or give it that "
                           "(AmbientCapabilities= of a systemd unit, setpriv --ambient-caps)",
                           fmt::join(missing, ", ")));
}

UniqueFd take_turn_to_start(const std::string& socket_path) {
  constexpr auto kPatience = std::chrono::seconds(5);
  constexpr auto kPause = std::chrono::milliseconds(20);
  const std::string directory = std::filesystem::path(socket_path).parent_path();
  UniqueFd turn(::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto begun = std::chrono::steady_clock::now();
  while (turn && ::flock(turn.get(), LOCK_EX | LOCK_NB) != 0) {
    // Anybody who may read the directory could hold it: that must not keep a service from starting.
    if (std::chrono::steady_clock::now() - begun >= kPatience) return {};
    std::this_thread::sleep_for(kPause);
  }
  return turn;
}

Result<> clear_stale_sockets(const std::string& socket_path) {
  // The control socket first: looking at it does not disturb a service that runs.
  TRY(clear_socket(driver::control_path(socket_path), SOCK_STREAM, socket_path));
  return clear_socket(socket_path, SOCK_SEQPACKET, socket_path);
}

}  // namespace twinstack::cli
