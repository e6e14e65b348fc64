#include "kernel/doctor.h"

#include <linux/capability.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string_view>
#include <thread>

#include "base/unique_fd.h"
#include "kernel/capabilities.h"
#include "kernel/congestion_hook.h"
#include "kernel/late_filter.h"
#include "kernel/repair.h"
#include "kernel/sockopt.h"

namespace twinstack::kernel {
namespace {

constexpr int kMinMajor = 5;
constexpr int kMinMinor = 18;
constexpr rlim_t kWantedMemlockBytes = 256U << 20;  // UMEM of some queues, where memory cgroups do not account BPF
constexpr int kAfXdp = 44;                          // AF_XDP
constexpr std::size_t kProbeRingBytes = 256U << 10;

Probe good(std::string name, std::string detail, bool required = true) {
  return {.name = std::move(name), .ok = true, .required = required, .detail = std::move(detail), .mend = {}};
}

Probe bad(std::string name, std::string detail, std::string mend, bool required = true) {
  return {
      .name = std::move(name), .ok = false, .required = required, .detail = std::move(detail), .mend = std::move(mend)};
}

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

Probe kernel_version() {
  utsname name{};
  int major = 0;
  int minor = 0;
  const bool read = ::uname(&name) == 0 && std::sscanf(name.release, "%d.%d", &major, &minor) == 2;
  const std::string detail = std::string("Linux ") + name.release;
  if (read && (major > kMinMajor || (major == kMinMajor && minor >= kMinMinor))) return good("kernel", detail);
  return bad("kernel", detail, "boot Linux 5.18 or newer (Debian 12 has 6.1)");
}

Probe capabilities(bool other_netns) {
  const std::vector<std::string> names = missing_capabilities(own_privileges(), other_netns);
  if (names.empty()) return good("capabilities", "all that the service needs");
  std::string missing;
  for (const std::string& name : names) missing += (missing.empty() ? "" : ", ") + name;
  return bad("capabilities", "missing: " + missing, "run the service as root, or give the unit these capabilities");
}

Probe bpf_load() {
  const auto filter = LateFilter::load(kProbeRingBytes);
  if (filter.has_value()) return good("bpf", "the late-packet filter loads");
  return bad("bpf", filter.error().message(),
             "run as root, or with the capabilities above; check that lockdown does not forbid bpf() to root");
}

Probe bpf_jit() {
  const std::string value = first_line("/proc/sys/net/core/bpf_jit_enable");
  // It is in the first network namespace only: elsewhere nothing is known to be wrong.
  if (value.empty()) return good("bpf-jit", "not to be seen from this network namespace", false);
  const std::string detail = "net.core.bpf_jit_enable = " + value;
  if (value == "1" || value == "2") return good("bpf-jit", detail, false);
  return bad("bpf-jit", detail,
             "sysctl net.core.bpf_jit_enable=1: without it every steered packet costs several times more", false);
}

Probe btf() {
  if (::access("/sys/kernel/btf/vmlinux", R_OK) == 0) return good("btf", "/sys/kernel/btf/vmlinux", false);
  return bad("btf", "/sys/kernel/btf/vmlinux cannot be read",
             "use a kernel built with CONFIG_DEBUG_INFO_BTF: without it congestion windows do not come back, and what "
             "pacing has stamped is guessed",
             false);
}

Probe struct_ops() {
  const auto hook = CongestionHook::load();
  if (hook.has_value()) return good("congestion-hook", "struct_ops congestion control registers", false);
  return bad(
      "congestion-hook", hook.error().message(),
      "needs BTF and BPF struct_ops: without them connections come back with the initial window, and a peer may drop "
      "what follows a move of one that paces (bbr)",
      false);
}

// A connection to itself through the loopback of a namespace of its own, taken through a silent disconnect and back.
Result<> try_repair() {
  UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!listener || !socket) return system_error("socket");
  const linger at_once{.l_onoff = 1, .l_linger = 0};  // nothing is left when it is closed
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) != 0)
    return system_error("setsockopt(SO_LINGER)");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof address;
  if (::bind(listener.get(), generic, length) != 0 || ::listen(listener.get(), 1) != 0 ||
      ::getsockname(listener.get(), generic, &length) != 0 || ::connect(socket.get(), generic, length) != 0) {
    return system_error("connect through loopback");
  }
  TRY(repair::set_mode(socket.get(), repair::Mode::kOn));
  sockaddr nowhere{};
  nowhere.sa_family = AF_UNSPEC;
  if (::connect(socket.get(), &nowhere, sizeof nowhere) != 0) return system_error("silent disconnect");
  TRY(repair::select_queue(socket.get(), repair::Queue::kSend));
  TRY(repair::set_queue_seq(socket.get(), 1));
  if (::connect(socket.get(), generic, length) != 0) return system_error("establish in place");
  return repair::set_mode(socket.get(), repair::Mode::kOffSilent);
}

