#include "tcp/handshake.h"

#include <algorithm>
#include <array>

#include "base/assert.h"
#include "tcp/connection.h"
#include "tcp/handshake_rules.h"
#include "tcp/rtt.h"
#include "wire/tcp_options.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint32_t kRtoAfterTimeoutUs = 3'000'000;  // RFC 6298 5.7
constexpr std::uint16_t kSmallestSendMss = 48;           // Linux tcp_min_snd_mss: all options and eight bytes
constexpr Duration kAnswerInterval = std::chrono::milliseconds(500);
constexpr int kMostDoublings = 16;

void close(Handshake& handshake) noexcept {
  handshake.state = HandshakeState::kClosed;
  handshake.clear(kHsSynDue | kHsAckDue);
}

Duration user_timeout(const HandshakeConfig& config) noexcept {
  return std::chrono::milliseconds(config.settings.user_timeout_ms);
}

// Half-open connections are not the program's yet: it has set no timeout for them.
bool limited_by_user(const Handshake& handshake, const HandshakeConfig& config) noexcept {
  return !handshake.has(kHsPassive) && config.settings.user_timeout_ms != 0;
}

int linear_timeouts(const Handshake& handshake, const HandshakeConfig& config) noexcept {
  return handshake.has(kHsPassive) ? 0 : config.syn_linear_timeouts;
}

int allowed_timeouts(const Handshake& handshake, const HandshakeConfig& config) noexcept {
  if (handshake.has(kHsPassive)) return config.synack_retries;
  return std::min<int>(config.syn_retries + config.syn_linear_timeouts, UINT8_MAX);
}

// RFC 6298 5.5.
Duration retransmission_interval(const Handshake& handshake, const HandshakeConfig& config) noexcept {
  const int doublings = std::clamp(handshake.timeouts - linear_timeouts(handshake, config), 0, kMostDoublings);
  const std::uint64_t interval_us = std::uint64_t{config.initial_rto_us} << doublings;
  return std::chrono::microseconds(std::min<std::uint64_t>(interval_us, kMaxRtoUs));
}

void arm_timer(Handshake& handshake, const HandshakeConfig& config, Time now) noexcept {
  handshake.deadline = now + retransmission_interval(handshake, config);
  if (!limited_by_user(handshake, config) || handshake.timeouts == 0) return;  // the first is not hurried, as Linux
  handshake.deadline = std::min(handshake.deadline, handshake.first_sent + user_timeout(config));
}

// Linux retransmits_timed_out(): SYNs go on no longer than they would if each timeout doubled, however few did.
Duration longest_opening(const HandshakeConfig& config) noexcept {
  const int doublings = std::min<int>(config.syn_retries, kMostDoublings);
  return std::chrono::microseconds((std::uint64_t{2} << doublings) * config.initial_rto_us - config.initial_rto_us);
}

bool exhausted(const Handshake& handshake, const HandshakeConfig& config, Time now) noexcept {
  if (handshake.timeouts >= allowed_timeouts(handshake, config)) return true;
  if (!handshake.has(kHsPassive) && now >= handshake.first_sent + longest_opening(config)) return true;
  return limited_by_user(handshake, config) && now >= handshake.first_sent + user_timeout(config);
}

void note_syn_sent(Handshake& handshake, const HandshakeConfig& config, Time now) noexcept {
  handshake.last_ts_val = ts_clock(handshake, now);
  if (!handshake.has(kHsSent)) {
    handshake.first_sent = now;
    handshake.first_ts_val = handshake.last_ts_val;
  }
  if (!handshake.has(kHsFirstOfKind) && handshake.retransmissions < UINT8_MAX) ++handshake.retransmissions;
  handshake.set(kHsSent);
  handshake.clear(kHsSynDue | kHsFirstOfKind | kHsAckDue);  // a SYN-ACK says all that the ACK would
  // As Linux, the timer starts anew also when the peer's SYN drew the SYN-ACK, but not for ever: SYNs that come twice a
  // second would keep the entry of a listener's table from ending.
  if (handshake.retransmissions <= allowed_timeouts(handshake, config)) arm_timer(handshake, config, now);
}

