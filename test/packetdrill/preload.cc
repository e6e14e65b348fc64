// libtwinstack-packetdrill-preload.so, for LD_PRELOAD: hands getsockopt() and sendfile() of the process to the object
// that has registered, or else on to libc. Without a registration it changes nothing.
#include <dlfcn.h>
#include <sys/sendfile.h>

#include <atomic>
#include <cerrno>

#include "hooks.h"

namespace {

std::atomic<const twinstack::packetdrill::Hooks*> g_hooks = nullptr;

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

// The result as libc gives it; `asked` is not kNotOurs.
template <typename Result>
Result as_libc(Result asked) {
  if (asked >= 0) return asked;
  errno = static_cast<int>(-asked);
  return -1;
}

}  // namespace

extern "C" {

void twinstack_packetdrill_register(const twinstack::packetdrill::Hooks* hooks) { g_hooks = hooks; }

int getsockopt(int fd, int level, int name, void* value, socklen_t* length) noexcept {
  if (const auto* hooks = g_hooks.load(); hooks != nullptr) {
    const int asked = hooks->getsockopt(fd, level, name, value, length);
    if (asked != twinstack::packetdrill::kNotOurs) return as_libc(asked);
  }
  static auto* const real = next<int(int, int, int, void*, socklen_t*)>("getsockopt");
  return real(fd, level, name, value, length);
}

ssize_t sendfile(int out, int in, off_t* offset, size_t bytes) noexcept {
  if (const auto* hooks = g_hooks.load(); hooks != nullptr) {
    const ssize_t asked = hooks->sendfile(out, in, offset, bytes);
    if (asked != twinstack::packetdrill::kNotOurs) return as_libc(asked);
  }
  static auto* const real = next<ssize_t(int, int, off_t*, size_t)>("sendfile");
  return real(out, in, offset, bytes);
}

}  // extern "C"
