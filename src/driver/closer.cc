#include "driver/closer.h"

#include <utility>

#include "base/monotonic.h"

namespace twinstack::driver {

Closer::Closer() {
  for (std::thread& thread : threads_) thread = std::thread([this] { run(); });
}

Closer::~Closer() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ready_changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Closer::close(UniqueFd fd, uid_t uid) {
  if (!fd) return;
  const std::lock_guard lock(mutex_);
  const auto [user, is_new] = users_.try_emplace(uid);
  user->second.waiting.push_back(std::move(fd));
  if (!is_new) return;
  ready_.push_back(uid);
  ready_changed_.notify_one();
}

bool Closer::is_clogged(uid_t uid) {
  const std::lock_guard lock(mutex_);
  const auto user = users_.find(uid);
  if (user == users_.end() || user->second.waiting.size() < kMaxWaiting) return false;
  return user->second.is_served && monotonic_now() - user->second.since > kPatience;
}

// A thread serves one user at a time, one descriptor a turn.
void Closer::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ready_changed_.wait(lock, [this] { return stopping_ || !ready_.empty(); });
    if (ready_.empty()) return;
    const uid_t uid = ready_.front();
    ready_.pop_front();
    User& user = users_.at(uid);  // stays where it is: unordered_map moves no element
    UniqueFd fd = std::move(user.waiting.front());
    user.waiting.pop_front();
    user.is_served = true;
    user.since = monotonic_now();
    lock.unlock();
    fd.reset();
    lock.lock();
    user.is_served = false;
    if (user.waiting.empty())
      users_.erase(uid);
    else
      ready_.push_back(uid);
  }
}

}  // namespace twinstack::driver