// Without CAP_SYS_ADMIN, which the service does not need either, in this one: its loopback is up as a rule.
Result<> in_own_namespace_if_allowed(Result<> (*attempt)()) {
  Result<> outcome = error(ErrorCode::kSystem, "no thread");
  std::thread worker([&outcome, attempt] {
    if (::unshare(CLONE_NEWNET) != 0) {
      outcome = errno == EPERM ? attempt() : system_error("unshare(CLONE_NEWNET)");
      return;
    }
    // lo up, or nothing connects.
    const UniqueFd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    struct {
      char name[16] = "lo";
      short flags = 1;  // IFF_UP
      char rest[22] = {};
    } request;
    constexpr unsigned long kSetFlags = 0x8914;  // SIOCSIFFLAGS
    outcome = ::ioctl(control.get(), kSetFlags, &request) == 0 ? attempt() : system_error("bring up lo");
  });
  worker.join();
  return outcome;
}

Probe tcp_repair() {
  const auto outcome = in_own_namespace_if_allowed(&try_repair);
  if (outcome.has_value()) return good("tcp-repair", "a connection was closed silently and established in place");
  return bad("tcp-repair", outcome.error().message(),
             "needs CONFIG_CHECKPOINT_RESTORE in the kernel and CAP_NET_ADMIN");
}

Probe af_xdp() {
  const UniqueFd socket(::socket(kAfXdp, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (socket) return good("af-xdp", "sockets can be made");
  return bad("af-xdp", std::strerror(errno), "needs CONFIG_XDP_SOCKETS in the kernel and CAP_NET_RAW");
}

Probe memory_lock() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return bad("memlock", std::strerror(errno), "", false);
  if (limit.rlim_cur == RLIM_INFINITY) return good("memlock", "unlimited", false);
  const std::string detail = std::to_string(limit.rlim_cur >> 10) + " KB";
  if ((own_privileges().effective >> CAP_IPC_LOCK & 1) != 0)
    return good("memlock", detail + ", not applied to CAP_IPC_LOCK", false);
  if (limit.rlim_cur >= kWantedMemlockBytes) return good("memlock", detail, false);
  return bad("memlock", detail, "CAP_IPC_LOCK, or LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited", false);
}

Probe cgroup_v2() {
  std::ifstream mounts("/proc/thread-self/mounts");
  std::string line;
  while (std::getline(mounts, line)) {
    std::istringstream words(line);
    std::string device;
    std::string folder;
    std::string type;
    words >> device >> folder >> type;
    if (type == "cgroup2") return good("cgroup-v2", folder, false);
  }
  // `ip netns exec` hides it, and nothing here depends on it yet.
  return good("cgroup-v2", "not mounted here, and not needed", false);
}

}  // namespace

std::vector<Probe> examine_system(bool other_netns) {
  return {kernel_version(),
          capabilities(other_netns),
          tcp_repair(),
          bpf_load(),
          af_xdp(),
          bpf_jit(),
          btf(),
          struct_ops(),
          memory_lock(),
          cgroup_v2()};
}

}  // namespace twinstack::kernel
