// CwndWatch: what may become of a connection's congestion window between two looks at it. Knows RFC 5681, RFC 6937 and
// RFC 6298 and how far an algorithm may go, not how the product does it: of the control block it reads what has
// happened (segments delivered, in flight, where recovery stands), and remembers the rest itself. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "tcp/control_block.h"

namespace twinstack::sim {

class CwndWatch {
 public:
  enum class Holder : std::uint8_t { kNobody, kKernel, kEngine, kPeer };

  // What is wrong; empty: nothing. `look`: counts the times that somebody could have looked; when one was left out, or
  // another holds the connection, it may have moved meanwhile. `segments_sent`: with data, repetitions included, by
  // anybody.
  [[nodiscard]] std::string look(const tcp::ControlBlock& cb, Holder holder, std::uint64_t look,
                                 std::uint64_t segments_sent);
  // It came back to a kernel that knows neither window nor threshold: both begin anew.
  void forgotten() noexcept { begins_anew_ = true; }

 private:
  struct Seen {
    std::uint32_t cwnd = 0;
    std::uint32_t ssthresh = 0;
    std::uint32_t delivered = 0;
    std::uint32_t out = 0;
    std::uint32_t out_bytes = 0;
    std::uint32_t in_flight = 0;
    std::uint32_t flight_out = 0;  // most that were out in the window of cwnd_usage_seq
    std::uint64_t prr_most = 0;    // that PRR lets out beyond what is in flight (RFC 6937 3)
    std::uint8_t retries = 0;
    tcp::RecoveryState recovery = tcp::RecoveryState::kOpen;
    tcp::CongestionKind kind = tcp::CongestionKind::kCubic;
    std::uint16_t mss = 1;
    Seq high_seq;  // snd_nxt when `recovery` began
    bool sack = false;
    bool limited = false;            // cwnd held data back
    std::uint32_t saved_by_bbr = 0;  // what its recovery or kProbeRtt will go back to
    bool restorable = false;         // a window from before may come back
    Seq undo_marker;                 // snd_una when the last loss was found
  };

  static Seen see(const tcp::ControlBlock& cb) noexcept;
  [[nodiscard]] std::string judge(const Seen& now) const;
  [[nodiscard]] std::string judge_growth(const Seen& now) const;
  [[nodiscard]] std::string judge_use(const Seen& now) const;
  [[nodiscard]] std::string judge_reduction(const Seen& now) const;
  [[nodiscard]] std::string judge_move(const Seen& now, std::uint64_t segments_sent) const;
  [[nodiscard]] std::uint32_t delivered(const Seen& now) const noexcept { return now.delivered - was_.delivered; }

  [[nodiscard]] std::uint64_t highest_in_recovery(const Seen& now) const noexcept;
  [[nodiscard]] std::uint64_t highest_unwatched(const Seen& now, std::uint64_t segments_sent) const noexcept;
  void remember(const Seen& now, Holder holder, std::uint64_t look, std::uint64_t segments_sent,
                std::uint64_t highest) noexcept;
  // A loss was none after all: also one that was found and undone between two looks.
  [[nodiscard]] bool undone(const Seen& now) const noexcept {
    return !now.restorable && (was_.restorable || now.undo_marker != was_.undo_marker);
  }
  [[nodiscard]] std::uint64_t highest() const noexcept;

  Seen was_;
  Holder holder_ = Holder::kNobody;
  std::uint64_t look_ = 0;
  std::uint64_t segments_sent_ = 0;
  std::uint32_t most_out_ = 0;  // ever
  std::uint64_t before_ = 0;    // the largest since one that an undo may give back
  std::uint32_t restored_ = 0;  // by the last undo or move
  bool begins_anew_ = false;
};

}  // namespace twinstack::sim
