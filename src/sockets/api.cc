// The C functions of twinstack.h. Each looks the descriptor up, and is the real call when the layer does not know it.
// errno is set here and nowhere else (errno_map.h). Not noexcept: the real calls are cancellation points.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "sockets/epoll_set.h"
#include "sockets/errno_map.h"
#include "sockets/layer.h"
#include "sockets/options.h"
#include "sockets/poll.h"
#include "sockets/preload_hooks.h"
#include "sockets/process.h"
#include "sockets/real_calls.h"
#include "sockets/transfer.h"
#include "sockets/wait.h"
#include "twinstack/twinstack.h"

namespace twinstack::sockets {
namespace {

constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kSecond = 1'000'000'000;

__attribute__((constructor(101))) void on_load() noexcept { start_layer(); }

// read() and write() of nothing on a socket are nothing (SYS5); recv() of nothing is not.
std::span<const iovec> parts_of(const iovec* parts, std::size_t count) noexcept {
  return {parts, parts != nullptr ? count : 0};
}

bool is_valid_time(const timespec& time) noexcept {
  return time.tv_sec >= 0 && time.tv_nsec >= 0 && time.tv_nsec < kSecond;
}

std::int64_t to_ns(const timespec* time) noexcept {
  if (time == nullptr) return -1;
  return time->tv_sec >= INT64_MAX / kSecond ? INT64_MAX : time->tv_sec * kSecond + time->tv_nsec;
}

std::int64_t to_ns(int timeout_ms) noexcept { return timeout_ms < 0 ? -1 : timeout_ms * kMillisecond; }

Outcome receive_message(Sonode& sonode, int fd, msghdr& message, int flags) noexcept {
  Ancillary ancillary{.room = {static_cast<std::byte*>(message.msg_control),
                               message.msg_control != nullptr ? message.msg_controllen : 0}};
  const Outcome result = receive(sonode, fd, parts_of(message.msg_iov, message.msg_iovlen), flags, &ancillary);
  if (result < 0) return result;
  message.msg_namelen = 0;  // TCP has no source address
  message.msg_controllen = ancillary.length;
  message.msg_flags = (flags & (MSG_CMSG_CLOEXEC | MSG_OOB)) | ancillary.flags;
  return result;
}

// A unix message that carries connections to somebody who has no library: they go to the kernel first.
void release_passed_descriptors(const msghdr& message) noexcept {
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(const_cast<msghdr*>(&message), c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0)) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      if (const SonodeRef sonode = g_layer.find(fd); sonode) static_cast<void>(keep_in_kernel(*sonode, "SCM_RIGHTS"));
    }
  }
}

// sendfile() and splice(): the real call may sleep in a blocking socket, so that one may not be moved any more.
template <typename Call>
Outcome run_moving_call(Sonode& sonode, int fd, const char* reason, Call&& call) noexcept {
  if (!is_nonblocking(sonode, fd))
    if (const Outcome kept = keep_in_kernel(sonode, reason); kept < 0) return kept;
  return run_in_kernel(sonode, reason, call);
}

}  // namespace

}  // namespace twinstack::sockets

using namespace twinstack::sockets;  // NOLINT(google-build-using-namespace): the C names below are all of this file

