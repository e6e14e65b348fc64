// The table of functions that packetdrill hands to the object named by --so_filename, declared from facts: the order
// and the types of its entries (docs/conformance.md says of which version). Every function gets `userdata` first.
// Errors are -1 with errno.
#pragma once

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

namespace twinstack::packetdrill {

struct InterfaceTable {
  void* userdata;
  void (*free)(void*);

  int (*socket)(void*, int domain, int type, int protocol);
  int (*bind)(void*, int fd, const sockaddr*, socklen_t);
  int (*listen)(void*, int fd, int backlog);
  int (*accept)(void*, int fd, sockaddr*, socklen_t*);
  int (*connect)(void*, int fd, const sockaddr*, socklen_t);
  ssize_t (*read)(void*, int fd, void*, size_t);
  ssize_t (*readv)(void*, int fd, const iovec*, int count);
  ssize_t (*recv)(void*, int fd, void*, size_t, int flags);
  ssize_t (*recvfrom)(void*, int fd, void*, size_t, int flags, sockaddr*, socklen_t*);
  ssize_t (*recvmsg)(void*, int fd, msghdr*, int flags);
  ssize_t (*write)(void*, int fd, const void*, size_t);
  ssize_t (*writev)(void*, int fd, const iovec*, int count);
  ssize_t (*send)(void*, int fd, const void*, size_t, int flags);
  ssize_t (*sendto)(void*, int fd, const void*, size_t, int flags, const sockaddr*, socklen_t);
  ssize_t (*sendmsg)(void*, int fd, const msghdr*, int flags);
  int (*fcntl)(void*, int fd, int command, ...);
  int (*ioctl)(void*, int fd, unsigned long request, ...);
  int (*close)(void*, int fd);
  int (*shutdown)(void*, int fd, int how);
  int (*getsockopt)(void*, int fd, int level, int name, void*, socklen_t*);
  int (*setsockopt)(void*, int fd, int level, int name, const void*, socklen_t);
  int (*poll)(void*, pollfd*, nfds_t, int timeout_ms);

  // A bare IP packet into the stack.
  int (*netdev_send)(void*, const void*, size_t);
  // The next one out of it, with the time at which it left; 0 bytes: none came.
  int (*netdev_receive)(void*, void*, size_t* bytes, long long* time_us);

  int (*usleep)(void*, useconds_t);
  int (*gettimeofday)(void*, timeval*, struct timezone*);

  int (*epoll_create)(void*, int size);
  int (*epoll_ctl)(void*, int epoll_fd, int operation, int fd, epoll_event*);
  int (*epoll_wait)(void*, int epoll_fd, epoll_event*, int most, int timeout_ms);
  int (*pipe)(void*, int fds[2]);
  int (*splice)(void*, int in, loff_t* in_offset, int out, loff_t* out_offset, size_t, unsigned flags);
};

}  // namespace twinstack::packetdrill

// What packetdrill looks up in the object and calls once.
extern "C" void packetdrill_interface_init(const char* flags, twinstack::packetdrill::InterfaceTable* table);
