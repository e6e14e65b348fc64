#include "tcp/plain_ack.h"

#include <algorithm>

#include "tcp/ack.h"
#include "tcp/congestion/congestion.h"
#include "tcp/cwnd_use.h"
#include "tcp/flight.h"
#include "tcp/rate.h"
#include "tcp/rtt.h"
#include "tcp/tick.h"

namespace twinstack::tcp {

namespace {

// Something was asked for that the end of a flight does not settle.
constexpr std::uint32_t kUnsettled = kMayRetransmit | kProbeLossNow | kPacingHolds | kDsackSeen;

// No repair, no probe, no reduction that could still be undone. (A loss probe or more data end what is lone; a timeout
// or a smaller MTU leave kOpen, or mark the segment.)
bool undisturbed(const ControlBlock& cb, const Flight& f) noexcept {
  if (!f.lone || cb.recovery != RecoveryState::kOpen || cb.has(kUnsettled)) return false;
  return !f.probe_out && !f.undo_possible && !f.sent.front().has(kLost | kEverRetransmitted);
}

// It neither looks at each ACK (RFC 8257) nor sets cwnd by itself (BBR).
bool plain(const CongestionOps& ops) noexcept { return ops.on_ack == nullptr && ops.control == nullptr; }

void take_window(ControlBlock& cb, const wire::Segment& segment) noexcept {
  cb.snd_wl1 = segment.seq;
  cb.snd_wnd = std::uint32_t{segment.window} << cb.snd_wscale;
  cb.max_window = std::max(cb.max_window, cb.snd_wnd);
}

}  // namespace

bool take_plain_ack(ControlBlock& cb, const wire::Segment& segment, Host& host, Time now) {
  if (!cb.flight || segment.ack != cb.write_seq || segment.ack != cb.snd_nxt || segment.ack == cb.snd_una) return false;
  Flight& f = *cb.flight;
  const CongestionOps& ops = congestion_ops(cb);
  if (!undisturbed(cb, f) || !plain(ops)) return false;
  const SentSegment& sent = f.sent.front();
  const std::uint32_t rtt_us = us_since(sent.sent, now);
  const bool maybe_delayed = sent.length < cb.mss && sent.delivered == cb.delivered;  // see ack.cc
  take_window(cb, segment);
  host.counters().bytes_acked += sent.length;
  cb.snd_una = segment.ack;
  cb.retries = 0;
  cb.probes_out = 0;
  cb.clear(kGaveUp);
  cb.stall_since = to_coarse_tick(now);
  ++cb.delivered;
  if (!maybe_delayed || rtt_us <= cb.min_rtt_us) note_min_rtt(cb, rtt_us, now);
  add_rtt_sample(cb, rtt_us);
  if (rtt_us > 0 && rtt_us >= cb.min_rtt_us) keep_rate(host.delivery_rate(), 1, rtt_us, sent.has(kSentAppLimited));
  if (ops.on_delivered != nullptr) ops.on_delivered(cb, 1, rtt_us, now);
  if (cb.reo_wnd_persist == 0) cb.reo_wnd_steps = 1;
  cb.sender_timer = SenderTimer::kNone;
  if (cb.app_limited != 0 && static_cast<std::int32_t>(cb.delivered - cb.app_limited) > 0) cb.app_limited = 0;
  cb.cwnd_stamp = to_tick(now);
  if (cwnd_was_limit(cb)) ops.grow(cb, 1, now);
  end_lone_flight(cb);
  return true;
}

}  // namespace twinstack::tcp
