// Room for packets that are injected into a socket whose receive buffer the program has fixed (SO_RCVBUF). Each of them
// lies in a page of its own, three times what it takes of the window that was offered: the kernel would drop some and
// close the window at once (docs/kernel-facts.md R24). So the buffer is larger for as long as they lie in it.
#pragma once

#include <linux/sock_diag.h>
#include <linux/socket.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "kernel/sockopt.h"

namespace twinstack::kernel {

class ReceiveRoom {
 public:
  // `packets` are about to be injected. Nothing happens to a buffer that the kernel tunes: it grows by itself.
  Result<> make(int fd, std::uint32_t packets) {
    ASSIGN_OR_RETURN(const int lock, get_option(fd, SOL_SOCKET, SO_BUF_LOCK, "SO_BUF_LOCK"));
    if ((lock & SOCK_RCVBUF_LOCK) == 0) return {};
    ASSIGN_OR_RETURN(const int before, get_option(fd, SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF"));
    ASSIGN_OR_RETURN(const std::int64_t used, used_bytes(fd));
    if (!is_lent() || before != lent_) own_ = before;
    // As much again for what comes by itself: where that fits, nothing is lent.
    const std::int64_t more = used + packets * kBytesOfPacket;
    const std::int64_t wanted = std::min(more + own_, kMost);
    if (2 * more <= before || wanted <= before) return {};
    TRY(set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, static_cast<int>(wanted / 2), "SO_RCVBUFFORCE"));
    ASSIGN_OR_RETURN(lent_, get_option(fd, SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF"));
    return {};
  }
  // Once what lies in the buffer would find room in the program's own. What the program has set meanwhile stays.
  // True: nothing is lent any more.
  bool take_back(int fd, bool in_any_case) {
    if (!is_lent()) return true;
    const auto now = get_option(fd, SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF");
    if (now && *now == lent_) {
      const auto used = used_bytes(fd);
      if (!in_any_case && used && *used > own_) return false;
      (void)set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, own_ / 2, "SO_RCVBUFFORCE");
    }
    lent_ = 0;
    return true;
  }
  // SO_RCVBUF as the program has it, of one that reads as `now`.
  [[nodiscard]] int own(int now) const noexcept { return now == lent_ ? own_ : now; }
  [[nodiscard]] bool is_lent() const noexcept { return lent_ != 0; }

 private:
  static constexpr std::int64_t kBytesOfPacket = 5120;  // a page, struct sk_buff and what goes with it
  static constexpr std::int64_t kMost = 1 << 30;

  static Result<std::int64_t> used_bytes(int fd) {
    std::array<std::uint32_t, SK_MEMINFO_VARS> figures{};
    socklen_t length = sizeof figures;
    if (::getsockopt(fd, SOL_SOCKET, SO_MEMINFO, figures.data(), &length) != 0) return system_error("SO_MEMINFO");
    return std::int64_t{figures[SK_MEMINFO_RMEM_ALLOC]};
  }

  int own_ = 0;   // SO_RCVBUF as the program has it
  int lent_ = 0;  // ... and as we have set it; 0: we have not
};

}  // namespace twinstack::kernel
