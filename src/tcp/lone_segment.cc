#include "tcp/lone_segment.h"

#include "tcp/congestion/congestion.h"
#include "tcp/cwnd_use.h"
#include "tcp/flight.h"
#include "tcp/loss_probe.h"
#include "tcp/plan.h"
#include "tcp/transmit.h"

namespace twinstack::tcp {

namespace {

// Whatever holds data back, or has something else to be sent first.
constexpr std::uint32_t kNotPlain =
    kDraining | kProbeNow | kForceSend | kMayRetransmit | kProbeLossNow | kEcnEcho | kFinQueued | kPacingHolds;
constexpr std::uint8_t kPlainOptions = kOptTimestamps | kOptSack;

bool is_lone(const ControlBlock& cb, std::uint32_t length, std::uint32_t limit) noexcept {
  if (cb.flight || cb.cold || cb.has(kNotPlain) || cb.recovery != RecoveryState::kOpen) return false;
  if ((cb.options & (kPlainOptions | kOptEcn)) != kPlainOptions) return false;
  if ((cb.flags & (kFlagCork | kMoreFollows)) != 0 || cb.sender_timer != SenderTimer::kNone) return false;
  return length > 0 && length <= limit && length <= cb.snd_wnd;
}

// REQUIRES: no flight. True when the segment carries PSH.
bool begin_lone_flight(ControlBlock& cb, std::uint32_t length, Host& host, Time now) {
  Flight& f = flight_of(cb, host.flights());
  f.lone = true;
  f.first_sent = f.delivered_at = now;
  f.burst_size = 1;
  SentSegment& s = f.sent.push_back();
  s = {.seq = cb.snd_nxt,
       .length = length,
       .sent = now,
       .first_sent = now,
       .delivered_at = now,
       .delivered = cb.delivered,
       .flags = 0,
       .burst = 1};
  if (cb.app_limited != 0) s.set(kSentAppLimited);
  cb.snd_nxt += length;
  const bool pushed = cb.snd_nxt == cb.push_seq;
  if (pushed) s.set(kPushed);
  return pushed;
}

}  // namespace

bool plan_lone_segment(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  const std::uint32_t length = bytes_between(cb.snd_nxt, cb.write_seq);
  const std::uint32_t limit = full_segment_bytes(cb);
  const CongestionOps& ops = congestion_ops(cb);
  if (!is_lone(cb, length, limit) || ops.pacing_rate != nullptr) return false;
  restart_after_idle(cb, now);
  cb.stall_since = to_coarse_tick(now);
  if (ops.on_event != nullptr) ops.on_event(cb, CongestionEvent::kSendStart, now);
  plan = SegmentPlan{};
  plan.segment.seq = cb.snd_nxt;
  plan.payload_bytes = length;
  if (begin_lone_flight(cb, length, host, now)) plan.segment.flags = wire::kPsh;
  if (length < limit) cb.snd_sml = cb.snd_nxt;
  arm_first_loss_probe(cb, now);
  note_cwnd_use(cb, cb.cwnd <= 1, now);
  fill_options(cb, now, plan.segment.options);
  complete(cb, host, now, plan);
  return true;
}

}  // namespace twinstack::tcp
