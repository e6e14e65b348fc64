// The end of the service, in order and not, and life without one.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>

#include "sockets/test_bed.h"

namespace twinstack::sockets {
namespace {

class ServiceEnd : public ::testing::Test {
 protected:
  ServiceEnd() {
    Bed::end();
    start();
  }
  ~ServiceEnd() override {
    service_.reset();
    if (Session* session = g_layer.current.load()) session->check_alive();
  }
  void start() {
    FakeServiceOptions options;
    options.path = bed_path("own");
    service_ = std::make_unique<FakeService>(options);
    use_service(options.path);
  }
  void offload(const Pair& pair) {
    ASSERT_TRUE(eventually([&] {
      service_->offload_all();
      return in_engine(pair.ours);
    }));
  }

  std::unique_ptr<FakeService> service_;
};

TEST_F(ServiceEnd, InOrderLeavesEveryConnectionInTheKernel) {
  Pair pair;
  offload(pair);
  pair.say("before ");
  int unread = 0;
  ASSERT_TRUE(eventually(
      [&] { return ts_ioctl(pair.ours, FIONREAD, reinterpret_cast<uintptr_t>(&unread)) == 0 && unread == 7; }));
  service_->stop();
  pair.say("after");
  std::string text(12, '\0');
  EXPECT_EQ(ts_recv(pair.ours, text.data(), 12, MSG_WAITALL), 12);
  EXPECT_EQ(text, "before after") << "what the engine had received comes first";
  EXPECT_EQ(ts_send(pair.ours, "kernel", 6, 0), 6);
  EXPECT_EQ(pair.hear(6), "kernel");
  const int on = 1;
  EXPECT_EQ(ts_setsockopt(pair.ours, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)), 0);
  EXPECT_EQ(ts_shutdown(pair.ours, SHUT_WR), 0);
  EXPECT_EQ(pair.hear(1), "");
}

TEST_F(ServiceEnd, InOrderWhileAThreadWaits) {
  Pair pair;
  offload(pair);
  std::thread reader([&] {
    char byte = 0;
    EXPECT_EQ(ts_read(pair.ours, &byte, 1), 1);
  });
  service_->stop();
  pair.say("x");
  reader.join();
}

TEST_F(ServiceEnd, ByDeathAbortsWhatTheEngineHad) {
  Pair pair;
  Pair in_kernel;
  offload(pair);
  service_->upload_all();
  service_->offload_all();
  ASSERT_TRUE(in_engine(pair.ours));
  const int set = ts_epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 5;
  ASSERT_EQ(ts_epoll_ctl(set, EPOLL_CTL_ADD, pair.ours, &event), 0);
  std::thread waiter([&] {
    epoll_event got{};
    EXPECT_EQ(ts_epoll_wait(set, &got, 1, 10'000), 1);
    const std::uint32_t bits = got.events;  // a copy: the struct is packed
    EXPECT_EQ(bits & (EPOLLERR | EPOLLHUP), EPOLLERR | EPOLLHUP);
  });
  std::thread reader([&] {
    char byte = 0;
    EXPECT_EQ(ts_read(pair.ours, &byte, 1), -1);
    EXPECT_EQ(errno, ECONNABORTED);
  });
  service_->die();
  waiter.join();
  reader.join();
  EXPECT_EQ(ts_send(pair.ours, "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, ECONNABORTED);
  pollfd entry{.fd = pair.ours, .events = POLLIN, .revents = 0};
  EXPECT_EQ(ts_poll(&entry, 1, 0), 1);
  EXPECT_EQ(entry.revents & (POLLERR | POLLHUP), POLLERR | POLLHUP);
  int error = 0;
  socklen_t length = sizeof(error);
  EXPECT_EQ(ts_getsockopt(pair.ours, SOL_SOCKET, SO_ERROR, &error, &length), 0);
  EXPECT_EQ(error, ECONNABORTED);
  EXPECT_EQ(ts_shutdown(pair.ours, SHUT_WR), -1);
  EXPECT_EQ(errno, ECONNABORTED);
  ts_close(set);
}

TEST_F(ServiceEnd, ByDeathLeavesTheKernelsConnectionsAlone) {
  Pair pair;
  service_->die();
  pair.say("still");
  std::string text(5, '\0');
  EXPECT_EQ(ts_recv(pair.ours, text.data(), 5, MSG_WAITALL), 5);
  EXPECT_EQ(ts_send(pair.ours, "here", 4, 0), 4);
  EXPECT_EQ(pair.hear(4), "here");
}

TEST_F(ServiceEnd, TheNextServiceGetsTheNextConnections) {
  Pair old;
  offload(old);
  service_->stop();
  service_.reset();
  {
    const Listener listener;
    const int peer = listener.connect_plainly();
    const int fd = ts_accept(listener.fd(), nullptr, nullptr);
    ts_connection connection{};
    EXPECT_EQ(ts_describe(fd, &connection), -1) << "no service: an ordinary socket";
    EXPECT_EQ(::send(peer, "p", 1, 0), 1);
    char byte = 0;
    EXPECT_EQ(ts_read(fd, &byte, 1), 1);
    ts_close(fd);
    ::close(peer);
  }
  start();
  Pair fresh;
  offload(fresh);
  for (const Pair* pair : {&old, &fresh}) {
    pair->say("both");
    std::string text(4, '\0');
    EXPECT_EQ(ts_recv(pair->ours, text.data(), 4, MSG_WAITALL), 4);
  }
  EXPECT_FALSE(in_engine(old.ours));
}

// ---- lesson_due: the kernel is being taught what a return loses.

class LessonDue : public ::testing::Test {
 protected:
  LessonDue() { Bed::service(0); }

  static constexpr auto kWait = std::chrono::milliseconds(5);

  // Whether the call waits as long as it may, while nobody takes the mark back. (One that does not may be slow, too.)
  static bool waits(int fd, const std::function<void()>& call) {
    const SonodeRef sonode = g_layer.find(fd);
    sonode->slot->lesson_due.store(1);
    auto shortest = std::chrono::nanoseconds::max();
    for (int i = 0; i < 5; ++i) shortest = std::min(shortest, time_of(call));
    return sonode->slot->lesson_due.exchange(0) == 1 && shortest >= kWait;
  }
  static std::chrono::nanoseconds time_of(const std::function<void()>& call) {
    const auto begin = std::chrono::steady_clock::now();
    call();
    return std::chrono::steady_clock::now() - begin;
  }
  static void ask_unacknowledged(int fd) {
    int count = -1;
    EXPECT_EQ(ts_ioctl(fd, SIOCOUTQ, reinterpret_cast<uintptr_t>(&count)), 0);
  }
  static void ask_info(int fd) {
    std::array<std::byte, 256> info;
    socklen_t length = info.size();
    EXPECT_EQ(ts_getsockopt(fd, IPPROTO_TCP, TCP_INFO, info.data(), &length), 0);
  }
};

TEST_F(LessonDue, WhoAsksWhatTheKernelHasCountedWaits) {
  const Pair pair;
  EXPECT_TRUE(waits(pair.ours, [&] { ask_unacknowledged(pair.ours); }));
  EXPECT_TRUE(waits(pair.ours, [&] { ask_info(pair.ours); }));
  EXPECT_TRUE(waits(pair.ours, [&] { ts_send(pair.ours, "x", 1, MSG_MORE); }));
  EXPECT_FALSE(waits(pair.ours, [&] { ts_send(pair.ours, "y", 1, 0); })) << "data need not wait";
  EXPECT_EQ(pair.hear(10), "xxxxxyyyyy");
}

TEST_F(LessonDue, NobodyWaitsLongerThanItTakes) {
  const Pair pair;
  std::atomic<std::uint32_t>& due = g_layer.find(pair.ours)->slot->lesson_due;
  const auto lesson = std::chrono::milliseconds(1);
  EXPECT_TRUE(eventually([&] {
    due.store(1);
    const auto begin = std::chrono::steady_clock::now();
    const std::jthread driver([&due, begin, lesson] {
      while (std::chrono::steady_clock::now() - begin < lesson) std::this_thread::yield();
      due.store(0);
    });
    ask_info(pair.ours);
    const auto took = std::chrono::steady_clock::now() - begin;
    EXPECT_GE(took, lesson);
    return took < kWait;
  }));
}

TEST_F(LessonDue, AlsoWhenTheConnectionMovesNoMore) {
  const Pair pair;
  const int one = 1;
  ASSERT_EQ(ts_setsockopt(pair.ours, SOL_SOCKET, SO_TIMESTAMP, &one, sizeof(one)), 0);
  ASSERT_TRUE(g_layer.find(pair.ours)->plain);
  EXPECT_TRUE(waits(pair.ours, [&] { ask_unacknowledged(pair.ours); }));
}

TEST_F(LessonDue, AForkedChildWaitsOnce) {
  const Pair pair;
  const pid_t child = ::fork();
  if (child == 0) {
    g_layer.find(pair.ours)->slot->lesson_due.store(1);
    const bool waited = time_of([&] { ask_unacknowledged(pair.ours); }) >= kWait;
    ::_exit(waited && !waits(pair.ours, [&] { ask_unacknowledged(pair.ours); }) ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "nobody may be there to take the mark back";
}

TEST_F(LessonDue, NobodyWaitsForAServiceThatIsGone) {
  Bed::end();
  FakeServiceOptions options;
  options.path = bed_path("mortal");
  FakeService mortal(options);
  use_service(options.path);
  const Pair pair;
  std::atomic<std::uint32_t>& due = g_layer.find(pair.ours)->slot->lesson_due;
  due.store(1);
  mortal.die();
  ask_unacknowledged(pair.ours);
  EXPECT_EQ(due.load(), 0U) << "the next call need not wait";
}

}  // namespace
}  // namespace twinstack::sockets
