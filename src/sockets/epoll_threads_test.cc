// Several threads in one epoll set: whatever becomes ready while some of them are busy in the program is served by
// those that sleep.
#include <sys/eventfd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "sockets/test_bed.h"

namespace twinstack::sockets {
namespace {

constexpr std::chrono::seconds kLimit(2);
constexpr int kForever = -1;
constexpr int kMaxRoom = 8;
constexpr std::uint64_t kOver = 1000;  // the event that ends the threads

// Holds threads until the round is over.
class Gate {
 public:
  [[nodiscard]] int round() {
    const std::lock_guard lock(mutex_);
    return round_;
  }
  void hold(int round) {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [&] { return stays_open_ || round_ > round; });
  }
  void open(bool for_good = false) {
    {
      const std::lock_guard lock(mutex_);
      ++round_;
      stays_open_ = for_good;
    }
    opened_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  int round_ = 0;
  bool stays_open_ = false;
};

void spin(std::chrono::nanoseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
}

class EpollThreads : public Everywhere {
 protected:
  void SetUp() override {
    Everywhere::SetUp();
    over_ = ::eventfd(0, EFD_CLOEXEC);
    set_.control(EPOLL_CTL_ADD, over_, EPOLLIN, kOver);
  }
  void TearDown() override {
    pairs_.clear();
    ::close(over_);
    Everywhere::TearDown();
  }

  void add_pairs(std::size_t count, std::uint32_t events) {
    for (std::uint64_t i = 0; i < count; ++i) {
      pairs_.push_back(std::make_unique<Pair>(SOCK_NONBLOCK));
      set_.control(EPOLL_CTL_ADD, pairs_.back()->ours, events, i);
      place(pairs_.back()->ours);
    }
  }
  // `serve` gets each connection that a thread is told of; `room` of them at once.
  template <typename Serve>
  void start(std::size_t count, int room, Serve serve) {
    for (std::size_t i = 0; i < count; ++i) threads_.emplace_back([this, room, serve] { run(room, serve); });
  }
  void join() {
    gate_.open(true);
    const std::uint64_t one = 1;
    EXPECT_EQ(::write(over_, &one, sizeof(one)), 8);
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }
  // As many threads as connections. Whoever has read something is busy until all have been served.
  void everyone_serves_one(std::uint32_t events);

  EpollFd set_;
  Gate gate_;
  std::vector<std::unique_ptr<Pair>> pairs_;
  std::vector<std::thread> threads_;

 private:
  template <typename Serve>
  void run(int room, const Serve& serve) {
    for (;;) {
      std::array<epoll_event, kMaxRoom> events;
      const int count = ts_epoll_wait(set_.fd, events.data(), room, kForever);
      EXPECT_GT(count, 0);
      for (int i = 0; i < count; ++i) {
        const std::uint64_t data = events[static_cast<std::size_t>(i)].data.u64;
        if (data == kOver) return;
        serve(data);
      }
    }
  }

