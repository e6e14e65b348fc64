// interface_facts(): what the kernel says of an interface, by ioctl on a socket of the current namespace. Not by sysfs:
// what is seen there belongs to the namespace in which it was mounted.
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "bpf/quiet_libbpf.h"
#include "nic/af_xdp/attachment.h"

namespace twinstack::nic {
namespace {

ifreq request_for(const std::string& interface) noexcept {
  ifreq request{};
  interface.copy(request.ifr_name, sizeof request.ifr_name - 1);
  return request;
}

bool ethtool(int socket_fd, const std::string& interface, void* command) noexcept {
  ifreq request = request_for(interface);
  request.ifr_data = static_cast<char*>(command);
  return ::ioctl(socket_fd, SIOCETHTOOL, &request) == 0;
}

std::uint32_t count_queues(int socket_fd, const std::string& interface) noexcept {
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  if (!ethtool(socket_fd, interface, &channels)) return 1;  // the driver does not say: it has one
  return std::max({channels.combined_count, channels.rx_count, std::uint32_t{1}});
}

// Devices whose frames are made by this host; a real one sits on a bus and says on which.
bool is_virtual(std::string_view driver, std::string_view bus) noexcept {
  constexpr std::array<std::string_view, 8> kVirtual = {"veth",    "tun",    "bridge",  "dummy",
                                                        "macvlan", "ipvlan", "bonding", "802.1Q VLAN Support"};
  return bus.empty() || bus == "tap" || bus == "tun" || bus == "N/A" ||
         std::ranges::find(kVirtual, driver) != kVirtual.end();
}

void read_driver(int socket_fd, InterfaceFacts& facts) {
  ethtool_drvinfo info{};
  info.cmd = ETHTOOL_GDRVINFO;
  if (!ethtool(socket_fd, facts.name, &info)) {
    facts.is_virtual = true;  // lo and the like
    return;
  }
  facts.driver.assign(info.driver, ::strnlen(info.driver, sizeof info.driver));
  facts.is_virtual = is_virtual(facts.driver, {info.bus_info, ::strnlen(info.bus_info, sizeof info.bus_info)});
}

Result<> read_addresses(int socket_fd, InterfaceFacts& facts) {
  ifreq request = request_for(facts.name);
  if (::ioctl(socket_fd, SIOCGIFMTU, &request) != 0) return system_error("reading the MTU of " + facts.name);
  facts.mtu_bytes = static_cast<std::uint32_t>(request.ifr_mtu);
  request = request_for(facts.name);
  if (::ioctl(socket_fd, SIOCGIFHWADDR, &request) != 0) return system_error("reading the MAC of " + facts.name);
  facts.is_ethernet = request.ifr_hwaddr.sa_family == ARPHRD_ETHER;
  facts.is_loopback = request.ifr_hwaddr.sa_family == ARPHRD_LOOPBACK;
  std::memcpy(facts.mac.data(), request.ifr_hwaddr.sa_data, facts.mac.size());
  return {};
}

}  // namespace

Result<InterfaceFacts> interface_facts(const std::string& interface) {
  InterfaceFacts facts;
  facts.name = interface;
  facts.index = interface.size() < IF_NAMESIZE ? ::if_nametoindex(interface.c_str()) : 0;
  if (facts.index == 0) return error(ErrorCode::kNotFound, "no interface '" + interface + "' in this namespace");
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return system_error("socket");
  TRY(read_addresses(socket.get(), facts));
  read_driver(socket.get(), facts);
  facts.queues = count_queues(socket.get(), interface);
  const QuietLibbpf quiet;
  static_cast<void>(bpf_xdp_query_id(static_cast<int>(facts.index), 0, &facts.xdp_program_id));
  return facts;
}

Result<> check_can_serve(const InterfaceFacts& facts) {
  constexpr std::string_view kInstead =
      "use the Ethernet interface that leads to the peers (twinstack doctor lists those of this namespace)";
  if (facts.is_loopback) {
    return error(
        ErrorCode::kUnsupported,
        fmt::format("'{}' is loopback: connections within this host stay in the kernel; {}", facts.name, kInstead));
  }
  if (!facts.is_ethernet) {
    return error(
        ErrorCode::kUnsupported,
        fmt::format("'{}' carries no Ethernet frames (a TUN device or another tunnel): nothing can move there; {}",
                    facts.name, kInstead));
  }
  return {};
}

}  // namespace twinstack::nic
