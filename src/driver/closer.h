// Closer: closes what programs have passed to the service, and the sockets by which they did, on threads of its own:
// the last close of a file on FUSE, of a socket that lingers, of a unix socket with either of them in its queue sleeps
// for as long as its owner likes. Who makes a close sleep holds up one thread and his own descriptors behind it.
#pragma once

#include <sys/types.h>

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "base/clock.h"
#include "base/unique_fd.h"

namespace twinstack::driver {

class Closer {
 public:
  Closer();
  // Closes what waits first.
  ~Closer();
  Closer(const Closer&) = delete;
  Closer& operator=(const Closer&) = delete;

  // Never blocks. Closed in order among those of one user.
  void close(UniqueFd fd, uid_t uid);
  // Many of this user's wait behind one that does not end: nothing more is to be taken from him.
  [[nodiscard]] bool is_clogged(uid_t uid);

  static constexpr std::size_t kMaxWaiting = 1024;  // of a user that is clogged
  static constexpr Duration kPatience = std::chrono::seconds(1);

 private:
  struct User {
    std::deque<UniqueFd> waiting;
    bool is_served = false;  // by a thread, since `since`; else it is in ready_
    Time since{};
  };
  void run();

  std::mutex mutex_;
  std::condition_variable ready_changed_;
  std::unordered_map<uid_t, User> users_;  // with something that waits or is being closed
  std::deque<uid_t> ready_;
  bool stopping_ = false;
  std::array<std::thread, 4> threads_;
};

}  // namespace twinstack::driver
