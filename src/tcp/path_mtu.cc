#include "tcp/path_mtu.h"

#include <algorithm>

#include "tcp/cold_state.h"
#include "tcp/congestion/congestion.h"
#include "tcp/cwnd_use.h"
#include "tcp/flight.h"
#include "tcp/loss_marks.h"
#include "tcp/pacing.h"
#include "tcp/plan.h"
#include "tcp/recovery.h"
#include "tcp/reduction.h"
#include "tcp/retransmit.h"
#include "tcp/sack.h"
#include "tcp/timers.h"
#include "tcp/transmit.h"
#include "wire/tcp_options.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint16_t kBase = 1024;           // payload (RFC 4821 7.2); Linux tcp_base_mss
constexpr std::uint16_t kFloor = 512;           // smaller ones are no MTU problem
constexpr std::uint16_t kGoodEnough = 8;        // Linux tcp_probe_threshold: the search ends
constexpr std::uint8_t kTimeoutsToSuspect = 3;  // Linux tcp_retries1
constexpr std::uint32_t kLeastWindow = 11;      // segments: a loss must be repaired fast (as Linux)
// RFC 1191 6.3, RFC 8899 5.1.1 (PMTU_RAISE_TIMER); Linux route/mtu_expires, tcp_probe_interval.
constexpr std::chrono::minutes kRaiseAfter(10);

std::uint16_t option_bytes(const ControlBlock& cb) noexcept {
  return (cb.options & kOptTimestamps) != 0 ? wire::kTimestampBytes : 0;
}

std::uint16_t segment_bytes(const ControlBlock& cb) noexcept {
  return static_cast<std::uint16_t>(cb.mss + option_bytes(cb));
}

// What the flight has in segments larger than now allowed goes again in smaller ones: Loss without a loss window, as no
// more data is in the network than before, and nothing to undo (Linux tcp_simple_retransmit()).
void repeat_large(ControlBlock& cb) {
  if (!cb.flight) return;
  Flight& f = *cb.flight;
  bool any = false;
  for (auto p = f.sent.first(); p != f.sent.end(); ++p) {
    const SentSegment& s = f.sent.at(p);
    if (s.has(kSacked) || min(s.end(), data_end(cb)) - s.seq <= cb.mss) continue;
    mark_lost(cb, p);
    any = true;
  }
  if (!any) return;
  split_long(cb);
  if (!uses_sack(cb)) f.sacked = std::min(f.sacked, f.sent.size() - f.lost);
  repair_uncongested(cb);
}

PathMtu* path_of(const ControlBlock& cb) noexcept {
  return cb.cold && cb.cold->path_mtu.in_use() ? &cb.cold->path_mtu : nullptr;
}

PathMtu* search_of(const ControlBlock& cb) noexcept {
  return cb.cold && cb.cold->path_mtu.searching ? &cb.cold->path_mtu : nullptr;
}

// In the ColdState, begun with what holds now.
PathMtu& begin_path(ControlBlock& cb) {
  PathMtu& path = cold_state(cb).path_mtu;
  const std::uint16_t now = segment_bytes(cb);
  if (path.in_use()) return path;
  path = PathMtu{};
  path.low = path.high = path.top = now;
  return path;
}

// `low` becomes what is sent, and only probes are larger. `proved`: it is known to arrive, or was small from the start.
void search_from(ControlBlock& cb, PathMtu& path, std::uint16_t low, bool proved, Time now) {
  if (!path.searching && !path.told) path.raise_at = now + kRaiseAfter;
  path.searching = true;
  path.proved = proved;
  path.una = cb.snd_una;
  path.low = std::min(low, path.high);
  path.probe = 0;
  set_mss(cb, path.low);
}

void lower_high(PathMtu& path, std::uint16_t high) noexcept {
  path.high = high;
  path.low = std::min(path.low, high);
}

