#include "sockets/layer.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/monotonic.h"
#include "base/unique_fd.h"
#include "sockets/process.h"
#include "sockets/real_calls.h"
#include "sockets/wait.h"

namespace twinstack::sockets {

constinit Layer g_layer;

namespace {

constexpr std::int64_t kRetryNs = 1'000'000'000;  // between attempts to find a service again
constexpr rlim_t kHiddenBase = 4096;

pid_t kernel_pid() noexcept { return static_cast<pid_t>(::syscall(SYS_getpid)); }

}  // namespace

std::int64_t monotonic_ns() noexcept { return monotonic_now().time_since_epoch().count(); }

bool Layer::is_own_process() const noexcept { return kernel_pid() == pid.load(std::memory_order_relaxed); }

SonodeRef Layer::find_known(int fd, FdEntry entry) noexcept {
  for (;;) {
    Session* session = sessions[entry.session].load(std::memory_order_acquire);
    Sonode& sonode = session->sonode(entry.slot);
    sonode.refs.fetch_add(1, std::memory_order_acq_rel);
    const FdEntry again = table.get(fd);
    if (again == entry) [[likely]] {
      if (session->is_inherited()) [[unlikely]]
        take_inherited(sonode);
      return SonodeRef(&sonode);
    }
    session->unref(sonode);
    if (again.kind != FdKind::kSonode) return {};
    entry = again;
  }
}

Session* Layer::session_for_new() noexcept {
  Session* session = current.load(std::memory_order_acquire);
  if (session != nullptr && session->state() == SessionState::kLive) [[likely]]
    return session;
  if (!enabled.load(std::memory_order_relaxed) || !is_own_process()) return nullptr;
  const MutexLock lock(open_mutex);
  session = current.load(std::memory_order_acquire);
  if (session != nullptr && session->state() == SessionState::kLive) return session;
  const std::uint32_t number = session_count.load(std::memory_order_relaxed);
  if (number == kMaxSessions || monotonic_ns() < next_try_ns) return nullptr;
  const int saved_errno = errno;
  session = Session::open(socket_path.data(), number);
  errno = saved_errno;
  if (session == nullptr) {
    next_try_ns = monotonic_ns() + kRetryNs;
    return nullptr;
  }
  sessions[number].store(session, std::memory_order_release);
  session_count.store(number + 1, std::memory_order_seq_cst);
  current.store(session, std::memory_order_release);
  g_wait_room.on_new_session();
  return session;
}

int move_away(int fd) noexcept {
  if (fd < 0) return fd;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const auto base = static_cast<int>(std::min(limit.rlim_cur / 2, kHiddenBase));
  const int moved = static_cast<int>(::syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, base));
  if (moved < 0) return fd;
  close_by_syscall(fd);
  return moved;
}

void hide(int fd) noexcept {
  if (fd >= 0) g_layer.table.exchange(fd, {.kind = FdKind::kInternal, .session = 0, .slot = 0, .tag = 0});
}

void debug_line(const char* text) noexcept {
  if (!g_layer.debug) return;
  std::array<char, 256> line{};
  const int size = std::snprintf(line.data(), line.size(), "twinstack[%d]: %s\n", static_cast<int>(kernel_pid()), text);
  if (size > 0)
    ::syscall(SYS_write, STDERR_FILENO, line.data(),
              std::min<std::size_t>(static_cast<std::size_t>(size), line.size() - 1));
}

void start_layer() noexcept {
  bind_real_calls();
  g_layer.pid.store(kernel_pid(), std::memory_order_relaxed);
  g_layer.debug = ::secure_getenv("TWINSTACK_DEBUG") != nullptr;
  const char* wish = ::secure_getenv("TWINSTACK");
  if ((wish != nullptr && std::strcmp(wish, "off") == 0) || ::getauxval(AT_SECURE) != 0) return;
  const char* path = ::secure_getenv(ipc::kSocketPathVariable);
  if (path == nullptr || *path == '\0') path = ipc::kDefaultSocketPath;
  const std::size_t length = std::strlen(path);
  if (length >= g_layer.socket_path.size()) return;
  if (::access(path, F_OK) != 0) {
    debug_line("no service: everything stays in the kernel");
    return;
  }
  std::memcpy(g_layer.socket_path.data(), path, length + 1);
  static bool watches_forks = false;
  if (!watches_forks) watches_forks = ::pthread_atfork(nullptr, after_fork_in_parent, after_fork_in_child) == 0;
  g_layer.enabled.store(true, std::memory_order_release);
}

}  // namespace twinstack::sockets
