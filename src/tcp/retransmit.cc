#include "tcp/retransmit.h"

#include <algorithm>

#include "tcp/burst.h"
#include "tcp/cwnd_use.h"
#include "tcp/flight.h"
#include "tcp/pacing.h"
#include "tcp/path_mtu.h"
#include "tcp/plan.h"
#include "tcp/rtt.h"
#include "tcp/timers.h"

namespace twinstack::tcp {

namespace {

// The next lost segment that is to go again, end() when there is none.
SentQueue::Position next_lost(Flight& f) noexcept {
  if (f.lost == 0) return f.sent.end();
  for (; f.next_retransmit != f.sent.end(); ++f.next_retransmit) {
    const SentSegment& s = f.sent.at(f.next_retransmit);
    if (s.has(kLost) && !s.has(kRetransmitted | kSacked)) break;
  }
  return f.next_retransmit;
}

// How much of a segment of `length` may go again. Reports of what is out of order that do not fit beside it stay away:
// else all that was sent before them would be cut in two, and most of the flight moved each time.
std::uint32_t limit_again(const ControlBlock& cb, std::uint32_t length, wire::TcpOptions& options) noexcept {
  const std::uint32_t limit = payload_limit(cb, options);
  if (length <= limit || options.sack_count == 0) return limit;
  options.sack = {};
  options.sack_count = 0;
  return payload_limit(cb, options);
}

// How much from `seq` on may go again. Of a peer that took its window back what is left of it, and nothing beyond; but
// the first segment, again and again, when nothing is left: it stands for a probe (Linux __tcp_retransmit_skb()).
std::uint32_t room_again(const ControlBlock& cb, Seq seq) noexcept {
  const std::int32_t room = send_edge(cb) - seq;
  if (room > 0) return static_cast<std::uint32_t>(room);
  return seq == cb.snd_una ? UINT32_MAX : 0;
}

enum class Again : std::uint8_t { kRepair, kProbe };

// The segment again, as much of it as fits into one now; the rest becomes a segment of its own. REQUIRES: room_again().
void plan_again(ControlBlock& cb, SentQueue::Position position, Again kind, Host& host, Time now, SegmentPlan& plan) {
  Flight& f = *cb.flight;
  forget_size_probe(cb);
  const bool reports_due = cb.has(kAckNow) && plan.segment.options.sack_count > 0;
  const std::uint32_t limit = limit_again(cb, f.sent.at(position).length, plan.segment.options);
  const bool with_fin = f.sent.at(position).end() > data_end(cb);
  // The FIN asks for no room (as Linux, which compares the bytes).
  const std::uint32_t most = std::min(limit, room_again(cb, f.sent.at(position).seq));
  if (f.sent.at(position).length > most + (with_fin ? 1 : 0)) split_sent(f, position, most);
  const SentSegment& s = f.sent.at(position);
  fill_text(cb, plan, s.seq, s.length);
  if (plan.payload_bytes > 0 && pushes_again(cb, position)) plan.segment.flags |= wire::kPsh;
  plan.retransmission = true;
  if (kind == Again::kRepair)
    note_repeat(cb, position, now);
  else
    note_probe_again(cb, position, now);
  pace_after(cb, plan.payload_bytes, now);
  complete(cb, host, now, plan);
  if (reports_due && plan.segment.options.sack_count == 0) acknowledge_now(cb);  // by a segment that has room for them
}

}  // namespace

bool plan_retransmission(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  if (!cb.flight || !cb.has(kMayRetransmit)) return false;
  Flight& f = *cb.flight;
  const auto position = next_lost(f);
  if (position == f.sent.end()) return false;
  if (packets_in_flight(cb) >= cb.cwnd) {
    note_cwnd_use(cb, true, now);
    return false;
  }
  if (pacing_holds(cb, now)) return false;
  const SentSegment& s = f.sent.at(position);
  if (room_again(cb, s.seq) == 0) return false;
  fill_options(cb, now, plan.segment.options);
  const bool first = position == f.sent.first();
  plan_again(cb, position, Again::kRepair, host, now, plan);
  if (first && cb.sender_timer != SenderTimer::kReorder) {
    arm_sender_timer(cb, SenderTimer::kRetransmit, backed_off_rto(cb), now);
  }
  return true;
}

bool plan_last_again(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  if (packets_out(cb) == 0) return false;
  Flight& f = *cb.flight;
  fill_options(cb, now, plan.segment.options);
  // Of a long segment its end: a receiver that has it all says so as well.
  const std::uint32_t length = f.sent.back().length;
  wire::TcpOptions options = plan.segment.options;
  const std::uint32_t limit = limit_again(cb, length, options);
  const std::uint32_t skip = length > limit + 1 ? length - limit : 0;
  if (room_again(cb, f.sent.back().seq + skip) == 0) return false;
  if (skip > 0) split_sent(f, f.sent.end() - 1, skip);
  plan_again(cb, f.sent.end() - 1, Again::kProbe, host, now, plan);
  return true;
}

void note_probe(ControlBlock& cb, bool repeats, Time now) {
  Flight& f = *cb.flight;
  cb.clear(kProbeLossNow);
  f.probe_out = true;
  f.probe_repeats = repeats;
  f.probe_end = cb.snd_nxt;
  arm_sender_timer(cb, SenderTimer::kRetransmit, backed_off_rto(cb), now);
}

}  // namespace twinstack::tcp
