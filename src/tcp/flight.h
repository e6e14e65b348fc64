// Flight: what the sender keeps while segments of its are in the network, and as long afterwards as a reduction of cwnd
// could still turn out to have been wrong. One record a segment, in the order of sequence numbers. Owned by the
// ControlBlock, made by flight_of() on first need, freed by release_flight(). Same thread as the block. A connection
// that answers requests begins and ends a flight with each of them, so used ones wait in a FlightPool for the next.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/assert.h"
#include "base/clock.h"
#include "tcp/control_block.h"
#include "wire/segment.h"

namespace twinstack::tcp {

// Bits of SentSegment::flags (Linux's TCPCB_*).
enum SentFlag : std::uint16_t {
  kSacked = 1 << 0,         // the peer holds it (RFC 2018)
  kLost = 1 << 1,           // it is believed to have left the network without arriving
  kRetransmitted = 1 << 2,  // a retransmission of it is in the network
  kEverRetransmitted = 1 << 3,
  kSentAppLimited = 1 << 4,  // the program did not fill the window when it was sent
  kRateTaken = 1 << 5,       // it has given its delivery-rate sample
  kForeign = 1 << 6,         // sent by the stack that had the connection before: when is not known
  kPushed = 1 << 7,          // a write ends with it: it carries PSH whenever it goes
};

struct SentSegment {
  Seq seq;
  std::uint32_t length = 0;     // in sequence space: payload, and 1 for a FIN
  Time sent{};                  // last transmission
  Time first_sent{};            // start of the send phase of its rate sample
  Time delivered_at{};          // when `delivered` was reached
  std::uint32_t delivered = 0;  // ControlBlock::delivered at its transmission
  std::uint16_t flags = 0;      // SentFlag
  std::uint16_t burst = 0;      // of the last segment of a burst (burst.h): how many it had; 0 of the others

  [[nodiscard]] Seq end() const noexcept { return seq + length; }
  [[nodiscard]] bool has(std::uint16_t any_of) const noexcept { return (flags & any_of) != 0; }
  void set(std::uint16_t more) noexcept { flags = static_cast<std::uint16_t>(flags | more); }
  void clear(std::uint16_t fewer) noexcept { flags = static_cast<std::uint16_t>(flags & ~fewer); }
};

// Segments from snd_una to snd_nxt without gap. A position counts on over the life of the queue; the one of a segment
// changes only when an earlier one is split. A few lie in the queue itself.
class SentQueue {
 public:
  using Position = std::uint32_t;

  SentQueue() noexcept { ring_ = few_.data(); }  // which lies behind it
  SentQueue(const SentQueue&) = delete;
  SentQueue& operator=(const SentQueue&) = delete;

  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
  [[nodiscard]] std::uint32_t size() const noexcept { return count_; }
  [[nodiscard]] Position first() const noexcept { return first_; }
  [[nodiscard]] Position end() const noexcept { return first_ + count_; }
  // `position` lies in [first(), end()].
  [[nodiscard]] bool holds(Position position) const noexcept { return position - first_ <= count_; }

  [[nodiscard]] SentSegment& at(Position position) noexcept { return ring_[index(position)]; }
  [[nodiscard]] const SentSegment& at(Position position) const noexcept { return ring_[index(position)]; }
  [[nodiscard]] SentSegment& front() noexcept { return at(first_); }
  [[nodiscard]] const SentSegment& front() const noexcept { return at(first_); }
  [[nodiscard]] SentSegment& back() noexcept { return at(end() - 1); }

  // The new last one, its fields not set.
  SentSegment& push_back() {
    if (count_ > mask_) grow();
    ++count_;
    return back();
  }
  void pop_front() noexcept {
    ASSERT(count_ > 0);
    ++first_;
    --count_;
  }
  // Empties it; what was allocated for many goes back.
  void clear() noexcept;
  // Gives back what a long flight took; positions go on. REQUIRES: empty.
  void shrink() noexcept;
  // The first `length` of the segment stay, the rest becomes one of its own behind it. REQUIRES: 0 < length < its own.
  void split(Position position, std::uint32_t length);
  // The first segment that ends after `seq`; end() when none does.
  [[nodiscard]] Position find(Seq seq) const noexcept;

 private:
  [[nodiscard]] std::size_t index(Position position) const noexcept {
    ASSERT(position - first_ < count_);
    return position & mask_;
  }
  void grow();

  static constexpr std::uint32_t kFew = 4;

