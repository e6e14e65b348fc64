#include "ipc/wake_event.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <cstdint>

namespace twinstack::ipc {
namespace {

bool shows(int fd) {
  pollfd state{.fd = fd, .events = POLLIN, .revents = 0};
  return ::poll(&state, 1, 0) == 1;
}

TEST(WakeEvent, ShowsUntilItIsCleared) {
  auto event = WakeEvent::create();
  ASSERT_TRUE(event.has_value());
  EXPECT_FALSE(shows(event->watch_fd()));
  for (int i = 0; i < 3; ++i) {
    event->signal();
    event->signal();
    EXPECT_TRUE(shows(event->watch_fd()));
    EXPECT_TRUE(shows(event->watch_fd()));
    WakeEvent::clear(event->watch_fd());
    EXPECT_FALSE(shows(event->watch_fd()));
  }
}

// As the socket layer has it: an edge in every set for every signal, cleared or not.
TEST(WakeEvent, GivesAnEdgeToEverySetEachTime) {
  auto event = WakeEvent::create();
  ASSERT_TRUE(event.has_value());
  std::array<UniqueFd, 2> sets;
  epoll_event wanted{.events = EPOLLIN | EPOLLET, .data = {}};
  for (UniqueFd& set : sets) {
    set.reset(::epoll_create1(EPOLL_CLOEXEC));
    ASSERT_EQ(::epoll_ctl(set.get(), EPOLL_CTL_ADD, event->watch_fd(), &wanted), 0);
  }
  const UniqueFd program(::fcntl(event->watch_fd(), F_DUPFD_CLOEXEC, 0));
  event->close_watch();
  for (int i = 0; i < 3; ++i) {
    event->signal();
    for (const UniqueFd& set : sets) {
      epoll_event got{};
      EXPECT_EQ(::epoll_wait(set.get(), &got, 1, 0), 1);
      EXPECT_EQ(::epoll_wait(set.get(), &got, 1, 0), 0);
    }
    if (i == 1) WakeEvent::clear(program.get());
  }
}

TEST(WakeEvent, TheProgramCannotMakeItBlock) {
  auto event = WakeEvent::create();
  ASSERT_TRUE(event.has_value());
  const std::uint64_t most = ~std::uint64_t{0} - 1;
  EXPECT_EQ(::write(event->watch_fd(), &most, sizeof(most)), -1);
  ::fcntl(event->watch_fd(), F_SETFL, 0);
  EXPECT_NE(::fcntl(event->signal_fd(), F_GETFL) & O_NONBLOCK, 0);
}

}  // namespace
}  // namespace twinstack::ipc
