// LISTEN (RFC 9293 3.10.7.2) and SYN-RECEIVED (3.10.7.4), the latter also after a simultaneous open.
#include "base/assert.h"
#include "tcp/handshake_rules.h"
#include "tcp/timestamps.h"

namespace twinstack::tcp {

namespace {

bool is_first_syn_again(const Handshake& handshake, const wire::Segment& segment) noexcept {
  return segment.seq == handshake.irs && segment.has(wire::kSyn) && !segment.has(wire::kAck | wire::kRst);
}

// RFC 9293 3.5, figure 7, line 6: the SYN-ACKs of a simultaneous open cross.
bool is_crossing_syn_ack(const Handshake& handshake, const wire::Segment& segment) noexcept {
  return handshake.has(kHsSimultaneous) && segment.seq == handshake.irs && segment.has(wire::kSyn) &&
         segment.has(wire::kAck) && !segment.has(wire::kRst);
}

// RFC 7323 5.3 R1; resets are exempt (5.2).
bool paws_accepts(const Handshake& handshake, const wire::Segment& segment) noexcept {
  const bool checked = (handshake.options & kOptTimestamps) != 0 && segment.options.has_timestamps;
  return !checked || segment.has(wire::kRst) || !is_older_stamp(segment.options.ts_val, handshake.ts_recent);
}

// RFC 9293 3.10.7.4 first. The window is that of our SYN, as nothing was read since. As Linux, what begins at RCV.NXT
// passes into a closed window too, for the sake of its ACK.
bool in_window(const Handshake& handshake, const wire::Segment& segment, std::uint32_t length) noexcept {
  const Seq left = handshake.irs + 1 + handshake.taken_bytes;
  const Seq right = left + handshake.rcv_wnd;
  const Seq end = segment.seq + length;
  if (segment.seq == left) return true;
  if (end > left && segment.seq < right) return true;
  return length == 0 && segment.seq == right;
}

// SEG.LEN.
std::uint32_t segment_length(const wire::Segment& segment, std::uint32_t payload_bytes) noexcept {
  return payload_bytes + (segment.has(wire::kSyn) ? 1U : 0U) + (segment.has(wire::kFin) ? 1U : 0U);
}

// Not acceptable: answered by an ACK, unless it is a reset. Data is answered always, it comes from no loop of ACKs (as
// Linux tcp_oow_rate_limited()).
HandshakeVerdict drop_unacceptable(Handshake& handshake, const wire::Segment& segment, std::uint32_t length,
                                   HandshakeVerdict why, Time now) noexcept {
  if (segment.has(wire::kRst)) return why;
  const bool is_data = length > 0 && !segment.has(wire::kSyn);
  if (is_data || may_answer(handshake, now)) handshake.set(kHsAckDue);
  return why;
}

// The SYN-ACK was lost, or is slow: it goes again.
HandshakeVerdict answer_duplicate_syn(Handshake& handshake, Time now) noexcept {
  if (!may_answer(handshake, now)) return HandshakeVerdict::kDuplicateSynLimited;
  handshake.set(kHsSynDue);
  return HandshakeVerdict::kDuplicateSyn;
}

// An ACK of what was never sent: refused, whatever else the segment says (RFC 9293 3.5.2, group 2). It comes from an
// older connection, which the reset ends.
bool acknowledges_nothing_of_ours(const Handshake& handshake, const wire::Segment& segment) noexcept {
  return segment.has(wire::kAck) && !acknowledges_syn(handshake, segment);
}

// Second: RST (RFC 5961 3.2): only the exact sequence number counts, what else is in the window draws a challenge.
// Linux lets any in the window end a half-open connection.
HandshakeVerdict check_reset(Handshake& handshake, const wire::Segment& segment, Time now) noexcept {
  if (segment.seq == handshake.irs + 1 + handshake.taken_bytes) {
    // With such an ACK it proves nothing; Linux takes it.
    if (acknowledges_nothing_of_ours(handshake, segment)) return HandshakeVerdict::kDroppedReset;
    return end_handshake(handshake, HandshakeVerdict::kReset);
  }
  if (may_answer(handshake, now)) handshake.set(kHsAckDue);
  return HandshakeVerdict::kDroppedReset;
}

// Fourth: SYN. After a passive open the peer has begun anew, and its next SYN finds the listener; after an active one a
// challenge tells whether it has (RFC 5961 4.2).
HandshakeVerdict check_syn(Handshake& handshake, const wire::Segment& segment, std::uint32_t length,
                           Time now) noexcept {
  const bool begins_anew = handshake.has(kHsPassive) && segment.seq != handshake.irs;
  if (begins_anew) return end_handshake(handshake, HandshakeVerdict::kBackToListen);
  return drop_unacceptable(handshake, segment, length, HandshakeVerdict::kDroppedSyn, now);
}

}  // namespace

HandshakeVerdict answer_listen(const wire::Segment& segment) noexcept {
  if (segment.has(wire::kRst)) return HandshakeVerdict::kDroppedReset;
  if (segment.has(wire::kAck)) return HandshakeVerdict::kBadAck;
  if (!segment.has(wire::kSyn)) return HandshakeVerdict::kDroppedNoSyn;
  return segment.has(wire::kFin) ? HandshakeVerdict::kDroppedSynFin : HandshakeVerdict::kSynAccepted;
}

void open_passive(Handshake& handshake, const HandshakeConfig& config, const FlowKey& flow,
                  const InitialNumbers& numbers, const wire::Segment& syn, Time now) noexcept {
  ASSERT(answer_listen(syn) == HandshakeVerdict::kSynAccepted);
  begin_handshake(handshake, config, flow, numbers, HandshakeState::kSynReceived, now);
  take_syn(handshake, config, syn);
  if (agrees_to_ecn(config, syn)) handshake.options |= kOptEcn;
  choose_receive_window(handshake, config);
}

HandshakeVerdict arrive_in_syn_received(Handshake& handshake, const wire::Segment& segment, std::uint32_t payload_bytes,
                                        Time now) noexcept {
  const std::uint32_t length = segment_length(segment, payload_bytes);
  const auto drop = [&](HandshakeVerdict why) { return drop_unacceptable(handshake, segment, length, why, now); };
  const bool newer = paws_accepts(handshake, segment);
  if (newer && is_first_syn_again(handshake, segment)) return answer_duplicate_syn(handshake, now);
  // A reset is judged by its sequence number first (RFC 9293 3.10.7.4 second).
  if (!segment.has(wire::kRst) && acknowledges_nothing_of_ours(handshake, segment)) return HandshakeVerdict::kBadAck;
  if (!newer) return drop(HandshakeVerdict::kDroppedPaws);
  if (!echo_plausible(handshake, segment)) return drop(HandshakeVerdict::kDroppedEcho);
  if (is_crossing_syn_ack(handshake, segment)) {
    // The peer may have missed the SYN that asked. When an ACK completes us instead, we do not learn that, nor does
    // Linux.
    confirm_ecn(handshake, segment);
    return complete_handshake(handshake, segment, now);
  }
  if (!in_window(handshake, segment, length)) return drop(HandshakeVerdict::kDroppedOutOfWindow);
  if (segment.has(wire::kRst)) return check_reset(handshake, segment, now);
  // Third: security, not done, as everyone.
  if (segment.has(wire::kSyn)) return check_syn(handshake, segment, length, now);
  if (!segment.has(wire::kAck)) return HandshakeVerdict::kDroppedNoAck;
  return complete_handshake(handshake, segment, now);
}

}  // namespace twinstack::tcp
