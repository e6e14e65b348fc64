#include "base/unique_fd.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace twinstack {

void UniqueFd::reset(int fd) noexcept {
  // The raw call: in a preloaded program close() is ours, and this descriptor is not the program's.
  if (fd_ >= 0) ::syscall(SYS_close, fd_);
  fd_ = fd;
}

}  // namespace twinstack