// Karn's algorithm (RFC 6298 3): what was sent once is timed; else the echo says which one was answered.
std::uint32_t measure_rtt_us(const Handshake& handshake, const wire::Segment& segment, Time now) noexcept {
  if (handshake.retransmissions == 0 && !handshake.has(kHsSimultaneous)) {
    const auto elapsed = std::chrono::duration_cast<std::chrono::microseconds>(now - handshake.first_sent).count();
    return static_cast<std::uint32_t>(std::clamp<std::int64_t>(elapsed, 1, kMaxRtoUs));
  }
  const bool echoed = (handshake.options & kOptTimestamps) != 0 && segment.options.has_timestamps;
  if (!echoed || segment.options.ts_ecr == 0) return 0;
  const std::uint32_t units = std::max<std::uint32_t>(ts_clock(handshake, now) - segment.options.ts_ecr, 1);
  const std::uint64_t us = std::uint64_t{units} * static_cast<std::uint64_t>(ts_unit_ns(handshake)) / 1000;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(us, kMaxRtoUs));
}

// As Linux tcp_try_undo_spurious_syn(): the echo of the first stamp says that nothing had been lost.
bool first_was_answered(const Handshake& handshake, const wire::Segment& segment) noexcept {
  return (handshake.options & kOptTimestamps) != 0 && segment.options.has_timestamps &&
         segment.options.ts_ecr == handshake.first_ts_val;
}

// RFC 6928 2, as Linux tcp_init_transfer(): one segment when more than one retransmission was needed. A single one is
// more often the fault of an RTO of 1 s than of congestion.
std::uint32_t initial_cwnd(const Handshake& handshake, const HandshakeConfig& config) noexcept {
  const bool lost = handshake.retransmissions > 1 && handshake.timeouts > 0 && !handshake.has(kHsFirstAnswered);
  return lost ? 1U : std::max<std::uint32_t>(config.initial_cwnd_segments, 1);
}

void give_sequences(const Handshake& handshake, MinTcp& state) noexcept {
  state.snd_una = state.snd_nxt = state.write_seq = (handshake.iss + 1 + handshake.acked_bytes).raw();
  state.bytes_acked = handshake.acked_bytes;
  state.snd_wl1 = handshake.snd_wl1.raw();
  state.snd_wnd = handshake.snd_wnd;
  state.max_window = handshake.max_window;
  state.rcv_nxt = state.copied_seq = state.rcv_wup = (handshake.irs + 1 + handshake.taken_bytes).raw();
  state.rcv_wnd = handshake.rcv_wnd;
}

void give_negotiated(const Handshake& handshake, const HandshakeConfig& config, Time now, MinTcp& state) noexcept {
  const bool timestamps = (handshake.options & kOptTimestamps) != 0;
  state.options = handshake.options;
  state.snd_wscale = handshake.snd_wscale;
  state.rcv_wscale = handshake.rcv_wscale;
  state.mss_clamp = handshake.peer_mss;
  // A peer's MSS of 1 must not make us send a packet for each byte (CVE-2019-11479).
  state.mss = std::max(std::min(handshake.peer_mss, config.path_mss), kSmallestSendMss);
  // What was announced less the options of each segment, as tcpi_advmss tells.
  const std::uint16_t announced = announced_mss(config);
  const std::uint16_t options = timestamps ? std::uint16_t{wire::kTimestampBytes} : std::uint16_t{0};
  state.advmss = static_cast<std::uint16_t>(announced - std::min(announced, options));
  state.ts_val = timestamps ? ts_clock(handshake, now) : 0;
  state.ts_recent = handshake.ts_recent;
}

// RFC 6298 2.2: the handshake's round trip is the first sample.
void give_estimates(const Handshake& handshake, const HandshakeConfig& config, MinTcp& state) noexcept {
  state.srtt_us = state.min_rtt_us = handshake.rtt_us;
  state.rttvar_us = handshake.rtt_us / 2;
  if (handshake.rtt_us == 0) {
    state.rto_us = handshake.timeouts > 0 ? kRtoAfterTimeoutUs : config.initial_rto_us;
  } else {
    const std::uint64_t rto = std::uint64_t{state.srtt_us} + std::max(4 * state.rttvar_us, kMinVarianceUs);
    state.rto_us = static_cast<std::uint32_t>(std::min<std::uint64_t>(rto, kMaxRtoUs));
  }
  state.stalled_us = 0;
  state.cwnd_segments = initial_cwnd(handshake, config);
  state.ssthresh_segments = kInfiniteSsthresh;
  state.reordering_segments = 3;
}

}  // namespace

void begin_handshake(Handshake& handshake, const HandshakeConfig& config, const FlowKey& flow,
                     const InitialNumbers& numbers, HandshakeState state, Time now) noexcept {
  handshake = Handshake{};
  handshake.flow = flow;
  handshake.state = state;
  handshake.options = offered_options(config);
  handshake.iss = numbers.iss;
  handshake.ts_offset = numbers.ts_offset;
  handshake.first_sent = now;
  handshake.last_answer = now - 2 * kAnswerInterval;  // the first is free
  handshake.set(kHsSynDue | kHsFirstOfKind);
  if (state == HandshakeState::kSynReceived) handshake.set(kHsPassive);
  arm_timer(handshake, config, now);
}

