#include "tcp/congestion/new_reno.h"

#include <algorithm>

namespace twinstack::tcp {

namespace {

void init(ControlBlock& /*cb*/, Time /*now*/) {}

void grow(ControlBlock& cb, std::uint32_t acked, Time /*now*/) {
  acked = slow_start(cb, acked);
  if (acked > 0) grow_additively(cb, cb.cwnd, acked);  // RFC 3465 2.1
}

std::uint32_t ssthresh(ControlBlock& cb) { return std::max(cb.cwnd / 2, 2U); }

constexpr CongestionOps kOps = {
    .name = "reno", .init = init, .ssthresh = ssthresh, .grow = grow, .undo_cwnd = prior_cwnd};

}  // namespace

const CongestionOps& new_reno_ops() noexcept { return kOps; }

}  // namespace twinstack::tcp
