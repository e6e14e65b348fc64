#include "sockets/real_calls.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdint>
#include <cstring>

#include "base/unique_fd.h"

namespace twinstack::sockets {
namespace {

constexpr std::size_t kKernelSigsetBytes = 8;

template <typename... Arguments>
long raw(long number, Arguments... arguments) {
  return ::syscall(number, arguments...);
}

ssize_t raw_read(int fd, void* buffer, size_t size) { return raw(SYS_read, fd, buffer, size); }
ssize_t raw_readv(int fd, const iovec* parts, int count) { return raw(SYS_readv, fd, parts, count); }
ssize_t raw_recvfrom(int fd, void* buffer, size_t size, int flags, sockaddr* address, socklen_t* length) {
  return raw(SYS_recvfrom, fd, buffer, size, flags, address, length);
}
ssize_t raw_recv(int fd, void* buffer, size_t size, int flags) {
  return raw_recvfrom(fd, buffer, size, flags, nullptr, nullptr);
}
ssize_t raw_recvmsg(int fd, msghdr* message, int flags) { return raw(SYS_recvmsg, fd, message, flags); }
int raw_recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  return static_cast<int>(raw(SYS_recvmmsg, fd, messages, count, flags, timeout));
}
ssize_t raw_write(int fd, const void* buffer, size_t size) { return raw(SYS_write, fd, buffer, size); }
ssize_t raw_writev(int fd, const iovec* parts, int count) { return raw(SYS_writev, fd, parts, count); }
ssize_t raw_sendto(int fd, const void* buffer, size_t size, int flags, const sockaddr* address, socklen_t length) {
  return raw(SYS_sendto, fd, buffer, size, flags, address, length);
}
ssize_t raw_send(int fd, const void* buffer, size_t size, int flags) {
  return raw_sendto(fd, buffer, size, flags, nullptr, 0);
}
ssize_t raw_sendmsg(int fd, const msghdr* message, int flags) { return raw(SYS_sendmsg, fd, message, flags); }
int raw_sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  return static_cast<int>(raw(SYS_sendmmsg, fd, messages, count, flags));
}
ssize_t raw_sendfile(int out, int in, off_t* offset, size_t size) { return raw(SYS_sendfile, out, in, offset, size); }
ssize_t raw_splice(int in, off_t* in_offset, int out, off_t* out_offset, size_t size, unsigned flags) {
  return raw(SYS_splice, in, in_offset, out, out_offset, size, flags);
}
int raw_close(int fd) { return close_by_syscall(fd); }
int raw_close_range(unsigned first, unsigned last, int flags) {
  return static_cast<int>(raw(SYS_close_range, first, last, flags));
}
int raw_shutdown(int fd, int how) { return static_cast<int>(raw(SYS_shutdown, fd, how)); }
int raw_accept4(int fd, sockaddr* address, socklen_t* length, int flags) {
  return static_cast<int>(raw(SYS_accept4, fd, address, length, flags));
}
int raw_accept(int fd, sockaddr* address, socklen_t* length) { return raw_accept4(fd, address, length, 0); }
int raw_connect(int fd, const sockaddr* address, socklen_t length) {
  return static_cast<int>(raw(SYS_connect, fd, address, length));
}
int raw_ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  timespec copy{};  // the system call writes the time that is left
  if (timeout != nullptr) copy = *timeout;
  return static_cast<int>(raw(SYS_ppoll, fds, count, timeout != nullptr ? &copy : nullptr, mask, kKernelSigsetBytes));
}
int raw_poll(pollfd* fds, nfds_t count, int timeout_ms) {
  const timespec timeout{.tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1'000'000L};
  return raw_ppoll(fds, count, timeout_ms < 0 ? nullptr : &timeout, nullptr);
}
int raw_pselect(int count, fd_set* readable, fd_set* writable, fd_set* special, const timespec* timeout,
                const sigset_t* mask) {
  struct {
    const sigset_t* mask;
    std::size_t size;
  } const argument{mask, kKernelSigsetBytes};
  timespec copy{};
  if (timeout != nullptr) copy = *timeout;
  return static_cast<int>(raw(SYS_pselect6, count, readable, writable, special, timeout != nullptr ? &copy : nullptr,
                              mask != nullptr ? &argument : nullptr));
}
int raw_select(int count, fd_set* readable, fd_set* writable, fd_set* special, timeval* timeout) {
  timespec converted{};
  if (timeout != nullptr) converted = {.tv_sec = timeout->tv_sec, .tv_nsec = timeout->tv_usec * 1000};
  return raw_pselect(count, readable, writable, special, timeout != nullptr ? &converted : nullptr, nullptr);
}
int raw_epoll_create1(int flags) { return static_cast<int>(raw(SYS_epoll_create1, flags)); }
int raw_epoll_ctl(int set, int operation, int fd, epoll_event* event) {
  return static_cast<int>(raw(SYS_epoll_ctl, set, operation, fd, event));
}
int raw_epoll_pwait(int set, epoll_event* events, int count, int timeout_ms, const sigset_t* mask) {
  return static_cast<int>(raw(SYS_epoll_pwait, set, events, count, timeout_ms, mask, kKernelSigsetBytes));
}
int raw_epoll_wait(int set, epoll_event* events, int count, int timeout_ms) {
  return raw_epoll_pwait(set, events, count, timeout_ms, nullptr);
}
int raw_fcntl(int fd, int command, ...) {
  va_list list;
  va_start(list, command);
  void* argument = va_arg(list, void*);
  va_end(list);
  return static_cast<int>(raw(SYS_fcntl, fd, command, argument));
}
int raw_ioctl(int fd, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  void* argument = va_arg(list, void*);
  va_end(list);
  return static_cast<int>(raw(SYS_ioctl, fd, request, argument));
}
int raw_setsockopt(int fd, int level, int name, const void* value, socklen_t length) {
  return static_cast<int>(raw(SYS_setsockopt, fd, level, name, value, length));
}
int raw_getsockopt(int fd, int level, int name, void* value, socklen_t* length) {
  return static_cast<int>(raw(SYS_getsockopt, fd, level, name, value, length));
}
int raw_getsockname(int fd, sockaddr* address, socklen_t* length) {
  return static_cast<int>(raw(SYS_getsockname, fd, address, length));
}
int raw_getpeername(int fd, sockaddr* address, socklen_t* length) {
  return static_cast<int>(raw(SYS_getpeername, fd, address, length));
}
int raw_dup(int fd) { return static_cast<int>(raw(SYS_dup, fd)); }
int raw_sched_yield() { return static_cast<int>(raw(SYS_sched_yield)); }
int raw_dup3(int fd, int wanted, int flags) { return static_cast<int>(raw(SYS_dup3, fd, wanted, flags)); }
int raw_dup2(int fd, int wanted) {
  // dup3 refuses equal numbers, dup2 only checks the descriptor.
  if (fd == wanted) return raw_fcntl(fd, F_GETFD) < 0 ? -1 : fd;
  return raw_dup3(fd, wanted, 0);
}

