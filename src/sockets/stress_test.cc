// Echo servers of every kind, used through ts_*(), while the owners of their connections change thousands of times; the
// clients use plain system calls and check every byte.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>

#include <array>
#include <map>
#include <mutex>
#include <vector>

#include "base/rng.h"
#include "sockets/test_bed.h"

namespace twinstack::sockets {
namespace {

constexpr std::size_t kBytesPerConnection = 2'000'000;
constexpr int kConnections = 8;
constexpr int kStressLimitMs = 20'000;

enum class Server { kBlockingThreads, kPoll, kSelect, kEpollLevel, kEpollEdge, kEpollOneShot };

std::ostream& operator<<(std::ostream& out, Server server) {
  constexpr std::array kNames{"BlockingThreads", "Poll", "Select", "EpollLevel", "EpollEdge", "EpollOneShot"};
  return out << kNames[static_cast<std::size_t>(server)];
}

// One connection of a non-blocking echo server.
struct Echo {
  static constexpr std::size_t kMaxPending = 200'000;
  std::string pending;
  bool ended = false;

  // Reads and writes until it would block. True: the peer has had everything and the connection can be closed.
  bool pump(int fd) {
    std::array<char, 16384> buffer;
    bool progress = true;
    while (progress) {
      progress = false;
      if (!ended && pending.size() < kMaxPending) {
        const ssize_t n = ts_read(fd, buffer.data(), buffer.size());
        if (n > 0) pending.append(buffer.data(), static_cast<std::size_t>(n));
        ended = n == 0 || (n < 0 && errno != EAGAIN);
        if (n < 0 && errno != EAGAIN) ADD_FAILURE() << "read: " << std::strerror(errno);
        progress = n > 0;
      }
      if (!pending.empty()) {
        const ssize_t n = ts_send(fd, pending.data(), pending.size(), MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
          ADD_FAILURE() << "send: " << std::strerror(errno);
          return true;
        }
        if (n > 0) pending.erase(0, static_cast<std::size_t>(n));
        progress = progress || n > 0;
      }
    }
    return ended && pending.empty();
  }
  [[nodiscard]] bool wants_in() const { return !ended && pending.size() < kMaxPending; }
  [[nodiscard]] bool wants_out() const { return !pending.empty(); }
};

char byte_at(std::uint64_t seed, std::size_t position) {
  return static_cast<char>((seed * 2654435761U + position) * 0x9e3779b97f4a7c15U >> 56);
}

// Sends the stream of its seed in random pieces, checks that it comes back, half-closes, expects the end.
void run_client(const Listener& listener, std::uint64_t seed) {
  const int fd = listener.connect_plainly();
  std::thread writer([&] {
    Rng rng(seed);
    std::string piece;
    for (std::size_t at = 0; at < kBytesPerConnection;) {
      const std::size_t size =
          std::min<std::size_t>(1 + rng.below(rng.below(4) == 0 ? 60'000 : 500), kBytesPerConnection - at);
      piece.resize(size);
      for (std::size_t i = 0; i < size; ++i) piece[i] = byte_at(seed, at + i);
      ASSERT_EQ(::send(fd, piece.data(), size, MSG_NOSIGNAL), static_cast<ssize_t>(size));
      at += size;
    }
    ::shutdown(fd, SHUT_WR);
  });
  std::array<char, 20'000> buffer;
  std::size_t got = 0;
  for (;;) {
    pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&entry, 1, kStressLimitMs) != 1) {
      ADD_FAILURE() << "connection " << seed << " stalls at byte " << got;
      ::shutdown(fd, SHUT_RDWR);
      break;
    }
    const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (n <= 0) break;
    for (ssize_t i = 0; i < n; ++i, ++got)
      if (buffer[static_cast<std::size_t>(i)] != byte_at(seed, got)) {
        ADD_FAILURE() << "connection " << seed << ": wrong byte at " << got;
        got = kBytesPerConnection + 1;
        break;
      }
    if (got > kBytesPerConnection) break;
  }
  EXPECT_EQ(got, kBytesPerConnection);
  writer.join();
  ::close(fd);
}

void serve_blocking(const Listener& listener) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kConnections; ++i) {
    const int fd = ts_accept(listener.fd(), nullptr, nullptr);
    threads.emplace_back([fd] {
      std::array<char, 10'000> buffer;
      ssize_t n = 0;
      while ((n = ts_recv(fd, buffer.data(), buffer.size(), 0)) > 0)
        ASSERT_EQ(ts_send(fd, buffer.data(), static_cast<std::size_t>(n), MSG_NOSIGNAL), n);
      EXPECT_EQ(n, 0) << std::strerror(errno);
      ts_close(fd);
    });
  }
  for (auto& thread : threads) thread.join();
}

