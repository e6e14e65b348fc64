#include "driver/lane_runner.h"

#include <linux/memfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/huge_pages.h"
#include "base/log.h"
#include "base/monotonic.h"
#include "ipc/wake_event.h"

namespace twinstack::driver {
namespace {

void write_event(int fd) noexcept {
  // EAGAIN: the counter is at its maximum, so the reader is awake already.
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd, &one, sizeof(one));
}

Result<> add_to(const UniqueFd& set, int fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  if (::epoll_ctl(set.get(), EPOLL_CTL_ADD, fd, &event) != 0) return system_error("epoll_ctl(lane)");
  return {};
}

}  // namespace

void LaneRunner::Unmap::operator()(std::byte* memory) const noexcept { ::munmap(memory, bytes); }

Result<std::unique_ptr<LaneRunner>> LaneRunner::create(const LaneRunnerOptions& options,
                                                       std::unique_ptr<nic::Link> link) {
  const std::size_t bytes = engine::LaneRegion::bytes_needed(options.capacity);
  UniqueFd fd(static_cast<int>(::syscall(SYS_memfd_create, "twinstack-lane", MFD_CLOEXEC)));
  if (!fd) return system_error("memfd_create(lane)");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) return system_error("ftruncate(lane)");
  ASSIGN_OR_RETURN(std::byte* const base, map_shared(fd.get(), bytes));
  Memory memory(base, Unmap{bytes});
  use_huge_pages({base, bytes});
  UniqueFd doorbell(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!doorbell) return system_error("eventfd");
  UniqueFd doorbells(::epoll_create1(EPOLL_CLOEXEC));
  if (!doorbells) return system_error("epoll_create1(lane)");
  TRY(add_to(doorbells, doorbell.get(), EPOLLIN | EPOLLET));
  return std::unique_ptr<LaneRunner>(new LaneRunner(options, std::move(link), std::move(fd), std::move(memory),
                                                    std::move(doorbell), std::move(doorbells)));
}

LaneRunner::LaneRunner(const LaneRunnerOptions& options, std::unique_ptr<nic::Link> link, UniqueFd memory_fd,
                       Memory memory, UniqueFd doorbell, UniqueFd doorbells)
    : options_(options),
      memory_fd_(std::move(memory_fd)),
      memory_(std::move(memory)),
      region_({memory_.get(), memory_.get_deleter().bytes}, options.capacity),
      link_(std::move(link)),
      doorbell_(std::move(doorbell)),
      doorbells_(std::move(doorbells)),
      lane_(options.index, region_, *link_, *this, options.secret, monotonic_now()),
      port_(options.index, region_, *this) {
  lane_.set_host_settings(options.settings);
}

LaneRunner::~LaneRunner() { stop(); }

void LaneRunner::start() {
  thread_ = std::thread([this] { run(); });
  ::pthread_setname_np(thread_.native_handle(), ("lane-" + std::to_string(options_.index)).c_str());
  if (!options_.cpu) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(*options_.cpu, &set);
  const int refused = ::pthread_setaffinity_np(thread_.native_handle(), sizeof(set), &set);
  if (refused != 0)
    spdlog::warn("lane {} cannot be pinned to CPU {}: errno {}", options_.index, *options_.cpu, refused);
}

void LaneRunner::stop() {
  if (!thread_.joinable()) return;
  stopping_.store(true, std::memory_order_release);
  write_event(doorbell_.get());
  thread_.join();
}

Result<UniqueFd> LaneRunner::make_doorbell() {
  UniqueFd doorbell(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!doorbell) return system_error("eventfd");
  TRY(add_to(doorbells_, doorbell.get(), EPOLLIN | EPOLLET));
  return doorbell;
}

void LaneRunner::open_session(std::uint32_t session, const ipc::Arena& arena, std::vector<int> ring_events,
                              int doorbell) {
  PiLock lock(mutex_);
  events_[session] = {.rings = std::move(ring_events), .doorbell = doorbell};
  lane_.open_session(session, arena);
  // A sleeping lane has not asked the new rings for wake-ups.
  write_event(doorbell_.get());
}

