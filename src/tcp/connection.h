// connection: one synchronized TCP connection, pure. The caller holds the buffers, the clock and the wire; this module
// holds the rules (RFC 9293 3.10.7.4, 3.8; docs/rfc.md lists the others). It never does
// I/O, never reads a clock, never keeps payload except out-of-order data. One thread at a time per connection.
//
// Kinds of functions: on_*() tells what happened; poll_transmit() says what to send now; the rest are commands and
// getters. The shape of a loop:
//
//   on_segment(cb, packet.segment, packet.payload, host, now);   // for each packet
//   while (link has room && poll_transmit(cb, host, now, plan)) send(plan);
//   arm(next_deadline(cb, now));                                  // on_timer() then, and poll_transmit() again
//
// The engine keeps the bytes [snd_una, write_seq) in its send queue and frees up to snd_una after every on_segment().
// The engine carries ESTABLISHED only: what would leave that state is handed back (Arrival::kToSoftware...). With
// run_whole_machine() a connection goes on through its end: FIN and RST are dealt with here, until tcp_state() is
// kTimeWait or kClosed, which the caller keeps. What comes before ESTABLISHED is in handshake.h.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "tcp/control_block.h"
#include "tcp/min_tcp.h"
#include "wire/payload.h"
#include "wire/segment.h"

namespace twinstack::tcp {

// What tcp_info tells and nothing here reads. Kept by the caller, since the control block is kept small.
struct Counters {
  std::uint64_t bytes_acked = 0;     // of ours, acknowledged
  std::uint64_t bytes_received = 0;  // delivered in order
  std::uint64_t bytes_sent = 0;      // retransmissions included
  std::uint64_t bytes_retransmitted = 0;
  std::uint32_t segs_in = 0;
  std::uint32_t segs_out = 0;
  std::uint32_t data_segs_in = 0;
  std::uint32_t data_segs_out = 0;
  std::uint32_t segs_retransmitted = 0;
  std::uint32_t out_of_order = 0;     // segments that were queued out of order
  std::uint32_t dsack_dups = 0;       // segments that the peer reported as received twice
  std::uint16_t timeouts = 0;         // retransmission timeouts; saturates
  std::uint16_t fast_recoveries = 0;  // saturates
};
static_assert(sizeof(Counters) == 64, "a cache line");

// How fast the network carries our segments to the peer: the last rate that the program did not limit, or the highest
// that it did (tcpi_delivery_rate). Read and written by the functions of rate.h.
struct DeliveryRate {
  float segments_per_s = 0;  // negative: the program was the limit, not the network; 0: none is known
};
static_assert(sizeof(DeliveryRate) == 4, "there is one for each connection");

class FlightPool;
class OutOfOrderMemory;

// What the core asks of whoever holds the buffers. Passed to each call, never kept.
class Host {
 public:
  // `counters` and `rate` belong to the connection of the call. `flights`, where there are many connections, is the
  // same for each of its calls and outlives it.
  Host(Counters& counters, DeliveryRate& rate, FlightPool* flights = nullptr) noexcept
      : counters_(&counters), delivery_rate_(&rate), flights_(flights) {}
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  // In-order bytes for the program. Returns how many were taken, from the start: fewer than payload.size() when memory
  // is short; the rest is not acknowledged and the peer sends it again.
  virtual std::uint32_t deliver(const Payload& payload) = 0;
  // Bytes of receive buffer that are free now: what the window may offer from rcv_nxt on. Out-of-order data that the
  // core holds is not to be subtracted (it lies inside this window).
  virtual std::uint32_t receive_space() = 0;
  // What receive_space() is when nothing is unread: a buffer smaller than a segment of the peer is offered all the
  // same.
  virtual std::uint32_t receive_capacity() { return UINT32_MAX; }
  // Payload of a full segment as announced to the peer (tcpi_advmss); 0: not known, as large as ours.
  virtual std::uint16_t announced_mss() { return 0; }
  // Whether nothing is unread: then a segment that begins in the window is taken whole, wherever it ends.
  virtual bool all_read() { return false; }