// Segments as large as `path` says now. A probe that is larger than the most there could be has not arrived.
void follow(ControlBlock& cb, PathMtu& path) {
  const std::uint16_t before = cb.mss;
  set_mss(cb, path.searching ? path.low : path.high);
  const bool probe_fails = path.probe > path.high;
  if (probe_fails) path.probe = 0;
  if (cb.mss < before || probe_fails) repeat_large(cb);
}

void hear_router(ControlBlock& cb, std::uint16_t mss, Time now) {
  PathMtu& path = begin_path(cb);
  path.told = true;
  path.told_at = now;
  path.raise_at = now + kRaiseAfter;
  lower_high(path, mss);
  follow(cb, path);
}

// The largest segment that has not been ruled out.
std::uint16_t largest(const ControlBlock& cb) noexcept {
  const PathMtu* const path = path_of(cb);
  return path != nullptr ? path->high : segment_bytes(cb);
}

// What a router has said, and what probes have found, is old: the path may have changed.
void raise_when_due(ControlBlock& cb, PathMtu& path, Time now) {
  if (now < path.raise_at) return;
  path.raise_at = now + kRaiseAfter;
  path.told = false;
  path.high = path.top;
  // What looked like a black hole may have been an outage, and who sends little at a time never finds out by probes.
  path.searching = path.searching && (path.narrow || !path.suspected);
  path.suspected = path.searching && path.narrow;
  path.narrow = false;
  if (!path.searching) set_mss(cb, path.top);
}

// Halfway up (RFC 4821 7.3), while that is worth a probe.
std::uint16_t next_probe(const PathMtu& search) noexcept {
  if (search.probe != 0 || search.high < search.low + kGoodEnough) return 0;
  return static_cast<std::uint16_t>((search.low + search.high) / 2);
}

