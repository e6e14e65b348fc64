#include "base/unique_fd.h"

#include <sys/syscall.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#include <sanitizer/linux_syscall_hooks.h>
#endif
#endif

namespace twinstack {

int close_by_syscall(int fd) noexcept {
#ifdef __sanitizer_syscall_pre_close
  __sanitizer_syscall_pre_close(fd);  // or a number that is used again looks like a race
#endif
  return static_cast<int>(::syscall(SYS_close, fd));
}

void UniqueFd::reset(int fd) noexcept {
  if (fd_ >= 0) close_by_syscall(fd_);
  fd_ = fd;
}

}  // namespace twinstack
