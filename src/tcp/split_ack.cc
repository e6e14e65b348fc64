#include "tcp/split_ack.h"

#include <algorithm>

#include "tcp/cold_state.h"
#include "tcp/congestion/congestion.h"
#include "tcp/plan.h"
#include "tcp/reassembly.h"
#include "tcp/window.h"

namespace twinstack::tcp {

namespace {

// Between two calls of poll_transmit(). Beyond it the echo of what follows counts for more than its own.
constexpr std::size_t kMaxSplitAcks = 64;

// The right edge stays where it was offered.
std::uint16_t window_field(const ControlBlock& cb, Seq ack) noexcept {
  const std::uint32_t window = bytes_between(ack, max(window_right_edge(cb), ack)) >> cb.rcv_wscale;
  return static_cast<std::uint16_t>(std::min(window, std::uint32_t{UINT16_MAX}));
}

}  // namespace

void split_ack_here(ControlBlock& cb) {
  if (cb.has(kAckOwed) && cb.rcv_nxt > cb.rcv_wup) {
    auto& waiting = cold_state(cb).split_acks;
    const bool further = waiting.empty() || cb.rcv_nxt > waiting.back().ack;
    if (further && waiting.size() < kMaxSplitAcks) waiting.push_back({cb.rcv_nxt, cb.has(kEcnEcho)});
  }
  acknowledge_now(cb);
}

bool plan_split_ack(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  if (!cb.cold || cb.cold->split_acks.empty()) return false;
  const SplitAck due = cb.cold->split_acks.front();
  cb.cold->split_acks.erase(cb.cold->split_acks.begin());
  wire::Segment& segment = plan.segment;
  fill_options(cb, now, segment.options);
  segment.seq = acceptable_seq(cb);
  segment.ack = due.ack;
  segment.window = window_field(cb, due.ack);
  segment.flags = static_cast<std::uint8_t>(wire::kAck | (due.ecn_echo ? wire::kEce : 0));
  if (congestion_ops(cb).wants_ecn) segment.ecn = wire::Ecn::kEct0;
  if (segment.options.sack_count > 0) sack_blocks_sent(cb);
  ++host.counters().segs_out;
  return true;
}

}  // namespace twinstack::tcp
