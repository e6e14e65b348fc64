#include "tcp/invariants.h"

#include "tcp/cold_state.h"
#include "tcp/flight.h"
#include "tcp/sack.h"

namespace twinstack::tcp {

namespace {

struct Counted {
  std::uint32_t sacked = 0;
  std::uint32_t lost = 0;
  std::uint32_t retransmitted = 0;
};

const char* check_segment(const SentSegment& s) noexcept {
  if (s.length == 0) return "an empty segment is out";
  if (s.has(kSacked) && s.has(kLost)) return "a segment is both SACKed and lost";
  if (s.has(kRetransmitted) && !s.has(kEverRetransmitted)) return "a repetition that never was";
  return nullptr;
}

const char* check_sent(const ControlBlock& cb, const Flight& f) noexcept {
  Seq at = cb.snd_una;
  Counted counted;
  for (auto p = f.sent.first(); p != f.sent.end(); ++p) {
    const SentSegment& s = f.sent.at(p);
    if (s.seq != at) return "the flight has a gap or does not begin at snd_una";
    at = s.end();
    if (const char* wrong = check_segment(s)) return wrong;
    if (s.has(kSacked)) ++counted.sacked;
    if (s.has(kLost)) ++counted.lost;
    if (s.has(kRetransmitted)) ++counted.retransmitted;
  }
  if (at != cb.snd_nxt) return "the flight does not end at snd_nxt";
  if (uses_sack(cb) ? f.sacked != counted.sacked : f.sacked > f.sent.size()) return "count of SACKed segments";
  if (f.lost != counted.lost) return "count of lost segments";
  if (f.retransmitted != counted.retransmitted) return "count of retransmitted segments";
  if (f.sacked + f.lost > f.sent.size()) return "more is gone than was sent";
  return nullptr;
}

const char* check_hints(const Flight& f) noexcept {
  const SentQueue& sent = f.sent;
  if (!sent.holds(f.next_retransmit) || !sent.holds(f.rack_first)) return "a hint points out of the flight";
  for (auto p = sent.first(); p != f.next_retransmit; ++p) {
    if (sent.at(p).has(kLost) && !sent.at(p).has(kRetransmitted)) return "a lost segment is passed over";
  }
  for (auto p = sent.first(); p != f.rack_first; ++p) {
    if (!sent.at(p).has(kSacked | kLost | kEverRetransmitted)) return "a segment that nobody judges";
  }
  return nullptr;
}

// Otherwise take_plain_ack() would leave something behind for the next flight.
const char* check_lone(const ControlBlock& cb, const Flight& f) noexcept {
  if (!f.lone || cb.recovery != RecoveryState::kOpen || f.sent.empty() || f.sent.front().has(kLost)) return nullptr;
  if (f.sent.size() != 1 || f.sacked + f.lost + f.retransmitted != 0) return "a flight that is not lone seems so";
  if (cb.snd_nxt == cb.write_seq && !(f.push_marks.empty() && f.record_ends.empty())) return "marks of a lone segment";
  return static_cast<const FlightRepair&>(f) == FlightRepair{} ? nullptr : "a lone flight with traces of a repair";
}

const char* check_flight(const ControlBlock& cb) noexcept {
  if (!cb.flight) return cb.snd_una == cb.snd_nxt ? nullptr : "bytes are out, and no flight";
  if (const char* wrong = check_sent(cb, *cb.flight)) return wrong;
  if (const char* wrong = check_lone(cb, *cb.flight)) return wrong;
  return check_hints(*cb.flight);
}

const char* check_receive(const ControlBlock& cb) noexcept {
  if (cb.rcv_wup > cb.rcv_nxt) return "more was acknowledged than received";
  if (!cb.cold) return nullptr;
  const OutOfOrderBlock* before = nullptr;
  for (const OutOfOrderBlock& block : cb.cold->out_of_order) {
    if (block.bytes.empty()) return "an empty block is held";
    if (before != nullptr && block.seq < before->end()) return "blocks out of order overlap";
    before = &block;
  }
  return nullptr;
}

const char* check_path(const ControlBlock& cb) noexcept {
  if (!cb.cold || !cb.cold->path_mtu.in_use()) return nullptr;
  const PathMtu& path = cb.cold->path_mtu;
  return path.low <= path.high && path.high <= path.top && path.probe <= path.high ? nullptr : "path MTU";
}

const char* check_timers(const ControlBlock& cb) noexcept {
  const bool out = cb.snd_una != cb.snd_nxt;
  const bool timed = cb.sender_timer != SenderTimer::kNone;
  if (out && (!timed || cb.sender_timer == SenderTimer::kPersist)) return "data is out and no timer watches it";
  if (!out && timed && cb.sender_timer != SenderTimer::kPersist) return "a timer runs for nothing";
  return nullptr;
}

}  // namespace

const char* broken_invariant(const ControlBlock& cb) noexcept {
  if (cb.snd_una > cb.snd_nxt || cb.snd_nxt > cb.write_seq) return "send sequence numbers";
  if (cb.cwnd == 0 || cb.ssthresh < 2) return "congestion window";
  if (const char* wrong = check_flight(cb)) return wrong;
  if (const char* wrong = check_receive(cb)) return wrong;
  if (const char* wrong = check_path(cb)) return wrong;
  return check_timers(cb);
}

}  // namespace twinstack::tcp
