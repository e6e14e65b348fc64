/* The libc names that a program calls, each handed to the socket layer: this file is the list of what is interposed,
 * and does nothing else. Calls that glibc makes inside itself (stdio, the resolver) do not come through here; they use
 * no connection that can move, because fdopen() and dprintf() bring theirs back to the kernel for good first.
 *
 * C, so that glibc's declarations (noexcept in C++, attributes) need no imitation. No FORTIFY here: these are the
 * targets. */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "sockets/preload_hooks.h"
#include "twinstack/twinstack.h"

#define EXPORT __attribute__((visibility("default")))

/* --- Connections --- */

EXPORT int accept(int fd, struct sockaddr* address, socklen_t* length) { return ts_accept(fd, address, length); }
EXPORT int accept4(int fd, struct sockaddr* address, socklen_t* length, int flags) {
  return ts_accept4(fd, address, length, flags);
}
EXPORT int connect(int fd, const struct sockaddr* address, socklen_t length) { return ts_connect(fd, address, length); }
EXPORT int close(int fd) { return ts_close(fd); }
EXPORT int close_range(unsigned int first, unsigned int last, int flags) { return ts_close_range(first, last, flags); }
EXPORT void closefrom(int first) { ts_close_range(first > 0 ? (unsigned int)first : 0U, UINT_MAX, 0); }
EXPORT int shutdown(int fd, int how) { return ts_shutdown(fd, how); }
EXPORT int dup(int fd) { return ts_dup(fd); }
EXPORT int dup2(int fd, int wanted) { return ts_dup2(fd, wanted); }
EXPORT int dup3(int fd, int wanted, int flags) { return ts_dup3(fd, wanted, flags); }
EXPORT int getsockname(int fd, struct sockaddr* address, socklen_t* length) {
  return ts_getsockname(fd, address, length);
}
EXPORT int getpeername(int fd, struct sockaddr* address, socklen_t* length) {
  return ts_getpeername(fd, address, length);
}

/* --- Receiving --- */

EXPORT ssize_t read(int fd, void* buffer, size_t size) { return ts_read(fd, buffer, size); }
EXPORT ssize_t readv(int fd, const struct iovec* parts, int count) { return ts_readv(fd, parts, count); }
EXPORT ssize_t recv(int fd, void* buffer, size_t size, int flags) { return ts_recv(fd, buffer, size, flags); }
EXPORT ssize_t recvfrom(int fd, void* buffer, size_t size, int flags, struct sockaddr* address, socklen_t* length) {
  return ts_recvfrom(fd, buffer, size, flags, address, length);
}
EXPORT ssize_t recvmsg(int fd, struct msghdr* message, int flags) { return ts_recvmsg(fd, message, flags); }
EXPORT int recvmmsg(int fd, struct mmsghdr* messages, unsigned int count, int flags, struct timespec* timeout) {
  return ts_recvmmsg(fd, messages, count, flags, timeout);
}

/* --- Sending --- */

EXPORT ssize_t write(int fd, const void* buffer, size_t size) { return ts_write(fd, buffer, size); }
EXPORT ssize_t writev(int fd, const struct iovec* parts, int count) { return ts_writev(fd, parts, count); }
EXPORT ssize_t send(int fd, const void* buffer, size_t size, int flags) { return ts_send(fd, buffer, size, flags); }
EXPORT ssize_t sendto(int fd, const void* buffer, size_t size, int flags, const struct sockaddr* address,
                      socklen_t length) {
  return ts_sendto(fd, buffer, size, flags, address, length);
}
EXPORT ssize_t sendmsg(int fd, const struct msghdr* message, int flags) { return ts_sendmsg(fd, message, flags); }
EXPORT int sendmmsg(int fd, struct mmsghdr* messages, unsigned int count, int flags) {
  return ts_sendmmsg(fd, messages, count, flags);
}
EXPORT ssize_t sendfile(int out, int in, off_t* offset, size_t size) { return ts_sendfile(out, in, offset, size); }
EXPORT ssize_t sendfile64(int out, int in, off64_t* offset, size_t size) { return ts_sendfile(out, in, offset, size); }
EXPORT ssize_t splice(int in, off64_t* in_offset, int out, off64_t* out_offset, size_t size, unsigned int flags) {
  return ts_splice(in, in_offset, out, out_offset, size, flags);
}

/* --- Waiting --- */

EXPORT int poll(struct pollfd* fds, nfds_t count, int timeout_ms) { return ts_poll(fds, count, timeout_ms); }
EXPORT int ppoll(struct pollfd* fds, nfds_t count, const struct timespec* timeout, const sigset_t* mask) {
  return ts_ppoll(fds, count, timeout, mask);
}
EXPORT int select(int count, fd_set* readable, fd_set* writable, fd_set* special, struct timeval* timeout) {
  return ts_select(count, readable, writable, special, timeout);
}
EXPORT int pselect(int count, fd_set* readable, fd_set* writable, fd_set* special, const struct timespec* timeout,
                   const sigset_t* mask) {
  return ts_pselect(count, readable, writable, special, timeout, mask);
}
EXPORT int epoll_create(int size) { return ts_epoll_create(size); }
EXPORT int epoll_create1(int flags) { return ts_epoll_create1(flags); }
EXPORT int epoll_ctl(int set, int operation, int fd, struct epoll_event* event) {
  return ts_epoll_ctl(set, operation, fd, event);
}
EXPORT int epoll_wait(int set, struct epoll_event* events, int count, int timeout_ms) {
  return ts_epoll_wait(set, events, count, timeout_ms);
}
EXPORT int epoll_pwait(int set, struct epoll_event* events, int count, int timeout_ms, const sigset_t* mask) {
  return ts_epoll_pwait(set, events, count, timeout_ms, mask);
}
EXPORT int epoll_pwait2(int set, struct epoll_event* events, int count, const struct timespec* timeout,
                        const sigset_t* mask) {
  return ts_epoll_pwait2(set, events, count, timeout, mask);
}

