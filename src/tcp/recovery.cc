#include "tcp/recovery.h"

#include <algorithm>

#include "tcp/cold_state.h"
#include "tcp/congestion/congestion.h"
#include "tcp/min_tcp.h"
#include "tcp/rtt.h"
#include "tcp/scoreboard.h"

namespace twinstack::tcp {

namespace {

bool uses_sack(const ControlBlock& cb) noexcept { return (cb.options & kOptSack) != 0; }

bool retransmitting(const ControlBlock& cb) noexcept {
  return cb.recovery == RecoveryState::kRecovery || cb.recovery == RecoveryState::kLoss;
}

std::uint32_t outstanding(const ControlBlock& cb) noexcept { return bytes_between(cb.snd_una, cb.snd_nxt); }

void reduce_window(ControlBlock& cb) {
  cb.ssthresh = congestion_ops(cb.congestion_kind).on_congestion(cb);
  cb.cwnd = cb.ssthresh;
}

// The first `mss` bytes count as lost, whatever SACK says.
void mark_head_lost(ControlBlock& cb, ColdState& cold) noexcept {
  cold.lost_below = max(cold.lost_below, min(cb.snd_una + cb.mss, cb.snd_nxt));
}

// RFC 6675 5 (4), RFC 6582 3.2 (2).
void enter_recovery(ControlBlock& cb, Counters& counters) {
  ColdState& cold = cold_state(cb);
  // An ECN echo in this window has reduced it already (as Linux).
  if (cb.recovery != RecoveryState::kReduced) reduce_window(cb);
  cb.recovery = RecoveryState::kRecovery;
  cb.high_seq = cb.snd_nxt;
  cold.high_rxt = max(cold.high_rxt, cb.snd_una);
  mark_head_lost(cb, cold);
  cb.set(kForceRetransmit);  // RFC 6675 5 (4.3): the first goes at once
  ++counters.fast_recoveries;
}

// RFC 5827 (early retransmit): with little outstanding the duplicates that the degree of reordering asks for cannot
// come. Linux's degree grows to 300, which its RACK makes harmless.
std::uint32_t duplicate_threshold(const ControlBlock& cb) noexcept {
  const std::uint32_t segments = (outstanding(cb) + cb.mss - 1) / std::max<std::uint32_t>(cb.mss, 1);
  return std::min<std::uint32_t>(cb.reordering, std::max(3U, segments > 0 ? segments - 1 : 0));
}

void update_lost(ControlBlock& cb) noexcept {
  if (!cb.cold) return;
  ColdState& cold = *cb.cold;
  cold.lost_below = max(cold.lost_below, cb.snd_una);
  cold.high_rxt = max(cold.high_rxt, cb.snd_una);
  if (cold.scoreboard.count > 0) {
    cold.lost_below = max(cold.lost_below, lost_edge(cold.scoreboard, duplicate_threshold(cb), cb.mss, cb.snd_una));
  }
}

void count_duplicate(ControlBlock& cb) {
  if (cb.dup_acks < 255) ++cb.dup_acks;
  if (uses_sack(cb)) return;
  // Each says that one segment has left the network; never more than what is out but the first (Linux
  // tcp_limit_reno_sacked).
  ColdState& cold = cold_state(cb);
  const std::uint32_t most = outstanding(cb) > cb.mss ? outstanding(cb) - cb.mss : 0;
  cold.reno_sacked_bytes = std::min(cold.reno_sacked_bytes + cb.mss, most);
}

// Without SACK the state is kept until something above high_seq is acknowledged, so that duplicate ACKs of our own
// retransmissions start no second recovery (RFC 6582 4.1; as Linux). After an ECN echo too, so that CWR has reached the
// peer before another echo counts.
bool recovery_point_passed(const ControlBlock& cb) noexcept {
  if (cb.snd_una < cb.high_seq) return false;
  if (cb.recovery == RecoveryState::kReduced) return cb.snd_una > cb.high_seq;
  return uses_sack(cb) || cb.snd_una > cb.high_seq || cb.snd_una == cb.snd_nxt;
}

void leave_recovery(ControlBlock& cb) noexcept {
  if (cb.recovery == RecoveryState::kRecovery) cb.cwnd = std::min(cb.cwnd, cb.ssthresh);
  cb.recovery = RecoveryState::kOpen;
  cb.dup_acks = 0;
  cb.clear(kForceRetransmit);
  if (!cb.cold) return;
  cb.cold->reno_sacked_bytes = 0;
  cb.cold->lost_below = cb.snd_una;
  cb.cold->high_rxt = max(cb.cold->high_rxt, cb.snd_una);
}

// RFC 6582 3.2 (3): a partial ACK. The first segment that was not retransmitted and not reported is lost too.
void on_partial_ack(ControlBlock& cb, std::uint32_t acked_bytes) noexcept {
  if (!cb.cold || cb.recovery != RecoveryState::kRecovery) return;
  ColdState& cold = *cb.cold;
  if (!uses_sack(cb)) {
    const std::uint32_t others = acked_bytes > cb.mss ? acked_bytes - cb.mss : 0;
    cold.reno_sacked_bytes -= std::min(cold.reno_sacked_bytes, others);
  }
  if (cold.high_rxt <= cb.snd_una) {
    mark_head_lost(cb, cold);
    cb.set(kForceRetransmit);
  }
}

void on_progress(ControlBlock& cb, std::uint32_t acked_bytes) noexcept {
  if (cb.recovery == RecoveryState::kOpen) {
    cb.dup_acks = 0;
    if (cb.cold) cb.cold->reno_sacked_bytes = 0;
    return;
  }
  if (recovery_point_passed(cb)) {
    leave_recovery(cb);
  } else if (cb.snd_una < cb.high_seq) {
    on_partial_ack(cb, acked_bytes);
  } else if (cb.cold) {
    cb.cold->reno_sacked_bytes = 0;  // all is repaired, the state is only kept
  }
}

bool loss_seen(const ControlBlock& cb) noexcept {
  if (outstanding(cb) == 0) return false;
  if (cb.dup_acks >= duplicate_threshold(cb)) return true;                              // RFC 5681 3.2
  return cb.cold && cb.cold->scoreboard.count > 0 && cb.cold->lost_below > cb.snd_una;  // RFC 6675 5
}

}  // namespace

std::uint32_t take_sack_option(ControlBlock& cb, const wire::Segment& segment) {
  if (!uses_sack(cb)) return 0;
  if (segment.options.sack_count == 0 && !cb.cold) return 0;
  if (cb.cold) trim_scoreboard(cb.cold->scoreboard, cb.snd_una);
  std::uint32_t added = 0;
  for (std::uint32_t i = 0; i < segment.options.sack_count; ++i) {
    const wire::SackBlock& range = segment.options.sack[i];
    if (range.left < cb.snd_una || range.right > cb.snd_nxt) continue;  // no ColdState for a report of duplicates
    added += add_sacked(cold_state(cb).scoreboard, range, cb.snd_una, cb.snd_nxt);
  }
  return added;
}

void recovery_on_ack(ControlBlock& cb, const AckNews& news, Counters& counters) {
  update_lost(cb);
  if (news.acked_bytes > 0) on_progress(cb, news.acked_bytes);
  if (news.duplicate && cb.recovery != RecoveryState::kLoss) count_duplicate(cb);
  if (retransmitting(cb)) return;
  update_lost(cb);
  if (loss_seen(cb)) enter_recovery(cb, counters);
}

void recovery_on_ecn_echo(ControlBlock& cb) {
  if (cb.recovery != RecoveryState::kOpen) return;
  reduce_window(cb);
  cb.recovery = RecoveryState::kReduced;
  cb.high_seq = cb.snd_nxt;
  cb.set(kEcnSendCwr);
}

void recovery_on_timeout(ControlBlock& cb) {
  ColdState& cold = cold_state(cb);
  // RFC 5681 3.1: not again for the retransmission of the same data (as Linux tcp_enter_loss).
  const bool first = cb.recovery == RecoveryState::kOpen || cb.high_seq <= cb.snd_una ||
                     (cb.recovery == RecoveryState::kLoss && cb.retries == 0);
  const CongestionOps& ops = congestion_ops(cb.congestion_kind);
  if (first) cb.ssthresh = ops.on_congestion(cb);
  ops.on_timeout(cb);
  cb.cwnd = cb.mss;  // the loss window
  cb.recovery = RecoveryState::kLoss;
  cb.high_seq = cb.snd_nxt;
  cb.dup_acks = 0;
  stop_rtt_timing(cb);
  // RFC 2018 8: when the byte at snd_una itself is reported, the receiver has dropped what it reported.
  Scoreboard& board = cold.scoreboard;
  if (board.count > 0 && board.ranges[0].left == cb.snd_una) clear_scoreboard(board);
  cold.reno_sacked_bytes = 0;
  cold.lost_below = cb.snd_nxt;
  cold.high_rxt = cb.snd_una;
  cb.set(kForceRetransmit);
}

wire::SackBlock next_retransmission(const ControlBlock& cb) noexcept {
  if (!cb.cold || !retransmitting(cb)) return {};
  const ColdState& cold = *cb.cold;
  const Seq from = max(cold.high_rxt, cb.snd_una);
  if (from >= cold.lost_below) return {};
  const wire::SackBlock hole = first_hole(cold.scoreboard, from, cb.snd_nxt);
  return hole.left < cold.lost_below ? hole : wire::SackBlock{};
}

void retransmitted(ControlBlock& cb, Seq end) noexcept {
  cb.cold->high_rxt = max(cb.cold->high_rxt, end);
  cb.clear(kForceRetransmit);
  stop_rtt_timing(cb);
}

std::uint32_t in_flight_bytes(const ControlBlock& cb) {
  const std::uint32_t out = outstanding(cb);
  if (!cb.cold) return out;
  const ColdState& cold = *cb.cold;
  std::uint32_t gone = cold.scoreboard.sacked_bytes + cold.reno_sacked_bytes;
  const Seq from = max(cold.high_rxt, cb.snd_una);
  if (retransmitting(cb) && from < cold.lost_below) {
    gone += bytes_between(from, cold.lost_below) - sacked_within(cold.scoreboard, from, cold.lost_below);
  }
  return gone < out ? out - gone : 0;
}

}  // namespace twinstack::tcp
