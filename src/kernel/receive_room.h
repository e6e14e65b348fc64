// Room for packets that are injected into a socket whose receive buffer the program has fixed (SO_RCVBUF). Each of them
// lies in a page of its own, three times what it takes of the window that was offered: the kernel would drop some and
// close the window at once (docs/kernel-facts.md R24). So the buffer is larger for as long as they lie in it, or the
// peer may still send what it was offered meanwhile.
#pragma once

#include <linux/sock_diag.h>
#include <linux/socket.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "kernel/sockopt.h"
#include "tcp/tcp_info.h"

namespace twinstack::kernel {

class ReceiveRoom {
 public:
  // `packets` are about to be injected. Nothing happens to a buffer that the kernel tunes: it grows by itself.
  Result<> make(int fd, std::uint32_t packets) {
    ASSIGN_OR_RETURN(const int lock, get_option(fd, SOL_SOCKET, SO_BUF_LOCK, "SO_BUF_LOCK"));
    if ((lock & SOCK_RCVBUF_LOCK) == 0) return {};
    ASSIGN_OR_RETURN(const int before, get_option(fd, SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF"));
    ASSIGN_OR_RETURN(const std::int64_t used, used_bytes(fd));
    if (!is_lent() || before != lent_) {
      lent_ = 0;
      own_ = before;
      ASSIGN_OR_RETURN(own_clamp_, get_option(fd, IPPROTO_TCP, kWindowClampOption, "TCP_WINDOW_CLAMP"));
      offered_before_ = offered(fd);
    }
    // As much again for what comes by itself: where that fits, nothing is lent.
    const std::int64_t more = used + packets * kBytesOfPacket;
    const std::int64_t wanted = std::min(more + own_, kMost);
    if (2 * more <= before || wanted <= before) return {};
    TRY(set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, static_cast<int>(wanted / 2), "SO_RCVBUFFORCE"));
    ASSIGN_OR_RETURN(lent_, get_option(fd, SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF"));
    largest_ = std::max(largest_, lent_);
    return {};
  }
  // Once what lies in the buffer, and what the peer may send, would find room in the program's own. What the program
  // has set meanwhile stays. True: nothing is lent any more.
  bool take_back(int fd, bool in_any_case) {
    if (!is_lent()) return true;
    const auto now = get_option(fd, SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF");
    if (now && *now == lent_) {
      lower_clamp(fd);
      if (!in_any_case && !fits_own(fd)) return false;
      (void)set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, own_ / 2, "SO_RCVBUFFORCE");
    }
    lent_ = 0;
    return true;
  }
  // SO_RCVBUF and TCP_WINDOW_CLAMP as the program has them, of what reads as `now`.
  [[nodiscard]] int own(int now) const noexcept { return now == lent_ ? own_ : now; }
  [[nodiscard]] int own_clamp(int now) const noexcept {
    if (!is_lent() || now <= own_clamp_) return now;
    return std::max(own_clamp_, static_cast<int>(std::int64_t{now} * own_ / lent_));
  }
  // The most that was ever lent: what lies out of order may have come into a window of that size.
  [[nodiscard]] int largest() const noexcept { return largest_; }
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

  // Linux sizes the clamp by the buffer when the weight of segments changes (tcp_measure_rcv_mss()), and nothing beyond
  // it is offered. What was offered stays so.
  void lower_clamp(int fd) {
    const auto now = get_option(fd, IPPROTO_TCP, kWindowClampOption, "TCP_WINDOW_CLAMP");
    if (!now || *now <= own_clamp_) return;
    own_clamp_ = own_clamp(*now);
    (void)set_option(fd, IPPROTO_TCP, kWindowClampOption, own_clamp_, "TCP_WINDOW_CLAMP");
  }
  // The window that the peer was told last, less what it was rounded up by; 0: not known (before Linux 6.2).
  static std::int64_t offered(int fd) {
    tcp::TcpInfo info;
    socklen_t length = sizeof info;
    if (::getsockopt(fd, IPPROTO_TCP, kInfoOption, &info, &length) != 0) return 0;
    return std::int64_t{info.rcv_wnd} - (std::int64_t{1} << (info.window_scales >> 4)) + 1;
  }
  [[nodiscard]] bool fits_own(int fd) const {
    const auto used = used_bytes(fd);
    return (!used || *used <= own_) && offered(fd) <= std::max<std::int64_t>(own_clamp_, offered_before_);
  }

  int own_ = 0;        // SO_RCVBUF as the program has it
  int own_clamp_ = 0;  // TCP_WINDOW_CLAMP with that
  std::int64_t offered_before_ = 0;
  int lent_ = 0;  // SO_RCVBUF as we have set it; 0: we have not
  int largest_ = 0;
};

}  // namespace twinstack::kernel
