/* An echo server on Twinstack's C interface: the POSIX calls with ts_ before them.
 *
 *   echo PORT
 *
 * Serves all its connections with one thread and poll(). With no service running it is an ordinary server. */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "twinstack/twinstack.h"

#define MAX_CONNECTIONS 256

static int listen_on(int port) {
  const int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((unsigned short)port)};
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (fd < 0 || bind(fd, (struct sockaddr*)&address, sizeof(address)) != 0 || listen(fd, 128) != 0) return -1;
  return fd;
}

/* Sends what one read gave back. Returns 0 when the connection is over. */
static int echo(int fd) {
  char buffer[16384];
  const ssize_t size = ts_read(fd, buffer, sizeof(buffer));
  return size > 0 && ts_send(fd, buffer, (size_t)size, MSG_NOSIGNAL) == size;
}

int main(int argc, char** argv) {
  struct pollfd fds[1 + MAX_CONNECTIONS];
  nfds_t count = 1;
  if (argc != 2 || (fds[0].fd = listen_on(atoi(argv[1]))) < 0) {
    fprintf(stderr, "usage: %s PORT (%s)\n", argv[0], strerror(errno));
    return 1;
  }
  fds[0].events = POLLIN;
  for (;;) {
    if (ts_poll(fds, count, -1) < 0 && errno != EINTR) return 1;
    for (nfds_t i = count; i-- > 1;) {
      if (fds[i].revents == 0 || echo(fds[i].fd)) continue;
      ts_close(fds[i].fd);
      fds[i] = fds[--count];
    }
    if ((fds[0].revents & POLLIN) != 0 && count < 1 + MAX_CONNECTIONS) {
      const int fd = ts_accept4(fds[0].fd, NULL, NULL, SOCK_CLOEXEC);
      if (fd >= 0) fds[count++] = (struct pollfd){.fd = fd, .events = POLLIN, .revents = 0};
    }
  }
}
