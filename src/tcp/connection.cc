#include "tcp/connection.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <string_view>

#include "tcp/burst.h"
#include "tcp/cold_state.h"
#include "tcp/congestion/congestion.h"
#include "tcp/cwnd_use.h"
#include "tcp/flight.h"
#include "tcp/plan.h"
#include "tcp/rate.h"
#include "tcp/reassembly.h"
#include "tcp/receive.h"
#include "tcp/rtt.h"
#include "tcp/timers.h"
#include "tcp/timestamps.h"
#include "tcp/window.h"
#include "wire/tcp_options.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint32_t kMaxQueuedBytes = 1U << 30;
constexpr std::uint32_t kMaxTakenOver = 1U << 17;  // segments in flight, a record each
constexpr std::uint16_t kSmallestMss = 48;         // Linux TCP_MIN_SND_MSS: options and eight bytes
constexpr std::uint16_t kAllOptions = kOptTimestamps | kOptSack | kOptWindowScale | kOptEcn | kOptTsMicroseconds;
constexpr std::uint16_t kDefaultRcvMss = 536;
constexpr std::uint32_t kMaxReordering = 300;  // Linux tcp_max_reordering

Result<> check(const MinTcp& state) {
  const auto invalid = [](const char* why) { return error(ErrorCode::kInvalid, std::string("MinTcp: ") + why); };
  if (state.version != kMinTcpVersion || state.size_bytes != sizeof(MinTcp)) return invalid("another version");
  if (state.mss < kSmallestMss) return invalid("MSS too small");
  if (state.snd_wscale > wire::kMaxWindowScale || state.rcv_wscale > wire::kMaxWindowScale)
    return invalid("window scale");
  if ((state.options & ~kAllOptions) != 0) return invalid("an option that is not known");
  const Seq una(state.snd_una);
  const Seq nxt(state.snd_nxt);
  const Seq write(state.write_seq);
  if (una > nxt || nxt > write || bytes_between(una, write) > kMaxQueuedBytes) return invalid("send sequence numbers");
  if (bytes_between(una, nxt) / state.mss > kMaxTakenOver)
    return invalid("more segments in flight than are taken over");
  if (state.rcv_wnd > kMaxQueuedBytes || Seq(state.rcv_wup) > Seq(state.rcv_nxt)) return invalid("receive window");
  return {};
}

std::uint16_t option_bytes(const ControlBlock& cb) noexcept {
  return (cb.options & kOptTimestamps) != 0 ? wire::kTimestampBytes : 0;
}

void take_sequences(ControlBlock& cb, const MinTcp& state) noexcept {
  cb.snd_una = Seq(state.snd_una);
  cb.snd_nxt = Seq(state.snd_nxt);
  cb.write_seq = Seq(state.write_seq);
  cb.snd_wl1 = Seq(state.snd_wl1);
  cb.snd_wnd = state.snd_wnd;
  cb.max_window = std::max(state.max_window, state.snd_wnd);
  cb.acked_before_bits = static_cast<std::uint8_t>(std::bit_width(state.bytes_acked));
  cb.snd_sml = cb.snd_una;
  cb.push_seq = cb.write_seq;  // where the writes ended is not known
  cb.high_seq = cb.snd_una;
  cb.rcv_nxt = Seq(state.rcv_nxt);
  cb.rcv_wup = Seq(state.rcv_wup);
  cb.rcv_wnd = state.rcv_wnd;
}

void take_negotiated(ControlBlock& cb, const MinTcp& state, Time now) noexcept {
  cb.options = static_cast<std::uint8_t>(state.options);
  cb.snd_wscale = state.snd_wscale;
  cb.rcv_wscale = state.rcv_wscale;
  set_mss(cb, state.mss);
  cb.rcv_mss = std::min(kDefaultRcvMss, cb.mss);
  set_ts_clock(cb, state.ts_val, now);
  if (state.ts_recent == 0) return;  // not known: the first that comes is taken
  cb.ts_recent = state.ts_recent;
  cb.ts_recent_stamp_s = static_cast<std::uint32_t>(now.time_since_epoch().count() >> 30);
  cb.set(kTsRecentValid);
}