  // What bounds the data out of order of all connections, and the address that this one's comes from. The same for each
  // call, and outlives the connection; nullptr: nothing does.
  virtual OutOfOrderMemory* out_of_order_memory(IpAddress& /*peer*/) { return nullptr; }

  [[nodiscard]] Counters& counters() const noexcept { return *counters_; }
  [[nodiscard]] DeliveryRate& delivery_rate() const noexcept { return *delivery_rate_; }
  [[nodiscard]] FlightPool* flights() const noexcept { return flights_; }

 protected:
  ~Host() = default;

 private:
  Counters* counters_;
  DeliveryRate* delivery_rate_;
  FlightPool* flights_;
};

// Outcome of on_segment(). Callers count them by value.
enum class Arrival : std::uint8_t {
  kAccepted,
  // Dropped; an ACK may be owed all the same. State unchanged but for that.
  kDroppedPaws,         // RFC 7323 5.3 R1
  kDroppedOutOfWindow,  // RFC 9293 3.10.7.4 first; duplicates that are wholly old, keepalive probes
  kDroppedReset,        // RST in the window but not at rcv_nxt: challenge ACK (RFC 5961 3.2)
  kDroppedSyn,          // SYN: challenge ACK (RFC 5961 4.2)
  kDroppedNoAck,        // no ACK bit
  kDroppedBadAck,       // acknowledges what was never sent, or is too old: challenge ACK (RFC 5961 5.2)
  kDroppedNoMemory,     // valid, but nothing of its data could be kept; its ACK was processed
  kReset,               // RST exactly at rcv_nxt: the connection is over (whole machine)
  // The kernel must see this packet: upload the connection, then inject it. State unchanged.
  kToSoftwareReset,   // RST exactly at rcv_nxt (RFC 5961 3.2)
  kToSoftwareFin,     // FIN within the window, in order or not
  kToSoftwareUrgent,  // URG within the window
};
inline constexpr std::size_t kArrivals = 12;
[[nodiscard]] constexpr bool to_software(Arrival arrival) noexcept { return arrival >= Arrival::kToSoftwareReset; }
[[nodiscard]] std::string_view name(Arrival arrival) noexcept;

// RFC 9293 3.3.2, the synchronized ones, with Linux's numbers (tcpi_state).
enum class TcpState : std::uint8_t {
  kEstablished = 1,
  kFinWait1 = 4,
  kFinWait2 = 5,
  kTimeWait = 6,
  kClosed = 7,
  kCloseWait = 8,
  kLastAck = 9,
  kClosing = 11,
};

enum class TimerVerdict : std::uint8_t {
  kNothing,     // no timer was due
  kFired,       // poll_transmit() may have something
  kToSoftware,  // the connection is to be given up (user timeout, retries or probes exhausted): upload, the kernel
                // will come to the same end
};

// A segment to send. The payload is [segment.seq, segment.seq + payload_bytes) of the send queue, that is, it starts
// (segment.seq - snd_una) bytes into it. The ECN field for the IP header is segment.ecn. payload_bytes is 0 for ACKs
// and probes (a probe's seq is snd_una - 1).
struct SegmentPlan {
  wire::Segment segment;
  std::uint32_t payload_bytes = 0;
  bool retransmission = false;
};

// Takes over a connection. Makes `cb` anew, arms the timers, owes an ACK; handles snd_una < snd_nxt < write_seq.
// kInvalid when `state` contradicts itself (the reason is in the text); `cb` is then unusable.
Result<> install(ControlBlock& cb, const MinTcp& state, Time now);

// Writes the fields that this module owns into `state`, which the caller has filled as it was given to install() (or
// with flow, buffers, ttl, ... from elsewhere). copied_seq is set to rcv_nxt: whoever holds undelivered bytes
// subtracts them. What is out of order is not part of it (has_out_of_order_data()).
void extract(const ControlBlock& cb, Time now, MinTcp& state);

// A segment of this connection has arrived, checksum verified. `payload` may be a GSO super-packet.
Arrival on_segment(ControlBlock& cb, const wire::Segment& segment, const Payload& payload, Host& host, Time now);

// The program has added bytes to the send queue; `more_follows`: with MSG_MORE. REQUIRES: write_seq - snd_una stays
// under 2^30.
void on_queued(ControlBlock& cb, std::uint32_t bytes, bool more_follows);

// What the program has queued ends a record (MSG_EOR): nothing that comes later shares a segment with it, neither now
// nor in a retransmission.
void end_record(ControlBlock& cb);

// The program has ended its stream: a FIN follows what is queued. REQUIRES: whole machine, once.
void on_close(ControlBlock& cb);

// FIN, RST and urgent data are dealt with here instead of being handed to software. After install().
void run_whole_machine(ControlBlock& cb);

// The state of RFC 9293 3.3.2 that the connection is in.
[[nodiscard]] TcpState tcp_state(const ControlBlock& cb);

// The program has read: receive_space() has grown. May owe a window update, or an ACK that waited for it.
void on_read(ControlBlock& cb, Host& host, Time now);
// Whether an ACK goes once the program has read everything. Cheap.
[[nodiscard]] bool read_acknowledges(const ControlBlock& cb);
// Whether a window update may go with a read, when receive_space() is never more than `capacity`. Cheap.
[[nodiscard]] bool read_may_open_window(const ControlBlock& cb, std::uint32_t capacity);
// Whether on_read() could do anything then. Cheap.
[[nodiscard]] bool read_matters(const ControlBlock& cb, std::uint32_t capacity);

// A deadline may have passed. Cheap when none has.
TimerVerdict on_timer(ControlBlock& cb, Host& host, Time now);

// The earliest deadline, kNever when there is none.
[[nodiscard]] Time next_deadline(const ControlBlock& cb, Time now);

// False: next_deadline() is not before `at`. Cheap; may be true a tick or two too early.
[[nodiscard]] inline bool deadline_before(const ControlBlock& cb, Time at) noexcept {
  const Tick tick = to_tick_ceil(at);
  const auto before = [tick](Tick deadline) { return static_cast<std::int32_t>(deadline - tick) < 0; };
  if (cb.sender_timer != SenderTimer::kNone && before(cb.sender_deadline)) return true;
  if (cb.has(kAckArmed) && before(cb.ack_deadline)) return true;
  return cb.has(kPacingHolds) || (cb.has(kKeepaliveArmed) && before(cb.keepalive_deadline));
}

// The next segment to send; false when there is none now. On true the plan counts as sent. To be called until false,
// or until the link has no room: the rest comes at the next call.
[[nodiscard]] bool poll_transmit(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan);

// What poll_transmit() comes to when it is plain that there is nothing to send, for callers with many connections.
// False, and nothing done, when it is not plain: then it is to be called.
[[nodiscard]] bool rest(ControlBlock& cb);

// The RST that ends the connection from our side (RFC 9293 3.10.5, ABORT). It counts as sent; the caller forgets the
// connection.
[[nodiscard]] wire::Segment reset_of(ControlBlock& cb, Host& host, Time now);

// Owes an ACK that does not wait.
void acknowledge_now(ControlBlock& cb);
// Owes none: for a stack that install()s what the peer has been told already.
void owe_nothing(ControlBlock& cb);
// Asks the peer for an ACK, and with it for its window, by a segment that it has passed (kernel-facts.md, R11).
void probe_now(ControlBlock& cb);

// The stack that had the connection before may still have sent data of the queue after its state was taken
// (kernel-facts.md, R16): until other_stack_silent() tells how far it came, the peer may acknowledge up to write_seq.
void other_stack_may_send(ControlBlock& cb);
// It has sent up to `snd_nxt` and sends no more.
void other_stack_silent(ControlBlock& cb, Seq snd_nxt, Time now);

// While draining no new data is sent; retransmissions, ACKs and receiving go on.
void set_draining(ControlBlock& cb, bool draining, Time now);
[[nodiscard]] bool is_drained(const ControlBlock& cb);

// An extract() would lose data that the peer believes delivered by SACK (it will send it again).
[[nodiscard]] bool has_out_of_order_data(const ControlBlock& cb);
// An ACK waits for its delay or for poll_transmit().
[[nodiscard]] inline bool owes_ack(const ControlBlock& cb) { return cb.has(kAckOwed); }

// The program changed its options (MinTcpFlag: NODELAY, CORK, KEEPALIVE).
void set_flags(ControlBlock& cb, std::uint16_t flags, Time now);
// TCP_KEEPIDLE, TCP_KEEPINTVL (seconds, 1..32767), TCP_KEEPCNT (1..127).
void set_keepalive(ControlBlock& cb, std::uint32_t idle_s, std::uint32_t interval_s, std::uint32_t probes, Time now);
// Whether TCP_WINDOW_CLAMP bounds the window. It is the host that does it: kWindowClamped tells it when to look.
void set_window_clamped(ControlBlock& cb, bool on);
// TCP_USER_TIMEOUT; 0 = none.
void set_user_timeout(ControlBlock& cb, std::uint32_t timeout_ms);
// A new MSS, options of each segment not counted (as MinTcp::mss, and all sizes below).
void set_mss(ControlBlock& cb, std::uint16_t mss);
// Behind install(): no segment may exceed `limit`, which is what interface, route and peer allow. A smaller MSS of the
// connection than that was a router's word, and holds for ten minutes. `found` as MinTcp::mss_found.
void install_path(ControlBlock& cb, std::uint16_t limit, std::uint16_t found, Time now);
// The limit has changed. Segments that are out and exceed it count as lost and go again in pieces, without a reduction
// of the congestion window.
void set_path_limit(ControlBlock& cb, std::uint16_t limit);
// An ICMP error says that a segment beginning at `quoted` was too big, and what would not be: smaller segments for ten
// minutes, and those that are out go again. False, and nothing done, when the error quotes nothing that is out (RFC
// 5927 4.1), asks for no less than now, or comes within a round trip of the last.
bool on_packet_too_big(ControlBlock& cb, Seq quoted, std::uint16_t mss, Time now);
// The same for a caller that has compared the sequence number.
bool on_mtu_reduced(ControlBlock& cb, std::uint16_t mss, Time now);
// Begins with small segments and probes for larger ones (RFC 4821; Linux tcp_mtu_probing = 2). A search that goes on
// already is of that kind, too: it needs no suspicion.
void probe_path(ControlBlock& cb, Time now);
// Whether black holes are looked for; on after install().
void set_size_search(ControlBlock& cb, bool on);
// A search for the largest segment goes on, or its result is less than what the limit allows.
[[nodiscard]] bool is_searching_path(const ControlBlock& cb);
// A router's word holds.
[[nodiscard]] bool is_path_told(const ControlBlock& cb);
// What a search has come to, when segments of that size have arrived; else 0. And the MSS as if there were none.
[[nodiscard]] std::uint16_t found_mss(const ControlBlock& cb);
[[nodiscard]] std::uint16_t unsearched_mss(const ControlBlock& cb);
// TCP_QUICKACK: ACKs go at once for now, and one that waits as well; off: they wait for answers.
void set_quick_ack(ControlBlock& cb, bool on);
// TCP_CONGESTION of a living connection: the algorithm begins with the window that is there.
void set_congestion(ControlBlock& cb, CongestionKind kind, Time now);
// Linux tcp_invalid_ratelimit is 0: challenge ACKs are not limited in rate. After install() they are.
void set_challenges_free(ControlBlock& cb, bool on);
// TCP_NODELAY was set, be it anew: what waits goes (Linux TCP_NAGLE_PUSH).
void push_pending(ControlBlock& cb);
// Linux tcp_slow_start_after_idle; on after install().
void set_restart_after_idle(ControlBlock& cb, bool on);
// Linux tcp_min_tso_segs: how many segments leave as one at least; 2 after install(). Only PSH tells.
void set_smallest_burst(ControlBlock& cb, std::uint8_t segments);

// Bytes believed to be in the network (RFC 6675 4's pipe), full segments assumed.
[[nodiscard]] std::uint32_t in_flight_bytes(const ControlBlock& cb);

}  // namespace twinstack::tcp
