// Who may have which local port: bind()'s rules, and the choice where the program leaves it open (RFC 6056).
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "stack/stack.h"

namespace twinstack::stack {

namespace {

// What `ip` stands for when a socket of `family` is bound to it.
bool overlap(const IpAddress& a, Family a_family, bool a_v6_only, const IpAddress& b, Family b_family,
             bool b_v6_only) noexcept {
  const auto covers_v4 = [](const IpAddress& ip, Family family, bool v6_only) {
    return ip.is_v4() || (family == Family::kV6 && is_any(ip) && !v6_only);
  };
  const auto covers_v6 = [](const IpAddress& ip) { return !ip.is_v4(); };
  if (!is_any(a) && !is_any(b)) return a == b;
  if (covers_v4(a, a_family, a_v6_only) && covers_v4(b, b_family, b_v6_only)) return true;
  return covers_v6(a) && covers_v6(b);
}

bool listens(const Endpoint& endpoint) noexcept {
  return endpoint.kind == Endpoint::Kind::kSocket && static_cast<const Socket&>(endpoint).listener != nullptr;
}

bool conflicts_with(const Socket& socket, const IpAddress& ip, const Endpoint& other) noexcept {
  if (&other == &socket) return false;
  Family family = family_of(other.flow.local);
  bool v6_only = false;
  if (other.kind == Endpoint::Kind::kSocket) {
    family = static_cast<const Socket&>(other).family;
    v6_only = static_cast<const Socket&>(other).options.v6_only;
  }
  if (!overlap(ip, socket.family, socket.options.v6_only, other.flow.local, family, v6_only)) return false;
  return !(socket.reuse_address && other.reuse_address && !listens(other));
}

bool any_conflict(const Socket& socket, const IpAddress& ip, const Endpoint* chain) noexcept {
  for (; chain != nullptr; chain = chain->bucket_after) {
    if (conflicts_with(socket, ip, *chain)) return true;
  }
  return false;
}

}  // namespace

bool SoftStack::conflicts(const Socket& socket, const IpAddress& ip, std::uint16_t port) const {
  const auto bucket = ports_.find(port);
  if (bucket == ports_.end()) return false;
  return any_conflict(socket, ip, bucket->second.bound) || any_conflict(socket, ip, bucket->second.others);
}

std::uint32_t SoftStack::ephemeral_count() const noexcept {
  const int count = config_.ip_local_port_last - config_.ip_local_port_first + 1;
  return count > 0 ? static_cast<std::uint32_t>(count) : 0;
}

std::uint16_t SoftStack::ephemeral_port(std::uint32_t index) const noexcept {
  return static_cast<std::uint16_t>(config_.ip_local_port_first + index % ephemeral_count());
}

// bind() to port 0; 0 when none is left. Odd ports first and connect() even ones, as Linux, so that the two seldom
// meet.
std::uint16_t SoftStack::choose_port(const Socket& socket, const IpAddress& ip) const {
  const std::uint32_t count = ephemeral_count();
  const auto key = std::as_bytes(std::span(&socket.cookie, 1));
  const std::uint32_t start = static_cast<std::uint32_t>(tcp::siphash(port_secret_, key)) % std::max(count, 1U);
  for (const unsigned parity : {1U, 0U}) {
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::uint16_t port = ephemeral_port(start + i);
      if (port % 2 == parity && !conflicts(socket, ip, port)) return port;
    }
  }
  return 0;
}

// RFC 6056 3.3.4, double-hash port selection: ports to one peer follow each other, those to two say nothing of each
// other. `flow` gets the port; -EADDRNOTAVAIL when all are taken.
int SoftStack::choose_connect_port(FlowKey& flow, Time now) {
  const std::uint32_t count = ephemeral_count();
  if (count == 0) return -EADDRNOTAVAIL;
  flow.local_port = 0;
  const std::uint64_t hash = tcp::siphash(port_secret_, std::as_bytes(std::span(&flow, 1)));
  std::uint16_t& step = port_steps_[(hash >> 32) % port_steps_.size()];
  const std::uint32_t start = static_cast<std::uint32_t>(hash) % count + step;
  for (const unsigned parity : {0U, 1U}) {
    for (std::uint32_t i = 0; i < count; ++i) {
      flow.local_port = ephemeral_port(start + i);
      if (flow.local_port % 2 != parity || !port_free_for(flow, now)) continue;
      step = static_cast<std::uint16_t>(step + i + 1);
      return 0;
    }
  }
  return -EADDRNOTAVAIL;
}

// Ports that a program has bound are left to it.
bool SoftStack::port_free_for(const FlowKey& flow, Time now) const {
  const auto bucket = ports_.find(flow.local_port);
  if (bucket != ports_.end() && bucket->second.bound != nullptr) return false;
  return flow_free(flow, now);
}

bool SoftStack::flow_free(const FlowKey& flow, Time now) const {
  const Endpoint* const other = find(flow);
  return other == nullptr || may_take_over(*other, now);
}

// RFC 6191, as Linux tcp_tw_reuse: the timestamps of the new connection tell its segments from those of the old one.
bool SoftStack::may_take_over(const Endpoint& endpoint, Time now) const {
  if (endpoint.kind != Endpoint::Kind::kTimeWait || config_.tcp_tw_reuse != 1) return false;
  const auto& wait = static_cast<const TimeWait&>(endpoint);
  return !wait.fin_wait_2 && wait.has_ts_recent && now - wait.ts_recent_stamp > std::chrono::seconds(1);
}

}  // namespace twinstack::stack