std::map<int, Echo> accept_all(const Listener& listener) {
  std::map<int, Echo> echoes;
  for (int i = 0; i < kConnections; ++i)
    echoes[ts_accept4(listener.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)];
  return echoes;
}

void serve_poll(const Listener& listener, bool with_select) {
  auto echoes = accept_all(listener);
  while (!echoes.empty()) {
    std::vector<pollfd> fds;
    fd_set readable;
    fd_set writable;
    FD_ZERO(&readable);
    FD_ZERO(&writable);
    for (const auto& [fd, echo] : echoes) {
      fds.push_back({.fd = fd, .events = 0, .revents = 0});
      if (echo.wants_in()) fds.back().events |= POLLIN;
      if (echo.wants_out()) fds.back().events |= POLLOUT;
      if (echo.wants_in()) FD_SET(fd, &readable);
      if (echo.wants_out()) FD_SET(fd, &writable);
    }
    timeval limit{.tv_sec = kStressLimitMs / 1000, .tv_usec = 0};
    const int ready = with_select ? ts_select(FD_SETSIZE, &readable, &writable, nullptr, &limit)
                                  : ts_poll(fds.data(), fds.size(), kStressLimitMs);
    ASSERT_GT(ready, 0) << "an event was lost";
    for (const pollfd& entry : fds) {
      const bool is_ready =
          with_select ? FD_ISSET(entry.fd, &readable) || FD_ISSET(entry.fd, &writable) : entry.revents != 0;
      if (!is_ready || !echoes[entry.fd].pump(entry.fd)) continue;
      ts_close(entry.fd);
      echoes.erase(entry.fd);
    }
  }
}

void serve_epoll(const Listener& listener, std::uint32_t mode) {
  auto echoes = accept_all(listener);
  const int set = ts_epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  for (const auto& [fd, echo] : echoes) {
    event.events = EPOLLIN | mode | (mode == EPOLLET ? EPOLLOUT : 0U);
    event.data.fd = fd;
    ts_epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
  }
  while (!echoes.empty()) {
    std::array<epoll_event, 5> events;
    const int count = ts_epoll_wait(set, events.data(), static_cast<int>(events.size()), kStressLimitMs);
    ASSERT_GT(count, 0) << "an event was lost";
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      Echo& echo = echoes[fd];
      if (echo.pump(fd)) {
        ts_close(fd);
        echoes.erase(fd);
      } else if (mode != EPOLLET) {
        event.events = (echo.wants_in() ? EPOLLIN : 0U) | (echo.wants_out() ? EPOLLOUT : 0U);
        event.data.fd = fd;
        ts_epoll_ctl(set, EPOLL_CTL_MOD, fd, &event);
      }
    }
  }
  ts_close(set);
}

// Three threads on one set; one-shot keeps each connection with one of them at a time.
void serve_one_shot(const Listener& listener) {
  auto echoes = accept_all(listener);
  const int set = ts_epoll_create1(EPOLL_CLOEXEC);
  const int over = ::eventfd(0, EFD_CLOEXEC);
  std::atomic<int> left = kConnections;
  const auto arm = [set](int operation, int fd, const Echo& echo) {
    epoll_event event{};
    event.events = (echo.wants_in() ? EPOLLIN : 0U) | (echo.wants_out() ? EPOLLOUT : 0U) | EPOLLONESHOT;
    event.data.fd = fd;
    ts_epoll_ctl(set, operation, fd, &event);
  };
  epoll_event end{};
  end.events = EPOLLIN;
  end.data.fd = over;
  ts_epoll_ctl(set, EPOLL_CTL_ADD, over, &end);
  for (const auto& [fd, echo] : echoes) arm(EPOLL_CTL_ADD, fd, echo);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      for (;;) {
        epoll_event event{};
        ASSERT_EQ(ts_epoll_wait(set, &event, 1, kStressLimitMs), 1) << "an event was lost";
        const int fd = event.data.fd;
        if (fd == over) return;
        Echo& echo = echoes.at(fd);
        if (!echo.pump(fd)) {
          arm(EPOLL_CTL_MOD, fd, echo);
          continue;
        }
        ts_close(fd);
        const std::uint64_t one = 1;
        if (--left == 0) {
          ASSERT_EQ(::write(over, &one, sizeof(one)), 8);
        }
      }
    });
  for (auto& thread : threads) thread.join();
  ts_close(set);
  ::close(over);
}

