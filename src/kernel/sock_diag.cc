#include "kernel/sock_diag.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>

namespace twinstack::kernel {
namespace {

struct Request {
  nlmsghdr head{};
  inet_diag_req_v2 body{};
};

Request make_request(const FlowKey& flow, bool is_v6_socket, std::uint32_t scope_id, std::uint64_t cookie) {
  Request request;
  request.head.nlmsg_len = sizeof request;
  request.head.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.head.nlmsg_flags = NLM_F_REQUEST;
  inet_diag_req_v2& body = request.body;
  // A v4-mapped connection of a v6 socket is found by either family; the answer is the same socket.
  body.sdiag_family = is_v6_socket ? AF_INET6 : AF_INET;
  body.sdiag_protocol = IPPROTO_TCP;
  body.idiag_ext = 1U << (INET_DIAG_INFO - 1);  // MD5 keys come with it, to a caller with CAP_NET_ADMIN
  body.idiag_states = ~0U;
  body.id.idiag_sport = htons(flow.local_port);
  body.id.idiag_dport = htons(flow.remote_port);
  body.id.idiag_if = scope_id;
  body.id.idiag_cookie[0] = static_cast<std::uint32_t>(cookie);
  body.id.idiag_cookie[1] = static_cast<std::uint32_t>(cookie >> 32);
  const std::size_t skip = is_v6_socket ? 0 : 12;
  std::memcpy(body.id.idiag_src, flow.local.bytes.data() + skip, 16 - skip);
  std::memcpy(body.id.idiag_dst, flow.remote.bytes.data() + skip, 16 - skip);
  return request;
}

// Attributes behind the inet_diag_msg of one answer.
bool has_md5(std::span<const std::byte> attributes) {
  while (attributes.size() >= sizeof(nlattr)) {
    nlattr attribute{};
    std::memcpy(&attribute, attributes.data(), sizeof attribute);
    const std::size_t step = NLA_ALIGN(attribute.nla_len);
    if (attribute.nla_len < sizeof attribute || attribute.nla_len > attributes.size()) return false;
    if ((attribute.nla_type & NLA_TYPE_MASK) == INET_DIAG_MD5SIG && attribute.nla_len > sizeof attribute) return true;
    if (step >= attributes.size()) return false;
    attributes = attributes.subspan(step);
  }
  return false;
}

}  // namespace

Result<SockDiag> SockDiag::open() {
  UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG));
  if (!socket) return system_error("socket(NETLINK_SOCK_DIAG)");
  return SockDiag(std::move(socket));
}

Result<SockDiagAnswer> SockDiag::ask(const FlowKey& flow, bool is_v6_socket, std::uint32_t scope_id,
                                     std::uint64_t cookie) {
  Request request = make_request(flow, is_v6_socket, scope_id, cookie);
  request.head.nlmsg_seq = ++sequence_;
  if (::send(socket_.get(), &request, sizeof request, 0) < 0) return system_error("ask sock_diag");
  std::array<std::byte, 4096> answer{};
  const ssize_t got = ::recv(socket_.get(), answer.data(), answer.size(), 0);
  if (got < 0) return system_error("read sock_diag");
  nlmsghdr head{};
  if (static_cast<std::size_t>(got) < sizeof head) return error(ErrorCode::kProtocol, "sock_diag: short answer");
  std::memcpy(&head, answer.data(), sizeof head);
  if (head.nlmsg_type == NLMSG_ERROR) {
    nlmsgerr refused{};
    std::memcpy(&refused, answer.data() + sizeof head, sizeof refused);
    if (refused.error == -ENOENT) return error(ErrorCode::kNotFound, "sock_diag: no such connection");
    return system_error("sock_diag", -refused.error);
  }
  inet_diag_msg message{};
  if (head.nlmsg_seq != sequence_ || head.nlmsg_len > static_cast<std::size_t>(got) ||
      head.nlmsg_len < sizeof head + sizeof message) {
    return error(ErrorCode::kProtocol, "sock_diag: not an answer to what was asked");
  }
  std::memcpy(&message, answer.data() + sizeof head, sizeof message);
  const auto attributes = std::span(answer).first(head.nlmsg_len).subspan(sizeof head + sizeof message);
  return SockDiagAnswer{.md5 = has_md5(attributes), .unread_bytes = message.idiag_rqueue};
}

}  // namespace twinstack::kernel
