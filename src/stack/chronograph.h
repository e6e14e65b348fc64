// Chronograph: for how long a sender was busy, and what held it back (Linux tcp_chrono, RFC 4898 style).
#pragma once

#include <array>
#include <cstdint>

#include "base/clock.h"
#include "tcp/control_block.h"
#include "tcp/flight.h"
#include "tcp/tcp_info.h"
#include "tcp/timers.h"

namespace twinstack::stack {

class Chronograph {
 public:
  enum class Activity : std::uint8_t {
    kIdle,
    kBusy,            // something is queued or in flight
    kReceiveLimited,  // ... and the peer's window holds it back
    kSendLimited,     // ... and the program waits for room in the send buffer
  };

  // What the sender waits for; `no_room`: the program has found none in the send buffer.
  [[nodiscard]] static Activity activity_of(const tcp::ControlBlock& cb, bool no_room) noexcept {
    const bool unsent = cb.snd_nxt != cb.write_seq;
    const bool cwnd_has_room = tcp::packets_in_flight(cb) < cb.cwnd;  // else that is what holds it back (as Linux)
    if (unsent && cwnd_has_room && !tcp::window_admits_next(cb)) return Activity::kReceiveLimited;
    if (cb.snd_una == cb.write_seq) return Activity::kIdle;
    return !unsent && no_room ? Activity::kSendLimited : Activity::kBusy;
  }

  void turn_to(Activity activity, Time now) noexcept {
    if (activity == activity_) return;
    spent_[static_cast<std::size_t>(activity_)] += now - since_;
    activity_ = activity;
    since_ = now;
  }
  [[nodiscard]] Activity activity() const noexcept { return activity_; }
  // So far.
  [[nodiscard]] std::int64_t spent_us(Activity activity, Time now) const noexcept {
    Duration spent = spent_[static_cast<std::size_t>(activity)];
    if (activity == activity_) spent += now - since_;
    return std::chrono::duration_cast<std::chrono::microseconds>(spent).count();
  }

 private:
  std::array<Duration, 4> spent_{};
  Time since_{};
  Activity activity_ = Activity::kIdle;
};

// What held the sender back, as TCP_INFO tells it.
void fill_chronograph(const Chronograph& chrono, Time now, tcp::TcpInfo& out) noexcept;

}  // namespace twinstack::stack
