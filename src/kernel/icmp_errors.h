// IcmpErrors: what routers tell this network namespace about segments that were too big (RFC 1191, RFC 8201), read from
// raw sockets beside the kernel's own handling. The kernel knows nothing of a connection that the engine has, so such a
// message would be lost. Whether it is to be believed is the connection's to judge (RFC 5927).
//
// Needs CAP_NET_RAW. One thread.
#pragma once

#include <functional>

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
  // Calls `take` for each message of IcmpKind::kTooBig that waits; a bounded number at a time.
  void poll(const std::function<void(const wire::IcmpError&)>& take);

 private:
  IcmpErrors() = default;
  void read_v4(const std::function<void(const wire::IcmpError&)>& take);
  void read_v6(const std::function<void(const wire::IcmpError&)>& take);

  UniqueFd v4_;
  UniqueFd v6_;  // none where IPv6 is off
  UniqueFd epoll_;
};

}  // namespace twinstack::kernel
