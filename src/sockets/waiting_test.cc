// poll, select and epoll: the same in the kernel, in the engine, and with the owner changing all the time.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>

#include <array>
#include <csignal>
#include <map>
#include <set>
#include <vector>

#include "sockets/test_bed.h"

namespace twinstack::sockets {
namespace {

constexpr int kLimitMs = 10'000;

class Waiting : public Everywhere {
 protected:
  // Waits for exactly these bits of one descriptor, spurious returns of a move aside.
  static bool polls(int fd, short events, short wanted) {
    return eventually([=] {
      pollfd entry{.fd = fd, .events = events, .revents = 0};
      return ts_poll(&entry, 1, kLimitMs) == 1 && entry.revents == wanted;
    });
  }
};
INSTANTIATE_TEST_SUITE_P(, Waiting, ::testing::Values(Where::kKernel, Where::kEngine, Where::kFlipping), where_name);

TEST_P(Waiting, PollTellsReadableAndWritable) {
  Pair pair;
  place(pair.ours);
  EXPECT_TRUE(polls(pair.ours, POLLIN | POLLOUT, POLLOUT));
  pollfd entry{.fd = pair.ours, .events = POLLIN, .revents = 0};
  EXPECT_EQ(ts_poll(&entry, 1, 0), 0);
  EXPECT_EQ(entry.revents, 0);
  std::thread talker([&] { pair.say("x"); });
  EXPECT_TRUE(polls(pair.ours, POLLIN, POLLIN));
  talker.join();
  EXPECT_EQ(read_all(pair.ours), "x");
}

TEST_P(Waiting, PollEndsInTime) {
  Pair pair;
  place(pair.ours);
  pollfd entry{.fd = pair.ours, .events = POLLIN, .revents = 0};
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(ts_poll(&entry, 1, 30), 0);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(29));
  const timespec brief{.tv_sec = 0, .tv_nsec = 2'000'000};
  EXPECT_EQ(ts_ppoll(&entry, 1, &brief, nullptr), 0);
}

TEST_P(Waiting, PollOfManyDescriptors) {
  std::vector<std::unique_ptr<Pair>> pairs;
  std::vector<pollfd> fds;
  for (int i = 0; i < 50; ++i) {
    pairs.push_back(std::make_unique<Pair>());
    place(pairs.back()->ours);
    fds.push_back({.fd = pairs.back()->ours, .events = POLLIN, .revents = 0});
  }
  int pipe_ends[2];
  ASSERT_EQ(::pipe(pipe_ends), 0);
  fds.push_back({.fd = pipe_ends[0], .events = POLLIN, .revents = 0});
  fds.push_back({.fd = -1, .events = POLLIN, .revents = 0});
  for (int round = 0; round < 20; ++round) {
    const std::size_t chosen = static_cast<std::size_t>(round * 7 % 50);
    std::thread talker([&] { pairs[chosen]->say("y"); });
    ASSERT_EQ(ts_poll(fds.data(), fds.size(), kLimitMs), 1);
    talker.join();
    EXPECT_EQ(fds[chosen].revents, POLLIN);
    EXPECT_EQ(read_all(pairs[chosen]->ours), "y");
  }
  ASSERT_EQ(::write(pipe_ends[1], "p", 1), 1);
  EXPECT_EQ(ts_poll(fds.data(), fds.size(), kLimitMs), 1);
  EXPECT_EQ(fds[50].revents, POLLIN);
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
}

TEST_P(Waiting, PollTellsTheEnd) {
  Pair pair;
  place(pair.ours);
  pair.close_peer();
  EXPECT_TRUE(polls(pair.ours, POLLIN | POLLRDHUP, POLLIN | POLLRDHUP));
}

TEST_P(Waiting, PollWaitsForRoom) {
  Pair pair(SOCK_NONBLOCK);
  place(pair.ours);
  const std::string block(65536, 'b');
  std::size_t sent = 0;
  ssize_t n = 0;
  for (int round = 0; round < 20; ++round) {
    while ((n = ts_send(pair.ours, block.data(), block.size(), 0)) > 0) sent += static_cast<std::size_t>(n);
    ASSERT_EQ(errno, EAGAIN);
    std::thread reader([&] { EXPECT_EQ(pair.hear(sent).size(), sent); });
    EXPECT_TRUE(polls(pair.ours, POLLOUT, POLLOUT));
    reader.join();
    sent = 0;
  }
}

// The engine takes nothing from the ring, as when all of its pieces are in flight: the call that may not wait says so,
// and whoever waits is woken when it goes on. Found by twinstack sim: the call span for as long as that lasted.
TEST(RingFull, NobodySpinsAndWaitersAreWoken) {
  FakeService& service = Bed::service(0);
  Pair pair;
  ASSERT_TRUE(eventually([&] {
    service.offload_all();
    return in_engine(pair.ours);
  }));
  service.set_stalled(true);
  std::size_t sent = 0;
  while (ts_send(pair.ours, "r", 1, MSG_DONTWAIT) == 1) ++sent;
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_GT(sent, 100U);
  EXPECT_LT(sent, 4096U) << "the ring is what was full";
  pollfd entry{.fd = pair.ours, .events = POLLOUT, .revents = 0};
  EXPECT_EQ(ts_poll(&entry, 1, 10), 0);
  const EpollFd set;
  set.control(EPOLL_CTL_ADD, pair.ours, EPOLLOUT | EPOLLET);
  EXPECT_EQ(set.next(0), 0U);
  std::atomic<int> woken = 0;
  std::thread sender([&] { woken += ts_send(pair.ours, "s", 1, 0) == 1 ? 1 : 0; });
  std::thread poller([&] { woken += set.next(kLimitMs) == EPOLLOUT ? 1 : 0; });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(woken, 0);
  service.set_stalled(false);
  sender.join();
  poller.join();
  EXPECT_EQ(woken, 2);
  EXPECT_EQ(pair.hear(sent + 1), std::string(sent, 'r') + "s");
}

TEST_P(Waiting, SelectWorksAlike) {
  Pair pair;
  place(pair.ours);
  fd_set readable;
  fd_set writable;
  const auto reset = [&] {
    FD_ZERO(&readable);
    FD_ZERO(&writable);
    FD_SET(pair.ours, &readable);
    FD_SET(pair.ours, &writable);
  };
  EXPECT_TRUE(eventually([&] {
    reset();
    return ts_select(pair.ours + 1, &readable, &writable, nullptr, nullptr) == 1 && FD_ISSET(pair.ours, &writable);
  }));
  EXPECT_FALSE(FD_ISSET(pair.ours, &readable));
  std::thread talker([&] { pair.say("s"); });
  reset();
  timeval limit{.tv_sec = 10, .tv_usec = 0};
  EXPECT_EQ(ts_select(pair.ours + 1, &readable, nullptr, nullptr, &limit), 1);
  EXPECT_TRUE(FD_ISSET(pair.ours, &readable));
  EXPECT_LE(limit.tv_sec, 10);
  talker.join();
  read_all(pair.ours);
  reset();
  limit = {.tv_sec = 0, .tv_usec = 1000};
  EXPECT_EQ(ts_select(pair.ours + 1, &readable, nullptr, nullptr, &limit), 0);
  EXPECT_FALSE(FD_ISSET(pair.ours, &readable));
  EXPECT_EQ(limit.tv_sec + limit.tv_usec, 0);
}

TEST_P(Waiting, EpollLevelReportsAsLongAsItHolds) {
  Pair pair;
  const EpollFd set;
  set.control(EPOLL_CTL_ADD, pair.ours, EPOLLIN);
  place(pair.ours);
  EXPECT_EQ(set.next(0), 0U);
  pair.say("level");
  for (int i = 0; i < 10; ++i) EXPECT_EQ(set.next(kLimitMs), static_cast<std::uint32_t>(EPOLLIN));
  EXPECT_TRUE(eventually([&] {
    int unread = 0;
    return ts_ioctl(pair.ours, FIONREAD, reinterpret_cast<uintptr_t>(&unread)) == 0 && unread == 5;
  }));
  EXPECT_EQ(read_all(pair.ours), "level");
  EXPECT_EQ(set.next(0), 0U);
  EXPECT_EQ(set.next(20), 0U);
}

TEST_P(Waiting, EpollEdgeReportsOnce) {
  Pair pair;
  const EpollFd set;
  place(pair.ours);
  set.control(EPOLL_CTL_ADD, pair.ours, EPOLLIN | EPOLLET);
  for (int i = 0; i < 50; ++i) {
    pair.say("e");
    ASSERT_EQ(set.next(kLimitMs), static_cast<std::uint32_t>(EPOLLIN)) << i;
    // An owner change may post the edge again; without one it comes once.
    if (GetParam() != Where::kFlipping) {
      EXPECT_EQ(set.next(0), 0U) << i;
    }
    ASSERT_EQ(read_all(pair.ours), "e");
  }
}

class WaitingInTheEngine : public Everywhere {};
INSTANTIATE_TEST_SUITE_P(, WaitingInTheEngine, ::testing::Values(Where::kEngine), where_name);

// A read within it saw the chunks alone; the kernel's edge was reported before.
TEST_P(WaitingInTheEngine, EpollEdgeIsRepeatedAfterAMoveThatIsUndone) {
  Pair pair(SOCK_NONBLOCK);
  const EpollFd set;
  set.control(EPOLL_CTL_ADD, pair.ours, EPOLLIN | EPOLLET);
  put_on_both_sides(pair, "01234", "56789");
  while (set.next(50) != 0) {
  }
  const SonodeRef sonode = g_layer.find(pair.ours);
  ASSERT_TRUE(sonode->gate().begin_move(ipc::Owner::kKernel, ipc::Owner::kToEngine, std::chrono::seconds(1)));
  EXPECT_EQ(receive_some(pair.ours, 64), "01234");
  sonode->gate().set_owner(ipc::Owner::kKernel);
  sonode->notify();
  EXPECT_EQ(set.next(kLimitMs), static_cast<std::uint32_t>(EPOLLIN));
  EXPECT_EQ(receive_some(pair.ours, 64), "56789");
}

TEST_P(Waiting, EpollEdgeForRoom) {
  Pair pair(SOCK_NONBLOCK);
  const EpollFd set;
  set.control(EPOLL_CTL_ADD, pair.ours, EPOLLOUT | EPOLLET);
  place(pair.ours);
  EXPECT_EQ(set.next(kLimitMs) & EPOLLOUT, static_cast<std::uint32_t>(EPOLLOUT));
  const std::string block(65536, 'b');
  for (int round = 0; round < 20; ++round) {
    std::size_t sent = 0;
    ssize_t n = 0;
    while ((n = ts_send(pair.ours, block.data(), block.size(), 0)) > 0) sent += static_cast<std::size_t>(n);
    std::thread reader([&] { EXPECT_EQ(pair.hear(sent).size(), sent); });
    ASSERT_EQ(set.next(kLimitMs), static_cast<std::uint32_t>(EPOLLOUT)) << round;
    reader.join();
  }
}

TEST_P(Waiting, EpollOneShotFiresOnce) {
  Pair pair;
  const EpollFd set;
  set.control(EPOLL_CTL_ADD, pair.ours, EPOLLIN | EPOLLONESHOT);
  place(pair.ours);
  for (int i = 0; i < 50; ++i) {
    pair.say("o");
    ASSERT_EQ(set.next(kLimitMs), static_cast<std::uint32_t>(EPOLLIN)) << i;
    EXPECT_EQ(set.next(0), 0U);
    pair.say("p");
    EXPECT_EQ(set.next(2), 0U) << "disarmed, whatever comes";
    set.control(EPOLL_CTL_MOD, pair.ours, EPOLLIN | EPOLLONESHOT);
    ASSERT_EQ(set.next(kLimitMs), static_cast<std::uint32_t>(EPOLLIN)) << "ready at the time of EPOLL_CTL_MOD";
    std::string text;
    ASSERT_TRUE(eventually([&] { return (text += read_all(pair.ours)) == "op"; }));
    set.control(EPOLL_CTL_MOD, pair.ours, EPOLLIN | EPOLLONESHOT);
  }
}

TEST_P(Waiting, EpollModifyAndDelete) {
  Pair pair;
  const EpollFd set;
  place(pair.ours);
  set.control(EPOLL_CTL_ADD, pair.ours, EPOLLIN);
  epoll_event event{};
  event.events = EPOLLIN;
  EXPECT_EQ(ts_epoll_ctl(set.fd, EPOLL_CTL_ADD, pair.ours, &event), -1);
  EXPECT_EQ(errno, EEXIST);
  for (int i = 0; i < 20; ++i) {
    set.control(EPOLL_CTL_MOD, pair.ours, EPOLLIN | EPOLLOUT, 8);
    EXPECT_EQ(set.next(kLimitMs, 8), static_cast<std::uint32_t>(EPOLLOUT));
    set.control(EPOLL_CTL_MOD, pair.ours, EPOLLIN, 9);
    EXPECT_EQ(set.next(1, 9), 0U);
  }
  pair.say("x");
  EXPECT_EQ(set.next(kLimitMs, 9), static_cast<std::uint32_t>(EPOLLIN));
  EXPECT_EQ(ts_epoll_ctl(set.fd, EPOLL_CTL_DEL, pair.ours, nullptr), 0);
  EXPECT_EQ(set.next(2), 0U);
  EXPECT_EQ(ts_epoll_ctl(set.fd, EPOLL_CTL_DEL, pair.ours, nullptr), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(ts_epoll_ctl(set.fd, EPOLL_CTL_MOD, pair.ours, &event), -1);
  EXPECT_EQ(errno, ENOENT);
  set.control(EPOLL_CTL_ADD, pair.ours, EPOLLIN, 10);
  EXPECT_EQ(set.next(kLimitMs, 10), static_cast<std::uint32_t>(EPOLLIN)) << "ready at the time of EPOLL_CTL_ADD";
}

TEST_P(Waiting, EpollTellsTheEnd) {
  Pair pair;
  const EpollFd set;
  set.control(EPOLL_CTL_ADD, pair.ours, EPOLLIN | EPOLLRDHUP);
  place(pair.ours);
  pair.say("z");
  pair.close_peer();
  EXPECT_TRUE(eventually([&] { return set.next(kLimitMs) == (EPOLLIN | EPOLLRDHUP); }));
  EXPECT_EQ(read_all(pair.ours), "z");
}

TEST_P(Waiting, AClosedDescriptorLeavesTheSet) {
  Pair pair;
  const EpollFd set;
  set.control(EPOLL_CTL_ADD, pair.ours, EPOLLIN | EPOLLOUT);
  place(pair.ours);
  EXPECT_EQ(set.next(kLimitMs), static_cast<std::uint32_t>(EPOLLOUT));
  pair.close_ours();
  EXPECT_EQ(set.next(5), 0U);
}

TEST_P(Waiting, EveryReadyDescriptorIsReportedFairlyAndOnce) {
  const EpollFd set;
  std::vector<std::unique_ptr<Pair>> pairs;
  for (std::uint64_t i = 0; i < 40; ++i) {
    pairs.push_back(std::make_unique<Pair>());
    set.control(EPOLL_CTL_ADD, pairs.back()->ours, EPOLLIN | EPOLLOUT, i);
    if (i % 2 == 0) place(pairs.back()->ours);
  }
  const int event_fd = ::eventfd(1, EFD_CLOEXEC);
  set.control(EPOLL_CTL_ADD, event_fd, EPOLLIN, 99);
  for (const int room : {1, 3, 64}) {
    std::set<std::uint64_t> seen;
    // By the clock, not by rounds: a connection in the middle of a move is ready when the move is over.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kLimitMs);
    while (seen.size() < 41 && std::chrono::steady_clock::now() < deadline) {
      std::array<epoll_event, 64> events;
      const int count = ts_epoll_wait(set.fd, events.data(), room, kLimitMs);
      ASSERT_GE(count, 1);
      ASSERT_LE(count, room);
      std::set<std::uint64_t> now;
      for (int i = 0; i < count; ++i) {
        const std::uint64_t data = events[static_cast<std::size_t>(i)].data.u64;
        EXPECT_TRUE(now.insert(data).second) << "one event per registration and call";
        seen.insert(data);
      }
    }
    EXPECT_EQ(seen.size(), 41U) << "with room for " << room;
  }
  ::close(event_fd);
}

TEST_P(Waiting, ManyConnectionsInOneSet) {
  const EpollFd set;
  std::vector<std::unique_ptr<Pair>> pairs;
  for (std::uint64_t i = 0; i < 64; ++i) {
    pairs.push_back(std::make_unique<Pair>(SOCK_NONBLOCK));
    const bool edge = i % 2 == 0;
    set.control(EPOLL_CTL_ADD, pairs.back()->ours, edge ? EPOLLIN | EPOLLET : static_cast<std::uint32_t>(EPOLLIN), i);
    place(pairs.back()->ours);
  }
  std::thread talker([&] {
    for (int round = 0; round < 100; ++round)
      for (const auto& pair : pairs) pair->say("t");
  });
  std::map<std::uint64_t, std::size_t> heard;
  std::size_t total = 0;
  while (total < 6400) {
    std::array<epoll_event, 16> events;
    const int count = ts_epoll_wait(set.fd, events.data(), 16, kLimitMs);
    ASSERT_GT(count, 0) << "an event was lost at " << total;
    for (int i = 0; i < count; ++i) {
      const std::uint64_t data = events[static_cast<std::size_t>(i)].data.u64;
      const std::size_t got = read_all(pairs[data]->ours).size();
      heard[data] += got;
      total += got;
    }
  }
  talker.join();
  for (const auto& [data, count] : heard) EXPECT_EQ(count, 100U);
}

TEST_P(Waiting, SeveralThreadsWaitOnOneSet) {
  const EpollFd set;
  std::vector<std::unique_ptr<Pair>> pairs;
  for (std::uint64_t i = 0; i < 16; ++i) {
    pairs.push_back(std::make_unique<Pair>(SOCK_NONBLOCK));
    set.control(EPOLL_CTL_ADD, pairs.back()->ours, EPOLLIN | EPOLLONESHOT, i);
    place(pairs.back()->ours);
  }
  constexpr std::size_t kTotal = 16 * 200;
  std::atomic<std::size_t> total = 0;
  std::atomic<bool> lost = false;
  const int over = ::eventfd(0, EFD_CLOEXEC);
  set.control(EPOLL_CTL_ADD, over, EPOLLIN, 1000);
  std::vector<std::thread> servers;
  for (int t = 0; t < 4; ++t)
    servers.emplace_back([&] {
      for (;;) {
        epoll_event event{};
        const int count = ts_epoll_wait(set.fd, &event, 1, kLimitMs);
        if (count != 1) lost = true;
        if (count != 1 || event.data.u64 == 1000) return;
        total += read_all(pairs[event.data.u64]->ours).size();
        set.control(EPOLL_CTL_MOD, pairs[event.data.u64]->ours, EPOLLIN | EPOLLONESHOT, event.data.u64);
        if (total == kTotal) {
          const std::uint64_t one = 1;
          EXPECT_EQ(::write(over, &one, sizeof(one)), 8);
        }
      }
    });
  for (int round = 0; round < 200; ++round)
    for (const auto& pair : pairs) pair->say("t");
  for (auto& server : servers) server.join();
  EXPECT_FALSE(lost) << "an event was lost at " << total;
  EXPECT_EQ(total, kTotal);
  ::close(over);
}

TEST_P(Waiting, OneConnectionInSeveralSetsAndPolled) {
  Pair pair(SOCK_NONBLOCK);
  const EpollFd first;
  const EpollFd second;
  first.control(EPOLL_CTL_ADD, pair.ours, EPOLLIN);
  place(pair.ours);
  second.control(EPOLL_CTL_ADD, pair.ours, EPOLLIN | EPOLLET);
  for (int i = 0; i < 30; ++i) {
    std::array<std::thread, 3> waiters{
        std::thread([&] { EXPECT_EQ(first.next(kLimitMs), static_cast<std::uint32_t>(EPOLLIN)); }),
        std::thread([&] { EXPECT_EQ(second.next(kLimitMs), static_cast<std::uint32_t>(EPOLLIN)); }),
        std::thread([&] { EXPECT_TRUE(polls(pair.ours, POLLIN, POLLIN)); })};
    pair.say("3");
    for (auto& waiter : waiters) waiter.join();
    EXPECT_EQ(read_all(pair.ours), "3");
  }
}

TEST_P(Waiting, ASetInASetAndPolled) {
  Pair pair(SOCK_NONBLOCK);
  const EpollFd inner;
  const EpollFd outer;
  inner.control(EPOLL_CTL_ADD, pair.ours, EPOLLIN, 1);
  outer.control(EPOLL_CTL_ADD, inner.fd, EPOLLIN, 2);
  place(pair.ours);
  for (int i = 0; i < 30; ++i) {
    std::thread talker([&] { pair.say("n"); });
    // The outer set may be reported for a wake-up that was for nothing.
    EXPECT_TRUE(eventually([&] { return outer.next(kLimitMs, 2) != 0 && inner.next(0, 1) == EPOLLIN; })) << i;
    pollfd entry{.fd = inner.fd, .events = POLLIN, .revents = 0};
    EXPECT_EQ(ts_poll(&entry, 1, kLimitMs), 1);
    talker.join();
    EXPECT_EQ(read_all(pair.ours), "n");
  }
}

TEST_P(Waiting, AConnectThatIsInTheSetAlready) {
  const Listener listener;
  const EpollFd set;
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  set.control(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLET, 5);
  static_cast<void>(set.next(0, 5));  // an unconnected socket hangs up
  const int result = ts_connect(fd, listener.address(), listener.length());
  ASSERT_TRUE(result == 0 || errno == EINPROGRESS);
  EXPECT_TRUE(eventually([&] { return (set.next(kLimitMs, 5) & EPOLLOUT) != 0; }));
  const int peer = ::accept(listener.fd(), nullptr, nullptr);
  int error = -1;
  socklen_t length = sizeof(error);
  EXPECT_EQ(ts_getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length), 0);
  EXPECT_EQ(error, 0);
  place(fd);
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(::send(peer, "k", 1, 0), 1);
    ASSERT_TRUE(eventually([&] { return (set.next(kLimitMs, 5) & EPOLLIN) != 0; }));
    ASSERT_EQ(read_all(fd), "k");
  }
  ts_close(fd);
  ::close(peer);
}

