#include "tcp/ack.h"

#include <algorithm>

#include "tcp/ack_news.h"
#include "tcp/congestion/congestion.h"
#include "tcp/cwnd_use.h"
#include "tcp/flight.h"
#include "tcp/loss_marks.h"
#include "tcp/loss_probe.h"
#include "tcp/path_mtu.h"
#include "tcp/rack.h"
#include "tcp/recovery.h"
#include "tcp/reduction.h"
#include "tcp/rtt.h"
#include "tcp/sack.h"
#include "tcp/timers.h"
#include "tcp/timestamps.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint16_t kDefaultReordering = 3;

// RFC 9293 3.10.7.4: a newer segment's window replaces ours. An ACK that repeats the last one counts when it opens the
// window (instead of SND.WL2, as Linux does). True when snd_wnd changed.
bool update_send_window(ControlBlock& cb, const wire::Segment& segment) noexcept {
  const std::uint32_t window = std::uint32_t{segment.window} << cb.snd_wscale;
  const bool opens_or_closes = window > cb.snd_wnd || window == 0;  // the latter: a peer without memory (Linux 6.6)
  const bool newer =
      segment.ack > cb.snd_una || segment.seq > cb.snd_wl1 || (segment.seq == cb.snd_wl1 && opens_or_closes);
  if (!newer) return false;
  cb.snd_wl1 = segment.seq;
  if (window == cb.snd_wnd) return false;
  cb.snd_wnd = window;
  cb.max_window = std::max(cb.max_window, window);
  return true;
}

AckNews begin(const ControlBlock& cb, const wire::Segment& segment, std::uint32_t payload_bytes) noexcept {
  AckNews news;
  news.ack = segment.ack;
  news.prior_una = cb.snd_una;
  news.prior_highest_sacked = highest_sacked(cb);
  news.prior_out = packets_out(cb);
  news.prior_sacked = cb.flight ? cb.flight->sacked : 0;
  news.prior_delivered = cb.delivered;
  news.prior_lost = cb.lost;
  news.sample.prior_in_flight = packets_in_flight(cb);
  if (payload_bytes > 0) news.flags |= kCarriesData;
  if ((cb.options & kOptEcn) != 0 && segment.has(wire::kEce)) news.flags |= kEcnEchoed;
  news.has_echo = (cb.options & kOptTimestamps) != 0 && segment.options.has_timestamps && segment.options.ts_ecr != 0;
  news.echo = segment.options.ts_ecr;
  return news;
}

// A lone small segment across the round trip: the sample may hold the peer's delayed ACK (Linux
// FLAG_ACK_MAYBE_DELAYED).
bool maybe_delayed(const ControlBlock& cb, const AckNews& news) noexcept {
  const bool alarm = news.has(kNewlySacked | kEcnEchoed | kDuplicateReported);
  return news.acked_segments == 1 && news.prior_sacked == 0 && bytes_between(news.prior_una, cb.snd_una) < cb.mss &&
         news.sample.prior_delivered + 1 == cb.delivered && !alarm;
}

// RFC 6298 with Karn: from segments that were sent once, acknowledged or SACKed, else from the echo. True when there
// was a sample.
bool measure_rtt(ControlBlock& cb, const wire::Segment& segment, AckNews& news, Time now) noexcept {
  std::uint32_t first_us = 0;
  std::uint32_t last_us = 0;  // of the most recent one: what the path's shortest and the congestion control want
  if (news.any_acked && !news.has(kRepeatAcked)) {
    first_us = us_since(news.first_acked, now);
    last_us = us_since(news.last_acked, now);
  } else if (news.any_sacked) {
    first_us = us_since(news.first_sacked, now);
  }
  if (news.any_sacked) last_us = us_since(news.last_sacked, now);
  if (first_us == 0 && news.acked_segments > 0 && !news.foreign_acked) {
    first_us = last_us = rtt_from_echo_us(cb, segment, now);
  }
  if (first_us == 0) return false;
  news.sample.rtt_us = last_us;
  if (!news.has(kMaybeDelayed) || last_us <= cb.min_rtt_us) note_min_rtt(cb, last_us, now);
  add_rtt_sample(cb, first_us);
  return true;
}

