// SYN-SENT (RFC 9293 3.10.7.3) and ICMP errors.
#include <algorithm>

#include "base/assert.h"
#include "tcp/handshake_rules.h"

namespace twinstack::tcp {

namespace {

// The reset that answers an ACK of an older connection ends that one at the peer (RFC 9293 3.5.1, figure 9): our SYN is
// worth another try at once. Linux TCP_TIMEOUT_MIN.
constexpr Duration kSynAgainAfterReset = std::chrono::milliseconds(2);

void send_syn_again_soon(Handshake& handshake, Time now) noexcept {
  const bool first = handshake.has(kHsSent) && handshake.timeouts == 0;  // once: an attacker could go on
  if (first) handshake.deadline = std::min(handshake.deadline, now + kSynAgainAfterReset);
}

// First: check the ACK bit. A RST is no answer to a RST.
HandshakeVerdict refuse(const wire::Segment& segment, HandshakeVerdict why) noexcept {
  return segment.has(wire::kRst) ? HandshakeVerdict::kDroppedReset : why;
}

// Our SYN was acknowledged by the peer's: ESTABLISHED.
HandshakeVerdict take_syn_ack(Handshake& handshake, const HandshakeConfig& config, const wire::Segment& segment,
                              Time now) noexcept {
  take_syn(handshake, config, segment);
  confirm_ecn(handshake, segment);
  return complete_handshake(handshake, segment, now);
}

// The peer's SYN met ours (RFC 9293 3.5, figure 7): SYN-RECEIVED.
HandshakeVerdict take_crossing_syn(Handshake& handshake, const HandshakeConfig& config,
                                   const wire::Segment& segment) noexcept {
  take_syn(handshake, config, segment);
  confirm_ecn(handshake, segment);
  handshake.set(kHsSimultaneous);
  enter_syn_received(handshake);
  return HandshakeVerdict::kSimultaneousOpen;
}

}  // namespace

void open_active(Handshake& handshake, const HandshakeConfig& config, const FlowKey& flow,
                 const InitialNumbers& numbers, Time now) noexcept {
  begin_handshake(handshake, config, flow, numbers, HandshakeState::kSynSent, now);
  if (asks_for_ecn(config)) handshake.options |= kOptEcn;
  choose_receive_window(handshake, config);
}

HandshakeVerdict arrive_in_syn_sent(Handshake& handshake, const HandshakeConfig& config, const wire::Segment& segment,
                                    Time now) noexcept {
  const bool has_ack = segment.has(wire::kAck);
  if (has_ack && !acknowledges_syn(handshake, segment)) {
    const HandshakeVerdict verdict = refuse(segment, HandshakeVerdict::kBadAck);
    send_syn_again_soon(handshake, now);
    return verdict;
  }
  if (!echo_plausible(handshake, segment)) return refuse(segment, HandshakeVerdict::kBadEcho);
  // Second: RST. Without an acceptable ACK anybody could have sent it.
  if (segment.has(wire::kRst)) {
    return has_ack ? end_handshake(handshake, HandshakeVerdict::kRefused) : HandshakeVerdict::kDroppedReset;
  }
  // Third: security, not done, as everyone. Fourth: SYN. Its data and FIN are not accepted, as Linux: they come again.
  if (!segment.has(wire::kSyn)) return HandshakeVerdict::kDroppedNoSyn;
  return has_ack ? take_syn_ack(handshake, config, segment, now) : take_crossing_syn(handshake, config, segment);
}

// RFC 5927 4.1: only ISS is in flight, nothing else can have drawn an error. Linux goes on with a half-open connection
// of a listener on a protocol or port unreachable; its SYN-ACKs would be for nobody.
HandshakeVerdict on_icmp_error(Handshake& handshake, const HandshakeConfig& config, IcmpError error,
                               Seq quoted) noexcept {
  ASSERT(handshake.in_progress());
  if (!handshake.has(kHsSent) || quoted != handshake.iss) return HandshakeVerdict::kDroppedError;
  if (error == IcmpError::kHard || config.soft_errors_abort) {
    return end_handshake(handshake, HandshakeVerdict::kUnreachable);
  }
  handshake.set(kHsSoftError);
  return HandshakeVerdict::kNotedError;
}

}  // namespace twinstack::tcp
