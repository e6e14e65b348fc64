// Clock, packets and calls that block. The socket calls: program_calls.cc; descriptors of other kinds:
// program_files.cc.
#include "program.h"

#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

namespace twinstack::packetdrill {

namespace {

// How long the woken thread may take to read the clock, in real time, before the script goes on without it.
constexpr std::chrono::seconds kReadingPatience(1);
constexpr std::chrono::milliseconds kNotingPatience(2);
constexpr Duration kReadingStep = std::chrono::microseconds(1);

int this_thread() noexcept { return static_cast<int>(::syscall(SYS_gettid)); }

}  // namespace

Program::Program(const MakeForm& make_form) : form_(make_form(clock_, *this)) {}

// ---- What the form tells

void Program::packet_out(ByteView ip_packet) {
  out_.push_back({{ip_packet.begin(), ip_packet.end()}, clock_.now_us()});
}

void Program::wake(int fd, std::uint32_t events) {
  for (auto& [epoll_fd, set] : epoll_sets_) set->wake(fd, events);
}

void Program::moved(int fd) {
  for (auto& [epoll_fd, set] : epoll_sets_) set->moved(fd);
}

// ---- Calls that block

// Sleeps until `attempt` gives something else than -EAGAIN, or `deadline` has come: then 0 or -EAGAIN is the caller's
// to choose, as the result is -EAGAIN.
ssize_t Program::wait_for(Lock& lock, Time deadline, const Attempt& attempt) {
  const ssize_t first = attempt();
  if (first != -EAGAIN || deadline <= clock_.now()) return first;
  Waiter waiter{.attempt = attempt, .deadline = deadline, .result = -EAGAIN, .thread = this_thread()};
  waiters_.push_back(&waiter);
  woken_.wait(lock, [&waiter] { return waiter.done; });
  std::erase(waiters_, &waiter);
  return waiter.result;
}

void Program::retry_waiters() {
  for (Waiter* const waiter : waiters_) {
    if (waiter->done) continue;
    waiter->result = waiter->attempt();
    waiter->done = waiter->result != -EAGAIN || waiter->deadline <= clock_.now();
    if (!waiter->done) continue;
    reader_ = waiter->thread;
    woken_.notify_all();
  }
}

void Program::await_reading(Lock& lock) {
  if (reader_ == 0 || reader_ == this_thread()) return;
  woken_.wait_for(lock, kReadingPatience, [this] { return reader_ == 0; });
  reader_ = 0;
  woke_somebody_ = true;
}

Time Program::deadline_of(int timeout_ms) const {
  return timeout_ms < 0 ? kNever : clock_.now() + std::chrono::milliseconds(timeout_ms);
}

// ---- The clock

// To the next thing that happens, `limit` at most.
void Program::step(Lock& lock, Time limit) {
  await_reading(lock);
  Time next = std::min(limit, form_->next_deadline());
  for (const Waiter* const waiter : waiters_) {
    if (!waiter->done) next = std::min(next, waiter->deadline);
  }
  next = std::max(next, clock_.now());
  clock_.advance_to(clock_.now() + form_->pass(next - clock_.now()));
  form_->on_time();
  retry_waiters();
}

void Program::advance(Lock& lock, Time to) {
  do {
    step(lock, to);
  } while (clock_.now() < to);
}

void Program::sleep_us(std::uint64_t us) {
  Lock lock(mutex_);
  await_reading(lock);
  if (std::exchange(woke_somebody_, false)) {
    // It still has to note what its call gave, for the script's next lines. packetdrill lets it do so only while its
    // main thread sleeps.
    lock.unlock();
    std::this_thread::sleep_for(kNotingPatience);
    lock.lock();
  }
  advance(lock, clock_.now() + std::chrono::microseconds(us));
}

long long Program::read_clock_us() {
  Lock lock(mutex_);
  if (reader_ == this_thread()) {
    reader_ = 0;
    woken_.notify_all();
    return clock_.now_us();
  }
  await_reading(lock);
  advance(lock, clock_.now() + kReadingStep);
  return clock_.now_us();
}

// ---- Packets

int Program::packet_in(const void* packet, std::size_t bytes) {
  Lock lock(mutex_);
  form_->packet_in({static_cast<const std::byte*>(packet), bytes});
  retry_waiters();
  return 0;
}

int Program::packet_out(void* room, std::size_t* bytes, long long* time_us) {
  Lock lock(mutex_);
  const Time limit = clock_.now() + kPacketPatience;
  while (out_.empty() && clock_.now() < limit) step(lock, limit);
  if (out_.empty()) {
    *bytes = 0;
    return 0;
  }
  const Packet& packet = out_.front();
  *bytes = std::min(*bytes, packet.bytes.size());
  std::memcpy(room, packet.bytes.data(), *bytes);
  *time_us = packet.time_us;
  out_.pop_front();
  return 0;
}

std::string Program::summary() {
  const Lock lock(mutex_);
  return form_->summary();
}

}  // namespace twinstack::packetdrill
