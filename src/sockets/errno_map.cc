#include "sockets/errno_map.h"

namespace twinstack::sockets {

static_assert(EAGAIN == EWOULDBLOCK);

int to_errno(Failure failure) noexcept {
  switch (failure) {
    case Failure::kWouldBlock:
      return EAGAIN;
    case Failure::kInterrupted:
      return EINTR;
    case Failure::kAborted:
      return ECONNABORTED;
    case Failure::kBadDescriptor:
      return EBADF;
    case Failure::kInvalid:
      return EINVAL;
    case Failure::kTooMany:
      return EINVAL;
    case Failure::kNoMemory:
      return ENOMEM;
  }
  return EIO;
}

}  // namespace twinstack::sockets
