#include "kernel/congestion_hook.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <vector>

#include "bpf/quiet_libbpf.h"
#include "bpf/shared.h"
#include "congestion.skel.h"

namespace twinstack::kernel {
namespace {

constexpr const char* kOperations = "ts_congestion_ops";
constexpr std::string_view kPlaceholder = "ts@@@@@@@@@@@@@";  // as in src/bpf/congestion.bpf.c

// Names of congestion controls are one space for the whole machine: process and instance make ours unique.
std::string unique_name() {
  static std::atomic<unsigned> instances = 0;
  char name[kPlaceholder.size() + 1];
  std::snprintf(name, sizeof name, "ts%x_%x", static_cast<unsigned>(::getpid()), ++instances);
  return name;
}

// The object file with the placeholder replaced: libbpf 1.1 gives no access to the members of a struct_ops map.
std::vector<char> object_named(const std::string& name) {
  std::size_t size = 0;
  const auto* bytes = static_cast<const char*>(congestion_bpf__elf_bytes(&size));
  std::vector<char> image(bytes, bytes + size);
  const auto at = std::search(image.begin(), image.end(), kPlaceholder.begin(), kPlaceholder.end());
  if (at == image.end()) return {};
  std::fill_n(at, kPlaceholder.size(), '\0');
  std::copy(name.begin(), name.end(), at);
  return image;
}

// The kernel's, from Linux 6.4 on (BPF_F_LINK of <linux/bpf.h>, which Debian 12's headers do not have).
constexpr std::uint32_t kMapHasLink = 1U << 13;
constexpr auto kAttachStructOps = static_cast<bpf_attach_type>(44);  // BPF_STRUCT_OPS

// The object with the map of operations, loaded. With `has_link` what becomes of it is tied to a link, and ends with
// the process; without, which is all that Linux before 6.4 knows, only ~CongestionHook ends it.
bpf_object* loaded_object(std::vector<char>& image, bool has_link) {
  bpf_object* const object = bpf_object__open_mem(image.data(), image.size(), nullptr);
  if (object == nullptr) return nullptr;
  bpf_map* const operations = bpf_object__find_map_by_name(object, kOperations);
  int rc = operations == nullptr ? -ENOENT : 0;
  if (rc == 0 && has_link) rc = bpf_map__set_map_flags(operations, kMapHasLink);
  if (rc == 0) rc = bpf_object__load(object);
  if (rc == 0) return object;
  bpf_object__close(object);
  errno = -rc;
  return nullptr;
}

Result<> set_congestion_control(int socket_fd, const char* name) {
  const auto length = static_cast<socklen_t>(std::strlen(name));
  if (::setsockopt(socket_fd, IPPROTO_TCP, TCP_CONGESTION, name, length) != 0) {
    return system_error(std::string("setsockopt(TCP_CONGESTION, ") + name + ")");
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<CongestionHook>> CongestionHook::load() {
  const QuietLibbpf quiet;
  std::unique_ptr<CongestionHook> made(new CongestionHook);
  made->name_ = unique_name();
  std::vector<char> image = object_named(made->name_);
  if (image.empty()) return error(ErrorCode::kUnsupported, "congestion hook: no name in the object");
  made->object_ = loaded_object(image, true);
  const bool has_link = made->object_ != nullptr;
  if (!has_link) made->object_ = loaded_object(image, false);
  if (made->object_ == nullptr) {
    return system_error(
        "load the congestion hook (needs BTF and struct_ops; CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, or "
        "root)");
  }
  // With a link this only makes the operations ready.
  const bpf_map* operations = bpf_object__find_map_by_name(made->object_, kOperations);
  made->link_ = bpf_map__attach_struct_ops(operations);
  if (made->link_ == nullptr) return system_error("register the congestion hook");
  // From libbpf 1.2 on that was the kernel's link already; before, its descriptor is the map's.
  if (has_link && bpf_link__fd(made->link_) == bpf_map__fd(operations)) {
    made->kernel_link_ = UniqueFd(bpf_link_create(bpf_map__fd(operations), 0, kAttachStructOps, nullptr));
    if (!made->kernel_link_) return system_error("register the congestion hook");
  }
  made->storage_fd_ = bpf_object__find_map_fd_by_name(made->object_, "ts_storage");
  return made;
}

CongestionHook::~CongestionHook() {
  kernel_link_.reset();
  bpf_link__destroy(link_);
  bpf_object__close(object_);
}

Result<> CongestionHook::apply(int socket_fd, std::uint32_t cwnd_segments, std::uint32_t ssthresh_segments,
                               const char* congestion_control) {
  const ts_congestion wanted{.cwnd_segments = cwnd_segments, .ssthresh_segments = ssthresh_segments, .put_off_ns = 0};
  if (bpf_map_update_elem(storage_fd_, &socket_fd, &wanted, BPF_ANY) != 0) {
    return system_error("write the congestion window to the socket's storage");
  }
  auto done = pass_by(socket_fd, congestion_control);
  if (!done.has_value()) (void)bpf_map_delete_elem(storage_fd_, &socket_fd);  // it is not for the next time
  return done;
}

Result<Duration> CongestionHook::stamp_lead(int socket_fd, const char* congestion_control) {
  TRY(pass_by(socket_fd, congestion_control));
  ts_congestion talk{};
  if (bpf_map_lookup_elem(storage_fd_, &socket_fd, &talk) != 0) return system_error("read the socket's storage");
  return Duration(static_cast<std::int64_t>(std::min<std::uint64_t>(talk.put_off_ns, INT64_MAX)));
}

// Ours in charge, for its init(), and the real one again.
Result<> CongestionHook::pass_by(int socket_fd, const char* congestion_control) {
  TRY(set_congestion_control(socket_fd, name_.c_str()));  // refused: the real one is still in charge
  auto back = set_congestion_control(socket_fd, congestion_control);
  // Ours never stays: Linux always has this one.
  if (!back.has_value()) TRY(set_congestion_control(socket_fd, "reno"));
  return back;
}

}  // namespace twinstack::kernel
