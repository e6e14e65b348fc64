// What TCP_REPAIR and the late filter do to an InterimSocket.
#include <cerrno>

#include <algorithm>

#include "base/assert.h"
#include "sim/interim_socket.h"

namespace twinstack::sim {

using kernel::Phase;
using kernel::Reason;

namespace {

constexpr std::uint32_t kRtoWithoutEstimateUs = 3'000'000;  // R5

std::unexpected<Error> refuse(Reason reason) {
  return twinstack::error(ErrorCode::kNotEligible, std::string(kernel::reason_text(reason)));
}

}  // namespace

Reason InterimSocket::why_not(const kernel::Limits& limits) const {
  if (dead_ || cb_.has(tcp::kFinQueued | tcp::kFinReceived)) return Reason::kNotEstablished;
  if (unread_.size() > limits.receive_queue_bytes) return Reason::kReceiveQueueLimit;
  if (sent_.size() > limits.send_queue_bytes) return Reason::kSendQueueLimit;
  if (tcp::has_out_of_order_data(cb_)) return Reason::kOutOfOrder;  // F6
  if (!limits.allow_loss_recovery && cb_.recovery >= tcp::RecoveryState::kRecovery) return Reason::kLossRecovery;
  return Reason::kNone;
}

Result<> InterimSocket::check(const kernel::Limits& limits, Reason& reason) {
  reason = why_not(limits);
  return reason == Reason::kNone ? Result<>{} : refuse(reason);
}

kernel::QueueSizes InterimSocket::queue_sizes() const noexcept {
  return {.unread_bytes = static_cast<std::uint32_t>(unread_.size()),
          .send_bytes = static_cast<std::uint32_t>(sent_.size())};
}

Result<kernel::Snapshot> InterimSocket::freeze(const kernel::QueueRoom& room, Time now) {
  ASSERT(phase == Phase::kRunning && filter_on);
  if (const Reason reason = why_not({.receive_queue_bytes = UINT32_MAX, .send_queue_bytes = UINT32_MAX});
      reason != Reason::kNone)
    return refuse(reason);
  if (unread_.size() >= room.receive.size() || sent_.size() >= room.send.size())
    return twinstack::error(ErrorCode::kNoResource, "a queue exceeds the room");
  // F5: an ACK that is delayed would be lost.
  if (tcp::owes_ack(cb_)) {
    tcp::acknowledge_now(cb_);
    transmit(now);
  }
  phase = Phase::kFrozen;
  kernel::Snapshot snapshot;
  snapshot.stamped_at = now;
  snapshot.min = min_;
  tcp::extract(cb_, now, snapshot.min);
  snapshot.min.ts_recent = 0;  // Linux does not tell
  snapshot.min.copied_seq -= static_cast<std::uint32_t>(unread_.size());
  std::ranges::copy(unread_.view(), room.receive.begin());
  std::ranges::copy(sent_.view(), room.send.begin());
  const std::size_t unacked = snapshot.min.snd_nxt - snapshot.min.snd_una;
  snapshot.unread = room.receive.first(unread_.size());
  snapshot.unacked = room.send.first(unacked);
  snapshot.unsent = room.send.subspan(unacked, sent_.size() - unacked);
  frozen_rcv_nxt_ = snapshot.min.rcv_nxt;
  frozen_snd_wnd_ = cb_.snd_wnd;
  frozen_ts_val_ = snapshot.min.ts_val;
  frozen_at_ = now;
  owes_late_end_ = false;
  cb_.snd_wnd = 0;  // R17: it sends nothing new, unless an ACK past the filter opens the window
  return snapshot;
}

void InterimSocket::thaw(Time now) {
  ASSERT(phase == Phase::kFrozen);
  phase = Phase::kRunning;
  filter_on = false;
  if (cb_.snd_wnd == 0) cb_.snd_wnd = frozen_snd_wnd_;
  send_probe(now);  // R17: or what was held back would wait for ever
  transmit(now);
}

Result<kernel::LateBytes> InterimSocket::park(std::span<std::byte> room) {
  ASSERT(phase == Phase::kFrozen);
  phase = Phase::kGap;
  const std::uint32_t late_bytes = cb_.rcv_nxt.raw() - frozen_rcv_nxt_;
  if (owes_late_end_ && cb_.has(tcp::kFinReceived))
    return twinstack::error(ErrorCode::kBroken, "late bytes cannot be read back");
  if (late_bytes > room.size() || late_bytes > unread_.size())
    return twinstack::error(ErrorCode::kBroken, "no room for late bytes");
  std::ranges::copy(unread_.view().last(late_bytes), room.begin());
  const kernel::LateBytes late{.first_seq = frozen_rcv_nxt_,
                               .bytes = room.first(late_bytes),
                               .snd_una = cb_.snd_una.raw(),
                               .snd_nxt = cb_.snd_nxt.raw()};
  unread_.clear();
  sent_.clear();
  phase = Phase::kParked;
  return late;
}

void InterimSocket::open_gap() {
  phase = Phase::kGap;
  unread_.clear();
  sent_.clear();
}

// S6, as src/kernel/restore.cc: the clock never goes back, whatever the kernel sent after the snapshot; the low bit of a
// millisecond clock is 0.
std::uint32_t InterimSocket::timestamp_to_go_on_with(const tcp::MinTcp& min, Time now) const {
  const auto away_ms = std::chrono::ceil<std::chrono::milliseconds>(now - frozen_at_).count();
  const Seq value = max(Seq(min.ts_val), Seq(frozen_ts_val_) + static_cast<std::uint32_t>(away_ms));
  return (value.raw() + 1U) & ~1U;
}

void InterimSocket::restore(const tcp::MinTcp& min, const kernel::RestoreQueues& queues, Time now) {
  ASSERT(phase == Phase::kParked || phase == Phase::kGap);
  ASSERT(filter_on && queues.unacked.size() == min.snd_nxt - min.snd_una);
  const std::uint16_t flags = min_.flags;  // options of the socket stay with it (R9)
  min_ = min;
  min_.flags = flags;
  tcp::MinTcp held = min_;
  held.write_seq = held.snd_nxt;
  held.ts_recent = 0;                                   // PAWS begins with the next packet
  held.srtt_us = held.rttvar_us = held.min_rtt_us = 0;  // R10
  held.rto_us = kRtoWithoutEstimateUs;
  held.ts_val = timestamp_to_go_on_with(min, now);
  ASSERT(tcp::install(cb_, held, now).has_value());
  tcp::run_whole_machine(cb_);
  cb_.clear(tcp::kAckOwed | tcp::kAckNow);
  sent_.clear();
  unread_.clear();
  sent_.append(queues.unacked);
  unread_.append(queues.unread);
  counters_ = {};
  is_restored_ = true;
  restored_una_ = cb_.snd_una;
  dead_ = false;
  phase = Phase::kRestored;
}

kernel::ReleaseReport InterimSocket::release(ByteView unsent, bool probe, Time now) {
  ASSERT(phase == Phase::kRestored);
  filter_on = false;
  phase = Phase::kRunning;
  if (probe) send_probe(now);
  sent_.append(unsent);
  tcp::on_queued(cb_, static_cast<std::uint32_t>(unsent.size()), false);
  transmit(now);
  return {.unsent_taken_bytes = unsent.size()};
}

// R11: one below what the peer expects; it answers with its window.
void InterimSocket::send_probe(Time now) {
  wire::Segment segment;
  segment.seq = cb_.snd_una - 1;
  segment.ack = cb_.rcv_nxt;
  segment.flags = wire::kAck;
  segment.window = static_cast<std::uint16_t>(bytes_between(cb_.rcv_nxt, cb_.rcv_wup + cb_.rcv_wnd) >> cb_.rcv_wscale);
  if ((cb_.options & tcp::kOptTimestamps) != 0) {
    tcp::MinTcp stamp;
    tcp::extract(cb_, now, stamp);
    segment.options.has_timestamps = true;
    segment.options.ts_val = stamp.ts_val;
    segment.options.ts_ecr = stamp.ts_recent;
  }
  send_segment(segment, {});
}

void InterimSocket::reset(Time /*now*/) {
  filter_on = false;
  phase = Phase::kRunning;
  if (dead_) return;
  send_reset();
  fail(ECONNABORTED);
}

tcp::InfoCounters InterimSocket::counters() const {
  tcp::InfoCounters counters{};
  counters.bytes_acked = counters_.bytes_acked;
  counters.bytes_received = counters_.bytes_received;
  return counters;
}

}  // namespace twinstack::sim