// The timer begins anew for progress; for a SACK only when it speaks of what was sent before the first segment that is
// out was last sent, else the timeout could be put off for ever (as Linux tcp_clean_rtx_queue()).
void judge_timer(const ControlBlock& cb, AckNews& news, bool measured) noexcept {
  if (news.acked_segments > 0) {
    news.flags |= kRestartTimer;
  } else if (measured && news.any_sacked && packets_out(cb) > 0 && news.first_sacked < cb.flight->sent.front().sent) {
    news.flags |= kRestartTimer;
  }
}

// Takes the ACK number and the SACK option: what has arrived.
void take_arrivals(ControlBlock& cb, const wire::Segment& segment, AckNews& news, Host& host, Time now) {
  if (segment.options.sack_count > 0) take_sack_option(cb, segment, news, host.counters(), now);
  if (news.prior_out == 0) return;
  retire_acknowledged(cb, news, now);
  if (news.acked_segments > 0) {
    if (!uses_sack(cb)) {
      reno_on_progress(cb, news.acked_segments);
      // Without reports the original and its repetition cannot be told apart.
      if (news.has(kRepeatAcked)) news.flags &= ~kOriginalArrived;
    } else if (news.reordered && news.reordered_from < news.prior_highest_sacked) {
      note_reordering(cb, news.reordered_from);
    }
  }
  if (maybe_delayed(cb, news)) news.flags |= kMaybeDelayed;
  judge_timer(cb, news, measure_rtt(cb, segment, news, now));
}

// Not the plain progress of an undisturbed flight.
bool dubious(const ControlBlock& cb, const AckNews& news) noexcept {
  const bool something_new = news.has(kCarriesData | kWindowChanged | kSegmentAcked);
  return !something_new || news.has(kNewlySacked | kEcnEchoed | kDuplicateReported) ||
         cb.recovery != RecoveryState::kOpen;
}

// RFC 5681 2, RFC 6675 2: it repeats the last one and says nothing else.
std::uint32_t duplicates_in(const AckNews& news) noexcept {
  return news.has(kUnaAdvanced | kCarriesData | kWindowChanged | kSegmentAcked | kDuplicateReported) ? 0 : 1;
}

bool may_grow(const ControlBlock& cb, const AckNews& news) noexcept {
  // Where reordering is usual, SACKs are progress too.
  if (cb.reordering > kDefaultReordering) return news.has(kSegmentAcked | kNewlySacked);
  return news.has(kSegmentAcked);
}

void control_congestion(ControlBlock& cb, AckNews& news, Time now) {
  const CongestionOps& ops = congestion_ops(cb);
  const RateSample& sample = news.sample;
  if (ops.control != nullptr) {
    ops.control(cb, sample, now);
  } else if (reducing_window(cb)) {
    reduce_window(cb, sample.newly_delivered, sample.newly_lost, news.has(kUnaAdvanced));
  } else if (may_grow(cb, news)) {
    cb.cwnd_stamp = to_tick(now);
    if (sample.newly_delivered > 0 && cwnd_was_limit(cb)) ops.grow(cb, sample.newly_delivered, now);
  }
}

void apply_repair(ControlBlock& cb, const AckNews& news) noexcept {
  if (news.repair == Repair::kLost) cb.set(kMayRetransmit);
}

// Everything after the arrivals are known.
void conclude(ControlBlock& cb, AckNews& news, Host& host, Time now) {
  const CongestionOps& ops = congestion_ops(cb);
  if (ops.on_delivered != nullptr && news.acked_segments > 0) {
    ops.on_delivered(cb, news.acked_segments, news.sample.rtt_us, now);
  }
  rack_adapt_window(cb, news.sample);
  // Before a reduction that this ACK begins (Linux tcp_in_ack_event()).
  const std::uint32_t arrived = cb.delivered - news.prior_delivered;
  if (news.has(kEcnEchoed)) cb.delivered_ce += arrived;
  if (ops.on_ack != nullptr) ops.on_ack(cb, news.has(kEcnEchoed));
  if (cb.flight->probe_out) probe_on_ack(cb, news, now);
  size_probe_on_ack(cb);
  if (dubious(cb, news)) {
    news.duplicates = duplicates_in(news);
    cb.clear(kMayRetransmit);
    recovery_on_ack(cb, news, host.counters(), now);
  }
  if (news.has(kRestartTimer)) restart_sender_timer(cb, now);
  news.sample.newly_delivered = cb.delivered - news.prior_delivered;
  if (news.has(kEcnEchoed)) cb.delivered_ce += news.sample.newly_delivered - arrived;  // duplicate ACKs tell of them
  news.sample.newly_lost = cb.lost - news.prior_lost;
  news.sample.ack_delayed = news.has(kMaybeDelayed);
  rate_on_ack(cb, news.sample, host.delivery_rate(), now);
  control_congestion(cb, news, now);
  apply_repair(cb, news);
}