  SentSegment* ring_ = nullptr;
  std::uint32_t mask_ = kFew - 1;  // places in the ring, a power of two, less one
  Position first_ = 0;
  std::uint32_t count_ = 0;
  std::array<SentSegment, kFew> few_;  // the first one lies in a line with the above
  std::unique_ptr<SentSegment[]> many_;
};

// A transmission that repeated something, for RACK, which wants them in the order of time.
struct Repeat {
  Seq seq;
  Time sent{};
};

// F-RTO (RFC 5682).
enum class Frto : std::uint8_t {
  kNone,
  kWaiting,  // the timeout has fired, nothing has come since
  kNewData,  // step 2.b: new data goes instead of retransmissions
};

// Of a Flight: what each begins anew. Here what each uses ...
struct FlightState {
  std::uint32_t sacked = 0;         // segments with kSacked; without SACK: as many as duplicate ACKs tell of
  std::uint32_t lost = 0;           // ... with kLost
  std::uint32_t retransmitted = 0;  // ... with kRetransmitted
  bool undo_possible = false;       // a reduction of cwnd can still turn out to have been wrong
  bool probe_out = false;           // tail loss probe (RFC 8985 7)
  Frto frto = Frto::kNone;
  bool lone = false;  // only plan_lone_segment() has touched it: its FlightRepair is as it was made

  // Bursts (burst.h), segments: the one that new data is sent in.
  std::uint32_t burst_size = 0;
  std::uint32_t burst_left = 0;

  // Use of cwnd (cwnd_use.h).
  std::uint32_t max_packets_out = 0;  // most segments out in the window that cwnd_usage_seq ends
  Seq cwnd_usage_seq;

  std::uint32_t rack_last_delivered = 0;  // ControlBlock::delivered when the reordering window was last adjusted
  Time first_sent{};                      // transmission of the most recently delivered segment
  Time delivered_at{};                    // when `delivered` last grew
};

// ... and here what one uses that is not over with the first ACK, above all for repairs.
struct FlightRepair {
  Seq highest_sacked;  // end of the highest SACKed segment; meaningful with sacked > 0
  std::array<wire::SackBlock, wire::kMaxSackBlocks> seen_blocks{};  // of the last ACK: nothing in them is news
  std::uint32_t seen_count = 0;
  SentQueue::Position next_retransmit = 0;  // nothing before it is lost and waits for its retransmission

  // RACK (RFC 8985 5.2).
  Time rack_sent{};  // transmission of the most recently sent segment that has arrived
  Seq rack_end;      // its end
  std::uint32_t rack_rtt_us = 0;
  bool rack_advanced = false;          // since losses were last looked for
  SentQueue::Position rack_first = 0;  // no segment before it is first sent, neither SACKed nor lost
  std::uint32_t repeats_first = 0;     // of Flight::repeats

  // A reduction of cwnd, and what it takes to undo it.
  Seq undo_marker;                   // snd_una when the reduction began
  std::int32_t undo_repeats = 0;     // retransmissions since of which no DSACK has told; 0 = all were needless
  std::uint32_t prior_ssthresh = 0;  // 0 = nothing to go back to
  std::uint32_t prior_cwnd = 0;
  std::uint32_t prr_delivered = 0;  // RFC 6937 3
  std::uint32_t prr_out = 0;
  bool repeat_stamped = false;
  std::uint32_t repeat_ts = 0;  // our timestamp at the first retransmission of the episode (Eifel, RFC 3522)
  Tick last_repeat = 0;         // when something was last retransmitted
  bool reneged = false;         // the peer dropped what it had SACKed

  // Tail loss probe.
  bool probe_repeats = false;  // it was a retransmission
  Seq probe_end;               // snd_nxt when it was sent

  // Bursts: the one that goes again.
  SentQueue::Position repeat_next = 0;  // its next segment
  std::uint32_t repeat_left = 0;

  Time next_send{};  // pacing: nothing goes before

  Time timed_out_at{};  // since when timeouts have brought nothing: the user timeout counts from then on; 0 = none has

  friend bool operator==(const FlightRepair&, const FlightRepair&) = default;
};

// Places in a stream, in the order of sequence numbers: those at the front are left behind.
class SeqMarks {
 public:
  [[nodiscard]] bool empty() const noexcept { return first_ == ends_.size(); }
  [[nodiscard]] Seq front() const noexcept { return ends_[first_]; }
  [[nodiscard]] Seq& back() noexcept { return ends_.back(); }
  void push_back(Seq end);
  void pop_front() noexcept { ++first_; }
  [[nodiscard]] std::size_t size() const noexcept { return ends_.size() - first_; }
  void clear() noexcept {
    ends_.clear();
    first_ = 0;
  }