void take_estimates(ControlBlock& cb, const MinTcp& state, Time now) {
  set_rtt_estimates(cb, state.srtt_us, state.rttvar_us);
  if (state.srtt_us == 0 && state.rto_us != 0) cb.rto_us = std::min(state.rto_us, kMaxRtoUs);
  cb.min_rtt_us = state.min_rtt_us;
  cb.min_rtt_stamp = to_tick(now);
  cb.reordering = static_cast<std::uint16_t>(std::clamp(state.reordering_segments, 3U, kMaxReordering));
  const std::string_view name(state.congestion.data(), ::strnlen(state.congestion.data(), state.congestion.size()));
  cb.congestion_kind = congestion_kind(name);
  cb.ssthresh =
      std::clamp(state.ssthresh_segments == 0 ? kInfiniteSsthresh : state.ssthresh_segments, 2U, kInfiniteSsthresh);
  set_cwnd(cb, state.cwnd_segments);
  congestion_ops(cb).init(cb, now);
  if (const auto take = congestion_ops(cb).take; take != nullptr) take(cb, state.measured);
}

void start_stamps(ControlBlock& cb, Time now) noexcept {
  const Tick tick = to_tick(now);
  cb.last_receive = tick;
  cb.last_receive_data = tick;
  cb.last_send = tick;
  cb.cwnd_stamp = tick;
  cb.stall_since = to_coarse_tick(now);
  cb.last_challenge = to_tick(now - std::chrono::seconds(1));  // the first is free
}

}  // namespace

Result<> install(ControlBlock& cb, const MinTcp& state, Time now) {
  TRY(check(state));
  cb = ControlBlock{};
  take_sequences(cb, state);
  take_negotiated(cb, state, now);
  start_stamps(cb, now);
  take_estimates(cb, state, now);
  set_user_timeout(cb, state.user_timeout_ms);
  cb.flags = static_cast<std::uint8_t>(state.flags);
  set_window_clamped(cb, state.window_clamp_bytes != 0);
  set_keepalive(cb, state.keepalive_idle_s, state.keepalive_interval_s, state.keepalive_probes, now);
  if (cb.snd_una != cb.snd_nxt) {
    // As if the timer had been running all the time: it may be due at once.
    const Time since = now - std::chrono::microseconds(state.stalled_us);
    cb.stall_since = coarse_tick_of(since);
    add_foreign(cb, cb.snd_una, cb.snd_nxt, since);
    note_cwnd_use(cb, packets_in_flight(cb) >= cb.cwnd, now);  // else a move would cost a round trip's growth
    // No loss probe: where moves follow each other fast, each would begin with one, and the timeout never come.
    rearm_retransmit(cb, since);
    if (const Time due = since + backed_off_rto(cb); due <= now) cb.flight->timed_out_at = due;
  }
  acknowledge_now(cb);  // a delayed ACK of the kernel may have been lost in the move
  return {};
}

void extract(const ControlBlock& cb, Time now, MinTcp& state) {
  state.version = kMinTcpVersion;
  state.size_bytes = sizeof(MinTcp);
  state.snd_una = cb.snd_una.raw();
  state.snd_nxt = cb.snd_nxt.raw();
  state.write_seq = cb.write_seq.raw();
  state.snd_wl1 = cb.snd_wl1.raw();
  state.snd_wnd = cb.snd_wnd;
  state.max_window = cb.max_window;
  state.rcv_nxt = cb.rcv_nxt.raw();
  state.copied_seq = cb.rcv_nxt.raw();
  state.rcv_wnd = cb.rcv_wnd;
  state.rcv_wup = cb.rcv_wup.raw();
  state.mss = unsearched_mss(cb);
  state.mss_found = found_mss(cb);
  state.options = cb.options;
  state.snd_wscale = cb.snd_wscale;
  state.rcv_wscale = cb.rcv_wscale;
  const std::string_view congestion = congestion_ops(cb).name;
  state.congestion = {};
  std::copy(congestion.begin(), congestion.end(), state.congestion.begin());
  state.flags = cb.flags;
  state.ts_val = ts_clock(cb, now);
  state.ts_recent = known_ts_recent(cb, now);
  state.srtt_us = smoothed_rtt_us(cb);
  state.rttvar_us = cb.mdev_us4 / 4;
  state.rto_us = cb.rto_us;
  state.min_rtt_us = cb.min_rtt_us;
  const Duration stalled = cb.snd_una == cb.snd_nxt ? Duration::zero() : coarse_ticks_since(cb.stall_since, now);
  const auto stalled_us = std::chrono::round<std::chrono::microseconds>(stalled).count();
  state.stalled_us = static_cast<std::uint32_t>(std::min<std::int64_t>(stalled_us, UINT32_MAX));
  state.cwnd_segments = cb.cwnd;
  state.ssthresh_segments = cb.ssthresh;
  state.reordering_segments = cb.reordering;
  if (const auto tell = congestion_ops(cb).tell; tell != nullptr) tell(cb, state.measured);
  state.user_timeout_ms = cb.user_timeout_ms;
}

