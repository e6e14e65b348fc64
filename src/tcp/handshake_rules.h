// handshake_rules: what the files handshake*.cc share. Nothing outside of them includes it.
#pragma once

#include <cstdint>

#include "tcp/handshake.h"

namespace twinstack::tcp {

// --- handshake_options.cc: negotiation ---

// What `config` lets us offer, without ECN.
[[nodiscard]] std::uint8_t offered_options(const HandshakeConfig& config) noexcept;
// The MSS option that we send (RFC 6691).
[[nodiscard]] std::uint16_t announced_mss(const HandshakeConfig& config) noexcept;
// Chooses rcv_wnd and rcv_wscale for the options in `handshake`.
void choose_receive_window(Handshake& handshake, const HandshakeConfig& config) noexcept;
// Takes what the peer's SYN or SYN-ACK says: sequence number, window, and the options, cut to those that both have.
void take_syn(Handshake& handshake, const HandshakeConfig& config, const wire::Segment& segment) noexcept;
// ECN (RFC 3168 6.1.1): whether we ask for it; whether a listener agrees to what the SYN asks; what we asked for is off
// unless the peer's SYN or SYN-ACK confirms it.
[[nodiscard]] bool asks_for_ecn(const HandshakeConfig& config) noexcept;
[[nodiscard]] bool agrees_to_ecn(const HandshakeConfig& config, const wire::Segment& syn) noexcept;
void confirm_ecn(Handshake& handshake, const wire::Segment& segment) noexcept;
// The SYN, or in SYN-RECEIVED the SYN-ACK, to send now; the ACK for what was not acceptable.
[[nodiscard]] wire::Segment make_syn(const Handshake& handshake, const HandshakeConfig& config, Time now) noexcept;
[[nodiscard]] wire::Segment make_ack(const Handshake& handshake, Time now) noexcept;

// --- handshake.cc: state ---

// Makes `handshake` anew in `state`, a SYN or SYN-ACK due.
void begin_handshake(Handshake& handshake, const HandshakeConfig& config, const FlowKey& flow,
                     const InitialNumbers& numbers, HandshakeState state, Time now) noexcept;
// Plans a SYN-ACK that is no retransmission.
void enter_syn_received(Handshake& handshake) noexcept;
// SEG.ACK acknowledges our SYN, and nothing else: SND.UNA < SEG.ACK =< SND.NXT.
[[nodiscard]] bool acknowledges_syn(const Handshake& handshake, const wire::Segment& segment) noexcept;
// The segment echoes no timestamp, or one that we sent.
[[nodiscard]] bool echo_plausible(const Handshake& handshake, const wire::Segment& segment) noexcept;
// Established: takes window and round trip from the segment that acknowledged our SYN.
HandshakeVerdict complete_handshake(Handshake& handshake, const wire::Segment& segment, Time now) noexcept;
HandshakeVerdict end_handshake(Handshake& handshake, HandshakeVerdict why) noexcept;
// Whether an answer that could be drawn from us without end may be given now: at most one in 500 ms, as Linux
// tcp_invalid_ratelimit (RFC 5961 7). True counts as given.
[[nodiscard]] bool may_answer(Handshake& handshake, Time now) noexcept;
// Our TSval (RFC 7323 3.2), and nanoseconds in its unit.
[[nodiscard]] std::uint32_t ts_clock(const Handshake& handshake, Time now) noexcept;
[[nodiscard]] std::int64_t ts_unit_ns(const Handshake& handshake) noexcept;

// --- handshake_active.cc, handshake_passive.cc: arrivals ---

HandshakeVerdict arrive_in_syn_sent(Handshake& handshake, const HandshakeConfig& config, const wire::Segment& segment,
                                    Time now) noexcept;
HandshakeVerdict arrive_in_syn_received(Handshake& handshake, const wire::Segment& segment, std::uint32_t payload_bytes,
                                        Time now) noexcept;

}  // namespace twinstack::tcp