// The same bytes in larger segments (Linux tcp_mtup_probe_success()).
void keep_window_bytes(ControlBlock& cb, std::uint16_t before, std::uint16_t after) noexcept {
  set_cwnd(cb, static_cast<std::uint32_t>(std::uint64_t{cb.cwnd} * before / after));
  cb.cwnd_count = 0;
  cb.ssthresh = current_ssthresh(cb);
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

bool on_packet_too_big(ControlBlock& cb, Seq quoted, std::uint16_t mss, Time now) {
  // RFC 5927 4.1: it quotes something that is out, so whoever sent it has seen the connection.
  if (quoted < cb.snd_una || quoted >= cb.snd_nxt) return false;
  return on_mtu_reduced(cb, mss, now);
}

bool on_mtu_reduced(ControlBlock& cb, std::uint16_t mss, Time now) {
  if (mss >= largest(cb)) return false;
  const PathMtu* const path = path_of(cb);
  // Once in a round trip: whoever forges them gets no more work out of us. A second router repeats itself.
  const Duration round_trip = std::chrono::microseconds(smoothed_rtt_us(cb));
  if (path != nullptr && path->told && now < path->told_at + round_trip) return false;
  hear_router(cb, mss, now);
  return true;
}

void set_path_limit(ControlBlock& cb, std::uint16_t limit) {
  PathMtu* const path = path_of(cb);
  if (path == nullptr) {
    const std::uint16_t before = cb.mss;
    set_mss(cb, limit);
    if (cb.mss < before) repeat_large(cb);
    return;
  }
  path->top = limit;
  if (limit < path->high)
    lower_high(*path, limit);
  else if (!path->told)
    path->high = limit;
  follow(cb, *path);
}

void install_path(ControlBlock& cb, std::uint16_t limit, std::uint16_t found, Time now) {
  const std::uint16_t told = segment_bytes(cb);
  set_path_limit(cb, limit);
  if (told < limit) hear_router(cb, told, now);
  if (found == 0 || found >= largest(cb)) return;
  search_from(cb, begin_path(cb), found, true, now);
  cb.cold->path_mtu.suspected = true;
}

void probe_path(ControlBlock& cb, Time now) {
  const auto base = static_cast<std::uint16_t>(kBase + option_bytes(cb));
  if (search_of(cb) == nullptr && base < largest(cb)) search_from(cb, begin_path(cb), base, true, now);
  if (PathMtu* const search = search_of(cb); search != nullptr) search->suspected = false;
}

void set_size_search(ControlBlock& cb, bool on) {
  cb.clear(kNoSizeSearch);
  if (!on) cb.set(kNoSizeSearch);
}

bool is_searching_path(const ControlBlock& cb) { return search_of(cb) != nullptr; }

bool is_path_told(const ControlBlock& cb) { return cb.cold && cb.cold->path_mtu.told; }

std::uint16_t found_mss(const ControlBlock& cb) {
  const PathMtu* const search = search_of(cb);
  return search != nullptr && search->proved ? search->low : 0;
}

std::uint16_t unsearched_mss(const ControlBlock& cb) {
  const PathMtu* const search = search_of(cb);
  if (search == nullptr) return segment_bytes(cb);
  return search->told ? search->high : search->top;
}

bool suspect_black_hole(ControlBlock& cb, Time now) {
  if (cb.retries < kTimeoutsToSuspect || packets_out(cb) == 0 || cb.has(kNoSizeSearch)) return false;
  if (cb.flight->sent.front().length <= kFloor || cb.snd_wnd == 0) return false;
  const auto base = static_cast<std::uint16_t>(kBase + option_bytes(cb));
  const std::uint16_t before = segment_bytes(cb);
  PathMtu& path = begin_path(cb);
  std::uint16_t low = std::min(base, before);
  if (path.searching) low = std::max<std::uint16_t>(std::min<std::uint16_t>(path.low / 2, base), kFloor);
  search_from(cb, path, low, false, now);
  path.suspected = true;
  if (path.low >= before) return false;
  split_long(cb);
  return true;
}

bool plan_size_probe(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan) {
  if (PathMtu* const path = path_of(cb); path != nullptr) raise_when_due(cb, *path, now);
  PathMtu* const search = search_of(cb);
  if (search == nullptr) return false;
  const std::uint16_t size = next_probe(*search);
  if (size == 0) return false;
  const auto bytes = static_cast<std::uint32_t>(size - (segment_bytes(cb) - cb.mss));
  if (packets_out(cb) == 0) restart_after_idle(cb, now);
  if (!may_probe(cb, bytes) || pacing_holds(cb, now)) return false;
  fill_options(cb, now, plan.segment.options);
  if (plan.segment.options.sack_count > 0) return false;
  search->probe = size;
  search->probe_seq = cb.snd_nxt;
  search->probe_end = cb.snd_nxt + bytes;
  flight_of(cb, host.flights());
  fill_text(cb, plan, cb.snd_nxt, bytes);
  mark_ecn(cb, plan);
  account_new_data(cb, bytes, bytes, now);
  pace_after(cb, bytes, now);
  complete(cb, host, now, plan);
  return true;
}

void size_probe_on_ack(ControlBlock& cb) noexcept {
  PathMtu* const search = search_of(cb);
  if (search == nullptr) return;
  search->proved = search->proved || cb.snd_una > search->una;
  if (search->probe == 0 || cb.snd_una < search->probe_end) return;
  keep_window_bytes(cb, search->low, search->probe);
  search->low = search->probe;
  search->probe = 0;
  set_mss(cb, search->low);
  if (search->low + kGoodEnough <= search->top) return;
  search->searching = false;  // there was no black hole
  search->high = search->low;
}

void forget_size_probe(ControlBlock& cb) noexcept {
  if (cb.cold) cb.cold->path_mtu.probe = 0;
}

bool size_probe_lost(ControlBlock& cb) {
  PathMtu* const search = search_of(cb);
  if (search == nullptr || search->probe == 0 || search->probe_seq != cb.snd_una) return false;
  if (cb.recovery >= RecoveryState::kReduced) return false;
  lower_high(*search, static_cast<std::uint16_t>(search->probe - 1));
  search->probe = 0;
  search->narrow = true;
  repeat_large(cb);
  return true;
}

}  // namespace twinstack::tcp
