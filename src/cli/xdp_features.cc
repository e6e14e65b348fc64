#include "cli/xdp_features.h"

#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "base/unique_fd.h"

namespace twinstack::cli {
namespace {

// From the kernel's netdev netlink specification; linux/netdev.h is newer than Debian 12's headers.
constexpr char kFamily[] = "netdev";
constexpr std::uint8_t kCommandDevGet = 1;
constexpr std::uint16_t kAttributeIfindex = 1;
constexpr std::uint16_t kAttributeXdpFeatures = 3;
constexpr std::uint64_t kActBasic = 1;
constexpr std::uint64_t kActRedirect = 2;
constexpr std::uint64_t kActZerocopy = 8;

using Bytes = std::vector<std::byte>;

template <typename T>
void append(Bytes& out, const T& value) {
  const auto* bytes = reinterpret_cast<const std::byte*>(&value);
  out.insert(out.end(), bytes, bytes + sizeof value);
}

// One request with one attribute.
Bytes message(std::uint16_t family, std::uint8_t command, std::uint16_t attribute, std::span<const std::byte> value) {
  Bytes out;
  append(out,
         nlmsghdr{.nlmsg_len = 0, .nlmsg_type = family, .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = 1, .nlmsg_pid = 0});
  append(out, genlmsghdr{.cmd = command, .version = 1, .reserved = 0});
  append(out, nlattr{.nla_len = static_cast<std::uint16_t>(NLA_HDRLEN + value.size()), .nla_type = attribute});
  out.insert(out.end(), value.begin(), value.end());
  out.resize(NLMSG_ALIGN(out.size()));
  const auto length = static_cast<std::uint32_t>(out.size());
  std::memcpy(out.data(), &length, sizeof length);
  return out;
}

template <typename T>
std::optional<T> take(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

// The value of an attribute in the answer to message().
std::optional<std::span<const std::byte>> find_attribute(std::span<const std::byte> answer, std::uint16_t wanted) {
  constexpr std::size_t kHeads = NLMSG_HDRLEN + GENL_HDRLEN;
  if (answer.size() < kHeads) return std::nullopt;
  for (auto rest = answer.subspan(kHeads);;) {
    const auto head = take<nlattr>(rest);
    if (!head.has_value() || head->nla_len < NLA_HDRLEN || head->nla_len > rest.size()) return std::nullopt;
    if ((head->nla_type & NLA_TYPE_MASK) == wanted) return rest.subspan(NLA_HDRLEN, head->nla_len - NLA_HDRLEN);
    const std::size_t step = NLA_ALIGN(head->nla_len);
    if (step >= rest.size()) return std::nullopt;
    rest = rest.subspan(step);
  }
}

Result<Bytes> exchange(int socket, const Bytes& request) {
  if (::send(socket, request.data(), request.size(), 0) < 0) return system_error("asking by generic netlink");
  Bytes answer(8192);
  const ssize_t got = ::recv(socket, answer.data(), answer.size(), 0);
  if (got < 0) return system_error("an answer of generic netlink");
  answer.resize(static_cast<std::size_t>(got));
  const auto head = take<nlmsghdr>(answer);
  if (!head.has_value() || head->nlmsg_len > answer.size())
    return error(ErrorCode::kProtocol, "generic netlink answered something that is no message");
  answer.resize(head->nlmsg_len);
  if (head->nlmsg_type != NLMSG_ERROR) return answer;
  const auto failure = take<nlmsgerr>(std::span<const std::byte>(answer).subspan(NLMSG_HDRLEN));
  return system_error("generic netlink", failure.has_value() ? -failure->error : EIO);
}

Result<UniqueFd> open_socket() {
  UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC));
  if (!socket) return system_error("socket(NETLINK_GENERIC)");
  const timeval patience{.tv_sec = 1, .tv_usec = 0};
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0)
    return system_error("setsockopt(SO_RCVTIMEO)");
  return socket;
}

}  // namespace

Result<XdpFeatures> xdp_features(std::uint32_t interface_index) {
  ASSIGN_OR_RETURN(const UniqueFd socket, open_socket());
  const auto found = exchange(socket.get(), message(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME,
                                                    std::as_bytes(std::span(kFamily))));
  if (!found.has_value())
    return error(ErrorCode::kUnsupported,
                 "this kernel does not tell what drivers do with XDP (Linux 6.3 and newer do)");
  const auto family = find_attribute(*found, CTRL_ATTR_FAMILY_ID);
  const auto number = family.has_value() ? take<std::uint16_t>(*family) : std::nullopt;
  if (!number.has_value()) return error(ErrorCode::kProtocol, "generic netlink gave no family number");
  ASSIGN_OR_RETURN(const Bytes answer, exchange(socket.get(), message(*number, kCommandDevGet, kAttributeIfindex,
                                                                      std::as_bytes(std::span(&interface_index, 1)))));
  const auto value = find_attribute(answer, kAttributeXdpFeatures);
  const auto bits = value.has_value() ? take<std::uint64_t>(*value) : std::nullopt;
  if (!bits.has_value()) return error(ErrorCode::kProtocol, "the kernel's answer has no XDP features");
  return XdpFeatures{.native = (*bits & (kActBasic | kActRedirect)) == (kActBasic | kActRedirect),
                     .zerocopy = (*bits & kActZerocopy) != 0};
}

}  // namespace twinstack::cli
