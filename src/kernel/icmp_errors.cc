#include "kernel/icmp_errors.h"

#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <linux/filter.h>
#include <linux/icmp.h>  // behind <netinet/in.h>, or that leaves half of itself out

#include <array>
#include <cerrno>
#include <cstring>
#include <span>

namespace twinstack::kernel {
namespace {

constexpr std::size_t kLargestMessage = 2048;  // more than any router quotes (RFC 4443 2.4: 1280)
constexpr std::size_t kIpv6Head = 40;
constexpr std::uint32_t kTooBigV4 = 3 << 8 | 4;  // type and code (RFC 1191)

Result<> filter_by(const UniqueFd& fd, std::span<sock_filter> code) {
  const sock_fprog program{.len = static_cast<unsigned short>(code.size()), .filter = code.data()};
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) != 0) {
    return system_error("setsockopt(SO_ATTACH_FILTER)");
  }
  return {};
}

Result<UniqueFd> open_v4() {
  UniqueFd fd(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMP));
  if (!fd) return system_error("socket(ICMP) (needs CAP_NET_RAW)");
  const icmp_filter filter{.data = ~(1U << ICMP_DEST_UNREACH)};
  if (::setsockopt(fd.get(), SOL_RAW, ICMP_FILTER, &filter, sizeof(filter)) != 0) {
    return system_error("setsockopt(ICMP_FILTER)");
  }
  // Of those only "fragmentation needed" about TCP: a flood of others wakes nobody. From the IP header on.
  std::array code = {sock_filter BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0),
                     sock_filter BPF_STMT(BPF_LD | BPF_H | BPF_IND, 0),
                     sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kTooBigV4, 0, 3),
                     sock_filter BPF_STMT(BPF_LD | BPF_B | BPF_IND, 8 + 9),  // protocol of what is quoted
                     sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 1),
                     sock_filter BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
                     sock_filter BPF_STMT(BPF_RET | BPF_K, 0)};
  TRY(filter_by(fd, code));
  return fd;
}

Result<UniqueFd> open_v6() {
  UniqueFd fd(::socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMPV6));
  if (!fd) return errno == EAFNOSUPPORT ? Result<UniqueFd>(UniqueFd()) : system_error("socket(ICMPv6)");
  icmp6_filter filter;
  ICMP6_FILTER_SETBLOCKALL(&filter);
  ICMP6_FILTER_SETPASS(ICMP6_PACKET_TOO_BIG, &filter);
  const int on = 1;
  if (::setsockopt(fd.get(), IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof(filter)) != 0 ||
      ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on)) != 0) {
    return system_error("setsockopt(ICMP6_FILTER, IPV6_RECVPKTINFO)");
  }
  // From the ICMP header on. What is quoted has no extension headers if it is of ours.
  std::array code = {sock_filter BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 8 + 6),
                     sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 1),
                     sock_filter BPF_STMT(BPF_RET | BPF_K, UINT32_MAX), sock_filter BPF_STMT(BPF_RET | BPF_K, 0)};
  TRY(filter_by(fd, code));
  return fd;
}

void tell_if_too_big(ByteView packet, const std::function<void(const wire::IcmpError&)>& take) {
  const auto message = wire::parse_icmp_error(packet);
  if (message && message->kind == wire::IcmpKind::kTooBig) take(*message);
}

}  // namespace

Result<IcmpErrors> IcmpErrors::open() {
  IcmpErrors made;
  ASSIGN_OR_RETURN(made.v4_, open_v4());
  ASSIGN_OR_RETURN(made.v6_, open_v6());
  made.epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!made.epoll_) return system_error("epoll_create1(ICMP)");
  for (const UniqueFd* fd : {&made.v4_, &made.v6_}) {
    epoll_event event{.events = EPOLLIN, .data = {}};
    if (*fd && ::epoll_ctl(made.epoll_.get(), EPOLL_CTL_ADD, fd->get(), &event) != 0) {
      return system_error("epoll_ctl(ICMP)");
    }
  }
  return made;
}

void IcmpErrors::poll(Time now, const std::function<void(const wire::IcmpError&)>& take) {
  if (now >= turn_end_) {
    turn_end_ = now + kTurn;
    left_ = kMessagesPerTurn;
    v6_first_ = !v6_first_;
  }
  if (v6_ && v6_first_) read_v6(take);
  read_v4(take);
  if (v6_ && !v6_first_) read_v6(take);
  if (resting_ != (left_ == 0)) rest(left_ == 0);
}

// The sockets stay readable: whoever waits on the epoll instance would not sleep.
void IcmpErrors::rest(bool on) {
  resting_ = on;
  for (const UniqueFd* fd : {&v4_, &v6_}) {
    epoll_event event{.events = on ? 0U : EPOLLIN, .data = {}};
    if (*fd) (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd->get(), &event);  // it is in there: cannot fail
  }
}

// A raw socket of IPv4 gives the IP header as well.
void IcmpErrors::read_v4(const std::function<void(const wire::IcmpError&)>& take) {
  std::array<std::byte, kLargestMessage> packet;
  for (; left_ > 0; --left_) {
    const auto got = ::recv(v4_.get(), packet.data(), packet.size(), 0);
    if (got < 0) return;
    tell_if_too_big(ByteView(packet).first(static_cast<std::size_t>(got)), take);
  }
}

// One of IPv6 does not: source, destination and length make one that the checksum holds for.
void IcmpErrors::read_v6(const std::function<void(const wire::IcmpError&)>& take) {
  std::array<std::byte, kLargestMessage> packet{};
  for (; left_ > 0; --left_) {
    sockaddr_in6 from{};
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(in6_pktinfo))> control{};
    iovec room{.iov_base = packet.data() + kIpv6Head, .iov_len = packet.size() - kIpv6Head};
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof(from);
    message.msg_iov = &room;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const auto got = ::recvmsg(v6_.get(), &message, 0);
    if (got < 0) return;
    const cmsghdr* const head = CMSG_FIRSTHDR(&message);
    if (head == nullptr || head->cmsg_type != IPV6_PKTINFO) continue;
    in6_pktinfo to{};
    std::memcpy(&to, CMSG_DATA(head), sizeof(to));
    packet[0] = std::byte{0x60};
    packet[4] = static_cast<std::byte>(got >> 8);
    packet[5] = static_cast<std::byte>(got);
    packet[6] = static_cast<std::byte>(IPPROTO_ICMPV6);
    packet[7] = std::byte{64};
    std::memcpy(packet.data() + 8, &from.sin6_addr, sizeof(from.sin6_addr));
    std::memcpy(packet.data() + 24, &to.ipi6_addr, sizeof(to.ipi6_addr));
    tell_if_too_big(ByteView(packet).first(kIpv6Head + static_cast<std::size_t>(got)), take);
  }
}

}  // namespace twinstack::kernel
