/* The installed header is C, and libtwinstack.so exports all of it. Without a service everything passes through. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "twinstack/twinstack.h"

#define CHECK(condition)                                                     \
  do {                                                                       \
    if (!(condition)) {                                                      \
      fprintf(stderr, "%s:%d: %s failed\n", __FILE__, __LINE__, #condition); \
      return 1;                                                              \
    }                                                                        \
  } while (0)

int main(void) {
  void* const exported[] = {
      (void*)ts_accept,       (void*)ts_accept4,      (void*)ts_close,      (void*)ts_close_range,
      (void*)ts_connect,      (void*)ts_describe,     (void*)ts_dup,        (void*)ts_dup2,
      (void*)ts_dup3,         (void*)ts_epoll_create, (void*)ts_epoll_ctl,  (void*)ts_epoll_pwait,
      (void*)ts_epoll_pwait2, (void*)ts_epoll_wait,   (void*)ts_fcntl,      (void*)ts_getpeername,
      (void*)ts_getsockname,  (void*)ts_getsockopt,   (void*)ts_ioctl,      (void*)ts_keep_in_kernel,
      (void*)ts_poll,         (void*)ts_ppoll,        (void*)ts_pselect,    (void*)ts_readv,
      (void*)ts_recv,         (void*)ts_recvfrom,     (void*)ts_recvmmsg,   (void*)ts_recvmsg,
      (void*)ts_select,       (void*)ts_send,         (void*)ts_sendfile,   (void*)ts_sendmmsg,
      (void*)ts_sendmsg,      (void*)ts_sendto,       (void*)ts_setsockopt, (void*)ts_shutdown,
      (void*)ts_splice,       (void*)ts_write,        (void*)ts_writev,     (void*)ts_epoll_create1};
  for (size_t i = 0; i < sizeof(exported) / sizeof(exported[0]); ++i) CHECK(exported[i] != NULL);
  CHECK(strlen(ts_version()) > 0);

  int ends[2];
  CHECK(pipe(ends) == 0);
  CHECK(ts_write(ends[1], "c", 1) == 1);
  struct pollfd entry = {.fd = ends[0], .events = POLLIN, .revents = 0};
  CHECK(ts_poll(&entry, 1, 0) == 1);
  char byte = 0;
  CHECK(ts_read(ends[0], &byte, 1) == 1 && byte == 'c');
  struct ts_connection connection;
  CHECK(ts_describe(ends[0], &connection) == -1 && errno == ENOENT);
  CHECK(ts_keep_in_kernel(ends[0]) == 0);
  CHECK(ts_close(ends[0]) == 0 && ts_close(ends[0]) == -1 && errno == EBADF);
  return 0;
}