// An ACK that newer ones have overtaken: only what it reports by SACK may be news.
void process_old_ack(ControlBlock& cb, const wire::Segment& segment, AckNews& news, Host& host, Time now) {
  if (segment.options.sack_count == 0 || !uses_sack(cb)) return;
  take_sack_option(cb, segment, news, host.counters(), now);
  if (!cb.flight) return;
  cb.clear(kMayRetransmit);
  recovery_on_ack(cb, news, host.counters(), now);
  apply_repair(cb, news);
}

void advance(ControlBlock& cb, Seq ack, AckNews& news, Host& host, Time now) noexcept {
  if (ack == cb.snd_una) return;
  host.counters().bytes_acked += bytes_between(cb.snd_una, ack);
  cb.snd_una = ack;
  cb.retries = 0;
  if (cb.flight) cb.flight->timed_out_at = {};
  cb.stall_since = to_coarse_tick(now);
  news.flags |= kUnaAdvanced;
}

// Room may have come. (What a cork holds back has it, and waits for the timer, which nothing may put off.)
void leave_persist(ControlBlock& cb, Time now) noexcept {
  if (cb.sender_timer == SenderTimer::kPersist && window_admits_next(cb)) end_persist(cb, now);
}

void update_timers(ControlBlock& cb, const AckNews& news, Time now) noexcept {
  if (packets_out(cb) == 0) {
    if (news.prior_out > 0) disarm_retransmit(cb);
  } else if (news.has(kUnaAdvanced) && cb.sender_timer == SenderTimer::kNone) {
    rearm_retransmit(cb, now);
  }
  if (news.has(kWindowChanged | kUnaAdvanced)) leave_persist(cb, now);
  if (news.prior_out == 0) put_off_probe(cb, now);
}

}  // namespace

std::uint32_t ever_acked(const ControlBlock& cb, std::uint64_t bytes_acked) noexcept {
  const std::uint64_t before = (std::uint64_t{1} << cb.acked_before_bits) - 1;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(before + bytes_acked, UINT32_MAX));
}

bool ack_acceptable(const ControlBlock& cb, std::uint64_t bytes_acked, Seq ack) noexcept {
  const Seq highest = cb.has(kOtherStackSends) ? cb.write_seq : cb.snd_nxt;
  const std::uint32_t oldest = std::min(cb.max_window, ever_acked(cb, bytes_acked));
  return ack <= highest && ack - cb.snd_una >= -static_cast<std::int64_t>(oldest);
}

void process_ack(ControlBlock& cb, const wire::Segment& segment, std::uint32_t payload_bytes, Host& host, Time now) {
  if (segment.ack >= cb.snd_una) {  // an overtaken one is no sign of life (as Linux tcp_ack())
    cb.probes_out = 0;
    cb.clear(kGaveUp);
  }
  if (!cb.flight && segment.ack == cb.snd_una && segment.options.sack_count == 0) {
    // Nothing is out: only the window may be news.
    const bool had_room = window_admits_next(cb);
    if (update_send_window(cb, segment) && !had_room) leave_persist(cb, now);
    put_off_probe(cb, now);
    return;
  }
  if (segment.ack > cb.snd_nxt) {  // sent by the other stack
    add_foreign(cb, cb.snd_nxt, segment.ack, now);
    cb.snd_nxt = segment.ack;
  }
  if (cb.flight) cb.flight->lone = false;
  AckNews news = begin(cb, segment, payload_bytes);
  if (segment.ack < cb.snd_una) {
    process_old_ack(cb, segment, news, host, now);
    return;
  }
  if (update_send_window(cb, segment)) news.flags |= kWindowChanged;
  advance(cb, segment.ack, news, host, now);
  take_arrivals(cb, segment, news, host, now);
  if (news.prior_out > 0) {
    conclude(cb, news, host, now);
  } else if (cb.flight) {  // of a flight that is over: a reduction may be undone, a probe be judged
    if (news.has(kDuplicateReported)) recovery_on_ack(cb, news, host.counters(), now);
    if (cb.flight->probe_out) probe_on_ack(cb, news, now);
  }
  update_timers(cb, news, now);
  if (cb.snd_una != cb.write_seq) return;
  expire_undo(cb, now);
  release_flight(cb);
}

}  // namespace twinstack::tcp
