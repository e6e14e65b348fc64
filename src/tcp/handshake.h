// handshake: the opening half of the state machine, pure: LISTEN, SYN-SENT and SYN-RECEIVED of RFC 9293 3.10.7.2 to
// 3.10.7.4, passive, active and simultaneous open. It ends in a MinTcp, which connection.h goes on with. It never does
// I/O, reads no clock, allocates nothing and keeps no payload. One thread at a time per handshake.
//
// Who calls it owns the ports, the table of half-open connections and its bound (RFC 4987), the secret of the initial
// numbers (initial_sequence.h) and TIME-WAIT. The shape of a listener:
//
//   answer_listen(segment)  -> kSynAccepted: open_passive(handshake, ...);   wants_reset(): send reset_for(segment)
//   on_segment(handshake, ...)                          // for each packet of the flow from then on
//     -> kCompletedByAck:    establish(cb, ...), then tcp::on_segment(cb, ...) with this very segment
//     -> kCompletedBySynAck: establish(cb, ...); the segment is used up
//     -> is_over():          forget the handshake
//   while (poll_transmit(handshake, ...)) send(segment);
//   arm(next_deadline(handshake));                      // on_timer() then, and poll_transmit() again
//
// For each segment that arrives at most one leaves: a planned one or the reset, never both. A listener that has no room
// for the connection keeps a copy of the handshake from before on_segment() and puts it back: the peer, which believes
// itself connected, sends again, and so does the timer.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

#include "base/clock.h"
#include "base/result.h"
#include "tcp/control_block.h"
#include "tcp/initial_sequence.h"
#include "tcp/min_tcp.h"
#include "wire/flow.h"
#include "wire/segment.h"

namespace twinstack::tcp {

// The values of Linux's sysctl tcp_ecn.
enum class EcnMode : std::uint8_t {
  kOff = 0,
  kRequest = 1,  // ask for ECN when connecting, agree to it when asked
  kAccept = 2,   // agree to it when asked
};

// What all connections of a listener, or of one connect(), have in common. Read at every call, so it may be shared; it
// must not change while a handshake made with it goes on, save for `settings`.
struct HandshakeConfig {
  // What no handshake negotiates is taken from here into the result: scope_id, flags, congestion, buffers,
  // user_timeout_ms (which also limits an active open), keepalive, ttl, traffic_class, flow_label. The rest is ignored.
  MinTcp settings;

  std::uint32_t receive_space_bytes = 65536;        // free for received bytes now: the first window
  std::uint32_t receive_space_limit_bytes = 65536;  // what it may grow to: the window scale
  std::uint32_t initial_rto_us = 1'000'000;         // RFC 6298 2.1
  std::uint16_t announced_mss = 1460;               // our MTU less IP and TCP header (RFC 6691)
  std::uint16_t path_mss = 1460;                    // the same of the path to the peer
  std::uint16_t user_mss = 0;                       // TCP_MAXSEG, limits both directions; 0 = none
  std::uint16_t initial_cwnd_segments = 10;         // RFC 6928

  // MinTcpOption that may be used; kOptEcn is not read.
  std::uint16_t options = kOptTimestamps | kOptSack | kOptWindowScale;
  EcnMode ecn = EcnMode::kAccept;
  bool ecn_required = false;      // the congestion control lives by ECN (DCTCP): asks for it, marks SYNs (RFC 8257 3.5)
  bool soft_errors_abort = true;  // as Linux and RFC 5461 4.1; false: RFC 1122 4.2.3.9 to the letter
  std::uint8_t syn_retries = 6;   // Linux tcp_syn_retries
  // Linux tcp_syn_linear_timeouts, in addition: 4 there since 6.5, although RFC 6298 5.5 wants each to double.
  std::uint8_t syn_linear_timeouts = 0;
  std::uint8_t synack_retries = 5;  // Linux tcp_synack_retries
  // TCP Fast Open (RFC 7413): what the first SYN asks or shows, or the first SYN-ACK grants. Repetitions carry none.
  wire::FastOpen fast_open;
};

enum class HandshakeState : std::uint8_t { kSynSent, kSynReceived, kEstablished, kClosed };

// Bits of Handshake::bits.
enum HandshakeBit : std::uint16_t {
  kHsPassive = 1 << 0,        // came from LISTEN
  kHsSimultaneous = 1 << 1,   // the peer's SYN met ours
  kHsSent = 1 << 2,           // SND.NXT is ISS + 1
  kHsSynDue = 1 << 3,         // a SYN is to be sent, a SYN-ACK in SYN-RECEIVED
  kHsFirstOfKind = 1 << 4,    // ... and it is no retransmission
  kHsAckDue = 1 << 5,         // an ACK is to be sent, for a segment that was not acceptable
  kHsByAck = 1 << 6,          // completed by an ACK, not by a SYN-ACK
  kHsFirstAnswered = 1 << 7,  // the peer answered the first that we sent: what followed was spurious
  kHsSoftError = 1 << 8,      // an ICMP error came that did not end it
};

// One half-open connection. Plain data: tables may hold, move and copy it.
struct Handshake {
  FlowKey flow;
  HandshakeState state = HandshakeState::kClosed;
  std::uint8_t options = 0;  // MinTcpOption: what we offer; once the peer's SYN has come, what was agreed upon
  std::uint16_t bits = 0;    // HandshakeBit