void enter_syn_received(Handshake& handshake) noexcept {
  handshake.state = HandshakeState::kSynReceived;
  handshake.set(kHsSynDue | kHsFirstOfKind);
}

bool acknowledges_syn(const Handshake& handshake, const wire::Segment& segment) noexcept {
  const std::uint32_t data_bytes = segment.ack.raw() - (handshake.iss + 1).raw();  // of the SYN's
  return handshake.has(kHsSent) && data_bytes <= handshake.syn_bytes;
}

// As Linux since 6.14; RFC 7323 says nothing of echoes out of range. An echo of 0 is none.
bool echo_plausible(const Handshake& handshake, const wire::Segment& segment) noexcept {
  const bool expected = (handshake.options & kOptTimestamps) != 0 && segment.has(wire::kAck);
  if (!expected || !segment.options.has_timestamps || segment.options.ts_ecr == 0) return true;
  return segment.options.ts_ecr - handshake.first_ts_val <= handshake.last_ts_val - handshake.first_ts_val;
}

bool may_answer(Handshake& handshake, Time now) noexcept {
  const Duration since = now - handshake.last_answer;
  if (since >= Duration::zero() && since < kAnswerInterval) return false;
  handshake.last_answer = now;
  return true;
}

HandshakeVerdict complete_handshake(Handshake& handshake, const wire::Segment& segment, Time now) noexcept {
  const bool syn_ack = segment.has(wire::kSyn);
  const std::uint32_t window = std::uint32_t{segment.window} << (syn_ack ? 0 : handshake.snd_wscale);  // RFC 7323 2.2
  handshake.snd_wnd = window;
  handshake.max_window = std::max(handshake.max_window, window);
  handshake.snd_wl1 = segment.seq;
  const bool stamped = (handshake.options & kOptTimestamps) != 0 && segment.options.has_timestamps;
  if (stamped && segment.seq <= handshake.irs + 1 + handshake.taken_bytes)
    handshake.ts_recent = segment.options.ts_val;  // RFC 7323 4.3 (2)
  handshake.acked_bytes = static_cast<std::uint16_t>(segment.ack.raw() - (handshake.iss + 1).raw());
  handshake.rtt_us = measure_rtt_us(handshake, segment, now);
  if (first_was_answered(handshake, segment)) handshake.set(kHsFirstAnswered);
  handshake.state = HandshakeState::kEstablished;
  handshake.clear(kHsSynDue | kHsAckDue);
  if (!syn_ack) handshake.set(kHsByAck);
  return syn_ack ? HandshakeVerdict::kCompletedBySynAck : HandshakeVerdict::kCompletedByAck;
}

HandshakeVerdict end_handshake(Handshake& handshake, HandshakeVerdict why) noexcept {
  close(handshake);
  return why;
}

std::int64_t ts_unit_ns(const Handshake& handshake) noexcept {
  return (handshake.options & kOptTsMicroseconds) != 0 ? 1'000 : 1'000'000;
}

std::uint32_t ts_clock(const Handshake& handshake, Time now) noexcept {
  return handshake.ts_offset + static_cast<std::uint32_t>(now.time_since_epoch().count() / ts_unit_ns(handshake));
}

HandshakeVerdict on_segment(Handshake& handshake, const HandshakeConfig& config, const wire::Segment& segment,
                            std::uint32_t payload_bytes, Time now) noexcept {
  ASSERT(handshake.in_progress());
  if (handshake.state == HandshakeState::kSynSent) return arrive_in_syn_sent(handshake, config, segment, now);
  return arrive_in_syn_received(handshake, segment, payload_bytes, now);
}

HandshakeTimer on_timer(Handshake& handshake, const HandshakeConfig& config, Time now) noexcept {
  if (now < next_deadline(handshake)) return HandshakeTimer::kNothing;
  if (exhausted(handshake, config, now)) {
    close(handshake);
    return HandshakeTimer::kGaveUp;
  }
  ++handshake.timeouts;
  handshake.set(kHsSynDue);
  arm_timer(handshake, config, now);
  return HandshakeTimer::kFired;
}

Time next_deadline(const Handshake& handshake) noexcept {
  return handshake.in_progress() ? handshake.deadline : kNever;
}

