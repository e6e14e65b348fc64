// libtwinstack-packetdrill.so: packetdrill's table over Program. One object per process.
#include <fmt/core.h>

#include <dlfcn.h>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "adopt_form.h"
#include "flags.h"
#include "hooks.h"
#include "interface.h"
#include "own_form.h"
#include "program.h"

namespace twinstack::packetdrill {

namespace {

struct Object {
  Flags flags;
  Program program;
};

// A script that fails ends the process without free().
Object* g_object = nullptr;

Program& program(void* userdata) noexcept { return static_cast<Object*>(userdata)->program; }

template <typename Result>
Result as_libc(Result result) noexcept {
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

[[noreturn]] void give_up(const std::string& why) {
  fmt::print(stderr, "twinstack-packetdrill: {}\n", why);
  std::exit(1);
}

void write_log() {
  if (g_object == nullptr || g_object->flags.log_path.empty()) return;
  std::FILE* const file = std::fopen(g_object->flags.log_path.c_str(), "ae");
  if (file == nullptr) return;
  fmt::print(file, "{}\n", g_object->program.summary());
  std::fclose(file);
}

void destroy(void* /*userdata*/) {
  write_log();
  delete std::exchange(g_object, nullptr);
}

// ---- Sockets

int do_socket(void* self, int domain, int type, int protocol) {
  return as_libc(program(self).socket(domain, type, protocol));
}
int do_bind(void* self, int fd, const sockaddr* address, socklen_t length) {
  return as_libc(program(self).bind(fd, address, length));
}
int do_listen(void* self, int fd, int backlog) { return as_libc(program(self).listen(fd, backlog)); }
int do_accept(void* self, int fd, sockaddr* address, socklen_t* length) {
  return as_libc(program(self).accept(fd, address, length));
}
int do_connect(void* self, int fd, const sockaddr* address, socklen_t length) {
  return as_libc(program(self).connect(fd, address, length));
}

ssize_t receive(void* self, int fd, const iovec* parts, int count, int flags) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts);
  message.msg_iovlen = static_cast<std::size_t>(count);
  return as_libc(program(self).receive(fd, message, flags));
}
ssize_t receive_one(void* self, int fd, void* room, size_t bytes, int flags) {
  const iovec part{.iov_base = room, .iov_len = bytes};
  return receive(self, fd, &part, 1, flags);
}
ssize_t do_read(void* self, int fd, void* room, size_t bytes) { return receive_one(self, fd, room, bytes, 0); }
ssize_t do_readv(void* self, int fd, const iovec* parts, int count) { return receive(self, fd, parts, count, 0); }
ssize_t do_recv(void* self, int fd, void* room, size_t bytes, int flags) {
  return receive_one(self, fd, room, bytes, flags);
}
ssize_t do_recvfrom(void* self, int fd, void* room, size_t bytes, int flags, sockaddr* /*from*/,
                    socklen_t* from_length) {
  if (from_length != nullptr) *from_length = 0;  // as TCP
  return receive_one(self, fd, room, bytes, flags);
}
ssize_t do_recvmsg(void* self, int fd, msghdr* message, int flags) {
  return as_libc(program(self).receive(fd, *message, flags));
}

ssize_t send(void* self, int fd, const iovec* parts, int count, int flags, const sockaddr* to = nullptr,
             socklen_t to_length = 0) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts);
  message.msg_iovlen = static_cast<std::size_t>(count);
  message.msg_name = const_cast<sockaddr*>(to);
  message.msg_namelen = to_length;
  return as_libc(program(self).send(fd, message, flags));
}
ssize_t do_write(void* self, int fd, const void* bytes, size_t size) {
  const iovec part{.iov_base = const_cast<void*>(bytes), .iov_len = size};
  return send(self, fd, &part, 1, 0);
}
ssize_t do_writev(void* self, int fd, const iovec* parts, int count) { return send(self, fd, parts, count, 0); }
ssize_t do_sendto(void* self, int fd, const void* bytes, size_t size, int flags, const sockaddr* to,
                  socklen_t to_length) {
  const iovec part{.iov_base = const_cast<void*>(bytes), .iov_len = size};
  return send(self, fd, &part, 1, flags, to, to_length);
}
ssize_t do_send(void* self, int fd, const void* bytes, size_t size, int flags) {
  return do_sendto(self, fd, bytes, size, flags, nullptr, 0);
}
ssize_t do_sendmsg(void* self, int fd, const msghdr* message, int flags) {
  return as_libc(program(self).send(fd, *message, flags));
}

