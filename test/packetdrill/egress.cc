#include "egress.h"

#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string_view>

namespace twinstack::packetdrill {

namespace {

struct Request {
  nlmsghdr head;
  tcmsg what;
};

// The limit of the plain queue that `message` describes, when that is the device's own.
std::optional<std::uint32_t> limit_of(const nlmsghdr* message, int device) {
  const auto* const what = static_cast<const tcmsg*>(NLMSG_DATA(message));
  if (message->nlmsg_type != RTM_NEWQDISC || what->tcm_ifindex != device || what->tcm_parent != TC_H_ROOT) return {};
  std::string_view kind;
  std::optional<std::uint32_t> limit;
  auto left = static_cast<int>(NLMSG_PAYLOAD(message, sizeof *what));
  for (const rtattr* entry = TCA_RTA(what); RTA_OK(entry, left); entry = RTA_NEXT(entry, left)) {
    if (entry->rta_type == TCA_KIND) kind = static_cast<const char*>(RTA_DATA(entry));
    if (entry->rta_type != TCA_OPTIONS || RTA_PAYLOAD(entry) < sizeof(tc_fifo_qopt)) continue;
    tc_fifo_qopt options{};
    std::memcpy(&options, RTA_DATA(entry), sizeof options);
    limit = options.limit;
  }
  return kind == "pfifo" || kind == "bfifo" ? limit : std::nullopt;
}

}  // namespace

Result<Egress> Egress::open(const std::string& device) {
  UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!socket) return system_error("netlink");
  const unsigned index = ::if_nametoindex(device.c_str());
  if (index == 0) return system_error(device);
  return Egress(std::move(socket), static_cast<int>(index));
}

bool Egress::takes_more() const {
  Request request{};
  request.head.nlmsg_len = sizeof request;
  request.head.nlmsg_type = RTM_GETQDISC;
  request.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.what.tcm_family = AF_UNSPEC;
  request.what.tcm_ifindex = device_;
  if (::send(socket_.get(), &request, sizeof request, 0) < 0) return true;
  bool takes = true;
  alignas(nlmsghdr) std::array<std::byte, 16384> room{};
  for (bool done = false; !done;) {
    const ssize_t got = ::recv(socket_.get(), room.data(), room.size(), 0);
    if (got <= 0) return true;
    auto left = static_cast<unsigned>(got);
    for (auto* message = reinterpret_cast<const nlmsghdr*>(room.data()); NLMSG_OK(message, left);
         message = NLMSG_NEXT(message, left)) {
      done = done || message->nlmsg_type == NLMSG_DONE || message->nlmsg_type == NLMSG_ERROR;
      if (limit_of(message, device_) == 0U) takes = false;
    }
  }
  return takes;
}

}  // namespace twinstack::packetdrill
