// fake_service: the fake service as a program, for tests that run unmodified programs under the preload library.
//
//   fake_service SOCKET FLIP_INTERVAL_US
//
// Prints "ready", runs until SIGINT or SIGTERM or end of its input, then prints its counters as one JSON line. Exit
// code 1 when a program broke the rules of the rings.
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "sockets/fake_service.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s SOCKET FLIP_INTERVAL_US\n", argv[0]);
    return 2;
  }
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  const int signal_fd = ::signalfd(-1, &signals, SFD_CLOEXEC);
  twinstack::sockets::FakeServiceOptions options;
  options.path = argv[1];
  options.flip_interval_us = static_cast<std::uint32_t>(std::strtoul(argv[2], nullptr, 10));
  options.arena = {};
  twinstack::sockets::FakeService service(options);
  std::puts("ready");
  std::fflush(stdout);
  pollfd fd{.fd = signal_fd, .events = POLLIN, .revents = 0};
  ::poll(&fd, 1, -1);
  service.stop();
  const auto& c = service.counters();
  std::printf(
      "{\"to_engine\": %lu, \"to_kernel\": %lu, \"registered\": %lu, \"closed\": %lu, \"uploads\": %lu, "
      "\"stays\": %lu, \"engine_bytes_in\": %lu, \"engine_bytes_out\": %lu, \"wakeups\": %lu, \"violations\": %lu}\n",
      c.to_engine.load(), c.to_kernel.load(), c.registered.load(), c.closed.load(), c.uploads.load(), c.stays.load(),
      c.engine_bytes_in.load(), c.engine_bytes_out.load(), c.wakeups.load(), c.violations.load());
  return c.violations.load() == 0 ? 0 : 1;
}
