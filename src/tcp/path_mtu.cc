#include "tcp/path_mtu.h"

#include <algorithm>

#include "tcp/cold_state.h"
#include "tcp/congestion/congestion.h"
#include "tcp/flight.h"
#include "tcp/loss_marks.h"
#include "tcp/plan.h"
#include "tcp/recovery.h"
#include "tcp/reduction.h"
#include "tcp/retransmit.h"
#include "tcp/sack.h"
#include "tcp/timers.h"
#include "wire/tcp_options.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint16_t kBase = 1024;           // RFC 4821 7.2; Linux tcp_base_mss
constexpr std::uint16_t kFloor = 512;           // smaller ones are no MTU problem
constexpr std::uint16_t kGoodEnough = 8;        // Linux tcp_probe_threshold: the search ends
constexpr std::uint8_t kTimeoutsToSuspect = 3;  // Linux tcp_retries1
constexpr std::uint32_t kLeastWindow = 11;      // segments: a loss must be repaired fast (as Linux)

std::uint16_t segment_bytes(const ControlBlock& cb) noexcept {
  const std::uint16_t options = (cb.options & kOptTimestamps) != 0 ? wire::kTimestampBytes : 0;
  return static_cast<std::uint16_t>(cb.mss + options);
}

// What the flight has in segments larger than now allowed goes again in smaller ones: Loss without a loss window, as no
// more data is in the network than before, and nothing to undo (Linux tcp_simple_retransmit()).
void repeat_large(ControlBlock& cb) {
  if (!cb.flight) return;
  Flight& f = *cb.flight;
  for (auto p = f.sent.first(); p != f.sent.end(); ++p) {
    const SentSegment& s = f.sent.at(p);
    if (min(s.end(), data_end(cb)) - s.seq > cb.mss) mark_lost(cb, p);
  }
  if (f.lost == 0) return;
  if (!uses_sack(cb)) f.sacked = std::min(f.sacked, f.sent.size() - f.lost);
  repair_uncongested(cb);
}

PathMtu* search_of(const ControlBlock& cb) noexcept {
  return cb.cold && cb.cold->path_mtu.searching ? &cb.cold->path_mtu : nullptr;
}

// Halfway up (RFC 4821 7.3), while that is worth a probe.
std::uint16_t next_probe(const PathMtu& search) noexcept {
  if (search.probe != 0 || search.high < search.low + kGoodEnough) return 0;
  return static_cast<std::uint16_t>((search.low + search.high + 1) / 2);
}

// Enough behind it that its loss is seen at once, and nothing else going on.
bool may_probe(const ControlBlock& cb, std::uint32_t bytes) noexcept {
  if (cb.recovery != RecoveryState::kOpen || cb.cwnd < kLeastWindow || cb.has(kDraining)) return false;
  const std::uint32_t wanted = bytes + (cb.reordering + 1U) * cb.mss;
  // Once the FIN is out, snd_nxt lies beyond the text.
  const bool queued = bytes_between(cb.snd_nxt, max(text_end(cb), cb.snd_nxt)) >= wanted;
  const bool admitted = send_edge(cb) >= cb.snd_nxt + wanted;
  return queued && admitted && packets_in_flight(cb) + 2 <= cb.cwnd;
}

}  // namespace

bool on_packet_too_big(ControlBlock& cb, Seq quoted, std::uint16_t mss) {
  // RFC 5927 4.1: it quotes something that is out, so whoever sent it has seen the connection.
  if (quoted < cb.snd_una || quoted >= cb.snd_nxt) return false;
  if (mss >= segment_bytes(cb)) return false;
  on_mtu_reduced(cb, mss);
  return true;
}

void on_mtu_reduced(ControlBlock& cb, std::uint16_t mss) {
  if (mss >= segment_bytes(cb)) return;
  if (PathMtu* search = search_of(cb)) search->high = std::min(search->high, mss);
  set_mss(cb, mss);
  repeat_large(cb);
}

bool suspect_black_hole(ControlBlock& cb) {
  if (cb.retries < kTimeoutsToSuspect || packets_out(cb) == 0) return false;
  if (cb.flight->sent.front().length <= kFloor || cb.snd_wnd == 0) return false;
  PathMtu& search = cold_state(cb).path_mtu;
  const std::uint16_t now = segment_bytes(cb);
  if (!search.searching) {
    search = {.searching = true,
              .low = std::min(kBase, now),
              .high = now,
              .top = now,
              .probe = 0,
              .probe_seq = {},
              .probe_end = {}};
  } else {
    search.low = std::max<std::uint16_t>(std::min<std::uint16_t>(search.low / 2, kBase), kFloor);
  }
  search.probe = 0;
  if (search.low >= now) return false;
  set_mss(cb, search.low);
  return true;
}

bool plan_size_probe(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  PathMtu* const search = search_of(cb);
  if (search == nullptr) return false;
  const std::uint16_t size = next_probe(*search);
  if (size == 0) return false;
  const auto bytes = static_cast<std::uint32_t>(size - (segment_bytes(cb) - cb.mss));
  if (!may_probe(cb, bytes)) return false;
  fill_options(cb, now, plan.segment.options);
  if (plan.segment.options.sack_count > 0) return false;
  search->probe = size;
  search->probe_seq = cb.snd_nxt;
  search->probe_end = cb.snd_nxt + bytes;
  fill_text(cb, plan, cb.snd_nxt, bytes);
  add_sent(cb, cb.snd_nxt, bytes, now);
  cb.snd_nxt += bytes;
  if (cb.sender_timer == SenderTimer::kNone) rearm_retransmit(cb, now);
  complete(cb, host, now, plan);
  return true;
}

void size_probe_on_ack(ControlBlock& cb) noexcept {
  PathMtu* const search = search_of(cb);
  if (search == nullptr || search->probe == 0 || cb.snd_una < search->probe_end) return;
  search->low = search->probe;
  search->probe = 0;
  set_mss(cb, search->low);
  if (search->low + kGoodEnough > search->top) search->searching = false;  // there was no black hole
}

bool size_probe_lost(ControlBlock& cb) {
  PathMtu* const search = search_of(cb);
  if (search == nullptr || search->probe == 0 || search->probe_seq != cb.snd_una) return false;
  if (cb.recovery >= RecoveryState::kReduced) return false;
  search->high = static_cast<std::uint16_t>(search->probe - 1);
  search->probe = 0;
  set_cwnd(cb, cb.cwnd + 1);
  repeat_large(cb);
  return true;
}

}  // namespace twinstack::tcp
