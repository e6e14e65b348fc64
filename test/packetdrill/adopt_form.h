// AdoptForm: Linux makes the connections, on a tun0 of the object's own in the script's namespace; an established one
// goes to the engine by the hand-off's own code, as soon as accept() has returned it or connect() has come to its end.
// Packets are told apart by their flow. What the engine does not do (the end of a connection, options, urgent data)
// brings the connection back by the hand-off as well, as the service does it; the packet that asked for it is then
// written to the tun.
//
// Time: the engine's is virtual, Linux's is real. As long as Linux has something of its own to do, virtual time passes
// with real time (pass()); once all connections are the engine's, it leaps from one event to the next. What Linux has
// measured of a handshake is put right by VirtualTimeConn.
//
// Left out of what goes over the wire, as no script expects them: the ACK that the engine sends when it has taken over,
// and the window probe that Linux sends when it has. The driver's policies (when to move, draining before a return) are
// the driver's, not the hand-off's, and not here.
//
// The engine's device is a queue in memory; it takes nothing while that of the tun0 (its qdisc) has no place.
//
// Needs root in the namespace, and BPF.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "egress.h"
#include "flags.h"
#include "form.h"
#include "kernel/congestion_hook.h"
#include "kernel/late_filter.h"
#include "kernel/sock_diag.h"
#include "moving/engine_side.h"
#include "tun.h"
#include "virtual_time_conn.h"

namespace twinstack::packetdrill {

class AdoptForm final : public Form {
 public:
  static Result<std::unique_ptr<Form>> make(const Flags& flags, const VirtualClock& clock, Observer& observer);
  ~AdoptForm() override;

  void packet_in(ByteView ip_packet) override;
  [[nodiscard]] Time next_deadline() override;
  void on_time() override;
  Duration pass(Duration span) override;

  [[nodiscard]] bool is_socket(int fd) const override { return sockets_.contains(fd); }
  [[nodiscard]] bool is_kernels(int fd) const override;
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
    int fd = -1;
    bool connecting = false;
    bool listening = false;
    bool stays = false;                  // in the kernel, for good
    moving::EngineConn* conn = nullptr;  // once it has been to the engine
    bool send_buffer_locked = false;     // SO_SNDBUF was set
  };
  // A flow that Linux has, or had before the engine.
  struct Seen {
    FlowKey flow;
    HandshakeTimes times;
    Time syn_sent{};
    bool asked = false;     // a SYN or SYN-ACK of ours is out
    bool repeated = false;  // more than once
  };
  // Where virtual time was when the system's time of day was `real`.
  struct TimePair {
    Time real;
    Time virtual_time;
  };
  struct Counts {
    unsigned offloads = 0;
    unsigned uploads = 0;
    std::vector<std::string> refusals;  // why a connection stayed in the kernel
    std::vector<std::string> causes;    // why one came back
  };

  AdoptForm(const Flags& flags, const VirtualClock& clock, Observer& observer, Tun tun, Egress egress,
            std::unique_ptr<kernel::LateFilter> filter, std::unique_ptr<kernel::CongestionHook> hook);
  Result<> make_engine();

  // adopt_form.cc: the wire.
  void to_linux(ByteView packet);
  void from_linux();
  void work(bool swallow_ack = false);
  void note_sent(ByteView packet);
  void note_received(const wire::TcpPacket& packet);
  Seen& seen(const FlowKey& flow);
  void deliver_late();
  void note_time();
  [[nodiscard]] Time to_virtual(Time real) const;

  // adopt_moves.cc
  void adopt(Socket& socket);
  Result<> try_adopt(Socket& socket);
  void bring_back(Socket& socket, const std::string& cause, bool stays);
  void look_at_connecting();
  [[nodiscard]] Socket* find(int fd);
  [[nodiscard]] static bool in_engine(const Socket& socket) {
    return socket.conn != nullptr && socket.conn->in_engine();
  }
  [[nodiscard]] bool linux_has_connections() const;

  // adopt_calls.cc
  [[nodiscard]] moving::SendLimits send_limits(const Socket& socket) const;
  msghdr keep_parts(const msghdr& message);
  ssize_t send_to_engine(Socket& socket, const msghdr& message, int flags);
  ssize_t receive_queued(Socket& socket, msghdr& message, int flags);
  void put_stamps_right(msghdr& message) const;
  int memory_info(const Socket& socket, void* value, socklen_t* length);
  [[nodiscard]] int engine_info(const Socket& socket, void* value, socklen_t* length);

  const VirtualClock& clock_;
  Observer& observer_;
  const Flags flags_;
  Tun tun_;
  Egress egress_;
  std::unique_ptr<kernel::LateFilter> filter_;
  std::unique_ptr<kernel::CongestionHook> hook_;
  std::unique_ptr<moving::EngineSide> engine_;
  std::map<int, Socket> sockets_;
  std::vector<Seen> seen_;
  std::vector<TimePair> times_;
  Counts counts_;
  std::deque<std::vector<std::byte>> kept_bytes_;  // that were sent with MSG_ZEROCOPY
  std::deque<std::vector<iovec>> kept_parts_;
  bool linux_is_busy_ = false;  // it has had a packet since all connections were the engine's
};

}  // namespace twinstack::packetdrill
