// IcmpErrors: what routers tell this network namespace about segments that were too big (RFC 1191, RFC 8201), read from
// raw sockets beside the kernel's own handling. The kernel knows nothing of a connection that the engine has, so such a
// message would be lost. Whether it is to be believed is the connection's to judge (RFC 5927).
//
// Needs CAP_NET_RAW. One thread.
#pragma once

#include <functional>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "wire/icmp.h"

namespace twinstack::kernel {

class IcmpErrors {
 public:
  // For the calling thread's network namespace.
  static Result<IcmpErrors> open();

  // Readable when something waits: an epoll instance.
  [[nodiscard]] int poll_fd() const noexcept { return epoll_.get(); }
  // Calls `take` for each message of IcmpKind::kTooBig that waits, at most kMessagesPerTurn in a turn: whoever sends
  // more gets no more work out of us. Those that find no room in the sockets are lost; routers repeat themselves.
  void poll(Time now, const std::function<void(const wire::IcmpError&)>& take);
  // When the turn is used up: from when on poll() reads again; until then poll_fd() is not readable. Else kNever.
  [[nodiscard]] Time rests_until() const noexcept { return resting_ ? turn_end_ : kNever; }

  static constexpr int kMessagesPerTurn = 32;
  static constexpr Duration kTurn = std::chrono::milliseconds(1);

 private:
  IcmpErrors() = default;
  void read_v4(const std::function<void(const wire::IcmpError&)>& take);
  void read_v6(const std::function<void(const wire::IcmpError&)>& take);
  void rest(bool on);

  UniqueFd v4_;
  UniqueFd v6_;  // none where IPv6 is off
  UniqueFd epoll_;
  Time turn_end_{};
  int left_ = 0;  // of this turn
  bool resting_ = false;
  bool v6_first_ = false;  // in turns: a flood of one family takes only half from the other
};

}  // namespace twinstack::kernel