template <typename Function>
void bind(Function*& entry, const char* name) noexcept {
  void* symbol = ::dlsym(RTLD_NEXT, name);
  if (symbol == nullptr) return;
  Function* function = nullptr;
  static_assert(sizeof(function) == sizeof(symbol));
  std::memcpy(static_cast<void*>(&function), static_cast<const void*>(&symbol), sizeof(function));
  entry = function;
}

}  // namespace

// clang-format off: the formatter never comes to rest on a list like this
#define TS_REAL_CALLS(X) \
  X(read) X(readv) X(recv) X(recvfrom) X(recvmsg) X(recvmmsg) X(write) X(writev) X(send) X(sendto) \
  X(sendmsg) X(sendmmsg) X(sendfile) X(splice) X(close) X(close_range) X(shutdown) X(accept) \
  X(accept4) X(connect) X(poll) X(ppoll) X(select) X(pselect) X(epoll_create1) X(epoll_ctl) \
  X(epoll_wait) X(epoll_pwait) X(fcntl) X(ioctl) X(setsockopt) X(getsockopt) X(getsockname) \
  X(getpeername) X(dup) X(dup2) X(dup3) X(sched_yield)
// clang-format on

#define TS_RAW_ENTRY(name) .name = raw_##name,
constinit RealCalls g_real = {TS_REAL_CALLS(TS_RAW_ENTRY)};

void bind_real_calls() noexcept {
  RealCalls bound = g_real;
#define TS_BIND_ENTRY(name) bind(bound.name, #name);
  TS_REAL_CALLS(TS_BIND_ENTRY)
  g_real = bound;
}

}  // namespace twinstack::sockets