void on_queued(ControlBlock& cb, std::uint32_t bytes, bool more_follows) {
  ASSERT(!cb.has(kFinQueued));
  ASSERT(bytes_between(cb.snd_una, cb.write_seq) + std::uint64_t{bytes} <= kMaxQueuedBytes);
  rate_check_app_limited(cb);
  cb.write_seq += bytes;
  note_push(cb, more_follows);  // a cork holds back what is pushed all the same (as Linux)
  const auto others = cb.flags & ~kMoreFollows;
  cb.flags = static_cast<std::uint8_t>(more_follows ? others | kMoreFollows : others);
}

void on_close(ControlBlock& cb) {
  ASSERT(cb.has(kWholeMachine) && !cb.has(kFinQueued));
  cb.push_seq = cb.write_seq;
  cb.set(kFinQueued);
  cb.write_seq += 1;
  cb.flags &= static_cast<std::uint8_t>(~kMoreFollows);
}

void run_whole_machine(ControlBlock& cb) { cb.set(kWholeMachine); }

TcpState tcp_state(const ControlBlock& cb) {
  const bool ours_acked = cb.has(kFinQueued) && cb.snd_una == cb.write_seq;
  const bool theirs = cb.has(kFinReceived);
  if (!cb.has(kFinQueued)) return theirs ? TcpState::kCloseWait : TcpState::kEstablished;
  if (cb.has(kPassiveClose)) return ours_acked ? TcpState::kClosed : TcpState::kLastAck;
  if (theirs) return ours_acked ? TcpState::kTimeWait : TcpState::kClosing;
  return ours_acked ? TcpState::kFinWait2 : TcpState::kFinWait1;
}

std::uint32_t in_flight_bytes(const ControlBlock& cb) {
  return std::min(packets_in_flight(cb) * cb.mss, bytes_between(cb.snd_una, cb.snd_nxt));
}

void on_read(ControlBlock& cb, Host& host, Time now) {
  deliver_in_order(cb, host);  // what found no memory before
  take_known_fin(cb, now);
  // RFC 9293 3.8.6.2.2, as Linux tcp_cleanup_rbuf: tell of room when it is twice what the peer knows of.
  const std::uint32_t offered = offered_window(cb);
  const std::uint32_t possible = possible_window(cb, host);
  if (possible > 0 && possible >= 2 * std::uint64_t{offered}) acknowledge_now(cb);
  if (read_acknowledges(cb) && host.all_read()) acknowledge_now(cb);
  // The second full segment, whose ACK would only have told that the window is closed.
  if (cb.has(kAckOwed) && bytes_between(cb.rcv_wup, cb.rcv_nxt) > cb.rcv_mss) acknowledge_now(cb);
}

bool read_acknowledges(const ControlBlock& cb) {
  if (!cb.has(kAckOwed) || !cb.has(kAckOnRead)) return false;
  return !cb.has(kPingPong) || cb.has(kAckOnAnyRead);
}

bool read_may_open_window(const ControlBlock& cb, std::uint32_t capacity) {
  const std::uint64_t most = std::uint64_t{capacity} + (1U << cb.rcv_wscale) - 1;  // windows are rounded up
  return 2 * std::uint64_t{offered_window(cb)} <= most;
}

bool read_matters(const ControlBlock& cb, std::uint32_t capacity) {
  return cb.cold || read_may_open_window(cb, capacity) || read_acknowledges(cb);
}

void acknowledge_now(ControlBlock& cb) { cb.set(kAckOwed | kAckNow); }