  Seq iss;                       // our initial sequence number
  Seq irs;                       // the peer's
  Seq snd_wl1;                   // sequence number of the segment that told snd_wnd
  std::uint32_t snd_wnd = 0;     // bytes, scaled
  std::uint32_t max_window = 0;  // largest snd_wnd, bytes
  std::uint16_t rcv_wnd = 0;     // bytes: as in our SYN, where it is not scaled
  std::uint16_t peer_mss = 0;
  std::uint16_t syn_bytes = 0;    // Fast Open: data that our first SYN carries ...
  std::uint16_t acked_bytes = 0;  // ... and how much of it the peer's SYN-ACK acknowledges
  std::uint16_t taken_bytes = 0;  // Fast Open: data of the peer's SYN that our SYN-ACK acknowledges
  std::uint8_t snd_wscale = 0;
  std::uint8_t rcv_wscale = 0;
  std::uint8_t timeouts = 0;         // expirations of the timer
  std::uint8_t retransmissions = 0;  // of our SYN or SYN-ACK, by timer or for a SYN that came again; saturates

  std::uint32_t ts_offset = 0;     // our TSval - the clock in its unit
  std::uint32_t first_ts_val = 0;  // of the first SYN or SYN-ACK sent ...
  std::uint32_t last_ts_val = 0;   // ... and of the last segment: what the peer may echo
  std::uint32_t ts_recent = 0;     // the peer's TSval to echo, 0 when not known
  std::uint32_t rtt_us = 0;        // the handshake's round trip, 0 = not measured

  Time first_sent{};   // when the first SYN or SYN-ACK was sent (until then, when it was planned)
  Time deadline{};     // of the retransmission timer
  Time last_answer{};  // of the last answer that is limited in rate

