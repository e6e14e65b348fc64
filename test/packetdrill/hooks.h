// What the preloaded library asks the object about calls that packetdrill makes past its table: getsockopt() behind a
// script's assertions, sendfile(). A hook's answer is a negative errno value or the result; kNotOurs: libc's own.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

namespace twinstack::packetdrill {

struct Hooks {
  int (*getsockopt)(int fd, int level, int name, void* value, socklen_t* length);
  ssize_t (*sendfile)(int out, int in, off_t* offset, size_t bytes);
};

inline constexpr int kNotOurs = -88;  // -ENOTSOCK
inline constexpr char kRegisterHooks[] = "twinstack_packetdrill_register";
using RegisterHooks = void (*)(const Hooks*);

}  // namespace twinstack::packetdrill