extern "C" {

// --- Connections ---

int ts_accept(int fd, sockaddr* address, socklen_t* length) {
  const int accepted = real().accept(fd, address, length);
  if (accepted >= 0) on_accepted(fd, accepted, false);
  return accepted;
}

int ts_accept4(int fd, sockaddr* address, socklen_t* length, int flags) {
  const int accepted = real().accept4(fd, address, length, flags);
  if (accepted >= 0) on_accepted(fd, accepted, (flags & SOCK_NONBLOCK) != 0);
  return accepted;
}

int ts_connect(int fd, const sockaddr* address, socklen_t length) {
  if (const SonodeRef sonode = g_layer.find(fd); sonode) {
    // Once connected: EISCONN, or AF_UNSPEC to dissolve it. While connecting: EALREADY, or the outcome.
    if (sonode->state.load() == SonodeState::kKnown)
      if (const Outcome kept = keep_in_kernel(*sonode, "connect"); kept < 0) return finish<int>(kept);
    const int again = real().connect(fd, address, length);
    const int saved_errno = errno;
    if (sonode->state.load() == SonodeState::kConnecting) confirm_connected(*sonode, fd);
    errno = saved_errno;
    return again;
  }
  const int result = real().connect(fd, address, length);
  const int saved_errno = errno;
  if (result == 0 || saved_errno == EINPROGRESS) on_connected(fd, address, result != 0);
  errno = saved_errno;
  return result;
}

int ts_close(int fd) {
  if (g_layer.table.get(fd).kind == FdKind::kUnknown) return real().close(fd);
  return finish<int>(close_descriptor(fd));
}

int ts_close_range(unsigned first, unsigned last, int flags) {
  return finish<int>(close_descriptors(first, last, flags));
}

int ts_shutdown(int fd, int how) {
  const SonodeRef sonode = g_layer.find(fd);
  return sonode ? finish<int>(shut_down(*sonode, fd, how)) : real().shutdown(fd, how);
}

int ts_dup(int fd) {
  const int copy = real().dup(fd);
  if (copy >= 0) on_duplicated(fd, copy);
  return copy;
}

int ts_dup2(int fd, int wanted) { return finish<int>(duplicate_to(fd, wanted, -1)); }

int ts_dup3(int fd, int wanted, int flags) {
  if (flags < 0) return real().dup3(fd, wanted, flags);
  return finish<int>(duplicate_to(fd, wanted, flags));
}

int ts_getsockname(int fd, sockaddr* address, socklen_t* length) {
  const SonodeRef sonode = g_layer.find(fd);
  return sonode ? finish<int>(get_name(*sonode, fd, address, length, false)) : real().getsockname(fd, address, length);
}

int ts_getpeername(int fd, sockaddr* address, socklen_t* length) {
  const SonodeRef sonode = g_layer.find(fd);
  return sonode ? finish<int>(get_name(*sonode, fd, address, length, true)) : real().getpeername(fd, address, length);
}

// --- Receiving ---

ssize_t ts_read(int fd, void* buffer, size_t size) {
  const SonodeRef sonode = g_layer.find(fd);
  if (!sonode) return real().read(fd, buffer, size);
  if (size == 0) return 0;
  const iovec part{.iov_base = buffer, .iov_len = size};
  return finish<ssize_t>(receive(*sonode, fd, {&part, 1}, 0));
}

ssize_t ts_readv(int fd, const iovec* parts, int count) {
  const SonodeRef sonode = g_layer.find(fd);
  if (!sonode) return real().readv(fd, parts, count);
  if (count < 0 || count > IOV_MAX) return finish<ssize_t>(fail(Failure::kTooMany));
  const auto all = parts_of(parts, static_cast<std::size_t>(count));
  if (std::ranges::all_of(all, [](const iovec& part) { return part.iov_len == 0; })) return 0;
  return finish<ssize_t>(receive(*sonode, fd, all, 0));
}

ssize_t ts_recv(int fd, void* buffer, size_t size, int flags) {
  const SonodeRef sonode = g_layer.find(fd);
  if (!sonode) return real().recv(fd, buffer, size, flags);
  const iovec part{.iov_base = buffer, .iov_len = size};
  return finish<ssize_t>(receive(*sonode, fd, {&part, 1}, flags));
}

ssize_t ts_recvfrom(int fd, void* buffer, size_t size, int flags, sockaddr* address, socklen_t* length) {
  const SonodeRef sonode = g_layer.find(fd);
  if (!sonode) return real().recvfrom(fd, buffer, size, flags, address, length);
  const iovec part{.iov_base = buffer, .iov_len = size};
  const Outcome result = receive(*sonode, fd, {&part, 1}, flags);
  if (result >= 0 && address != nullptr && length != nullptr) *length = 0;
  return finish<ssize_t>(result);
}

ssize_t ts_recvmsg(int fd, msghdr* message, int flags) {
  const SonodeRef sonode = g_layer.find(fd);
  if (!sonode) return real().recvmsg(fd, message, flags);
  if ((flags & MSG_ERRQUEUE) != 0) {
    // Never blocks, and has nothing to do with the stream.
    return finish<ssize_t>(run_in_kernel(*sonode, "MSG_ERRQUEUE",
                                         [=]() noexcept { return outcome_of(real().recvmsg(fd, message, flags)); }));
  }
  return finish<ssize_t>(receive_message(*sonode, fd, *message, flags));
}

int ts_recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  const SonodeRef sonode = g_layer.find(fd);
  if (sonode)
    if (const Outcome kept = keep_in_kernel(*sonode, "recvmmsg"); kept < 0) return finish<int>(kept);
  return real().recvmmsg(fd, messages, count, flags, timeout);
}

// --- Sending ---

ssize_t ts_write(int fd, const void* buffer, size_t size) {
  const SonodeRef sonode = g_layer.find(fd);
  if (!sonode) return real().write(fd, buffer, size);
  const iovec part{.iov_base = const_cast<void*>(buffer), .iov_len = size};
  return finish<ssize_t>(send(*sonode, fd, {&part, 1}, 0));
}

