// EpollSet: one epoll descriptor of the script. Sockets that the kernel serves stand in a real epoll set; the others in
// a list that follows Linux's own (fs/eventpoll.c): what wakes up an entry puts it on the ready list, and epoll_wait()
// asks each of those for its state. Not thread-safe.
#pragma once

#include <sys/epoll.h>

#include <list>
#include <map>
#include <span>

#include "base/unique_fd.h"
#include "form.h"

namespace twinstack::packetdrill {

class EpollSet {
 public:
  EpollSet(UniqueFd real, Form& form) noexcept : real_(std::move(real)), form_(form) {}

  // epoll_ctl(); a negative errno value.
  int control(int operation, int fd, epoll_event* event);
  // epoll_wait() without waiting.
  int collect(std::span<epoll_event> room);
  void wake(int fd, std::uint32_t events);
  // The socket has changed stacks.
  void moved(int fd);
  void forget(int fd);

 private:
  struct Entry {
    epoll_event event{};
    bool ready = false;
  };

  void look(int fd, Entry& entry);
  void enter(int fd, Entry& entry);

  UniqueFd real_;
  Form& form_;
  std::map<int, Entry> entries_;
  std::list<int> ready_;
};

}  // namespace twinstack::packetdrill