void LaneRunner::close_session(std::uint32_t session) {
  PiLock lock(mutex_);
  lane_.close_session(session);
  const auto found = events_.find(session);
  if (found == events_.end()) return;
  // The application may hold it open: that alone would keep it in the set.
  (void)::epoll_ctl(doorbells_.get(), EPOLL_CTL_DEL, found->second.doorbell, nullptr);
  events_.erase(found);
}

std::vector<std::vector<std::byte>> LaneRunner::take_strays() {
  PiLock lock(mutex_);
  std::vector<std::vector<std::byte>> strays;
  for (auto frame = lane_.take_stray(); !frame.empty(); frame = lane_.take_stray()) strays.push_back(std::move(frame));
  return strays;
}

engine::LaneCounters LaneRunner::counters() {
  PiLock lock(mutex_);
  return lane_.counters();
}

nic::LinkStats LaneRunner::link_stats() {
  PiLock lock(mutex_);
  return link_->stats();
}

void LaneRunner::signal_driver() const { write_event(options_.driver_event_fd); }

// Called by the driver, which has put a command into the queue. What that has to send the lane sends with its next
// round, unless it sleeps, or another stack will speak as soon as we return.
void LaneRunner::ring() {
  bool is_ours_to_send = false;
  {
    PiLock lock(mutex_);
    lane_.process_commands(monotonic_now());
    is_ours_to_send = lane_.take_last_words() || asleep_;
    if (lane_.take_signal()) signal_driver();
    if (asleep_ && (lane_.has_work() || lane_.has_waiting_rings() || lane_.next_deadline() < sleep_until_))
      write_event(doorbell_.get());
  }
  if (is_ours_to_send) kick();
}

// Under a lock of its own, with priority inheritance as well: who waits for the kernel's lends the lane nothing.
void LaneRunner::kick() {
  PiLock lock(kick_mutex_);
  link_->kick();
}

// Called by the lane, which runs under the lock.
void LaneRunner::wake(std::uint32_t session, std::uint32_t ring) {
  const auto found = events_.find(session);
  if (found != events_.end() && ring < found->second.rings.size()) ipc::WakeEvent::signal(found->second.rings[ring]);
}

LaneRunner::Round LaneRunner::poll_once(bool may_sleep) {
  PiLock lock(mutex_);
  asleep_ = false;
  const bool busy = lane_.poll(monotonic_now());
  if (lane_.take_signal()) signal_driver();
  if (busy) return Round::kBusy;
  if (!may_sleep || !lane_.prepare_sleep()) return Round::kIdle;
  asleep_ = true;
  sleep_until_ = lane_.next_deadline();
  return Round::kSleep;
}

void LaneRunner::sleep() {
  Time until = kNever;
  {
    PiLock lock(mutex_);
    until = sleep_until_;
  }
  timespec limit{};
  if (until != kNever) {
    const auto left = std::max(until - monotonic_now(), Duration::zero()).count();
    limit = {.tv_sec = left / 1'000'000'000, .tv_nsec = left % 1'000'000'000};
  }
  // poll(2) on the socket itself, not through the set: asking it makes a link in copy mode send what it still holds.
  pollfd fds[2] = {{.fd = doorbells_.get(), .events = POLLIN, .revents = 0},
                   {.fd = link_->poll_fd(), .events = POLLIN, .revents = 0}};
  ::ppoll(fds, 2, until == kNever ? nullptr : &limit, nullptr);
  if ((fds[0].revents & POLLIN) == 0) return;
  epoll_event rung[8];  // the rest show at the next sleep
  (void)::epoll_wait(doorbells_.get(), rung, 8, 0);
}

void LaneRunner::run() {
  Time idle_since = monotonic_now();
  while (!stopping_.load(std::memory_order_acquire)) {
    const bool spun_enough = monotonic_now() - idle_since >= options_.spin;
    const Round round = poll_once(spun_enough);
    kick();
    if (round == Round::kSleep) sleep();
    if (round != Round::kIdle) idle_since = monotonic_now();
  }
}

}  // namespace twinstack::driver