  [[nodiscard]] bool has(std::uint16_t any_of) const noexcept { return (bits & any_of) != 0; }
  void set(std::uint16_t more) noexcept { bits = static_cast<std::uint16_t>(bits | more); }
  void clear(std::uint16_t fewer) noexcept { bits = static_cast<std::uint16_t>(bits & ~fewer); }
  [[nodiscard]] bool in_progress() const noexcept {
    return state == HandshakeState::kSynSent || state == HandshakeState::kSynReceived;
  }
};

static_assert(std::is_trivially_copyable_v<Handshake>);
static_assert(sizeof(Handshake) <= 192, "a listener holds many of them");

// What became of a segment or an ICMP error. Callers count them by value.
enum class HandshakeVerdict : std::uint8_t {
  kSynAccepted,          // LISTEN: a connection is asked for, open_passive() makes it
  kSimultaneousOpen,     // SYN in SYN-SENT: now SYN-RECEIVED, a SYN-ACK is due
  kDuplicateSyn,         // the peer's SYN again: a SYN-ACK is due
  kDuplicateSynLimited,  // the same, too soon after the last
  kCompletedByAck,       // established; the segment goes on to tcp::on_segment()
  kCompletedBySynAck,    // established, an ACK is owed; data and FIN of the segment, if any, will be sent again
  // Dropped. An ACK may be due for those that are not acceptable.
  kDroppedReset,        // a RST that proves nothing
  kDroppedNoSyn,        // neither SYN nor RST where a SYN is waited for
  kDroppedSynFin,       // LISTEN: SYN with FIN, as Linux
  kDroppedSyn,          // SYN-RECEIVED: a SYN that is neither the first again nor in the window
  kDroppedPaws,         // RFC 7323 5.3 R1
  kDroppedEcho,         // SYN-RECEIVED: echoes a timestamp that was never sent (as Linux 6.14)
  kDroppedOutOfWindow,  // RFC 9293 3.10.7.4 first
  kDroppedNoAck,        // SYN-RECEIVED: no ACK bit
  kNotedError,          // a soft ICMP error that does not end it
  kDroppedError,        // an ICMP error that quotes what was never sent (RFC 5927 4.1)
  // Answered by reset_for(); the handshake goes on.
  kBadAck,   // acknowledges what was never sent; LISTEN: acknowledges anything
  kBadEcho,  // SYN-SENT: echoes a timestamp that was never sent
  // The handshake is over.
  kRefused,       // SYN-SENT: RST that acknowledges our SYN (ECONNREFUSED)
  kReset,         // SYN-RECEIVED: RST exactly at RCV.NXT
  kBackToListen,  // SYN-RECEIVED after a passive open: SYN in the window (RFC 9293 3.10.7.4 fourth), dropped
  kUnreachable,   // ICMP (EHOSTUNREACH, ECONNREFUSED ... by its code)
};
inline constexpr std::size_t kHandshakeVerdicts = 22;
[[nodiscard]] constexpr bool is_completed(HandshakeVerdict verdict) noexcept {
  return verdict == HandshakeVerdict::kCompletedByAck || verdict == HandshakeVerdict::kCompletedBySynAck;
}
[[nodiscard]] constexpr bool wants_reset(HandshakeVerdict verdict) noexcept {
  return verdict == HandshakeVerdict::kBadAck || verdict == HandshakeVerdict::kBadEcho;
}
[[nodiscard]] constexpr bool is_over(HandshakeVerdict verdict) noexcept {
  return verdict >= HandshakeVerdict::kRefused;
}
[[nodiscard]] std::string_view name(HandshakeVerdict verdict) noexcept;

enum class HandshakeTimer : std::uint8_t {
  kNothing,  // not due
  kFired,    // poll_transmit() has something
  kGaveUp,   // retries or user timeout exhausted: the handshake is over (ETIMEDOUT, or what a soft error said)
};

// RFC 1122 3.2.2.1, 4.2.3.9. "Fragmentation needed" is neither: SYNs are small.
enum class IcmpError : std::uint8_t {
  kSoft,  // net or host unreachable, time exceeded, parameter problem
  kHard,  // protocol or port unreachable, administratively prohibited
};

// The RST for a segment that belongs to nothing (RFC 9293 3.10.7.1), or that is to be refused (wants_reset()). None for
// a RST.
[[nodiscard]] std::optional<wire::Segment> reset_for(const wire::Segment& segment,
                                                     std::uint32_t payload_bytes) noexcept;

// A segment for a port that listens and that belongs to no connection (RFC 9293 3.10.7.2): kSynAccepted, kBadAck or a
// reason to drop it. Broadcast, multicast and one's own address as source are the caller's to refuse (RFC 1122
// 4.2.3.10).
[[nodiscard]] HandshakeVerdict answer_listen(const wire::Segment& segment) noexcept;

// LISTEN -> SYN-RECEIVED: makes `handshake` anew, a SYN-ACK is due. Data in the SYN is not accepted, unless
// take_syn_data() says so. REQUIRES: answer_listen(syn) == kSynAccepted.
void open_passive(Handshake& handshake, const HandshakeConfig& config, const FlowKey& flow,
                  const InitialNumbers& numbers, const wire::Segment& syn, Time now) noexcept;

// Fast Open, right after open_passive(): `payload_bytes` of the SYN's data are the program's (RFC 7413 4.2.2).
void take_syn_data(Handshake& handshake, std::uint32_t payload_bytes) noexcept;

// The same: what establish() makes the connection of that both sides may use before the peer has acknowledged our
// SYN-ACK. `handshake` itself goes on beside it, to be told of what arrives until it is completed.
// REQUIRES: kSynReceived.
[[nodiscard]] Handshake completed_early(const Handshake& handshake) noexcept;

// CLOSED -> SYN-SENT: makes `handshake` anew, a SYN is due.
void open_active(Handshake& handshake, const HandshakeConfig& config, const FlowKey& flow,
                 const InitialNumbers& numbers, Time now) noexcept;

// A segment of this flow has arrived, checksum verified. REQUIRES: handshake.in_progress().
HandshakeVerdict on_segment(Handshake& handshake, const HandshakeConfig& config, const wire::Segment& segment,
                            std::uint32_t payload_bytes, Time now) noexcept;

// An ICMP error that quotes a segment of this flow whose sequence number was `quoted`. REQUIRES: in_progress().
HandshakeVerdict on_icmp_error(Handshake& handshake, const HandshakeConfig& config, IcmpError error,
                               Seq quoted) noexcept;

// A deadline may have passed. Cheap when none has.
HandshakeTimer on_timer(Handshake& handshake, const HandshakeConfig& config, Time now) noexcept;

// kNever once it is established or over.
[[nodiscard]] Time next_deadline(const Handshake& handshake) noexcept;

// Fast Open, right after open_active(): so much data goes with the first SYN; the caller adds it to the first segment
// of poll_transmit().
void send_syn_data(Handshake& handshake, std::uint32_t bytes) noexcept;

// The path is too narrow for a SYN with data (ICMP, RFC 5927): it goes again at once, without.
void drop_syn_data(Handshake& handshake) noexcept;

// The next segment to send; false when there is none now. On true it counts as sent. None carries payload, but the
// first SYN after send_syn_data().
[[nodiscard]] bool poll_transmit(Handshake& handshake, const HandshakeConfig& config, Time now,
                                 wire::Segment& segment) noexcept;

// The connection that the handshake made. REQUIRES: state is kEstablished.
[[nodiscard]] MinTcp established_state(const Handshake& handshake, const HandshakeConfig& config, Time now) noexcept;

// The same, installed into `cb`; an ACK is owed exactly when the peer waits for one. REQUIRES: state is kEstablished.
// kInvalid when `config.settings` are such that install() refuses them.
Result<> establish(ControlBlock& cb, const Handshake& handshake, const HandshakeConfig& config, Time now);

// ABORT (RFC 9293 3.10.5): the handshake is over. The RST that tells the peer; none in SYN-SENT, as the peer may know
// nothing of us. REQUIRES: in_progress().
[[nodiscard]] std::optional<wire::Segment> abort_handshake(Handshake& handshake) noexcept;

}  // namespace twinstack::tcp
