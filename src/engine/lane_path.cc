// How large a connection's segments may be: next hops, and what routers say.
#include <algorithm>

#include "base/assert.h"
#include "engine/lane.h"

namespace twinstack::engine {
namespace {

constexpr std::uint32_t kIpv4AndTcpBytes = 20 + 20;
constexpr std::uint32_t kIpv6AndTcpBytes = 40 + 20;
constexpr std::uint32_t kLeastPathMtuV4 = 552;   // Linux route/min_pmtu
constexpr std::uint32_t kLeastPathMtuV6 = 1280;  // RFC 8200 5
constexpr std::uint32_t kMaxNextHops = 65536;

}  // namespace

void Lane::set_hop(const Command& command) {
  ASSERT(command.hop_index < kMaxNextHops);
  if (hops_.size() <= command.hop_index) hops_.resize(command.hop_index + 1);
  const bool mtu_changed = hops_[command.hop_index].mtu_bytes != command.hop.mtu_bytes;
  hops_[command.hop_index] = command.hop;
  if (!mtu_changed) return;
  for (std::uint32_t i = 0; i < conns_.size(); ++i) {
    if ((conns_[i].flags & kInstalled) != 0 && records_[i].hop == command.hop_index) bound_mss(i);
  }
}

// A segment must fit the path, the link and the peer, whatever the kernel was content with.
std::uint16_t Lane::path_limit(std::uint32_t index) const noexcept {
  const HwConnRecord& record = records_[index];
  const std::uint32_t mtu = std::min(hops_[record.hop].mtu_bytes, link_.info().mtu_bytes);
  const std::uint32_t headers = record.flow.is_v4() ? kIpv4AndTcpBytes : kIpv6AndTcpBytes;
  const std::uint32_t room = mtu - std::min(mtu, headers);
  return static_cast<std::uint16_t>(std::min<std::uint32_t>(kept_[index].mss_clamp, room));
}

void Lane::bound_mss(std::uint32_t index) {
  tcp::set_path_limit(conns_[index].tcb, path_limit(index));
  want_transmit(index);
}

// RFC 1191, RFC 8201, with the checks of RFC 5927. What is smaller than Linux's least is not believed, and with IPv6
// discarded (RFC 8201 4).
Reply Lane::packet_too_big(const Command& command, Time now) {
  const std::uint32_t index = resolve(command.id);
  HwConn& conn = conns_[index];
  if ((conn.flags & kInstalled) == 0) return refuse(Status::kBadState);
  const bool v4 = records_[index].flow.is_v4();
  if (!v4 && command.path_mtu_bytes < kLeastPathMtuV6) return refuse(Status::kBadArgument);
  const std::uint32_t mtu = std::max(command.path_mtu_bytes, v4 ? kLeastPathMtuV4 : kLeastPathMtuV6);
  const auto mss =
      static_cast<std::uint16_t>(std::min<std::uint32_t>(mtu - (v4 ? kIpv4AndTcpBytes : kIpv6AndTcpBytes), UINT16_MAX));
  if (!tcp::on_packet_too_big(conn.tcb, Seq(command.quoted_seq), mss, now)) return refuse(Status::kBadArgument);
  want_transmit(index);
  return Reply{};
}

Reply Lane::set_hop_of(const Command& command) {
  if (command.hop_index >= hops_.size()) return refuse(Status::kBadArgument);
  const std::uint32_t index = resolve(command.id);
  records_[index].hop = static_cast<std::uint16_t>(command.hop_index);
  if ((conns_[index].flags & kInstalled) != 0) bound_mss(index);
  return Reply{};
}

}  // namespace twinstack::engine