TEST_P(Waiting, ASignalEndsTheWait) {
  Pair pair;
  const EpollFd set;
  set.control(EPOLL_CTL_ADD, pair.ours, EPOLLIN);
  place(pair.ours);
  struct sigaction action{};
  action.sa_handler = [](int) {};
  action.sa_flags = SA_RESTART;  // never restarts epoll_wait and poll, signal(7)
  struct sigaction old{};
  ASSERT_EQ(::sigaction(SIGUSR1, &action, &old), 0);
  const pthread_t self = ::pthread_self();
  std::atomic<bool> over = false;
  std::thread signaler([&] {
    while (!over) {
      ::pthread_kill(self, SIGUSR1);
      std::this_thread::yield();
    }
  });
  epoll_event event{};
  EXPECT_EQ(ts_epoll_wait(set.fd, &event, 1, -1), -1);
  EXPECT_EQ(errno, EINTR);
  pollfd entry{.fd = pair.ours, .events = POLLIN, .revents = 0};
  EXPECT_EQ(ts_poll(&entry, 1, -1), -1);
  EXPECT_EQ(errno, EINTR);
  over = true;
  signaler.join();
  // Blocked by the mask, it does not.
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  ::pthread_kill(self, SIGUSR1);
  EXPECT_EQ(ts_epoll_pwait(set.fd, &event, 1, 1, &mask), 0);
  const timespec brief{.tv_sec = 0, .tv_nsec = 300'000};
  EXPECT_EQ(ts_epoll_pwait2(set.fd, &event, 1, &brief, nullptr), 0);
  ::sigaction(SIGUSR1, &old, nullptr);
}

TEST_P(Waiting, WaitersOfAnUntouchedSetSeeTheFirstConnection) {
  const EpollFd set;
  std::array<std::thread, 3> waiters;
  std::atomic<int> woken = 0;
  std::atomic<int> started = 0;
  for (auto& waiter : waiters)
    waiter = std::thread([&] {
      ++started;
      if ((set.next(kLimitMs) & EPOLLIN) != 0) ++woken;
    });
  EXPECT_TRUE(eventually([&] { return started == 3; }));
  Pair pair;
  set.control(EPOLL_CTL_ADD, pair.ours, EPOLLIN);
  place(pair.ours);
  pair.say("first");
  for (auto& waiter : waiters) waiter.join();
  EXPECT_EQ(woken, 3) << "level-triggered and never read";
}

TEST_P(Waiting, BadArgumentsAreTheKernelsToRefuse) {
  Pair pair;
  const EpollFd set;
  set.control(EPOLL_CTL_ADD, pair.ours, EPOLLIN);
  place(pair.ours);
  epoll_event event{};
  EXPECT_EQ(ts_epoll_wait(set.fd, &event, 0, 0), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(ts_epoll_ctl(set.fd, EPOLL_CTL_ADD, pair.ours, nullptr), -1);
  EXPECT_EQ(errno, EFAULT);
  EXPECT_EQ(ts_epoll_ctl(set.fd, 77, pair.ours, &event), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(ts_epoll_wait(pair.ours, &event, 1, 0), -1);
  EXPECT_EQ(errno, EINVAL);
  pollfd entries[] = {{.fd = pair.ours, .events = POLLIN, .revents = 0},
                      {.fd = 999'999, .events = POLLIN, .revents = 0}};
  EXPECT_EQ(ts_poll(entries, 2, -1), 1);
  EXPECT_EQ(entries[1].revents, POLLNVAL);
}

}  // namespace
}  // namespace twinstack::sockets
