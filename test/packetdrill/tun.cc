#include "tun.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace twinstack::packetdrill {

namespace {

constexpr char kDevice[] = "/dev/net/tun";

// struct virtio_net_hdr, whose header C++ does not take.
struct VnetHead {
  std::uint8_t flags = 0;
  std::uint8_t gso_type = 0;
  std::uint16_t head_bytes = 0;
  std::uint16_t gso_size = 0;
  std::uint16_t checksum_start = 0;
  std::uint16_t checksum_offset = 0;
};
static_assert(sizeof(VnetHead) == 10);
constexpr std::uint8_t kGsoTcpV4 = 1;
constexpr std::uint8_t kGsoTcpV6 = 4;

Result<> run(const std::string& command) {
  if (std::system(command.c_str()) == 0) return {};
  return error(ErrorCode::kSystem, command);
}

Result<> configure_v4(const Flags& flags) {
  const std::string local = flags.local.to_string();
  const std::string via = flags.gateway.empty() ? "" : "via " + flags.gateway;
  TRY(run(fmt::format("ip addr add {}/16 dev {}", local, kTunName)));
  return run(fmt::format("ip route add {}/32 {} dev {}", flags.remote.to_string(), via, kTunName));
}

Result<> configure_v6(const Flags& flags) {
  TRY(run(fmt::format("ip -6 addr add {}/48 dev {} nodad", flags.local.to_string(), kTunName)));
  return run(fmt::format("ip -6 route add {}/128 dev {}", flags.remote.to_string(), kTunName));
}

bool is_v4(ByteView packet) noexcept { return (std::to_integer<unsigned>(packet.front()) >> 4) == 4; }

bool is_tcp(ByteView packet) noexcept {
  const std::size_t at = is_v4(packet) ? 9 : 6;
  return packet.size() > at && packet[at] == std::byte{IPPROTO_TCP};
}

}  // namespace

Result<Tun> Tun::open(const Flags& flags) {
  UniqueFd fd(::open(kDevice, O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return system_error(kDevice);
  ifreq request{};
  request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
  std::strcpy(request.ifr_name, kTunName);
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) return system_error("TUNSETIFF");
  constexpr unsigned kOffloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
  if (::ioctl(fd.get(), TUNSETOFFLOAD, kOffloads) != 0) return system_error("TUNSETOFFLOAD");
  TRY(run(fmt::format("ip link set {} addrgenmode none mtu {} up", kTunName, flags.mtu)));
  TRY(flags.local.is_v4() ? configure_v4(flags) : configure_v6(flags));
  return Tun(std::move(fd), flags.mss);
}

bool Tun::write(ByteView packet) {
  VnetHead head;
  if (mss_ != 0 && is_tcp(packet)) {
    head.gso_type = is_v4(packet) ? kGsoTcpV4 : kGsoTcpV6;
    head.gso_size = mss_;
  }
  const iovec parts[] = {{.iov_base = &head, .iov_len = sizeof head},
                         {.iov_base = const_cast<std::byte*>(packet.data()), .iov_len = packet.size()}};
  return ::writev(fd_.get(), parts, 2) == static_cast<ssize_t>(sizeof head + packet.size());
}

bool Tun::read(std::vector<std::byte>& packet) {
  const ssize_t got = ::read(fd_.get(), room_.data(), room_.size());
  if (got <= static_cast<ssize_t>(sizeof(VnetHead))) return false;
  packet.assign(room_.begin() + sizeof(VnetHead), room_.begin() + got);
  return true;
}

void Tun::wait(Duration most) const {
  pollfd entry{.fd = fd_.get(), .events = POLLIN, .revents = 0};
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(most);
  const timespec limit{.tv_sec = seconds.count(), .tv_nsec = (most - seconds).count()};
  (void)::ppoll(&entry, 1, &limit, nullptr);
}

}  // namespace twinstack::packetdrill
