#include "driver/closer.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <utility>
#include <vector>

namespace twinstack::driver {
namespace {

constexpr uid_t kAnna = 1000;
constexpr uid_t kBert = 1001;

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

// A socket whose last close sleeps until the peer is closed.
struct Lingering {
  Lingering() {
    const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(::bind(listener.get(), generic, length), 0);
    EXPECT_EQ(::listen(listener.get(), 1), 0);
    EXPECT_EQ(::getsockname(listener.get(), generic, &length), 0);
    socket.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::connect(socket.get(), generic, length), 0);
    peer.reset(::accept(listener.get(), nullptr, nullptr));
    const std::vector<char> bytes(1 << 20);
    while (::send(socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT) > 0) {
    }
    const linger how{.l_onoff = 1, .l_linger = 600};
    EXPECT_EQ(::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &how, sizeof(how)), 0);
  }
  UniqueFd socket;
  UniqueFd peer;
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
  Lingering lingering;
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
  Lingering lingering;
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
