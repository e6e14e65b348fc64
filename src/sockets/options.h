// setsockopt, getsockopt, ioctl, fcntl and the other calls that are not data transfer, on a connection that may be with
// the engine. Each is answered by the stack that owns it, is harmless to leave on the kernel's socket, or brings the
// connection back to the kernel first and is then the real call. Nothing is made up. Any thread.
#pragma once

#include <sys/socket.h>

#include "sockets/errno_map.h"
#include "sockets/sonode.h"

namespace twinstack::sockets {

[[nodiscard]] Outcome set_option(Sonode& sonode, int fd, int level, int name, const void* value,
                                 socklen_t length) noexcept;
[[nodiscard]] Outcome get_option(Sonode& sonode, int fd, int level, int name, void* value, socklen_t* length) noexcept;
[[nodiscard]] Outcome control_io(Sonode& sonode, int fd, unsigned long request, void* argument) noexcept;
[[nodiscard]] Outcome control_file(Sonode& sonode, int fd, int command, void* argument) noexcept;
[[nodiscard]] Outcome shut_down(Sonode& sonode, int fd, int how) noexcept;
// getsockname, getpeername: the parked socket knows them, but for an instant in the middle of a move.
[[nodiscard]] Outcome get_name(Sonode& sonode, int fd, sockaddr* address, socklen_t* length, bool peer) noexcept;

}  // namespace twinstack::sockets
