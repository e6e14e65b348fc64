// What a SYN offers, what two SYNs agree upon, and the segments that say so (RFC 9293 3.7.1, RFC 7323 2 and 3.2, RFC
// 2018 2, RFC 3168 6.1.1).
#include <algorithm>
#include <bit>

#include "tcp/handshake_rules.h"
#include "wire/tcp_options.h"

namespace twinstack::tcp {

namespace {

constexpr std::uint16_t kDefaultMssV4 = 536;   // RFC 9293 3.7.1, when the peer sends no MSS option
constexpr std::uint16_t kDefaultMssV6 = 1220;  // the same
constexpr std::uint32_t kMostUnscaled = 65535;
constexpr std::uint32_t kMostScaled = kMostUnscaled << wire::kMaxWindowScale;

// A listed MSS of 0 is none, as on Linux.
std::uint16_t peer_mss(const Handshake& handshake, const HandshakeConfig& config, const wire::TcpOptions& options) {
  std::uint16_t mss = handshake.flow.is_v4() ? kDefaultMssV4 : kDefaultMssV6;
  if (options.has_mss && options.mss != 0) mss = options.mss;
  return config.user_mss == 0 ? mss : std::min(mss, config.user_mss);
}

void drop_option(Handshake& handshake, std::uint8_t bits) noexcept {
  handshake.options = static_cast<std::uint8_t>(handshake.options & ~bits);
}

// An option is used when both SYNs carry it. A SYN-ACK in answer to ours carries what we offered, or less.
void agree(Handshake& handshake, const wire::TcpOptions& theirs) noexcept {
  if (!theirs.has_timestamps) drop_option(handshake, kOptTimestamps);
  if (!theirs.sack_permitted) drop_option(handshake, kOptSack);
  if (!theirs.has_window_scale) drop_option(handshake, kOptWindowScale);
  if ((handshake.options & kOptTimestamps) == 0) drop_option(handshake, kOptTsMicroseconds);
  if ((handshake.options & kOptWindowScale) == 0) {
    handshake.snd_wscale = handshake.rcv_wscale = 0;
  } else {
    handshake.snd_wscale = std::min(theirs.window_scale, wire::kMaxWindowScale);  // RFC 7323 2.3
  }
}

bool is_ecn_setup_syn(const wire::Segment& segment) noexcept {
  return segment.has(wire::kEce) && segment.has(wire::kCwr);
}

bool is_ecn_setup_syn_ack(const wire::Segment& segment) noexcept {
  return segment.has(wire::kEce) && !segment.has(wire::kCwr);
}

std::uint8_t ecn_flags(const Handshake& handshake, bool syn_ack) noexcept {
  if ((handshake.options & kOptEcn) == 0) return 0;
  if (syn_ack) return wire::kEce;
  // RFC 3168 6.1.1.1: what drops the first may let one through that does not ask. Should the SYN-ACK confirm the first
  // all the same, ECN is on, as on Linux. 6.1.1 would then not let us mark our data, but the peer marks its own, and
  // the core knows no ECN for one direction.
  return handshake.has(kHsFirstOfKind) ? wire::kEce | wire::kCwr : 0;
}

void stamp(const Handshake& handshake, Time now, bool echo, wire::TcpOptions& options) noexcept {
  if ((handshake.options & kOptTimestamps) == 0) return;
  options.has_timestamps = true;
  options.ts_val = ts_clock(handshake, now);
  options.ts_ecr = echo ? handshake.ts_recent : 0;  // RFC 7323 3.2: zero without ACK
}

// Where it fits, as Linux.
void offer_fast_open(const HandshakeConfig& config, wire::TcpOptions& options) noexcept {
  options.fast_open = config.fast_open;
  if (wire::options_bytes(options) > wire::kMaxOptionBytes) options.fast_open = {};
}

}  // namespace

std::uint8_t offered_options(const HandshakeConfig& config) noexcept {
  constexpr unsigned kOffered = kOptTimestamps | kOptSack | kOptWindowScale | kOptTsMicroseconds;
  return static_cast<std::uint8_t>(config.options & kOffered);
}

std::uint16_t announced_mss(const HandshakeConfig& config) noexcept {
  return config.user_mss == 0 ? config.announced_mss : std::min(config.announced_mss, config.user_mss);
}

// As Linux tcp_select_initial_window(): the window is a multiple of full segments, the scale such that all that the
// buffer may grow to can be told.
void choose_receive_window(Handshake& handshake, const HandshakeConfig& config) noexcept {
  const bool stamped = handshake.state == HandshakeState::kSynReceived && (handshake.options & kOptTimestamps) != 0;
  const std::uint32_t options = stamped ? wire::kTimestampBytes : 0;  // of each segment of the peer, as far as known
  const std::uint32_t mss = announced_mss(config);
  const std::uint32_t full_segment = mss > options ? mss - options : 1;
  std::uint32_t space = std::min(config.receive_space_bytes, kMostScaled);
  if (space > full_segment) space -= space % full_segment;
  handshake.rcv_wnd = static_cast<std::uint16_t>(std::min(space, kMostUnscaled));
  handshake.rcv_wscale = 0;
  if ((handshake.options & kOptWindowScale) == 0) return;
  const std::uint32_t most = std::min(std::max(space, config.receive_space_limit_bytes), kMostScaled);
  const int scale = static_cast<int>(std::bit_width(most)) - 16;
  handshake.rcv_wscale = static_cast<std::uint8_t>(std::clamp<int>(scale, 0, wire::kMaxWindowScale));
}

void take_syn(Handshake& handshake, const HandshakeConfig& config, const wire::Segment& segment) noexcept {
  handshake.irs = segment.seq;
  handshake.snd_wl1 = segment.seq;
  handshake.snd_wnd = handshake.max_window = segment.window;  // never scaled (RFC 7323 2.2)
  handshake.peer_mss = peer_mss(handshake, config, segment.options);
  agree(handshake, segment.options);
  handshake.ts_recent = (handshake.options & kOptTimestamps) != 0 ? segment.options.ts_val : 0;
}

bool asks_for_ecn(const HandshakeConfig& config) noexcept {
  return config.ecn == EcnMode::kRequest || config.ecn_required;
}

bool agrees_to_ecn(const HandshakeConfig& config, const wire::Segment& syn) noexcept {
  if (!is_ecn_setup_syn(syn)) return false;
  if (config.ecn_required) return true;
  // RFC 3168 6.1.1 lets no SYN be ECN-capable: what marks it so rewrites the field, and marks cannot be trusted (as
  // Linux).
  return config.ecn != EcnMode::kOff && syn.ecn == wire::Ecn::kNotEct;
}

void confirm_ecn(Handshake& handshake, const wire::Segment& segment) noexcept {
  const bool confirmed = segment.has(wire::kAck) ? is_ecn_setup_syn_ack(segment) : is_ecn_setup_syn(segment);
  if (!confirmed) drop_option(handshake, kOptEcn);
}

wire::Segment make_syn(const Handshake& handshake, const HandshakeConfig& config, Time now) noexcept {
  const bool syn_ack = handshake.state == HandshakeState::kSynReceived;
  wire::Segment segment;
  segment.seq = handshake.iss;
  if (syn_ack) segment.ack = handshake.irs + 1 + handshake.taken_bytes;
  segment.window = handshake.rcv_wnd;
  const std::uint8_t ecn = ecn_flags(handshake, syn_ack);
  segment.flags = static_cast<std::uint8_t>(wire::kSyn | (syn_ack ? wire::kAck : 0) | ecn);
  if (ecn != 0 && config.ecn_required) segment.ecn = wire::Ecn::kEct0;
  segment.options.has_mss = true;  // RFC 9293 3.7.1: SHOULD in every SYN
  segment.options.mss = announced_mss(config);
  segment.options.sack_permitted = (handshake.options & kOptSack) != 0;
  segment.options.has_window_scale = (handshake.options & kOptWindowScale) != 0;
  segment.options.window_scale = handshake.rcv_wscale;
  stamp(handshake, now, syn_ack, segment.options);
  // A SYN that crossed ours has no use for it. What drops the first may let one through that does not ask.
  const bool answers = handshake.has(kHsPassive) == syn_ack;
  if (answers && handshake.has(kHsFirstOfKind) && config.fast_open.present) offer_fast_open(config, segment.options);
  return segment;
}

wire::Segment make_ack(const Handshake& handshake, Time now) noexcept {
  wire::Segment segment;
  segment.seq = handshake.iss + 1;
  segment.ack = handshake.irs + 1 + handshake.taken_bytes;
  segment.flags = wire::kAck;
  // Rounded up, as the core does: the right edge that the SYN told must not move left (RFC 9293 3.8.6).
  const std::uint32_t unit = 1U << handshake.rcv_wscale;
  segment.window = static_cast<std::uint16_t>((handshake.rcv_wnd + unit - 1) >> handshake.rcv_wscale);
  stamp(handshake, now, true, segment.options);
  return segment;
}

}  // namespace twinstack::tcp
