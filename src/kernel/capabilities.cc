#include "kernel/capabilities.h"

#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

namespace twinstack::kernel {
namespace {

struct Needed {
  unsigned number;
  const char* name;
  bool other_netns_only;
};

constexpr std::array<Needed, 6> kNeeded = {{
    {.number = CAP_NET_ADMIN, .name = "CAP_NET_ADMIN", .other_netns_only = false},  // XDP, TCP_REPAIR, routes
    {.number = CAP_NET_RAW, .name = "CAP_NET_RAW", .other_netns_only = false},      // AF_XDP sockets
    {.number = CAP_BPF, .name = "CAP_BPF", .other_netns_only = false},
    {.number = CAP_PERFMON, .name = "CAP_PERFMON", .other_netns_only = false},  // programs that follow kernel pointers
    {.number = CAP_IPC_LOCK, .name = "CAP_IPC_LOCK", .other_netns_only = false},   // packet memory
    {.number = CAP_SYS_ADMIN, .name = "CAP_SYS_ADMIN", .other_netns_only = true},  // setns()
}};

constexpr std::uint64_t mask(unsigned number) { return std::uint64_t{1} << number; }

}  // namespace

Privileges own_privileges() {
  __user_cap_header_struct head{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, 2> data{};
  Privileges held;
  if (::syscall(SYS_capget, &head, data.data()) == 0)
    held.effective = data[0].effective | std::uint64_t{data[1].effective} << 32;
  rlimit limit{};
  held.unlimited_memlock = ::getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY;
  return held;
}

std::vector<std::string> missing_capabilities(const Privileges& held, bool other_netns) {
  std::uint64_t effective = held.effective;
  if ((effective & mask(CAP_SYS_ADMIN)) != 0) effective |= mask(CAP_BPF) | mask(CAP_PERFMON);  // it includes them
  if (held.unlimited_memlock) effective |= mask(CAP_IPC_LOCK);
  std::vector<std::string> missing;
  for (const Needed& one : kNeeded) {
    if (one.other_netns_only && !other_netns) continue;
    if ((effective & mask(one.number)) == 0) missing.emplace_back(one.name);
  }
  return missing;
}

}  // namespace twinstack::kernel
