#include "nic/af_xdp/netns.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/assert.h"

namespace twinstack::nic {
namespace {

// Not /proc/self: that is the main thread, which may be elsewhere.
constexpr const char* kCurrent = "/proc/thread-self/ns/net";

}  // namespace

Result<UniqueFd> open_netns(const std::string& name) {
  const std::string path = name.find('/') == std::string::npos ? "/run/netns/" + name : name;
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd && errno == ENOENT) return error(ErrorCode::kNotFound, "no network namespace '" + name + "'");
  if (!fd) return system_error("open network namespace " + path);
  return fd;
}

Result<UniqueFd> open_current_netns() { return open_netns(kCurrent); }

Result<NetnsId> netns_id(int netns_fd) {
  struct stat status{};
  if (::fstat(netns_fd, &status) != 0) return system_error("fstat of a network namespace");
  return NetnsId{status.st_dev, status.st_ino};
}

Result<NetnsId> current_netns_id() {
  struct stat status{};
  if (::stat(kCurrent, &status) != 0) return system_error(std::string("stat ") + kCurrent);
  return NetnsId{status.st_dev, status.st_ino};
}

Result<ScopedNetns> ScopedNetns::enter(const std::string& name) {
  if (name.empty()) return ScopedNetns(UniqueFd());
  ASSIGN_OR_RETURN(const UniqueFd target, open_netns(name));
  return enter(target.get());
}

Result<ScopedNetns> ScopedNetns::enter(int netns_fd) {
  ASSIGN_OR_RETURN(const NetnsId target, netns_id(netns_fd));
  ASSIGN_OR_RETURN(const NetnsId here, current_netns_id());
  if (target == here) return ScopedNetns(UniqueFd());
  ASSIGN_OR_RETURN(UniqueFd home, open_current_netns());
  if (::setns(netns_fd, CLONE_NEWNET) != 0) return system_error("setns to a network namespace");
  return ScopedNetns(std::move(home));
}

ScopedNetns::~ScopedNetns() {
  if (home_) ASSERT(::setns(home_.get(), CLONE_NEWNET) == 0);
}

}  // namespace twinstack::nic
