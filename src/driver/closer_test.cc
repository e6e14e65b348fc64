#include "driver/closer.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "driver/lingering.h"
#include "driver/test_users.h"

namespace twinstack::driver {
namespace {

// A pipe whose reader sees when the writer has been closed.
struct Watched {
  Watched() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    reader.reset(ends[0]);
    writer.reset(ends[1]);
  }
  [[nodiscard]] bool is_closed(int patience_ms) const {
    pollfd fd{.fd = reader.get(), .events = POLLIN, .revents = 0};
    return ::poll(&fd, 1, patience_ms) == 1 && (fd.revents & POLLHUP) != 0;
  }
  UniqueFd reader;
  UniqueFd writer;
};

TEST(Closer, ClosesEverythingBeforeItEnds) {
  std::array<Watched, 20> all;
  {
    Closer closer;
    uid_t uid = 0;
    for (Watched& one : all) closer.close(std::move(one.writer), uid++ % 3);
  }
  for (const Watched& one : all) EXPECT_TRUE(one.is_closed(0));
}

TEST(Closer, ACloseThatSleepsHoldsUpItsOwnUserOnly) {
  Lingering lingering(600);
  Watched annas;
  Watched berts;
  Closer closer;
  closer.close(std::move(lingering.socket), kAnna);
  closer.close(std::move(annas.writer), kAnna);
  closer.close(std::move(berts.writer), kBert);
  EXPECT_TRUE(berts.is_closed(10'000));
  EXPECT_FALSE(annas.is_closed(100));
  lingering.peer.reset();
  EXPECT_TRUE(annas.is_closed(10'000));
}

TEST(Closer, KnowsWhoseDescriptorsPileUp) {
  Lingering lingering(600);
  Closer closer;
  const auto add = [&](std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) closer.close(UniqueFd(::eventfd(0, EFD_CLOEXEC)), kAnna);
  };
  closer.close(std::move(lingering.socket), kAnna);
  add(Closer::kMaxWaiting / 2);
  ::poll(nullptr, 0, 1100);  // the patience of the closer
  EXPECT_FALSE(closer.is_clogged(kAnna));
  add(Closer::kMaxWaiting / 2);
  EXPECT_TRUE(closer.is_clogged(kAnna));
  EXPECT_FALSE(closer.is_clogged(kBert));
  lingering.peer.reset();
  for (int i = 0; i < 1000 && closer.is_clogged(kAnna); ++i) ::poll(nullptr, 0, 10);
  EXPECT_FALSE(closer.is_clogged(kAnna));
}

}  // namespace
}  // namespace twinstack::driver
