#include "driver/parker.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/unique_fd.h"

namespace twinstack::driver {
namespace {

class ParkerTest : public testing::Test {
 protected:
  // The driver's loop: asleep until the descriptor says that something was completed.
  void wait_for(Parker& parker, std::uint64_t ticket) {
    while (parker.completed() < ticket) {
      pollfd fd{.fd = event.get(), .events = POLLIN, .revents = 0};
      ASSERT_EQ(::poll(&fd, 1, 30'000), 1) << "a grace period never ended";
      std::uint64_t count = 0;
      ASSERT_EQ(::read(event.get(), &count, sizeof(count)), static_cast<ssize_t>(sizeof(count)));
    }
  }

  UniqueFd event{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
};

TEST_F(ParkerTest, ATicketIsCovered) {
  Parker parker(event.get());
  EXPECT_EQ(parker.completed(), 0U);
  wait_for(parker, parker.request());
}

// A request while a grace period runs is covered by the next one only: that one may have begun too early.
TEST_F(ParkerTest, EveryTicketIsCoveredByAPeriodThatBeganAfterIt) {
  Parker parker(event.get());
  std::uint64_t last = 0;
  for (int i = 0; i < 50; ++i) {
    const std::uint64_t done_before = parker.completed();
    const std::uint64_t ticket = parker.request();
    EXPECT_GT(ticket, done_before);
    EXPECT_GE(ticket, last);
    last = ticket;
    if (i % 10 == 0) wait_for(parker, ticket);
  }
  wait_for(parker, last);
}

TEST_F(ParkerTest, ManyTicketsShareAPeriod) {
  Parker parker(event.get());
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  for (int i = 0; i < 10'000; ++i) {
    last = parker.request();
    if (i == 0) first = last;
  }
  EXPECT_LT(last - first, 10'000U);
  wait_for(parker, last);
}

TEST_F(ParkerTest, MayGoWhileAPeriodRuns) {
  for (int i = 0; i < 20; ++i) {
    Parker parker(event.get());
    (void)parker.request();
  }
}

}  // namespace
}  // namespace twinstack::driver
