// What the service may not run without, told once: for its check at the start and for doctor. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace twinstack::kernel {

struct Privileges {
  std::uint64_t effective = 0;     // capabilities, a bit each, as CapEff in /proc/self/status
  bool unlimited_memlock = false;  // as good as CAP_IPC_LOCK
};

// Of the calling thread.
[[nodiscard]] Privileges own_privileges();

// Names of the capabilities that the service needs and `held` lacks: CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON,
// CAP_IPC_LOCK; CAP_SYS_ADMIN for an interface in another namespace.
[[nodiscard]] std::vector<std::string> missing_capabilities(const Privileges& held, bool other_netns);

}  // namespace twinstack::kernel