void owe_nothing(ControlBlock& cb) { cb.clear(kAckOwed | kAckNow | kAckArmed | kAckOnRead | kAckOnAnyRead); }

void probe_now(ControlBlock& cb) { cb.set(kProbeNow); }

void other_stack_may_send(ControlBlock& cb) { cb.set(kOtherStackSends); }

void other_stack_silent(ControlBlock& cb, Seq snd_nxt, Time now) {
  cb.clear(kOtherStackSends);
  if (snd_nxt <= cb.snd_nxt || snd_nxt > cb.write_seq) return;
  end_persist(cb, now);
  if (cb.snd_una == cb.snd_nxt) cb.stall_since = to_coarse_tick(now);
  add_foreign(cb, cb.snd_nxt, snd_nxt, now);
  cb.snd_nxt = snd_nxt;
  if (cb.sender_timer == SenderTimer::kNone) rearm_retransmit(cb, now);
}

void set_draining(ControlBlock& cb, bool draining, Time now) {
  cb.clear(kDraining);
  if (!draining) return;
  cb.set(kDraining);
  end_persist(cb, now);  // what is not sent waits for the other stack
}

bool is_drained(const ControlBlock& cb) { return cb.snd_una == cb.snd_nxt; }

bool has_out_of_order_data(const ControlBlock& cb) { return cb.cold && !cb.cold->out_of_order.empty(); }

void set_flags(ControlBlock& cb, std::uint16_t flags, Time now) {
  const bool keepalive_changed = ((cb.flags ^ flags) & kFlagKeepalive) != 0;
  // What waits goes even under a cork that stays (Linux TCP_NAGLE_PUSH).
  if ((cb.flags & kFlagNoDelay) == 0 && (flags & kFlagNoDelay) != 0) {
    cb.set(kForceSend);
    if ((flags & kFlagCork) != 0) cb.push_seq = data_end(cb);
  }
  cb.flags = static_cast<std::uint8_t>(flags | (cb.flags & kMoreFollows));
  if (keepalive_changed) arm_keepalive(cb, now);
}

void set_keepalive(ControlBlock& cb, std::uint32_t idle_s, std::uint32_t interval_s, std::uint32_t probes, Time now) {
  constexpr std::uint32_t kLongest = 32767;  // as Linux
  cb.keepalive_idle_s = static_cast<std::uint16_t>(std::min(idle_s, kLongest));
  cb.keepalive_interval_s = static_cast<std::uint16_t>(std::clamp(interval_s, 1U, kLongest));
  cb.keepalive_probes = static_cast<std::uint8_t>(std::clamp(probes, 1U, 127U));
  arm_keepalive(cb, now);
}

void set_smallest_burst(ControlBlock& cb, std::uint8_t segments) {
  cb.smallest_burst = std::max<std::uint8_t>(segments, 1);
}

void set_window_clamped(ControlBlock& cb, bool on) {
  cb.clear(kWindowClamped);
  if (on) cb.set(kWindowClamped);
}

void set_user_timeout(ControlBlock& cb, std::uint32_t timeout_ms) { cb.user_timeout_ms = timeout_ms; }

void set_mss(ControlBlock& cb, std::uint16_t mss) {
  const std::uint16_t options = option_bytes(cb);
  cb.mss = static_cast<std::uint16_t>(std::max<int>(mss, kSmallestMss) - options);
}

void set_quick_ack(ControlBlock& cb, bool on) {
  if (!on) {
    cb.set(kPingPong);
    return;
  }
  cb.clear(kPingPong);
  if (owes_ack(cb)) acknowledge_now(cb);
}

void set_congestion(ControlBlock& cb, CongestionKind kind, Time now) {
  cb.congestion_kind = kind;
  cb.congestion = CongestionState{};
  cb.bbr.reset();
  congestion_ops(cb).init(cb, now);
}

void set_challenges_free(ControlBlock& cb, bool on) {
  cb.clear(kChallengesFree);
  if (on) cb.set(kChallengesFree);
}

void push_pending(ControlBlock& cb) {
  if (cb.snd_nxt != cb.write_seq) cb.set(kForceSend);
}

void set_restart_after_idle(ControlBlock& cb, bool on) {
  cb.clear(kKeepWindowIdle);
  if (!on) cb.set(kKeepWindowIdle);
}

}  // namespace twinstack::tcp
