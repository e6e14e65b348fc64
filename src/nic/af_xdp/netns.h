// ScopedNetns: the calling thread enters a network namespace and is back at the end of the scope. setns() alone: mounts
// stay as they are, so cgroup v2 and bpffs remain visible (`ip netns exec` hides them). Interfaces, sockets and
// AF_XDP belong to the namespace in which they are made; a descriptor works from any namespace afterwards.
//
// Not for the data path: it costs a few microseconds. Affects the calling thread only.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace twinstack::nic {

// Which namespace: equal for all descriptors and paths of the same one.
struct NetnsId {
  dev_t device = 0;
  ino_t inode = 0;
  friend bool operator==(const NetnsId&, const NetnsId&) = default;
};

// A descriptor of the named namespace: a name under /run/netns, or a path (contains '/'). kNotFound when there is none.
Result<UniqueFd> open_netns(const std::string& name);
// A descriptor of the namespace that the calling thread is in now.
Result<UniqueFd> open_current_netns();
Result<NetnsId> netns_id(int netns_fd);
Result<NetnsId> current_netns_id();

class ScopedNetns {
 public:
  // Empty name: stays where it is.
  static Result<ScopedNetns> enter(const std::string& name);
  // `netns_fd` stays the caller's; it may be closed while inside. No system call but a stat when the thread is there.
  static Result<ScopedNetns> enter(int netns_fd);

  ScopedNetns(ScopedNetns&&) noexcept = default;
  ScopedNetns& operator=(ScopedNetns&&) = delete;
  // Goes back. A thread that cannot go back would make sockets in the wrong namespace for ever: aborts.
  ~ScopedNetns();

 private:
  explicit ScopedNetns(UniqueFd home) noexcept : home_(std::move(home)) {}

  UniqueFd home_;  // empty: nothing to go back to
};

}  // namespace twinstack::nic
