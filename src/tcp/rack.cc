#include "tcp/rack.h"

#include <algorithm>

#include "tcp/loss_marks.h"
#include "tcp/rtt.h"
#include "tcp/timers.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint8_t kPersistRecoveries = 16;
constexpr Duration kTimerSlack = std::chrono::milliseconds(2);  // Linux TCP_TIMEOUT_MIN

Duration us(std::uint32_t value) noexcept { return std::chrono::microseconds(value); }

// RFC 8985 6.2 step 3: sent later, or at the same instant with the higher sequence number.
bool sent_after(Time a, Seq a_end, Time b, Seq b_end) noexcept { return a > b || (a == b && a_end > b_end); }

// RFC 8985 6.2 step 4; before any reordering was seen duplicates count as they always did.
Duration reorder_window(const ControlBlock& cb) noexcept {
  const Flight& f = *cb.flight;
  if (!cb.has(kReorderingSeen)) {
    if (cb.recovery >= RecoveryState::kRecovery) return Duration::zero();
    if (f.sacked >= cb.reordering) return Duration::zero();
  }
  const std::uint32_t shortest = cb.min_rtt_us != 0 ? cb.min_rtt_us : smoothed_rtt_us(cb);
  return us(std::min((shortest >> 2) * cb.reo_wnd_steps, smoothed_rtt_us(cb)));
}

// What the search for losses goes on with.
struct Search {
  Duration window;
  Duration longest{};  // until the last of those that may only be late is overdue
  std::uint32_t found = 0;
  std::uint32_t left_to_look = 0;  // entries of the list that is searched
};

// In the order of time nothing is overdue behind the first that may only be late. So many entries are looked at there,
// to learn when the last of them is: there may be thousands, and an ACK for each.
constexpr std::uint32_t kLookBehind = 64;

// False when `s` was sent after what arrived last: it and all behind it are not to be judged.
bool judge(ControlBlock& cb, SentQueue::Position position, Search& search, Time now) {
  Flight& f = *cb.flight;
  SentSegment& s = f.sent.at(position);
  if (!sent_after(f.rack_sent, f.rack_end, s.sent, s.end())) return false;
  const Duration left = us(f.rack_rtt_us) + search.window - (now - s.sent);
  if (left <= Duration::zero()) {
    mark_lost(cb, position);
    ++search.found;
  } else {
    search.longest = std::max(search.longest, left);
    search.left_to_look = std::min(search.left_to_look, kLookBehind);
  }
  return true;
}

// Goes to the next entry. False: enough were looked at, and the rest counts as sent when what has arrived was.
bool look_on(const Flight& f, Search& search, Time now) noexcept {
  if (search.left_to_look > 0) {
    --search.left_to_look;
    return true;
  }
  search.longest = std::max(search.longest, us(f.rack_rtt_us) + search.window - (now - f.rack_sent));
  return false;
}

// Segments that were sent once, which lie in the order of time.
void search_first_sent(ControlBlock& cb, Search& search, Time now) {
  Flight& f = *cb.flight;
  bool settled = true;
  search.left_to_look = UINT32_MAX;
  for (auto p = f.rack_first; p != f.sent.end() && look_on(f, search, now); ++p) {
    if (!f.sent.at(p).has(kSacked | kLost | kEverRetransmitted) && !judge(cb, p, search, now)) break;
    settled = settled && f.sent.at(p).has(kSacked | kLost | kEverRetransmitted);
    if (settled) f.rack_first = p + 1;
  }
}

// The segment that a repeat stands for, end() when it has arrived, is lost again, or was sent again later.
SentQueue::Position segment_of(const Flight& f, const Repeat& repeat) noexcept {
  const auto p = f.sent.find(repeat.seq);
  if (p == f.sent.end()) return p;
  const SentSegment& s = f.sent.at(p);
  const bool waits_to_go = s.has(kLost) && !s.has(kRetransmitted);
  return s.sent == repeat.sent && !s.has(kSacked) && !waits_to_go ? p : f.sent.end();
}

