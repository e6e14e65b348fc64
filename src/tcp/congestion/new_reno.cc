#include "tcp/congestion/new_reno.h"

#include <algorithm>

#include "tcp/congestion/hystart.h"

namespace twinstack::tcp {

namespace {

void init(ControlBlock& cb, Time /*now*/) { hystart_init(cb); }

void grow(ControlBlock& cb, std::uint32_t acked, Time /*now*/) {
  if (hystart_running(cb)) {
    hystart_grow(cb, acked);
  } else {
    grow_as_reno(cb, acked);
  }
}

std::uint32_t ssthresh(ControlBlock& cb) {
  hystart_stop(cb);
  return std::max(cb.cwnd / 2, 2U);  // RFC 5681 3.1 (4)
}

void on_delivered(ControlBlock& cb, std::uint32_t /*acked*/, std::uint32_t rtt_us, Time /*now*/) {
  if (hystart_running(cb)) hystart_on_ack(cb, rtt_us);
}

}  // namespace

void grow_as_reno(ControlBlock& cb, std::uint32_t acked) noexcept {
  acked = slow_start(cb, acked);
  if (acked > 0) grow_additively(cb, cb.cwnd, acked);  // RFC 3465 2.1
}

const CongestionOps kNewRenoOps = {.name = "reno",
                                   .init = init,
                                   .ssthresh = ssthresh,
                                   .grow = grow,
                                   .undo_cwnd = hystart_undo_cwnd,
                                   .on_delivered = on_delivered};

}  // namespace twinstack::tcp