/* --- Options --- */

EXPORT int setsockopt(int fd, int level, int name, const void* value, socklen_t length) {
  return ts_setsockopt(fd, level, name, value, length);
}
EXPORT int getsockopt(int fd, int level, int name, void* value, socklen_t* length) {
  return ts_getsockopt(fd, level, name, value, length);
}
EXPORT int fcntl(int fd, int command, ...) {
  va_list list;
  va_start(list, command);
  const uintptr_t argument = va_arg(list, uintptr_t);
  va_end(list);
  return ts_fcntl(fd, command, argument);
}
EXPORT int fcntl64(int fd, int command, ...) {
  va_list list;
  va_start(list, command);
  const uintptr_t argument = va_arg(list, uintptr_t);
  va_end(list);
  return ts_fcntl(fd, command, argument);
}
EXPORT int ioctl(int fd, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  const uintptr_t argument = va_arg(list, uintptr_t);
  va_end(list);
  return ts_ioctl(fd, request, argument);
}

/* --- What FORTIFY makes of them --- */

void __chk_fail(void) __attribute__((noreturn));

ssize_t __read_chk(int fd, void* buffer, size_t size, size_t room);
EXPORT ssize_t __read_chk(int fd, void* buffer, size_t size, size_t room) {
  if (size > room) __chk_fail();
  return ts_read(fd, buffer, size);
}
ssize_t __recv_chk(int fd, void* buffer, size_t size, size_t room, int flags);
EXPORT ssize_t __recv_chk(int fd, void* buffer, size_t size, size_t room, int flags) {
  if (size > room) __chk_fail();
  return ts_recv(fd, buffer, size, flags);
}
ssize_t __recvfrom_chk(int fd, void* buffer, size_t size, size_t room, int flags, struct sockaddr* address,
                       socklen_t* length);
EXPORT ssize_t __recvfrom_chk(int fd, void* buffer, size_t size, size_t room, int flags, struct sockaddr* address,
                              socklen_t* length) {
  if (size > room) __chk_fail();
  return ts_recvfrom(fd, buffer, size, flags, address, length);
}
int __poll_chk(struct pollfd* fds, nfds_t count, int timeout_ms, size_t room);
EXPORT int __poll_chk(struct pollfd* fds, nfds_t count, int timeout_ms, size_t room) {
  if (room / sizeof(*fds) < count) __chk_fail();
  return ts_poll(fds, count, timeout_ms);
}
int __ppoll_chk(struct pollfd* fds, nfds_t count, const struct timespec* timeout, const sigset_t* mask, size_t room);
EXPORT int __ppoll_chk(struct pollfd* fds, nfds_t count, const struct timespec* timeout, const sigset_t* mask,
                       size_t room) {
  if (room / sizeof(*fds) < count) __chk_fail();
  return ts_ppoll(fds, count, timeout, mask);
}

/* --- stdio on a socket: from then on libc uses the descriptor by itself --- */

static FILE* (*real_fdopen)(int, const char*);
static int (*real_fclose)(FILE*);
static int (*real_vdprintf)(int, const char*, va_list);

static void bind_name(void* place, const char* name) {
  void** entry = place;
  *entry = dlsym(RTLD_NEXT, name);
}

__attribute__((constructor(102))) static void bind_stdio(void) {
  bind_name(&real_fdopen, "fdopen");
  bind_name(&real_fclose, "fclose");
  bind_name(&real_vdprintf, "vdprintf");
}

EXPORT FILE* fdopen(int fd, const char* mode) {
  if (real_fdopen == NULL) bind_stdio();
  return ts_keep_in_kernel(fd) == 0 ? real_fdopen(fd, mode) : NULL;
}
EXPORT int fclose(FILE* file) {
  if (real_fclose == NULL) bind_stdio();
  const int saved_errno = errno;
  const int fd = file != NULL ? fileno(file) : -1;
  errno = saved_errno;
  if (fd >= 0) twinstack_forget_descriptor(fd);
  return real_fclose(file);
}
EXPORT int vdprintf(int fd, const char* format, va_list list) {
  if (real_vdprintf == NULL) bind_stdio();
  return ts_keep_in_kernel(fd) == 0 ? real_vdprintf(fd, format, list) : -1;
}
EXPORT int dprintf(int fd, const char* format, ...) {
  va_list list;
  va_start(list, format);
  const int result = vdprintf(fd, format, list);
  va_end(list);
  return result;
}
int __vdprintf_chk(int fd, int flag, const char* format, va_list list);
EXPORT int __vdprintf_chk(int fd, int flag, const char* format, va_list list) {
  (void)flag;
  return vdprintf(fd, format, list);
}
int __dprintf_chk(int fd, int flag, const char* format, ...);
EXPORT int __dprintf_chk(int fd, int flag, const char* format, ...) {
  (void)flag;
  va_list list;
  va_start(list, format);
  const int result = vdprintf(fd, format, list);
  va_end(list);
  return result;
}