ssize_t ts_writev(int fd, const iovec* parts, int count) {
  const SonodeRef sonode = g_layer.find(fd);
  if (!sonode) return real().writev(fd, parts, count);
  if (count < 0 || count > IOV_MAX) return finish<ssize_t>(fail(Failure::kTooMany));
  return finish<ssize_t>(send(*sonode, fd, parts_of(parts, static_cast<std::size_t>(count)), 0));
}

ssize_t ts_send(int fd, const void* buffer, size_t size, int flags) {
  const SonodeRef sonode = g_layer.find(fd);
  if (!sonode) return real().send(fd, buffer, size, flags);
  const iovec part{.iov_base = const_cast<void*>(buffer), .iov_len = size};
  return finish<ssize_t>(send(*sonode, fd, {&part, 1}, flags));
}

ssize_t ts_sendto(int fd, const void* buffer, size_t size, int flags, const sockaddr* address, socklen_t length) {
  const SonodeRef sonode = g_layer.find(fd);
  if (!sonode) return real().sendto(fd, buffer, size, flags, address, length);
  // A connected TCP socket ignores the address.
  const iovec part{.iov_base = const_cast<void*>(buffer), .iov_len = size};
  return finish<ssize_t>(send(*sonode, fd, {&part, 1}, flags));
}

ssize_t ts_sendmsg(int fd, const msghdr* message, int flags) {
  const SonodeRef sonode = g_layer.find(fd);
  if (!sonode) {
    if (message != nullptr && message->msg_controllen > 0) release_passed_descriptors(*message);
    return real().sendmsg(fd, message, flags);
  }
  if (message->msg_controllen > 0) {
    if (const Outcome kept = keep_in_kernel(*sonode, "control data"); kept < 0) return finish<ssize_t>(kept);
    return real().sendmsg(fd, message, flags);
  }
  return finish<ssize_t>(send(*sonode, fd, parts_of(message->msg_iov, message->msg_iovlen), flags));
}

int ts_sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  const SonodeRef sonode = g_layer.find(fd);
  if (sonode)
    if (const Outcome kept = keep_in_kernel(*sonode, "sendmmsg"); kept < 0) return finish<int>(kept);
  return real().sendmmsg(fd, messages, count, flags);
}

ssize_t ts_sendfile(int out, int in, off_t* offset, size_t size) {
  const SonodeRef sonode = g_layer.find(out);
  if (!sonode) return real().sendfile(out, in, offset, size);
  return finish<ssize_t>(run_moving_call(
      *sonode, out, "sendfile", [=]() noexcept { return outcome_of(real().sendfile(out, in, offset, size)); }));
}

ssize_t ts_splice(int in, off_t* in_offset, int out, off_t* out_offset, size_t size, unsigned flags) {
  for (const int fd : {in, out})
    if (const SonodeRef sonode = g_layer.find(fd); sonode)
      if (const Outcome kept = keep_in_kernel(*sonode, "splice"); kept < 0) return finish<ssize_t>(kept);
  if (const SonodeRef sonode = g_layer.find(out); sonode && (flags & SPLICE_F_MORE) != 0) wait_for_lesson(*sonode);
  return real().splice(in, in_offset, out, out_offset, size, flags);
}

// --- Waiting ---

int ts_poll(pollfd* fds, nfds_t count, int timeout_ms) {
  if (fds == nullptr || !needs_layer({fds, count})) return real().poll(fds, count, timeout_ms);
  return finish<int>(poll_descriptors({fds, count}, to_ns(timeout_ms), nullptr));
}

int ts_ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  const bool is_sane = fds != nullptr && (timeout == nullptr || is_valid_time(*timeout));
  if (!is_sane || !needs_layer({fds, count})) return real().ppoll(fds, count, timeout, mask);
  return finish<int>(poll_descriptors({fds, count}, to_ns(timeout), mask));
}

int ts_select(int count, fd_set* readable, fd_set* writable, fd_set* special, timeval* timeout) {
  const bool is_sane = timeout == nullptr || (timeout->tv_sec >= 0 && timeout->tv_usec >= 0);
  if (!is_sane || !needs_layer(count, readable, writable, special))
    return real().select(count, readable, writable, special, timeout);
  const std::int64_t limit =
      timeout == nullptr ? -1 : std::min<std::int64_t>(timeout->tv_sec, INT32_MAX) * kSecond + timeout->tv_usec * 1000;
  const std::int64_t start = timeout == nullptr ? 0 : monotonic_ns();
  const Outcome result = select_descriptors(count, readable, writable, special, limit, nullptr);
  if (timeout != nullptr) {
    // Linux tells how much time was left.
    const std::int64_t left = std::max<std::int64_t>(limit - (monotonic_ns() - start), 0);
    *timeout = {.tv_sec = left / kSecond, .tv_usec = left % kSecond / 1000};
  }
  return finish<int>(result);
}

