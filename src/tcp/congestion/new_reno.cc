#include "tcp/congestion/new_reno.h"

namespace twinstack::tcp {

namespace {

void init(ControlBlock& cb) { cb.congestion.new_reno = {}; }

void on_ack(ControlBlock& cb, std::uint32_t acked_bytes, Time /*now*/) {
  acked_bytes = slow_start(cb, acked_bytes);
  if (acked_bytes == 0) return;
  // RFC 3465 2.1: one segment for each window of bytes acknowledged.
  NewRenoState& state = cb.congestion.new_reno;
  state.acked_bytes += acked_bytes;
  if (state.acked_bytes < cb.cwnd) return;
  state.acked_bytes -= cb.cwnd;
  grow_cwnd(cb, cb.mss);
}

std::uint32_t on_congestion(ControlBlock& cb) {
  cb.congestion.new_reno.acked_bytes = 0;
  return at_least_two_segments(cb, cb.cwnd / 2);
}

void on_timeout(ControlBlock& /*cb*/) {}
void on_restart(ControlBlock& /*cb*/, Duration /*idle*/) {}

constexpr CongestionOps kOps = {"reno", init, on_ack, on_congestion, on_timeout, on_restart};

}  // namespace

const CongestionOps& new_reno_ops() noexcept { return kOps; }

}  // namespace twinstack::tcp
