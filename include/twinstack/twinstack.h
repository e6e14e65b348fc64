/* Twinstack's socket layer: the POSIX socket calls, for connections that may live in the kernel's TCP or in the engine
 * and move between them while they are used.
 *
 * Link with -ltwinstack and call ts_*() where the program would call the libc function of the same name; or run an
 * unmodified program with LD_PRELOAD=libtwinstack-preload.so, which is the same code behind libc's own names.
 *
 * What holds for every function here:
 * - It takes the arguments of the libc function, returns what it returns and sets errno as it does. What is said below
 *   is only what goes beyond the manual page.
 * - Descriptors are the kernel's, always. socket(), bind(), listen(), getaddrinfo() ... stay libc's. A descriptor that
 * the layer does not know (a file, a pipe, a UDP socket) goes straight to the real call, at the cost of two loads.
 * - With no service running when the program started (the unix socket $TWINSTACK_SOCKET, else
 *   /run/twinstack/twinstack.sock, does not exist), with TWINSTACK=off in the environment, or in a setuid program,
 * every function is the real call.
 * - Any thread may call any function on any descriptor; several threads may use one connection. None of the functions
 *   may be called from a signal handler on a connection that the interrupted thread is using in a call of this library.
 * - A call that may block blocks as the kernel's would: O_NONBLOCK, MSG_DONTWAIT, SO_RCVTIMEO, SO_SNDTIMEO and EINTR
 * hold. Beside that, a call waits while its connection is being moved (well under a millisecond), also on a
 * non-blocking descriptor.
 * - Once a descriptor is known here, no other code may use it past these functions (stdio, io_uring, raw system calls):
 * the parked kernel socket of a connection that the engine owns carries no data. The preload library takes care of
 *   fdopen() and dprintf().
 * - The additional errno is ECONNABORTED: the service died with the connection in its hands. poll() and epoll_wait()
 *   report POLLERR | POLLHUP then.
 *
 * The library allocates nothing in data calls and prints nothing unless TWINSTACK_DEBUG is set.
 *
 * Example: see examples/echo.c.
 */
#ifndef TWINSTACK_TWINSTACK_H
#define TWINSTACK_TWINSTACK_H

#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mmsghdr;

/* --- Connections -------------------------------------------------------------------------------------------------- */

/* accept(2), accept4(2). A TCP connection that comes out is known to the service from here on and may be moved. When
 * the service cannot take it (no free slot, its socket full), it stays an ordinary kernel socket. Blocks in the kernel.
 */
int ts_accept(int fd, struct sockaddr* address, socklen_t* length);
int ts_accept4(int fd, struct sockaddr* address, socklen_t* length, int flags);

/* connect(2). The connection is known to the service when it is established; after EINPROGRESS, from the first call
 * that finds it so (getsockopt(SO_ERROR), a data call). Blocks in the kernel. */
int ts_connect(int fd, const struct sockaddr* address, socklen_t length);

/* close(2). The last descriptor of this process: the connection goes back to the kernel, which closes it in order, also
 * when the engine owns it; the call does not wait for that, and with SO_LINGER it does not linger either. EBADF on one
 * of the library's own descriptors. */
int ts_close(int fd);
/* close_range(2); leaves the library's own descriptors open. */
int ts_close_range(unsigned int first, unsigned int last, int flags);

/* shutdown(2). Brings the connection back to the kernel first (waits for that: a few round trips when data is in
 * flight). */
int ts_shutdown(int fd, int how);

/* dup(2), dup2(2), dup3(2). All copies are the same connection. EBUSY: `wanted` is one of the library's own
 * descriptors. */
int ts_dup(int fd);
int ts_dup2(int fd, int wanted);
int ts_dup3(int fd, int wanted, int flags);

/* getsockname(2), getpeername(2): as ever, but not in the middle of a move. */
int ts_getsockname(int fd, struct sockaddr* address, socklen_t* length);
int ts_getpeername(int fd, struct sockaddr* address, socklen_t* length);

/* --- Receiving ---------------------------------------------------------------------------------------------------- */

/* read(2), readv(2), recv(2), recvfrom(2), recvmsg(2). MSG_PEEK, MSG_DONTWAIT, MSG_TRUNC and MSG_WAITALL are done by
 * the engine too (MSG_PEEK with MSG_WAITALL returns what is there); any other flag brings the connection back to the
 * kernel for good. Buffers must be valid memory: a bad pointer is SIGSEGV, not EFAULT, while the engine owns the
 * connection. */
ssize_t ts_read(int fd, void* buffer, size_t size);
ssize_t ts_readv(int fd, const struct iovec* parts, int count);
ssize_t ts_recv(int fd, void* buffer, size_t size, int flags);
ssize_t ts_recvfrom(int fd, void* buffer, size_t size, int flags, struct sockaddr* address, socklen_t* length);
ssize_t ts_recvmsg(int fd, struct msghdr* message, int flags);
/* recvmmsg(2): brings the connection back to the kernel for good. */
int ts_recvmmsg(int fd, struct mmsghdr* messages, unsigned int count, int flags, struct timespec* timeout);