int do_fcntl(void* self, int fd, int command, ...) {
  va_list more;
  va_start(more, command);
  const int argument = va_arg(more, int);
  va_end(more);
  return as_libc(program(self).fcntl(fd, command, argument));
}
int do_ioctl(void* self, int fd, unsigned long request, ...) {
  va_list more;
  va_start(more, request);
  int* const value = va_arg(more, int*);
  va_end(more);
  return as_libc(program(self).ioctl(fd, request, value));
}
int do_close(void* self, int fd) { return as_libc(program(self).close(fd)); }
int do_shutdown(void* self, int fd, int how) { return as_libc(program(self).shutdown(fd, how)); }
int do_getsockopt(void* self, int fd, int level, int name, void* value, socklen_t* length) {
  return as_libc(program(self).get_option(fd, level, name, value, length));
}
int do_setsockopt(void* self, int fd, int level, int name, const void* value, socklen_t length) {
  return as_libc(program(self).set_option(fd, level, name, value, length));
}

// ---- Network, clock, readiness

int do_poll(void* self, pollfd* fds, nfds_t count, int timeout_ms) {
  return as_libc(program(self).poll(fds, count, timeout_ms));
}
int do_netdev_send(void* self, const void* packet, size_t bytes) { return program(self).packet_in(packet, bytes); }
int do_netdev_receive(void* self, void* room, size_t* bytes, long long* time_us) {
  return program(self).packet_out(room, bytes, time_us);
}
int do_usleep(void* self, useconds_t us) {
  program(self).sleep_us(us);
  return 0;
}
int do_gettimeofday(void* self, timeval* out, struct timezone* /*zone*/) {
  const long long us = program(self).read_clock_us();
  out->tv_sec = us / 1'000'000;
  out->tv_usec = us % 1'000'000;
  return 0;
}
int do_epoll_create(void* self, int size) { return as_libc(program(self).epoll_create(size)); }
int do_epoll_ctl(void* self, int epoll_fd, int operation, int fd, epoll_event* event) {
  return as_libc(program(self).epoll_control(epoll_fd, operation, fd, event));
}
int do_epoll_wait(void* self, int epoll_fd, epoll_event* events, int most, int timeout_ms) {
  return as_libc(program(self).epoll_wait(epoll_fd, events, most, timeout_ms));
}
int do_pipe(void* /*self*/, int fds[2]) { return ::pipe(fds); }
// The script's missing offsets come as pointers to 0.
int do_splice(void* self, int in, loff_t* /*in_offset*/, int out, loff_t* /*out_offset*/, size_t bytes,
              unsigned /*flags*/) {
  return static_cast<int>(as_libc(program(self).splice(in, out, bytes)));
}

void fill(InterfaceTable& table) {
  table = {.userdata = g_object,
           .free = destroy,
           .socket = do_socket,
           .bind = do_bind,
           .listen = do_listen,
           .accept = do_accept,
           .connect = do_connect,
           .read = do_read,
           .readv = do_readv,
           .recv = do_recv,
           .recvfrom = do_recvfrom,
           .recvmsg = do_recvmsg,
           .write = do_write,
           .writev = do_writev,
           .send = do_send,
           .sendto = do_sendto,
           .sendmsg = do_sendmsg,
           .fcntl = do_fcntl,
           .ioctl = do_ioctl,
           .close = do_close,
           .shutdown = do_shutdown,
           .getsockopt = do_getsockopt,
           .setsockopt = do_setsockopt,
           .poll = do_poll,
           .netdev_send = do_netdev_send,
           .netdev_receive = do_netdev_receive,
           .usleep = do_usleep,
           .gettimeofday = do_gettimeofday,
           .epoll_create = do_epoll_create,
           .epoll_ctl = do_epoll_ctl,
           .epoll_wait = do_epoll_wait,
           .pipe = do_pipe,
           .splice = do_splice};
}

// ---- What packetdrill calls past the table

int hooked_getsockopt(int fd, int level, int name, void* value, socklen_t* length) {
  return g_object == nullptr ? kNotOurs : g_object->program.get_option(fd, level, name, value, length);
}
ssize_t hooked_sendfile(int out, int in, off_t* offset, size_t bytes) {
  return g_object == nullptr ? kNotOurs : g_object->program.sendfile(out, in, offset, bytes);
}
constexpr Hooks kHooks = {.getsockopt = hooked_getsockopt, .sendfile = hooked_sendfile};

std::unique_ptr<Form> make_form(const Flags& flags, VirtualClock& clock, Observer& observer) {
  if (!flags.adopt) return std::make_unique<OwnForm>(flags, clock, observer);
  auto made = AdoptForm::make(flags, clock, observer);
  if (!made) give_up(made.error().message());
  return std::move(*made);
}

}  // namespace

}  // namespace twinstack::packetdrill

using namespace twinstack::packetdrill;

extern "C" void packetdrill_interface_init(const char* text, InterfaceTable* table) {
  const auto flags = parse_flags(text);
  if (!flags) give_up(flags.error().message());
  g_object = new Object{
      *flags, Program([&](VirtualClock& clock, Observer& observer) { return make_form(*flags, clock, observer); })};
  fill(*table);
  std::atexit([] { write_log(); });
  if (auto* const hook = reinterpret_cast<RegisterHooks>(::dlsym(RTLD_DEFAULT, kRegisterHooks)); hook != nullptr) {
    hook(&kHooks);
  }
}
