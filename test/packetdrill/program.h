// Program: what packetdrill's table of functions stands on, for either form: the lock, the clock, calls that block,
// descriptors' O_NONBLOCK, poll and epoll, and the packets that have left.
//
// Threads: two of packetdrill's. The main one does everything; calls that a script expects to block come on the second.
// A blocked call really sleeps (packetdrill looks for that in /proc) and is tried again by whoever makes something
// happen, at the very instant at which it happens. From then on the clock stands still until the woken thread has read
// it, as packetdrill takes that reading for the end of the call; else the main thread would run ahead.
#pragma once

#include <poll.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "epoll_set.h"
#include "form.h"
#include "virtual_clock.h"

namespace twinstack::packetdrill {

// How long the script may wait for a packet: beyond every time that one expects.
inline constexpr Duration kPacketPatience = std::chrono::seconds(4);

class Program final : private Observer {
 public:
  using MakeForm = std::function<std::unique_ptr<Form>(VirtualClock& clock, Observer& observer)>;
  explicit Program(const MakeForm& make_form);

  // Results: negative errno values, as with Form. program_calls.cc: sockets; program_files.cc: the others.
  int socket(int domain, int type, int protocol);
  int bind(int fd, const sockaddr* address, socklen_t length);
  int listen(int fd, int backlog);
  int accept(int fd, sockaddr* address, socklen_t* length);
  int connect(int fd, const sockaddr* address, socklen_t length);
  ssize_t send(int fd, const msghdr& message, int flags);
  ssize_t receive(int fd, msghdr& message, int flags);
  int shutdown(int fd, int how);
  int close(int fd);
  int set_option(int fd, int level, int name, const void* value, socklen_t length);
  // -ENOTSOCK when the descriptor is none of ours.
  int get_option(int fd, int level, int name, void* value, socklen_t* length);
  int fcntl(int fd, int command, int argument);
  int ioctl(int fd, unsigned long request, int* value);

  int poll(pollfd* fds, nfds_t count, int timeout_ms);
  int epoll_create(int size);
  int epoll_control(int epoll_fd, int operation, int fd, epoll_event* event);
  int epoll_wait(int epoll_fd, epoll_event* events, int most, int timeout_ms);
  ssize_t splice(int in, int out, std::size_t bytes);
  ssize_t sendfile(int out, int in, off_t* offset, std::size_t bytes);

  int packet_in(const void* packet, std::size_t bytes);
  // Waits for a packet, with the clock running; 0 bytes when none has come in kPacketPatience.
  int packet_out(void* room, std::size_t* bytes, long long* time_us);
  void sleep_us(std::uint64_t us);
  long long read_clock_us();

  [[nodiscard]] std::string summary();

 private:
  using Lock = std::unique_lock<std::mutex>;
  using Attempt = std::function<ssize_t()>;
  struct Packet {
    std::vector<std::byte> bytes;
    long long time_us;
  };
  // A call that sleeps.
  struct Waiter {
    const Attempt& attempt;
    Time deadline;
    ssize_t result;
    int thread;
    bool done = false;
  };

  void packet_out(ByteView ip_packet) override;
  void wake(int fd, std::uint32_t events) override;
  void moved(int fd) override;

  ssize_t wait_for(Lock& lock, Time deadline, const Attempt& attempt);
  void retry_waiters();
  void await_reading(Lock& lock);
  void step(Lock& lock, Time limit);
  void advance(Lock& lock, Time to);
  [[nodiscard]] Time deadline_of(int timeout_ms) const;
  [[nodiscard]] bool is_nonblocking(int fd) const;
  [[nodiscard]] int count_ready(std::span<pollfd> fds);
  [[nodiscard]] ssize_t finish_connect(int fd);

  std::mutex mutex_;
  std::condition_variable woken_;
  VirtualClock clock_;
  std::unique_ptr<Form> form_;
  std::map<int, bool> nonblocking_;  // by descriptor
  std::map<int, std::unique_ptr<EpollSet>> epoll_sets_;
  std::deque<Packet> out_;
  std::vector<Waiter*> waiters_;
  bool woke_somebody_ = false;  // since the script last slept
  int reader_ = 0;  // the thread that must read the clock before it may move, 0 = none
};

}  // namespace twinstack::packetdrill