// All clients of one round, served in one way.
void serve_round(Server kind) {
  const Listener listener;
  std::vector<std::thread> clients;
  for (std::uint64_t i = 0; i < kConnections; ++i)
    clients.emplace_back([&listener, i] { run_client(listener, i + 1); });
  switch (kind) {
    case Server::kBlockingThreads:
      serve_blocking(listener);
      break;
    case Server::kPoll:
      serve_poll(listener, false);
      break;
    case Server::kSelect:
      serve_poll(listener, true);
      break;
    case Server::kEpollLevel:
      serve_epoll(listener, 0);
      break;
    case Server::kEpollEdge:
      serve_epoll(listener, EPOLLET);
      break;
    case Server::kEpollOneShot:
      serve_one_shot(listener);
      break;
  }
  for (auto& client : clients) client.join();
}

class Stress : public ::testing::TestWithParam<Server> {};
INSTANTIATE_TEST_SUITE_P(, Stress,
                         ::testing::Values(Server::kBlockingThreads, Server::kPoll, Server::kSelect,
                                           Server::kEpollLevel, Server::kEpollEdge, Server::kEpollOneShot),
                         [](const auto& kind) { return ::testing::PrintToString(kind.param); });

TEST_P(Stress, EveryByteComesBackWhileTheOwnersChange) {
  FakeService& service = Bed::service(300);
  const auto violations = service.counters().violations.load();
  const auto moves = service.counters().to_engine.load();
  const auto engine_bytes = service.counters().engine_bytes_in.load();
  // A round may be over before the engine has served a byte of it, on a busy machine.
  const auto engine_has_served = [&] { return service.counters().engine_bytes_in.load() > engine_bytes; };
  for (int round = 0; round == 0 || (!engine_has_served() && round < 20 && !HasFailure()); ++round)
    serve_round(GetParam());
  EXPECT_EQ(service.counters().violations.load(), violations);
  EXPECT_GT(service.counters().to_engine.load(), moves);
  EXPECT_TRUE(engine_has_served());
  EXPECT_TRUE(eventually([&] { return service.connection_count() == 0; }));
}

// Closing in the middle of moves, from either side: nothing is left behind, and nothing breaks the rules of the rings.
TEST(StressClose, ConnectionsComeAndGoDuringMoves) {
  FakeService& service = Bed::service(200);
  const auto violations = service.counters().violations.load();
  std::vector<std::thread> workers;
  for (std::uint64_t w = 0; w < 3; ++w)
    workers.emplace_back([w] {
      const Listener listener;
      Rng rng(w);
      for (int i = 0; i < 150; ++i) {
        const int peer = listener.connect_plainly();
        const int fd = ts_accept(listener.fd(), nullptr, nullptr);
        const std::string text(1 + rng.below(30'000), 'c');
        ASSERT_EQ(::send(peer, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
        std::string got(1 + rng.below(static_cast<std::uint32_t>(text.size())), '\0');
        ASSERT_GT(ts_read(fd, got.data(), got.size()), 0);
        if (rng.below(2) == 0) {
          ASSERT_EQ(ts_write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
        }
        const bool peer_first = rng.below(2) == 0;
        if (peer_first) ::close(peer);
        ts_close(fd);
        if (!peer_first) ::close(peer);
      }
    });
  for (auto& worker : workers) worker.join();
  EXPECT_EQ(service.counters().violations.load(), violations);
  EXPECT_TRUE(eventually([&] { return service.connection_count() == 0; }));
  // All chunks come home: those of the last closed slots when new connections look for one.
  Session* session = g_layer.current.load();
  EXPECT_TRUE(eventually([&] {
    const Pair look_for_slots;
    session->drain();
    return session->tx_chunks().available() == session->geometry().tx_chunk_count;
  }));
}

}  // namespace
}  // namespace twinstack::sockets
