// OwnForm: the portable software stack (src/stack) does it all, in virtual time. Nothing here needs privilege; with it,
// a tun0 is made for the scripts' commands, and never used.
#pragma once

#include <sys/uio.h>

#include <map>
#include <memory>
#include <span>

#include "base/unique_fd.h"
#include "flags.h"
#include "form.h"
#include "send_notices.h"
#include "stack/stack.h"
#include "tun.h"
#include "virtual_clock.h"

namespace twinstack::packetdrill {

class OwnForm final : public Form, private stack::Outlet, private stack::Watcher {
 public:
  OwnForm(const Flags& flags, const VirtualClock& clock, Observer& observer);

  void packet_in(ByteView ip_packet) override;
  [[nodiscard]] Time next_deadline() override { return stack_.next_deadline(); }
  void on_time() override;
  Duration pass(Duration span) override { return span; }

  [[nodiscard]] bool is_socket(int fd) const override { return sockets_.contains(fd); }
  [[nodiscard]] bool is_kernels(int /*fd*/) const override { return false; }
  int socket(int domain, int type, int protocol) override;
  int bind(int fd, const sockaddr* address, socklen_t length) override;
  int listen(int fd, int backlog) override;
  int accept(int fd, sockaddr* address, socklen_t* length) override;
  int connect(int fd, const sockaddr* address, socklen_t length) override;
  ssize_t send(int fd, const msghdr& message, int flags) override;
  [[nodiscard]] bool begins_with_send(int fd, int flags) const override;
  ssize_t receive(int fd, msghdr& message, int flags) override;
  ssize_t splice(int fd, int pipe_fd, std::size_t bytes) override;
  int shutdown(int fd, int how) override;
  int close(int fd) override;
  int set_option(int fd, int level, int name, const void* value, socklen_t length) override;
  int get_option(int fd, int level, int name, void* value, socklen_t* length) override;
  int ioctl(int fd, unsigned long request, int* value) override;
  [[nodiscard]] std::uint32_t poll(int fd) override;
  [[nodiscard]] std::string summary() const override;

 private:
  struct Socket {
    stack::SocketId id = stack::kNoSocket;
    stack::Family family = stack::Family::kV4;
    SendNotices notices;
  };

  void transmit(ByteView ip_packet) override { observer_.packet_out(ip_packet); }
  void wake(stack::SocketId id, std::uint32_t events) override;
  // What the stack has sent or heard of.
  void note_progress();
  ssize_t connect_with_data(Socket& socket, const msghdr& message, int flags);
  ssize_t send_parts(Socket& socket, std::span<const iovec> parts, int flags);
  void put_inq(int fd, msghdr& message);
  int put_memory_info(int fd, void* value, socklen_t* length);
  int adopt(stack::SocketId id, stack::Family family, const SendNotices& notices);
  [[nodiscard]] stack::SocketId id_of(int fd) const;

  const VirtualClock& clock_;
  Observer& observer_;
  stack::Config config_;
  std::unique_ptr<Tun> tun_;  // none without privilege
  stack::SoftStack stack_;
  std::map<int, Socket> sockets_;
  std::map<stack::SocketId, int> fds_;
};

}  // namespace twinstack::packetdrill
