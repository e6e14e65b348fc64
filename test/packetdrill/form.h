// Form: the stack that packetdrill's script runs against, as the program sees it. `own` (own_form.h) is the portable
// software stack; `adopt` (adopt_form.h) is Linux, whose established connections the engine takes over.
//
// Descriptors are real ones, made by the form. No call blocks: what would gives -EAGAIN, and Program tries again after
// everything that happens. Results below 0 are negative errno values. One thread at a time, the holder of the Program's
// lock; the time is that of the VirtualClock that the form was made with.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include "base/clock.h"
#include "wire/payload.h"

namespace twinstack::packetdrill {

inline constexpr int kTcpInq = 36;  // TCP_INQ, TCP_CM_INQ

inline std::span<const iovec> parts_of(const msghdr& message) noexcept { return {message.msg_iov, message.msg_iovlen}; }

inline bool has_bad_address(const msghdr& message) noexcept {
  return std::ranges::any_of(parts_of(message),
                             [](const iovec& part) { return part.iov_base == nullptr && part.iov_len > 0; });
}

// Whom a form tells what comes of its calls, within them.
class Observer {
 public:
  // A bare IP packet leaves at this instant.
  virtual void packet_out(ByteView ip_packet) = 0;
  // Something happened to the socket: `events` as poll() gives them, of what happened only.
  virtual void wake(int fd, std::uint32_t events) = 0;
  // Form::is_kernels() has changed.
  virtual void moved(int fd) = 0;

 protected:
  ~Observer() = default;
};

class Form {
 public:
  virtual ~Form() = default;

  // A bare IP packet arrives.
  virtual void packet_in(ByteView ip_packet) = 0;
  // When on_time() must be called even if nothing arrives.
  [[nodiscard]] virtual Time next_deadline() = 0;
  // The clock has moved.
  virtual void on_time() = 0;
  // Lets real time pass together with virtual time where the form depends on it: returns how much of `span` has passed,
  // all of it at once where only virtual time counts.
  virtual Duration pass(Duration span) = 0;

  [[nodiscard]] virtual bool is_socket(int fd) const = 0;
  // The kernel itself serves the descriptor now: it may stand in a real epoll set.
  [[nodiscard]] virtual bool is_kernels(int fd) const = 0;
  virtual int socket(int domain, int type, int protocol) = 0;
  virtual int bind(int fd, const sockaddr* address, socklen_t length) = 0;
  virtual int listen(int fd, int backlog) = 0;
  virtual int accept(int fd, sockaddr* address, socklen_t* length) = 0;
  virtual int connect(int fd, const sockaddr* address, socklen_t length) = 0;
  virtual ssize_t send(int fd, const msghdr& message, int flags) = 0;
  // Such a send() makes the connection first (Fast Open).
  [[nodiscard]] virtual bool begins_with_send(int fd, int flags) const = 0;
  virtual ssize_t receive(int fd, msghdr& message, int flags) = 0;
  // As splice() into a pipe, with no offsets.
  virtual ssize_t splice(int fd, int pipe_fd, std::size_t bytes) = 0;
  virtual int shutdown(int fd, int how) = 0;
  virtual int close(int fd) = 0;
  virtual int set_option(int fd, int level, int name, const void* value, socklen_t length) = 0;
  virtual int get_option(int fd, int level, int name, void* value, socklen_t* length) = 0;
  virtual int ioctl(int fd, unsigned long request, int* value) = 0;
  [[nodiscard]] virtual std::uint32_t poll(int fd) = 0;

  // What a run is judged by besides the script: a line for the log.
  [[nodiscard]] virtual std::string summary() const = 0;
};

}  // namespace twinstack::packetdrill
