#include "tcp/sack.h"

#include <algorithm>

#include "tcp/flight.h"
#include "tcp/min_tcp.h"
#include "tcp/rack.h"
#include "tcp/timestamps.h"

namespace twinstack::tcp {

namespace {

using wire::SackBlock;

constexpr std::uint32_t kMaxReordering = 300;  // Linux tcp_max_reordering

// RFC 2883 4: the first block lies under the ACK number or within the second block.
bool reports_duplicate(const wire::TcpOptions& options, Seq ack) noexcept {
  const SackBlock& first = options.sack[0];
  if (first.left < ack) return true;
  if (options.sack_count < 2) return false;
  const SackBlock& second = options.sack[1];
  return first.left >= second.left && first.right <= second.right;
}

// As Linux tcp_is_sackblock_valid(): within what is out; a report of a duplicate may lie below, as far as the last
// reduction.
bool block_valid(const ControlBlock& cb, const SackBlock& block, bool duplicate) noexcept {
  if (block.right > cb.snd_nxt || block.left >= block.right) return false;
  if (block.left > cb.snd_una) return true;
  const Flight& f = *cb.flight;
  if (!duplicate || !f.undo_possible || block.right > cb.snd_una) return false;
  if (block.left >= f.undo_marker) return true;
  if (block.right <= f.undo_marker) return false;
  return block.left >= block.right - cb.max_window;
}

// Segments that a duplicate of `block` was made of.
std::uint32_t segments_of(const ControlBlock& cb, const SackBlock& block) noexcept {
  const std::uint32_t bytes = bytes_between(block.left, block.right);
  return std::max(1U, (bytes + cb.mss - 1) / std::max<std::uint32_t>(cb.mss, 1));
}

// A duplicate below snd_una that one of our retransmissions made. The segments are gone from the flight; what is left
// of them is the count.
void forget_repeats(ControlBlock& cb, const SackBlock& block, std::uint32_t segments) noexcept {
  Flight& f = *cb.flight;
  if (!f.undo_possible || f.undo_repeats <= 0 || block.right <= f.undo_marker) return;
  f.undo_repeats = std::max(0, f.undo_repeats - static_cast<std::int32_t>(segments));
}

// A duplicate of a segment that is still in the flight: its retransmission was needless.
void forget_repeats_in_flight(ControlBlock& cb, const SackBlock& block) noexcept {
  Flight& f = *cb.flight;
  for (auto p = f.sent.find(block.left); p != f.sent.end() && f.sent.at(p).seq < block.right; ++p) {
    SentSegment& s = f.sent.at(p);
    if (s.seq < block.left || s.end() > block.right || !s.has(kEverRetransmitted)) continue;
    if (f.undo_possible && f.undo_repeats > 0 && s.end() > f.undo_marker) --f.undo_repeats;
    if (!s.has(kRetransmitted) || s.has(kLost)) continue;
    s.clear(kRetransmitted);
    --f.retransmitted;
  }
}

// Linux tcp_dsack_seen(): false when it is the network's duplicate, not ours, or nonsense.
bool count_duplicate_report(ControlBlock& cb, const SackBlock& block, AckNews& news, Counters& counters) noexcept {
  if (block.left >= block.right || bytes_between(block.left, block.right) > cb.max_window) return false;
  counters.dsack_dups += segments_of(cb, block);
  if (counters.dsack_dups > counters.segs_retransmitted) return false;
  const Flight* f = cb.flight.get();
  const bool of_probe = f != nullptr && f->probe_out && f->probe_repeats && block.right == f->probe_end;
  if (of_probe) {
    news.flags |= kProbeDuplicated;
  } else if (cb.has(kReorderingSeen)) {
    cb.set(kDsackSeen);
  }
  news.flags |= kDuplicateReported;
  return true;
}

void take_duplicate_report(ControlBlock& cb, const SackBlock& block, AckNews& news, Counters& counters) noexcept {
  if (!count_duplicate_report(cb, block, news, counters) || !cb.flight) return;
  if (block.right <= news.prior_una) {
    forget_repeats(cb, block, segments_of(cb, block));
  } else if (block_valid(cb, block, true)) {
    forget_repeats_in_flight(cb, block);
  }
}

void clear_loss(Flight& f, SentSegment& s) noexcept {
  s.clear(kLost);
  --f.lost;
}

// What the first report of `s` says about its transmissions (Linux tcp_sacktag_one()).
void judge_sacked(ControlBlock& cb, SentSegment& s, AckNews& news) noexcept {
  Flight& f = *cb.flight;
  if (s.has(kRetransmitted)) {
    // Not marked lost: the retransmission is believed to be under way still.
    if (!s.has(kLost)) return;
    clear_loss(f, s);
    s.clear(kRetransmitted);
    --f.retransmitted;
    return;
  }
  if (!s.has(kEverRetransmitted)) {
    if (s.seq < highest_sacked(cb)) news.note_reordered(s.seq);
    if (s.end() <= cb.high_seq && !s.has(kForeign)) news.flags |= kOriginalArrived;
    if (!s.has(kForeign)) {
      if (!news.any_sacked) news.first_sacked = s.sent;
      news.last_sacked = s.sent;
      news.any_sacked = true;
    }
  }
  if (s.has(kLost)) clear_loss(f, s);
}

void mark_sacked(ControlBlock& cb, SentSegment& s, AckNews& news, Time now) noexcept {
  Flight& f = *cb.flight;
  rack_on_arrival(cb, s, now);
  judge_sacked(cb, s, news);
  s.set(kSacked);
  news.flags |= kNewlySacked;
  if (f.sacked == 0 || s.end() > f.highest_sacked) f.highest_sacked = s.end();
  ++f.sacked;
  ++cb.delivered;
  rate_on_delivered(f, s, news.sample);
}

// Segments that lie wholly within [left, right).
void mark_range(ControlBlock& cb, Seq left, Seq right, AckNews& news, Time now) noexcept {
  SentQueue& sent = cb.flight->sent;
  for (auto p = sent.find(left); p != sent.end(); ++p) {
    SentSegment& s = sent.at(p);
    if (s.end() > right) break;
    if (s.seq >= left && !s.has(kSacked)) mark_sacked(cb, s, news, now);
  }
}

// `block` without what the last ACK had reported already. A segment that only the two together cover is found too: the
// range is widened to where it begins and ends.
void mark_block(ControlBlock& cb, const SackBlock& block, AckNews& news, Time now) noexcept {
  const Flight& f = *cb.flight;
  Seq left = block.left;
  for (std::uint32_t i = 0; i < f.seen_count && left < block.right; ++i) {
    const SackBlock& seen = f.seen_blocks[i];
    if (seen.right <= left || seen.left >= block.right) continue;
    if (seen.left > left) mark_range(cb, left, min(block.right, seen.left + cb.mss), news, now);
    left = max(left, seen.right - std::min<std::uint32_t>(cb.mss, bytes_between(seen.left, seen.right)));
    left = max(left, block.left);
    if (seen.right >= block.right) return;
  }
  mark_range(cb, left, block.right, news, now);
}

// Valid blocks in rising order.
std::uint32_t sorted_blocks(const ControlBlock& cb, const wire::TcpOptions& options, bool duplicate,
                            std::array<SackBlock, wire::kMaxSackBlocks>& out) noexcept {
  std::uint32_t count = 0;
  for (std::uint32_t i = duplicate ? 1 : 0; i < options.sack_count; ++i) {
    if (!block_valid(cb, options.sack[i], false)) continue;
    std::uint32_t at = count++;
    for (; at > 0 && options.sack[i].left < out[at - 1].left; --at) out[at] = out[at - 1];
    out[at] = options.sack[i];
  }
  return count;
}

void note_first_transmission(AckNews& news, const ControlBlock& cb, const SentSegment& s) noexcept {
  if (!news.any_acked) news.first_acked = s.sent;
  news.last_acked = s.sent;
  news.any_acked = true;
  news.note_reordered(s.seq);
  if (s.end() <= cb.high_seq) news.flags |= kOriginalArrived;
}

// The ACK echoes a timestamp from before the retransmission: the first transmission had arrived (RFC 3522).
bool repeat_needless(const ControlBlock& cb, const SentSegment& s, const AckNews& news) noexcept {
  if (!s.has(kEverRetransmitted) || !news.has_echo) return false;
  return static_cast<std::int32_t>(news.echo - ts_clock(cb, s.sent)) < 0;
}

// `s`, the first of the flight, is acknowledged as a whole.
void retire(ControlBlock& cb, SentSegment& s, AckNews& news, Time now) noexcept {
  Flight& f = *cb.flight;
  if (s.has(kForeign)) news.foreign_acked = true;
  if (s.has(kEverRetransmitted)) {
    news.flags |= kRepeatAcked;
    if (s.has(kRetransmitted)) --f.retransmitted;
  } else if (!s.has(kSacked | kForeign)) {
    note_first_transmission(news, cb, s);
  }
  if (s.has(kSacked)) {
    --f.sacked;
  } else if (uses_sack(cb)) {
    ++cb.delivered;
    if (!repeat_needless(cb, s, news)) rack_on_arrival(cb, s, now);
  }
  if (s.has(kLost)) --f.lost;
  rate_on_delivered(f, s, news.sample);
  ++news.acked_segments;
}

// The part of the first segment that was acknowledged goes.
void trim_first(Flight& f, Seq una) noexcept {
  if (f.sent.empty()) return;
  SentSegment& s = f.sent.front();
  if (s.seq >= una) return;
  s.length -= bytes_between(s.seq, una);
  s.seq = una;
}

}  // namespace

Seq highest_sacked(const ControlBlock& cb) noexcept {
  const Flight* f = cb.flight.get();
  if (f == nullptr || f->sacked == 0 || !uses_sack(cb)) return cb.snd_una;
  return max(f->highest_sacked, cb.snd_una);
}

void take_sack_option(ControlBlock& cb, const wire::Segment& segment, AckNews& news, Counters& counters, Time now) {
  const wire::TcpOptions& options = segment.options;
  if (!uses_sack(cb) || options.sack_count == 0) return;
  const bool duplicate = reports_duplicate(options, segment.ack);
  if (duplicate) take_duplicate_report(cb, options.sack[0], news, counters);
  if (packets_out(cb) == 0) return;
  Flight& f = *cb.flight;
  if (f.sacked == 0) f.seen_count = 0;  // of another time: these numbers may have come round since
  std::array<SackBlock, wire::kMaxSackBlocks> blocks{};
  const std::uint32_t count = sorted_blocks(cb, options, duplicate, blocks);
  for (std::uint32_t i = 0; i < count; ++i) mark_block(cb, blocks[i], news, now);
  f.seen_blocks = blocks;
  f.seen_count = count;
  const bool judge = cb.recovery != RecoveryState::kLoss || f.undo_possible;
  if (news.reordered && judge) note_reordering(cb, news.reordered_from);
  news.reordered = false;
}

void retire_acknowledged(ControlBlock& cb, AckNews& news, Time now) {
  Flight& f = *cb.flight;
  while (!f.sent.empty() && f.sent.front().end() <= cb.snd_una) {
    retire(cb, f.sent.front(), news, now);
    f.sent.pop_front();
  }
  trim_first(f, cb.snd_una);
  if (!f.sent.holds(f.next_retransmit)) f.next_retransmit = f.sent.first();
  if (!f.sent.holds(f.rack_first)) f.rack_first = f.sent.first();
  if (news.acked_segments > 0) news.flags |= kSegmentAcked;
  if (!f.sent.empty() && f.sent.front().has(kSacked)) news.flags |= kReneging;
}

void note_reordering(ControlBlock& cb, Seq from) noexcept {
  const Seq highest = highest_sacked(cb);
  if (from >= highest) return;
  const std::uint32_t distance = bytes_between(from, highest);
  if (distance > std::uint32_t{cb.reordering} * cb.mss) {
    cb.reordering = static_cast<std::uint16_t>(std::min((distance + cb.mss - 1) / cb.mss, kMaxReordering));
  }
  cb.set(kReorderingSeen);
  ++cb.reord_seen;
}

}  // namespace twinstack::tcp