 private:
  std::vector<Seq> ends_;  // from first_ on
  std::size_t first_ = 0;
};

class FlightPool;

// What one touches that is out with a single segment: two lines of memory.
struct alignas(64) FlightFront : FlightState {
  FlightPool* home = nullptr;  // where it goes when it is over
  SentQueue sent;

  static constexpr std::size_t kHotBytes = 128;
};

struct Flight : FlightFront, FlightRepair {
  std::vector<Repeat> repeats;  // in the order of time, from repeats_first on; entries go stale
  SeqMarks push_marks;          // where a long write asks for PSH before its end
  SeqMarks record_ends;         // no segment reaches across one (MSG_EOR)
};
static_assert(sizeof(FlightState) + sizeof(FlightPool*) <= 64 && sizeof(Flight) <= 512);

// Flights for many connections. Those that are over are kept for the next, as long as they are few. One thread at a
// time. Outlives all that it has made.
class FlightPool {
 public:
  FlightPool() noexcept = default;
  ~FlightPool();
  FlightPool(const FlightPool&) = delete;
  FlightPool& operator=(const FlightPool&) = delete;

  FlightPtr take() { return count_ > 0 ? FlightPtr(kept_[--count_]) : make(); }
  void put(Flight* flight) noexcept;
  // The same for one that is lone, with nothing that has disturbed it.
  void put_lone(Flight* flight) noexcept;

 private:
  FlightPtr make();
  void keep(Flight* flight) noexcept;

  std::array<Flight*, 64> kept_{};  // last in, first out: warm ones first
  std::size_t count_ = 0;
};

// The block's Flight, made when there is none, from `pool` when there is one.
Flight& flight_of(ControlBlock& cb, FlightPool* pool = nullptr);
// Frees it when it holds nothing.
void release_empty_flight(ControlBlock& cb);
// The flight is over; what its last retransmission was good for has been told by now, if it ever is: nothing is undone
// any more (while it could be, the Flight is kept).
void expire_undo(ControlBlock& cb, Time now) noexcept;
inline void release_flight(ControlBlock& cb) {
  if (cb.flight && cb.flight->sent.empty()) release_empty_flight(cb);
}

// Segments in the network, not known to have arrived or to be lost (RFC 6675 4's pipe, in segments).
[[nodiscard]] inline std::uint32_t packets_in_flight(const ControlBlock& cb) noexcept {
  if (!cb.flight) return 0;
  const Flight& f = *cb.flight;
  const std::uint32_t present = f.sent.size() + f.retransmitted;
  const std::uint32_t gone = f.sacked + f.lost;
  return present > gone ? present - gone : 0;
}
[[nodiscard]] inline std::uint32_t packets_out(const ControlBlock& cb) noexcept {
  return cb.flight ? cb.flight->sent.size() : 0;
}

// The end of a flight that is lone still, all of it acknowledged. REQUIRES: no segment of it was ever marked.
void end_lone_flight(ControlBlock& cb) noexcept;

// A segment of [seq, seq + length) is sent at `now`: it joins the flight.
void add_sent(ControlBlock& cb, Seq seq, std::uint32_t length, Time now);
// [from, to) was sent by another stack, at `sent` or before, in segments of the MSS.
void add_foreign(ControlBlock& cb, Seq from, Seq to, Time sent);
// The first `length` bytes of the flight are a segment of their own whose acknowledgement is measured by its timestamp
// echo alone, as Linux does with what was written in repair mode (TCPCB_REPAIRED). REQUIRES: add_foreign() of them.
void measure_by_echo(ControlBlock& cb, std::uint32_t length);
// The segment is sent again at `now`, as a loss probe: that is no repair, and nothing counts as out or as to be undone
// for it (Linux __tcp_retransmit_skb() by itself).
void note_probe_again(ControlBlock& cb, SentQueue::Position position, Time now);
// ... as a repair.
void note_repeat(ControlBlock& cb, SentQueue::Position position, Time now);
// As SentQueue::split(); counts and hints stay right.
void split_sent(Flight& flight, SentQueue::Position position, std::uint32_t length);
// All that is longer than the MSS and has not arrived becomes segments of that size, in one pass.
void split_long(ControlBlock& cb);

}  // namespace twinstack::tcp