int ts_pselect(int count, fd_set* readable, fd_set* writable, fd_set* special, const timespec* timeout,
               const sigset_t* mask) {
  const bool is_sane = timeout == nullptr || is_valid_time(*timeout);
  if (!is_sane || !needs_layer(count, readable, writable, special))
    return real().pselect(count, readable, writable, special, timeout, mask);
  return finish<int>(select_descriptors(count, readable, writable, special, to_ns(timeout), mask));
}

int ts_epoll_create1(int flags) {
  const int set = real().epoll_create1(flags);
  if (set >= 0) EpollSets::on_created(set);
  return set;
}

int ts_epoll_create(int size) {
  if (size > 0) return ts_epoll_create1(0);
  errno = EINVAL;
  return -1;
}

int ts_epoll_ctl(int set, int operation, int fd, epoll_event* event) {
  EpollSet* known = EpollSets::find(set);
  if (known == nullptr) return real().epoll_ctl(set, operation, fd, event);
  return finish<int>(known->control(set, operation, fd, event));
}

int ts_epoll_wait(int set, epoll_event* events, int count, int timeout_ms) {
  EpollSet* known = EpollSets::find(set);
  if (known == nullptr) return real().epoll_wait(set, events, count, timeout_ms);
  return finish<int>(
      known->wait(set, events, count, {.timeout_ns = to_ns(timeout_ms), .fine = false, .mask = nullptr}));
}

int ts_epoll_pwait(int set, epoll_event* events, int count, int timeout_ms, const sigset_t* mask) {
  EpollSet* known = EpollSets::find(set);
  if (known == nullptr) return real().epoll_pwait(set, events, count, timeout_ms, mask);
  return finish<int>(known->wait(set, events, count, {.timeout_ns = to_ns(timeout_ms), .fine = false, .mask = mask}));
}

int ts_epoll_pwait2(int set, epoll_event* events, int count, const timespec* timeout, const sigset_t* mask) {
  EpollSet* known = EpollSets::find(set);
  if (known == nullptr || (timeout != nullptr && !is_valid_time(*timeout)))
    return static_cast<int>(::syscall(SYS_epoll_pwait2, set, events, count, timeout, mask, 8));
  return finish<int>(known->wait(set, events, count, {.timeout_ns = to_ns(timeout), .fine = true, .mask = mask}));
}

// --- Options ---

int ts_setsockopt(int fd, int level, int name, const void* value, socklen_t length) {
  const SonodeRef sonode = g_layer.find(fd);
  if (!sonode) return real().setsockopt(fd, level, name, value, length);
  return finish<int>(set_option(*sonode, fd, level, name, value, length));
}

int ts_getsockopt(int fd, int level, int name, void* value, socklen_t* length) {
  const SonodeRef sonode = g_layer.find(fd);
  if (!sonode) return real().getsockopt(fd, level, name, value, length);
  return finish<int>(get_option(*sonode, fd, level, name, value, length));
}

int ts_fcntl(int fd, int command, uintptr_t argument) {
  void* pointer = reinterpret_cast<void*>(argument);
  const SonodeRef sonode = g_layer.find(fd);
  if (sonode) return finish<int>(control_file(*sonode, fd, command, pointer));
  const int result = real().fcntl(fd, command, pointer);
  if (result >= 0 && (command == F_DUPFD || command == F_DUPFD_CLOEXEC)) on_duplicated(fd, result);
  return result;
}

int ts_ioctl(int fd, unsigned long request, uintptr_t argument) {
  void* pointer = reinterpret_cast<void*>(argument);
  const SonodeRef sonode = g_layer.find(fd);
  return sonode ? finish<int>(control_io(*sonode, fd, request, pointer)) : real().ioctl(fd, request, pointer);
}

// --- Beyond POSIX ---

int ts_keep_in_kernel(int fd) {
  const SonodeRef sonode = g_layer.find(fd);
  return sonode ? finish<int>(keep_in_kernel(*sonode, "asked for")) : 0;
}

void twinstack_forget_descriptor(int fd) { forget(fd); }

int ts_describe(int fd, ts_connection* connection) {
  const SonodeRef sonode = g_layer.find(fd);
  if (!sonode || sonode->session->is_inherited()) {
    errno = ENOENT;
    return -1;
  }
  *connection = {.kernel_cookie = sonode->kernel_cookie(),
                 .hw_conn_id = sonode->hw_conn_id(),
                 .slot = sonode->slot_index,
                 .in_engine = sonode->owner() == twinstack::ipc::Owner::kEngine ? 1U : 0U};
  return 0;
}

}  // extern "C"