void search_repeats(ControlBlock& cb, Search& search, Time now) {
  Flight& f = *cb.flight;
  bool settled = true;
  search.left_to_look = UINT32_MAX;
  for (std::size_t i = f.repeats_first; i < f.repeats.size() && look_on(f, search, now); ++i) {
    const auto p = segment_of(f, f.repeats[i]);
    if (p != f.sent.end() && !judge(cb, p, search, now)) break;
    settled = settled && (p == f.sent.end() || segment_of(f, f.repeats[i]) == f.sent.end());
    if (settled) f.repeats_first = static_cast<std::uint32_t>(i + 1);
  }
}

Search detect(ControlBlock& cb, Time now) {
  Search search{.window = reorder_window(cb)};
  search_first_sent(cb, search, now);
  search_repeats(cb, search, now);
  return search;
}

}  // namespace

// What another stack had sent counts as sent when it was taken over: among such segments the order of their numbers is
// that of time, and no later one is judged by them.
void rack_on_arrival(ControlBlock& cb, const SentSegment& segment, Time now) noexcept {
  Flight& f = *cb.flight;
  const auto rtt = std::chrono::duration_cast<std::chrono::microseconds>(now - segment.sent).count();
  const auto rtt_us = static_cast<std::uint32_t>(std::clamp<std::int64_t>(rtt, 0, UINT32_MAX));
  // Sooner than any round trip: the ACK is that of the first transmission (RFC 8985 6.2 step 2).
  if (segment.has(kEverRetransmitted) && rtt_us < cb.min_rtt_us) return;
  f.rack_advanced = true;
  f.rack_rtt_us = rtt_us;
  if (!sent_after(segment.sent, segment.end(), f.rack_sent, f.rack_end)) return;
  f.rack_sent = segment.sent;
  f.rack_end = segment.end();
}

bool rack_mark_lost(ControlBlock& cb, Time now) {
  Flight& f = *cb.flight;
  if (!f.rack_advanced) return false;
  f.rack_advanced = false;
  const Search search = detect(cb, now);
  if (search.longest <= Duration::zero()) return false;
  arm_sender_timer(cb, SenderTimer::kReorder, std::min(search.longest + kTimerSlack, backed_off_rto(cb)), now);
  return true;
}

bool rack_on_timer(ControlBlock& cb, Time now) { return detect(cb, now).found > 0; }

void rack_adapt_window(ControlBlock& cb, const RateSample& sample) noexcept {
  if (!sample.known) return;
  Flight& f = *cb.flight;
  // A round trip has to pass before the next step counts.
  if (static_cast<std::int32_t>(sample.prior_delivered - f.rack_last_delivered) < 0) cb.clear(kDsackSeen);
  if (cb.has(kDsackSeen)) {
    if (cb.reo_wnd_steps < 255) ++cb.reo_wnd_steps;
    cb.clear(kDsackSeen);
    f.rack_last_delivered = cb.delivered;
    cb.reo_wnd_persist = kPersistRecoveries;
  } else if (cb.reo_wnd_persist == 0) {
    cb.reo_wnd_steps = 1;
  }
}

Duration rack_patience(const ControlBlock& cb, const SentSegment& segment, Time now) noexcept {
  const Flight& f = *cb.flight;
  const std::uint32_t rtt_us = f.rack_rtt_us != 0 ? f.rack_rtt_us : smoothed_rtt_us(cb);  // nothing has arrived yet
  return us(rtt_us) - (now - segment.sent);
}

void rack_on_repeat(Flight& flight, Seq seq, Time now) {
  if (flight.repeats_first > 64 && flight.repeats_first > flight.repeats.size() / 2) {
    flight.repeats.erase(flight.repeats.begin(), flight.repeats.begin() + flight.repeats_first);
    flight.repeats_first = 0;
  }
  flight.repeats.push_back({seq, now});
}

}  // namespace twinstack::tcp
