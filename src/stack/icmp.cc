// ICMP errors: what they say of a connection, and the cache of path MTUs. A message is believed only when the sequence
// number that it quotes is in flight (RFC 5927 4.1); a soft error ends no connection (RFC 1122 4.2.3.9), it only tells
// why should it time out.
#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/assert.h"
#include "stack/stack.h"
#include "tcp/connection.h"
#include "wire/build.h"

namespace twinstack::stack {

namespace {

struct Meaning {
  int error;
  bool fatal;  // to a connection that is being opened, whatever RFC 5461 says
};

constexpr std::uint8_t kLastUnreachable = 15;  // RFC 1812 5.2.7.1

// Linux icmp_err_convert[], icmpv6_err_convert().
Meaning unreachable_v4(std::uint8_t code) noexcept {
  static constexpr std::array<Meaning, kLastUnreachable + 1> kByCode = {{{ENETUNREACH, false},
                                                                         {EHOSTUNREACH, false},
                                                                         {ENOPROTOOPT, true},
                                                                         {ECONNREFUSED, true},
                                                                         {EMSGSIZE, false},
                                                                         {EOPNOTSUPP, false},
                                                                         {ENETUNREACH, true},
                                                                         {EHOSTDOWN, true},
                                                                         {ENONET, true},
                                                                         {ENETUNREACH, true},
                                                                         {EHOSTUNREACH, true},
                                                                         {ENETUNREACH, false},
                                                                         {EHOSTUNREACH, false},
                                                                         {EHOSTUNREACH, true},
                                                                         {EHOSTUNREACH, true},
                                                                         {EHOSTUNREACH, true}}};
  ASSERT(code <= kLastUnreachable);
  return kByCode[code];
}

Meaning unreachable_v6(std::uint8_t code) noexcept {
  static constexpr std::array<Meaning, 7> kByCode = {{{ENETUNREACH, false},
                                                      {EACCES, true},
                                                      {EHOSTUNREACH, false},
                                                      {EHOSTUNREACH, false},
                                                      {ECONNREFUSED, true},
                                                      {EACCES, true},
                                                      {EACCES, true}}};
  return code < kByCode.size() ? kByCode[code] : Meaning{EPROTO, false};
}

Meaning meaning_of(const wire::IcmpError& error) noexcept {
  switch (error.kind) {
    case wire::IcmpKind::kUnreachable:
      return error.flow.is_v4() ? unreachable_v4(error.code) : unreachable_v6(error.code);
    case wire::IcmpKind::kParameterProblem:
      return {EPROTO, true};
    case wire::IcmpKind::kTooBig:
      return {EMSGSIZE, false};
    case wire::IcmpKind::kTimeExceeded:
      break;
  }
  return {EHOSTUNREACH, false};
}

tcp::IcmpError class_of(const Meaning& meaning) noexcept {
  return meaning.fatal ? tcp::IcmpError::kHard : tcp::IcmpError::kSoft;
}

constexpr std::uint32_t kSmallestMtuV6 = 1280;  // RFC 8200 5
constexpr std::size_t kMostPathMtus = 4096;

std::uint32_t head_bytes(bool v4) noexcept { return (v4 ? wire::kIpv4Bytes : wire::kIpv6Bytes) + wire::kTcpBytes; }

}  // namespace

void SoftStack::on_icmp_error(const wire::IcmpError& error, Time now) {
  const bool unknown =
      error.kind == wire::IcmpKind::kUnreachable && error.flow.is_v4() && error.code > kLastUnreachable;
  Endpoint* const endpoint = find(error.flow);
  if (unknown || endpoint == nullptr || endpoint->kind == Endpoint::Kind::kTimeWait) {
    ++stats_.out_of_window_icmps;
    return;
  }
  if (endpoint->kind == Endpoint::Kind::kHalfOpen) {
    icmp_at_half_open(static_cast<HalfOpen&>(*endpoint), error);
  } else if (auto& socket = static_cast<Socket&>(*endpoint); socket.opening) {
    icmp_at_opening(socket, error, now);
  } else {
    icmp_at_connection(socket, error, now);
  }
  deliver_wakes();
}

// SYNs are small: none can have been too large.
void SoftStack::icmp_at_half_open(HalfOpen& half, const wire::IcmpError& error) {
  if (error.kind == wire::IcmpKind::kTooBig) return;
  const auto verdict = tcp::on_icmp_error(half.handshake, half.config, class_of(meaning_of(error)), error.seq);
  if (verdict == tcp::HandshakeVerdict::kDroppedError) {
    ++stats_.out_of_window_icmps;
    return;
  }
  ++stats_.icmps;
  if (!tcp::is_over(verdict)) return;
  ++stats_.attempt_fails;
  drop_half_open(half);
}

void SoftStack::icmp_at_opening(Socket& socket, const wire::IcmpError& error, Time now) {
  const Meaning meaning = meaning_of(error);
  auto& opening = *socket.opening;
  if (error.kind == wire::IcmpKind::kTooBig) return narrow_opening(socket, error, now);
  const auto verdict = tcp::on_icmp_error(opening.handshake, opening.config, class_of(meaning), error.seq);
  if (verdict == tcp::HandshakeVerdict::kDroppedError) {
    ++stats_.out_of_window_icmps;
    return;
  }
  ++stats_.icmps;
  if (tcp::is_over(verdict)) fail_opening(socket, meaning.error);
}

// A SYN is small, unless it carries data (Linux tcp_simple_retransmit()).
void SoftStack::narrow_opening(Socket& socket, const wire::IcmpError& error, Time now) {
  Opening& opening = *socket.opening;
  const Seq iss = opening.handshake.iss;
  if (opening.handshake.syn_bytes == 0 || error.seq < iss || error.seq > iss + opening.handshake.syn_bytes) return;
  const bool v4 = socket.flow.is_v4();
  const std::uint32_t believed = believable(error.mtu, v4);
  if (believed >= path_mtu(socket.flow.remote, now)) return;
  ++stats_.icmps;
  remember_path_mtu(socket.flow.remote, believed, now);
  opening.config.path_mss = std::min(opening.config.path_mss, mss_for(believed, v4));
  opening.config.announced_mss = std::min(opening.config.announced_mss, opening.config.path_mss);  // as Linux
  tcp::drop_syn_data(opening.handshake);
  pump_opening(socket, now);
}

void SoftStack::icmp_at_connection(Socket& socket, const wire::IcmpError& error, Time now) {
  const tcp::ControlBlock& cb = socket.conn->cb;
  const Seq first = socket.unconfirmed ? socket.unconfirmed->handshake.iss : cb.snd_una;
  if (error.seq < first || error.seq > cb.snd_nxt) {
    ++stats_.out_of_window_icmps;
    return;
  }
  ++stats_.icmps;
  const bool too_big = error.kind == wire::IcmpKind::kTooBig;
  if (socket.unconfirmed && !socket.accepted && !too_big) {  // nobody has it yet: it fails as one that opens does
    socket.error = meaning_of(error).error;
    return finish(socket);
  }
  if (too_big) return lower_path_mtu(socket, error.mtu, now);  // which is no error
  socket.soft_error = meaning_of(error).error;
}

std::uint16_t SoftStack::mss_for(std::uint32_t mtu, bool v4) noexcept {
  const std::uint32_t head = head_bytes(v4);
  return static_cast<std::uint16_t>(std::min(mtu - std::min(mtu, head), 65535U));
}

// An IPv4 router may not tell (RFC 1191 5), or exaggerate; of IPv6 too small a value is discarded (RFC 8201 4).
std::uint32_t SoftStack::believable(std::uint32_t mtu, bool v4) const noexcept {
  if (v4) return std::max(mtu, config_.min_pmtu);
  return mtu < kSmallestMtuV6 ? UINT32_MAX : mtu;
}

// RFC 1191, RFC 8201; Linux tcp_v4_mtu_reduced(). A value that is no smaller than now changes nothing.
void SoftStack::lower_path_mtu(Socket& socket, std::uint32_t mtu, Time now) {
  const bool v4 = socket.flow.is_v4();
  const std::uint32_t believed = believable(mtu, v4);
  Connection& conn = *socket.conn;
  if (!tcp::on_mtu_reduced(conn.cb, std::min(conn.mss_clamp, mss_for(believed, v4)), now)) return;
  conn.pmtu = believed;
  remember_path_mtu(socket.flow.remote, believed, now);
  settle(socket, now);
}

void SoftStack::remember_path_mtu(const IpAddress& peer, std::uint32_t mtu, Time now) {
  if (path_mtus_.size() >= kMostPathMtus && !path_mtus_.contains(peer)) {
    std::erase_if(path_mtus_, [now](const auto& entry) { return entry.second.expires <= now; });
    if (path_mtus_.size() >= kMostPathMtus) return;
  }
  path_mtus_[peer] = {mtu, now + std::chrono::seconds(config_.mtu_expires_s)};
}

// What the connection has been told, until it tries again.
std::uint32_t SoftStack::path_mtu_of(const Connection& conn, const IpAddress& peer, Time now) const {
  return tcp::is_path_told(conn.cb) ? conn.pmtu : path_mtu(peer, now);
}

// A size that a search has found before counts for more than Linux tcp_mtu_probing = 2, which begins with a small one.
void SoftStack::begin_path(Connection& conn, const FlowKey& flow, std::uint16_t mss_found, Time now) {
  conn.pmtu = path_mtu(flow.remote, now);
  tcp::install_path(conn.cb, std::min(conn.mss_clamp, mss_for(config_.mtu, flow.is_v4())), mss_found, now);
  if (tcp::is_path_told(conn.cb)) {  // perhaps while the connection was elsewhere
    conn.pmtu = std::min(conn.pmtu, tcp::unsearched_mss(conn.cb) + head_bytes(flow.is_v4()));
  }
  tcp::set_size_search(conn.cb, config_.tcp_mtu_probing != 0);
  if (config_.tcp_mtu_probing >= 2) tcp::probe_path(conn.cb, now);
}

// The interface's MTU, or what a router on the way has said.
std::uint32_t SoftStack::path_mtu(const IpAddress& peer, Time now) const {
  const auto at = path_mtus_.find(peer);
  if (at == path_mtus_.end() || at->second.expires <= now) return config_.mtu;
  return std::min(at->second.mtu, config_.mtu);
}

}  // namespace twinstack::stack