  int over_ = -1;
};
INSTANTIATE_TEST_SUITE_P(, EpollThreads, ::testing::Values(Where::kKernel, Where::kEngine, Where::kFlipping),
                         where_name);

void EpollThreads::everyone_serves_one(std::uint32_t events) {
  constexpr std::size_t kThreads = 4;
  constexpr int kRounds = 500;
  add_pairs(kThreads, events);
  std::atomic<std::size_t> served = 0;
  start(kThreads, 1, [&](std::uint64_t data) {
    const int round = gate_.round();
    const std::size_t got = read_all(pairs_[data]->ours).size();
    served += got;
    if (got > 0) gate_.hold(round);
    if ((events & EPOLLONESHOT) != 0) set_.control(EPOLL_CTL_MOD, pairs_[data]->ours, events, data);
  });
  Rng rng(7);
  for (int round = 0; round < kRounds && !HasFailure(); ++round) {
    served = 0;
    for (const auto& pair : pairs_) {
      pair->say("t");
      spin(std::chrono::microseconds(rng.below(30)));
    }
    EXPECT_TRUE(eventually([&] { return served == kThreads; }, kLimit))
        << "round " << round << ": " << served << " of " << kThreads << " were served";
    gate_.open();
  }
  join();
}

TEST_P(EpollThreads, TheOthersServeWhatABusyOneCannotLevel) { everyone_serves_one(EPOLLIN); }
TEST_P(EpollThreads, TheOthersServeWhatABusyOneCannotEdge) { everyone_serves_one(EPOLLIN | EPOLLET); }
TEST_P(EpollThreads, TheOthersServeWhatABusyOneCannotOneShot) { everyone_serves_one(EPOLLIN | EPOLLONESHOT); }

// As in Linux: each thread that takes a level-triggered event leaves it to the next.
TEST_P(EpollThreads, UnreadBytesWakeEveryThread) {
  constexpr std::uint32_t kThreads = 4;
  add_pairs(1, EPOLLIN);
  std::atomic<std::uint32_t> woken = 0;
  start(kThreads, kMaxRoom, [&](std::uint64_t) {
    const int round = gate_.round();
    ++woken;
    gate_.hold(round);
  });
  for (int round = 0; round < 50 && !HasFailure(); ++round) {
    EXPECT_TRUE(eventually([] { return g_layer.sleepers.load() == kThreads; }, kLimit));
    pairs_.front()->say("unread");
    EXPECT_TRUE(eventually([&] { return woken == kThreads; }, kLimit)) << "round " << round << ": " << woken;
    EXPECT_TRUE(eventually([&] { return read_all(pairs_.front()->ours).empty(); }, kLimit));
    woken = 0;
    gate_.open();
  }
  join();
}

// A thread that looks without sleeping takes the wake-ups of those that sleep.
TEST_P(EpollThreads, AThreadThatLookedAndWent) {
  add_pairs(1, EPOLLIN | EPOLLET);
  const Pair& pair = *pairs_.front();
  std::atomic<std::size_t> served = 0;
  start(1, kMaxRoom, [&](std::uint64_t) { served += read_all(pair.ours).size(); });
  // Holds the set's lock again and again, so that looking takes its time.
  const Pair other;
  set_.control(EPOLL_CTL_ADD, other.ours, EPOLLIN, 1);
  std::atomic<bool> over = false;
  std::thread modifier([&] {
    while (!over) set_.control(EPOLL_CTL_MOD, other.ours, EPOLLIN, 1);
  });
  Rng rng(11);
  for (int round = 0; round < 2000 && !HasFailure(); ++round) {
    served = 0;
    pair.say("x");
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(rng.below(60));
    bool taken = false;
    while (!taken && std::chrono::steady_clock::now() < end) taken = set_.next(0, 0) != 0;
    if (taken) served += read_all(pair.ours).size();
    EXPECT_TRUE(eventually([&] { return served == 1; }, kLimit)) << "round " << round;
  }
  over = true;
  modifier.join();
  join();
}

// The signal for a connection that is armed again must outlive the wake-up by the one before.
TEST_P(EpollThreads, ArmedAgainWhileTheOthersWakeUp) {
  constexpr std::size_t kThreads = 3;
  add_pairs(kThreads, EPOLLIN | EPOLLONESHOT);
  for (const auto& pair : pairs_) pair->say("never read");
  std::atomic<std::size_t> told = 0;
  start(kThreads, 1, [&](std::uint64_t) {
    const int round = gate_.round();
    ++told;
    gate_.hold(round);
  });
  EXPECT_TRUE(eventually([&] { return told == kThreads; }, kLimit));
  Rng rng(13);
  for (int round = 0; round < 2000 && !HasFailure(); ++round) {
    told = 0;
    gate_.open();
    spin(std::chrono::microseconds(rng.below(100)));
    for (std::uint64_t i = 0; i < kThreads; ++i) {
      set_.control(EPOLL_CTL_MOD, pairs_[i]->ours, EPOLLIN | EPOLLONESHOT, i);
      spin(std::chrono::microseconds(rng.below(40)));
    }
    EXPECT_TRUE(eventually([&] { return told == kThreads; }, kLimit)) << "round " << round << ": " << told;
  }
  join();
}

// The rings of a service that came later are asked for wake-ups on behalf of those who sleep already.
TEST(EpollThreadsAndServices, ASleeperHearsOfTheNextService) {
  Bed::end();
  const auto start = [](const char* name) {
    FakeServiceOptions options;
    options.path = bed_path(name);
    auto service = std::make_unique<FakeService>(options);
    use_service(options.path);
    return service;
  };
  auto service = start("first");
  const EpollFd set;
  Pair old;
  set.control(EPOLL_CTL_ADD, old.ours, EPOLLIN);
  service->stop();
  service.reset();
  EXPECT_EQ(set.next(10), 0U);
  service = start("second");
  std::thread sleeper([&] { EXPECT_EQ(set.next(2000, 8), static_cast<std::uint32_t>(EPOLLIN)); });
  EXPECT_TRUE(eventually([] { return g_layer.sleepers.load() == 1; }, kLimit));
  Pair fresh;
  set.control(EPOLL_CTL_ADD, fresh.ours, EPOLLIN, 8);
  EXPECT_TRUE(eventually([&] {
    service->offload_all();
    return in_engine(fresh.ours);
  }));
  fresh.say("x");
  sleeper.join();
  service.reset();
  if (Session* session = g_layer.current.load()) session->check_alive();
}

}  // namespace
}  // namespace twinstack::sockets
