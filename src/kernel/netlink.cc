#include "kernel/netlink.h"

#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>

#include "kernel/address.h"

namespace twinstack::kernel {
namespace {

constexpr int kReceiveBufferBytes = 4 << 20;  // of notices: a burst of routes must not overrun at once
constexpr std::uint16_t kUsableStates =
    NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY;  // the kernel's NUD_VALID

struct MessageFree {
  void operator()(nl_msg* message) const noexcept { nlmsg_free(message); }
};
using Message = std::unique_ptr<nl_msg, MessageFree>;

template <typename Header>
Message make_message(int type, int flags, const Header& header) {
  Message message(nlmsg_alloc_simple(type, flags));
  Header copy = header;
  if (!message || nlmsg_append(message.get(), &copy, sizeof copy, NLMSG_ALIGNTO) != 0) return nullptr;
  return message;
}

std::span<const std::uint8_t> address_bytes(const IpAddress& address) {
  const std::span<const std::uint8_t> all(address.bytes);
  return address.is_v4() ? all.subspan(12) : all;
}

bool put_address(nl_msg* message, int type, const IpAddress& address) {
  const auto bytes = address_bytes(address);
  return nla_put(message, type, static_cast<int>(bytes.size()), bytes.data()) == 0;
}

bool put_number(nl_msg* message, int type, std::uint32_t value) {
  return value == 0 || nla_put_u32(message, type, value) == 0;
}

std::optional<IpAddress> get_address(const nlattr* attribute) {
  if (attribute == nullptr) return std::nullopt;
  const auto* data = static_cast<const std::uint8_t*>(nla_data(attribute));
  IpAddress address;
  if (nla_len(attribute) == 4) {
    std::array<std::uint8_t, 4> v4{};
    std::memcpy(v4.data(), data, v4.size());
    return IpAddress::from_v4(v4);
  }
  if (nla_len(attribute) != 16) return std::nullopt;
  std::memcpy(address.bytes.data(), data, address.bytes.size());
  return address;
}

bool get_mac(const nlattr* attribute, nic::MacAddress& mac) {
  if (attribute == nullptr || nla_len(attribute) != static_cast<int>(mac.size())) return false;
  std::memcpy(mac.data(), nla_data(attribute), mac.size());
  return true;
}

std::uint32_t get_number(const nlattr* attribute) {
  return attribute != nullptr && nla_len(attribute) >= 4 ? nla_get_u32(attribute) : 0;
}

unsigned char family_of(const IpAddress& address) {
  return static_cast<unsigned char>(address.is_v4() ? AF_INET : AF_INET6);
}

std::unexpected<Error> no_memory() { return error(ErrorCode::kNoResource, "netlink: no memory for a message"); }

bool expires(const nlattr* cache) {
  rta_cacheinfo info{};
  if (cache == nullptr || nla_len(cache) < static_cast<int>(sizeof info)) return false;
  std::memcpy(&info, nla_data(cache), sizeof info);
  return info.rta_expires != 0;
}

Result<RouteAnswer> read_route(nl_msg* message) {
  nlmsghdr* head = nlmsg_hdr(message);
  std::array<nlattr*, RTA_MAX + 1> attributes{};
  if (nlmsg_parse(head, sizeof(rtmsg), attributes.data(), RTA_MAX, nullptr) != 0) {
    return error(ErrorCode::kProtocol, "netlink: a route that cannot be read");
  }
  rtmsg route{};
  std::memcpy(&route, nlmsg_data(head), sizeof route);
  if (route.rtm_type == RTN_LOCAL) return error(ErrorCode::kNotEligible, "the peer is on this host");
  if (route.rtm_type != RTN_UNICAST) return error(ErrorCode::kNotEligible, "the route is not a unicast route");
  if (attributes[RTA_VIA] != nullptr) {
    return error(ErrorCode::kNotEligible, "the gateway is of the other address family");
  }
  RouteAnswer answer{.interface_index = get_number(attributes[RTA_OIF]),
                     .gateway = get_address(attributes[RTA_GATEWAY]),
                     .mtu_bytes = 0,
                     .mtu_expires = false};
  std::array<nlattr*, RTAX_MAX + 1> metrics{};
  if (attributes[RTA_METRICS] != nullptr &&
      nla_parse_nested(metrics.data(), RTAX_MAX, attributes[RTA_METRICS], nullptr) == 0) {
    answer.mtu_bytes = get_number(metrics[RTAX_MTU]);
  }
  answer.mtu_expires = expires(attributes[RTA_CACHEINFO]);
  if (answer.interface_index == 0) return error(ErrorCode::kNotEligible, "the route names no interface");
  return answer;
}

LinkAnswer read_link(nl_msg* message) {
  nlmsghdr* head = nlmsg_hdr(message);
  std::array<nlattr*, IFLA_MAX + 1> attributes{};
  LinkAnswer answer;
  if (nlmsg_parse(head, sizeof(ifinfomsg), attributes.data(), IFLA_MAX, nullptr) != 0) return answer;
  ifinfomsg link{};
  std::memcpy(&link, nlmsg_data(head), sizeof link);
  answer.loopback = (link.ifi_flags & IFF_LOOPBACK) != 0;
  answer.up = (link.ifi_flags & IFF_UP) != 0 && (link.ifi_flags & IFF_RUNNING) != 0;
  answer.mtu_bytes = get_number(attributes[IFLA_MTU]);
  answer.ethernet = link.ifi_type == ARPHRD_ETHER && get_mac(attributes[IFLA_ADDRESS], answer.mac);
  return answer;
}

std::optional<NeighbourNotice> read_neighbour(nlmsghdr* head) {
  std::array<nlattr*, NDA_MAX + 1> attributes{};
  if (nlmsg_parse(head, sizeof(ndmsg), attributes.data(), NDA_MAX, nullptr) != 0) return std::nullopt;
  ndmsg neighbour{};
  std::memcpy(&neighbour, nlmsg_data(head), sizeof neighbour);
  const auto address = get_address(attributes[NDA_DST]);
  if (!address.has_value()) return std::nullopt;  // a bridge's forwarding entry
  NeighbourNotice notice{.interface_index = static_cast<std::uint32_t>(neighbour.ndm_ifindex), .address = *address};
  const bool has_mac = get_mac(attributes[NDA_LLADDR], notice.mac);
  const bool deleted = head->nlmsg_type == RTM_DELNEIGH;
  notice.valid = !deleted && has_mac && (neighbour.ndm_state & kUsableStates) != 0;
  notice.gone_or_failed = deleted || (neighbour.ndm_state & NUD_FAILED) != 0;
  return notice;
}

// Netlink errors of a route lookup that mean: there is none.
bool means_no_route(int error_number) {
  return error_number == ENETUNREACH || error_number == EHOSTUNREACH || error_number == EINVAL ||
         error_number == EACCES || error_number == ESRCH || error_number == ENOENT || error_number == ENODEV;
}

}  // namespace

void NlSocketFree::operator()(nl_sock* socket) const noexcept { nl_socket_free(socket); }

Result<NetlinkRequests> NetlinkRequests::open() {
  NlSocket socket(nl_socket_alloc());
  if (!socket) return no_memory();
  if (nl_connect(socket.get(), NETLINK_ROUTE) != 0) return system_error("connect to rtnetlink");
  return NetlinkRequests(std::move(socket));
}

namespace {

struct Pending {
  const std::function<void(nl_msg*)>* on_answer;
  int error_number = 0;
  bool done = false;
};

int on_valid(nl_msg* message, void* argument) {
  (*static_cast<Pending*>(argument)->on_answer)(message);
  return NL_OK;
}

int on_error(sockaddr_nl*, nlmsgerr* refused, void* argument) {
  auto* pending = static_cast<Pending*>(argument);
  pending->error_number = -refused->error;
  pending->done = true;
  return NL_STOP;
}

int on_acknowledged(nl_msg*, void* argument) {
  static_cast<Pending*>(argument)->done = true;
  return NL_STOP;
}

}  // namespace

Result<> NetlinkRequests::transact(nl_msg* message, const char* what, const std::function<void(nl_msg*)>& on_answer) {
  ++count_;
  Pending pending{.on_answer = &on_answer};
  const std::unique_ptr<nl_cb, decltype(&nl_cb_put)> callbacks(nl_cb_alloc(NL_CB_DEFAULT), &nl_cb_put);
  if (!callbacks) return no_memory();
  nl_cb_set(callbacks.get(), NL_CB_VALID, NL_CB_CUSTOM, on_valid, &pending);
  nl_cb_set(callbacks.get(), NL_CB_ACK, NL_CB_CUSTOM, on_acknowledged, &pending);
  nl_cb_err(callbacks.get(), NL_CB_CUSTOM, on_error, &pending);
  // nl_send_auto asks for an acknowledgement: it comes after the answer, in a datagram of its own.
  if (nl_send_auto(socket_.get(), message) < 0) return system_error(what);
  while (!pending.done) {
    const int rc = nl_recvmsgs(socket_.get(), callbacks.get());
    if (rc < 0 && !pending.done) return error(ErrorCode::kProtocol, std::string(what) + ": " + nl_geterror(rc));
  }
  if (pending.error_number != 0) return system_error(what, pending.error_number);
  return {};
}

Result<RouteAnswer> NetlinkRequests::route(const RouteQuery& query) {
  ASSIGN_OR_RETURN(RouteAnswer answer, ask_route(query, 0));
  if (!answer.mtu_expires) return answer;
  // A router's word is forgotten without notice: the connection brings it along, and forgets it as well. The route
  // itself may have an MTU behind it.
  const auto own = ask_route(query, RTM_F_FIB_MATCH);
  answer.mtu_bytes = own.has_value() ? own->mtu_bytes : 0;
  return answer;
}

Result<RouteAnswer> NetlinkRequests::ask_route(const RouteQuery& query, std::uint32_t flags) {
  rtmsg header{};
  header.rtm_flags = flags;
  header.rtm_family = family_of(query.remote);
  header.rtm_tos = query.traffic_class;
  const auto bits = static_cast<unsigned char>(query.remote.is_v4() ? 32 : 128);
  header.rtm_dst_len = bits;
  header.rtm_src_len = bits;
  const Message message = make_message(RTM_GETROUTE, NLM_F_REQUEST, header);
  if (!message) return no_memory();
  const std::uint32_t oif = query.bound_interface != 0 ? query.bound_interface : query.scope_id;
  if (!put_address(message.get(), RTA_DST, query.remote) || !put_address(message.get(), RTA_SRC, query.local) ||
      !put_number(message.get(), RTA_OIF, oif) || !put_number(message.get(), RTA_MARK, query.mark)) {
    return no_memory();
  }
  Result<RouteAnswer> answer = error(ErrorCode::kNotEligible, "no route");
  const auto done = transact(message.get(), "route lookup", [&](nl_msg* got) { answer = read_route(got); });
  if (done.has_value()) return answer;
  if (means_no_route(done.error().system_errno)) {
    return std::unexpected(Error{ErrorCode::kNotEligible, done.error().system_errno, "no route to the peer"});
  }
  return std::unexpected(done.error());
}

Result<LinkAnswer> NetlinkRequests::link(std::uint32_t interface_index) {
  ifinfomsg header{};
  header.ifi_index = static_cast<int>(interface_index);
  const Message message = make_message(RTM_GETLINK, NLM_F_REQUEST, header);
  if (!message) return no_memory();
  LinkAnswer answer;
  TRY(transact(message.get(), "interface lookup", [&](nl_msg* got) { answer = read_link(got); }));
  return answer;
}

Result<NeighbourAnswer> NetlinkRequests::neighbour(std::uint32_t interface_index, const IpAddress& address) {
  ndmsg header{};
  header.ndm_family = family_of(address);
  header.ndm_ifindex = static_cast<int>(interface_index);
  const Message message = make_message(RTM_GETNEIGH, NLM_F_REQUEST, header);
  if (!message || !put_address(message.get(), NDA_DST, address)) return no_memory();
  NeighbourAnswer answer;
  const auto done = transact(message.get(), "neighbour lookup", [&](nl_msg* got) {
    const auto read = read_neighbour(nlmsg_hdr(got));
    if (read.has_value()) answer = {.mac = read->mac, .valid = read->valid};
  });
  if (!done.has_value() && done.error().system_errno != ENOENT) return std::unexpected(done.error());
  return answer;
}

Result<> NetlinkRequests::resolve(std::uint32_t interface_index, const IpAddress& address) {
  ndmsg header{};
  header.ndm_family = family_of(address);
  header.ndm_ifindex = static_cast<int>(interface_index);
  header.ndm_flags = NTF_USE;  // as if a packet had to go there
  header.ndm_state = NUD_NONE;
  const Message message = make_message(RTM_NEWNEIGH, NLM_F_REQUEST | NLM_F_CREATE, header);
  if (!message || !put_address(message.get(), NDA_DST, address)) return no_memory();
  return transact(message.get(), "neighbour resolution", [](nl_msg*) {});
}

Result<NetlinkNotices> NetlinkNotices::open() {
  NlSocket socket(nl_socket_alloc());
  if (!socket) return no_memory();
  nl_socket_disable_seq_check(socket.get());
  if (nl_connect(socket.get(), NETLINK_ROUTE) != 0) return system_error("connect to rtnetlink");
  for (const int group : {RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE,
                          RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, RTNLGRP_NEXTHOP}) {
    if (nl_socket_add_membership(socket.get(), group) != 0) return system_error("subscribe to rtnetlink notices");
  }
  nl_socket_set_nonblocking(socket.get());
  static_cast<void>(nl_socket_set_buffer_size(socket.get(), kReceiveBufferBytes, 0));  // only makes overruns rarer
  nl_socket_set_msg_buf_size(socket.get(), 64U << 10);
  return NetlinkNotices(std::move(socket));
}

int NetlinkNotices::fd() const noexcept { return nl_socket_get_fd(socket_.get()); }

Result<bool> NetlinkNotices::receive(const std::function<void(const Notice&)>& on_notice) {
  std::array<char, 64U << 10> buffer;
  bool overrun = false;
  for (;;) {
    const ssize_t got = ::recv(fd(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got < 0 && errno == ENOBUFS) {
      overrun = true;
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return overrun;
    if (got < 0) return system_error("read rtnetlink notices");
    int left = static_cast<int>(got);
    for (auto* head = reinterpret_cast<nlmsghdr*>(buffer.data()); nlmsg_ok(head, left);
         head = nlmsg_next(head, &left)) {
      if (head->nlmsg_type != RTM_NEWNEIGH && head->nlmsg_type != RTM_DELNEIGH) {
        on_notice(TopologyNotice{});
      } else if (const auto neighbour = read_neighbour(head); neighbour.has_value()) {
        on_notice(*neighbour);
      }
    }
  }
}

}  // namespace twinstack::kernel