bool poll_transmit(Handshake& handshake, const HandshakeConfig& config, Time now, wire::Segment& segment) noexcept {
  if (handshake.has(kHsSynDue)) {
    segment = make_syn(handshake, config, now);
    note_syn_sent(handshake, config, now);
    return true;
  }
  if (!handshake.has(kHsAckDue)) return false;
  segment = make_ack(handshake, now);
  handshake.last_ts_val = ts_clock(handshake, now);  // may be echoed, too
  handshake.clear(kHsAckDue);
  return true;
}

MinTcp established_state(const Handshake& handshake, const HandshakeConfig& config, Time now) noexcept {
  ASSERT(handshake.state == HandshakeState::kEstablished);
  MinTcp state = config.settings;
  state.version = kMinTcpVersion;
  state.size_bytes = sizeof(MinTcp);
  state.flow = handshake.flow;
  give_sequences(handshake, state);
  give_negotiated(handshake, config, now, state);
  give_estimates(handshake, config, state);
  return state;
}

Result<> establish(ControlBlock& cb, const Handshake& handshake, const HandshakeConfig& config, Time now) {
  TRY(install(cb, established_state(handshake, config, now), now));
  // install() owes an ACK, as after a move. The peer that sent the ACK waits for none.
  if (handshake.has(kHsByAck)) cb.clear(kAckOwed | kAckNow);
  cb.delivered = 1;                             // our SYN (as Linux), before the congestion control
  set_congestion(cb, cb.congestion_kind, now);  // begins to count
  return {};
}

void take_syn_data(Handshake& handshake, std::uint32_t payload_bytes) noexcept {
  ASSERT(handshake.state == HandshakeState::kSynReceived && !handshake.has(kHsSent) && payload_bytes <= UINT16_MAX);
  handshake.taken_bytes = static_cast<std::uint16_t>(payload_bytes);
}

// The window is that of the SYN, and nothing was measured yet.
Handshake completed_early(const Handshake& handshake) noexcept {
  ASSERT(handshake.state == HandshakeState::kSynReceived);
  Handshake done = handshake;
  done.state = HandshakeState::kEstablished;
  done.set(kHsByAck);
  return done;
}

void send_syn_data(Handshake& handshake, std::uint32_t bytes) noexcept {
  ASSERT(handshake.state == HandshakeState::kSynSent && !handshake.has(kHsSent) && bytes <= UINT16_MAX);
  handshake.syn_bytes = static_cast<std::uint16_t>(bytes);
}

void drop_syn_data(Handshake& handshake) noexcept {
  if (handshake.state == HandshakeState::kSynSent && handshake.has(kHsSent)) handshake.set(kHsSynDue);
}

std::optional<wire::Segment> abort_handshake(Handshake& handshake) noexcept {
  ASSERT(handshake.in_progress());
  const bool peer_knows = handshake.state == HandshakeState::kSynReceived && handshake.has(kHsSent);
  close(handshake);
  if (!peer_knows) return std::nullopt;
  wire::Segment reset;
  reset.seq = handshake.iss + 1;
  reset.ack = handshake.irs + 1 + handshake.taken_bytes;
  reset.flags = wire::kRst | wire::kAck;
  return reset;
}

std::optional<wire::Segment> reset_for(const wire::Segment& segment, std::uint32_t payload_bytes) noexcept {
  if (segment.has(wire::kRst)) return std::nullopt;
  wire::Segment reset;
  reset.flags = wire::kRst;
  if (segment.has(wire::kAck)) {
    reset.seq = segment.ack;
    return reset;
  }
  const std::uint32_t controls = (segment.has(wire::kSyn) ? 1U : 0U) + (segment.has(wire::kFin) ? 1U : 0U);
  reset.ack = segment.seq + payload_bytes + controls;  // SEG.SEQ + SEG.LEN
  reset.flags |= wire::kAck;
  return reset;
}

std::string_view name(HandshakeVerdict verdict) noexcept {
  static constexpr std::array<std::string_view, kHandshakeVerdicts> kNames = {
      "syn-accepted",
      "simultaneous-open",
      "duplicate-syn",
      "duplicate-syn-limited",
      "completed-by-ack",
      "completed-by-syn-ack",
      "dropped-reset",
      "dropped-no-syn",
      "dropped-syn-fin",
      "dropped-syn",
      "dropped-paws",
      "dropped-echo",
      "dropped-out-of-window",
      "dropped-no-ack",
      "noted-error",
      "dropped-error",
      "bad-ack",
      "bad-echo",
      "refused",
      "reset",
      "back-to-listen",
      "unreachable",
  };
  const auto index = static_cast<std::size_t>(verdict);
  return index < kNames.size() ? kNames[index] : "unknown";
}

}  // namespace twinstack::tcp