/* --- Sending ------------------------------------------------------------------------------------------------------ */

/* write(2), writev(2), send(2), sendto(2), sendmsg(2). MSG_MORE, MSG_DONTWAIT and MSG_NOSIGNAL are done by the engine
 * too; any other flag, and control data, brings the connection back to the kernel for good. sendmsg() of SCM_RIGHTS
 * over a unix socket brings the connections that it carries back to the kernel for good. SIGPIPE is raised as the
 * kernel does. */
ssize_t ts_write(int fd, const void* buffer, size_t size);
ssize_t ts_writev(int fd, const struct iovec* parts, int count);
ssize_t ts_send(int fd, const void* buffer, size_t size, int flags);
ssize_t ts_sendto(int fd, const void* buffer, size_t size, int flags, const struct sockaddr* address, socklen_t length);
ssize_t ts_sendmsg(int fd, const struct msghdr* message, int flags);
/* sendmmsg(2): brings the connection back to the kernel for good. */
int ts_sendmmsg(int fd, struct mmsghdr* messages, unsigned int count, int flags);
/* sendfile(2), splice(2): bring the connection back to the kernel; for good when the descriptor blocks. */
ssize_t ts_sendfile(int out, int in, off_t* offset, size_t size);
ssize_t ts_splice(int in, off_t* in_offset, int out, off_t* out_offset, size_t size, unsigned int flags);

/* --- Waiting ------------------------------------------------------------------------------------------------------ */

/* poll(2), ppoll(2), select(2), pselect(2). */
int ts_poll(struct pollfd* fds, nfds_t count, int timeout_ms);
int ts_ppoll(struct pollfd* fds, nfds_t count, const struct timespec* timeout, const sigset_t* mask);
int ts_select(int count, fd_set* readable, fd_set* writable, fd_set* special, struct timeval* timeout);
int ts_pselect(int count, fd_set* readable, fd_set* writable, fd_set* special, const struct timespec* timeout,
               const sigset_t* mask);

/* epoll(7): level, edge, one-shot as the kernel does. After a move an edge may be reported once more than the kernel
 * would. EPOLLEXCLUSIVE may wake more than one set. A set that holds connections must be waited for here. */
int ts_epoll_create(int size);
int ts_epoll_create1(int flags);
int ts_epoll_ctl(int set, int operation, int fd, struct epoll_event* event);
int ts_epoll_wait(int set, struct epoll_event* events, int count, int timeout_ms);
int ts_epoll_pwait(int set, struct epoll_event* events, int count, int timeout_ms, const sigset_t* mask);
int ts_epoll_pwait2(int set, struct epoll_event* events, int count, const struct timespec* timeout,
                    const sigset_t* mask);

/* --- Options ------------------------------------------------------------------------------------------------------ */

/* setsockopt(2), getsockopt(2), fcntl(2), ioctl(2). Answered by the stack that owns the connection (SO_ERROR, TCP_INFO,
 * TCP_MAXSEG, FIONREAD, SIOCOUTQ, SIOCOUTQNSD), left to the kernel's socket where the engine has no part in it
 * (SO_LINGER, time limits, buffer sizes, O_NONBLOCK), else the connection goes back to the kernel first. `argument`: an
 * integer or a pointer, as the request says; 0 when there is none. */
int ts_setsockopt(int fd, int level, int name, const void* value, socklen_t length);
int ts_getsockopt(int fd, int level, int name, void* value, socklen_t* length);
int ts_fcntl(int fd, int command, uintptr_t argument);
int ts_ioctl(int fd, unsigned long request, uintptr_t argument);

/* --- Beyond POSIX ------------------------------------------------------------------------------------------------- */

/* Brings the connection back to the kernel for good, so that the descriptor may be used past this library (stdio,
 * io_uring, another process). 0, also for a descriptor that the library does not know; -1 with errno ECONNABORTED or
 * EBADF. Waits until it is there. */
int ts_keep_in_kernel(int fd);

/* The library's version, "0.1.0". */
const char* ts_version(void);

/* What the library knows of a descriptor. Returns 0, or -1 with errno ENOENT when it is no connection of the service's.
 * Does not block. */
struct ts_connection {
  uint64_t kernel_cookie; /* SO_COOKIE; 0 until the service has registered it */
  uint64_t hw_conn_id;    /* the engine's id; 0 while the kernel owns it */
  uint32_t slot;          /* of the service's session with this process */
  uint32_t in_engine;     /* 1: the engine owns it at this moment */
};
int ts_describe(int fd, struct ts_connection* connection);

#ifdef __cplusplus
}
#endif

#endif
