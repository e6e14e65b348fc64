// The end of a connection whose peer was silent for too long while the engine had it. The kernel's own clocks have
// begun anew with the return, and only the options for them tell it that the time is over (docs/kernel-facts.md R23).
// What the program has set is put back should the peer be heard of after all.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <cstddef>

#include "base/clock.h"
#include "base/result.h"
#include "kernel/sockopt.h"

namespace twinstack::kernel {

class Expiry {
 public:
  // get(level, name) is a Result<int>, set(level, name, value) a Result<>.
  template <typename Get, typename Set>
  Result<> begin(Get&& get, Set&& set, Time now) {
    since_ = now;
    count_ = 0;
    ASSIGN_OR_RETURN(const int keepalive, get(SOL_SOCKET, SO_KEEPALIVE));
    TRY(shorten(get, set, kUserTimeoutOption));
    if (keepalive == 0) return {};
    TRY(shorten(get, set, kKeepIntervalOption));
    return shorten(get, set, kKeepIdleOption);  // the last: it sets the timer
  }
  // What the program has not set otherwise meanwhile.
  template <typename Get, typename Set>
  void end(Get&& get, Set&& set) {
    for (; count_ > 0; --count_) {
      const Option& option = options_[count_ - 1];
      const Result<int> value = get(IPPROTO_TCP, option.name);
      if (value.has_value() && *value == kShortest) (void)set(IPPROTO_TCP, option.name, option.before);
    }
  }
  [[nodiscard]] bool is_on() const noexcept { return count_ > 0; }
  // Whether a packet of the peer that came then is news of it, and not what the return itself has injected.
  [[nodiscard]] bool is_news(Time arrival) const noexcept { return arrival > since_ + kInjected; }

 private:
  static constexpr int kShortest = 1;  // ms of TCP_USER_TIMEOUT, s of the others
  static constexpr Duration kInjected = std::chrono::milliseconds(20);

  struct Option {
    int name = 0;
    int before = 0;
  };

  template <typename Get, typename Set>
  Result<> shorten(Get& get, Set& set, int name) {
    ASSIGN_OR_RETURN(const int before, get(IPPROTO_TCP, name));
    TRY(set(IPPROTO_TCP, name, kShortest));
    options_[count_++] = {.name = name, .before = before};
    return {};
  }

  std::array<Option, 3> options_{};
  std::size_t count_ = 0;
  Time since_{};
};

}  // namespace twinstack::kernel
