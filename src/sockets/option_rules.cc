#include "sockets/option_rules.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>

namespace twinstack::sockets {
namespace {

using enum Treatment;

struct Rule {
  int level;
  int name;
  Treatment set;
  Treatment get;
};

// Everything that is not here is kBringBack. SO_KEEPALIVE is: the parked socket has it switched off.
constexpr std::array kRules = {
    // Used by the kernel alone, at close or in calls that wait.
    Rule{SOL_SOCKET, SO_LINGER, kKernelSocket, kKernelSocket},
    Rule{SOL_SOCKET, SO_RCVTIMEO, kKernelSocket, kKernelSocket},
    Rule{SOL_SOCKET, SO_SNDTIMEO, kKernelSocket, kKernelSocket},
    // Sizes of the kernel's buffers; a hint to TCP, and the engine has buffers of its own.
    Rule{SOL_SOCKET, SO_SNDBUF, kKernelSocket, kKernelSocket},
    Rule{SOL_SOCKET, SO_RCVBUF, kKernelSocket, kKernelSocket},
    // Constants, and what a move keeps.
    Rule{SOL_SOCKET, SO_TYPE, kKernelSocket, kKernelSocket},
    Rule{SOL_SOCKET, SO_DOMAIN, kKernelSocket, kKernelSocket},
    Rule{SOL_SOCKET, SO_PROTOCOL, kKernelSocket, kKernelSocket},
    Rule{SOL_SOCKET, SO_ACCEPTCONN, kKernelSocket, kKernelSocket},
    Rule{SOL_SOCKET, SO_COOKIE, kKernelSocket, kKernelSocket},
    Rule{SOL_SOCKET, SO_PEERCRED, kKernelSocket, kKernelSocket},
    Rule{SOL_SOCKET, SO_BINDTODEVICE, kBringBack, kKernelSocket},
    Rule{SOL_SOCKET, SO_MARK, kBringBack, kKernelSocket},
    Rule{SOL_SOCKET, SO_PRIORITY, kBringBack, kKernelSocket},
    Rule{IPPROTO_TCP, TCP_NODELAY, kBringBack, kKernelSocket},
    Rule{IPPROTO_TCP, TCP_CORK, kBringBack, kKernelSocket},
    Rule{IPPROTO_TCP, TCP_KEEPIDLE, kBringBack, kKernelSocket},
    Rule{IPPROTO_TCP, TCP_KEEPINTVL, kBringBack, kKernelSocket},
    Rule{IPPROTO_TCP, TCP_KEEPCNT, kBringBack, kKernelSocket},
    Rule{IPPROTO_TCP, TCP_USER_TIMEOUT, kBringBack, kKernelSocket},
    Rule{IPPROTO_TCP, TCP_LINGER2, kKernelSocket, kKernelSocket},
    Rule{IPPROTO_IP, IP_TOS, kTellEngine, kKernelSocket},
    Rule{IPPROTO_IP, IP_TTL, kTellEngine, kKernelSocket},
    Rule{IPPROTO_IPV6, IPV6_TCLASS, kTellEngine, kKernelSocket},
    Rule{IPPROTO_IPV6, IPV6_UNICAST_HOPS, kTellEngine, kKernelSocket},
    Rule{IPPROTO_IPV6, IPV6_V6ONLY, kBringBack, kKernelSocket},
    // Control messages, filters, record layers: only the kernel's socket has them.
    Rule{SOL_SOCKET, SO_TIMESTAMP, kStay, kBringBack},
    Rule{SOL_SOCKET, SO_TIMESTAMPNS, kStay, kBringBack},
    Rule{SOL_SOCKET, SO_TIMESTAMPING, kStay, kBringBack},
    Rule{SOL_SOCKET, SO_ZEROCOPY, kStay, kBringBack},
    Rule{SOL_SOCKET, SO_OOBINLINE, kStay, kBringBack},
    Rule{SOL_SOCKET, SO_RCVLOWAT, kStay, kBringBack},
    Rule{SOL_SOCKET, SO_PEEK_OFF, kStay, kBringBack},
    Rule{SOL_SOCKET, SO_ATTACH_FILTER, kStay, kBringBack},
    Rule{SOL_SOCKET, SO_DETACH_FILTER, kStay, kBringBack},
    Rule{SOL_SOCKET, SO_ATTACH_BPF, kStay, kBringBack},
    Rule{SOL_SOCKET, SO_LOCK_FILTER, kStay, kBringBack},
    Rule{IPPROTO_TCP, TCP_REPAIR, kStay, kStay},
    Rule{IPPROTO_TCP, TCP_ULP, kStay, kBringBack},
    Rule{IPPROTO_TCP, TCP_MD5SIG, kStay, kBringBack},
    Rule{IPPROTO_TCP, TCP_MD5SIG_EXT, kStay, kBringBack},
    Rule{IPPROTO_TCP, TCP_INQ, kStay, kBringBack},
    Rule{IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, kStay, kStay},
    Rule{IPPROTO_IP, IP_OPTIONS, kStay, kBringBack},
    Rule{IPPROTO_IP, IP_RECVERR, kStay, kBringBack},
    Rule{IPPROTO_IP, IP_MINTTL, kStay, kKernelSocket},
    Rule{IPPROTO_IPV6, IPV6_MINHOPCOUNT, kStay, kKernelSocket},
    Rule{IPPROTO_IPV6, IPV6_RECVERR, kStay, kBringBack},
};

}  // namespace

Treatment treatment(int level, int name, bool sets) noexcept {
  for (const Rule& rule : kRules)
    if (rule.level == level && rule.name == name) return sets ? rule.set : rule.get;
  // An unknown level (TLS, MPTCP, a filter): not ours to judge.
  const bool is_known_level =
      level == SOL_SOCKET || level == IPPROTO_TCP || level == IPPROTO_IP || level == IPPROTO_IPV6;
  return is_known_level ? kBringBack : kStay;
}

}  // namespace twinstack::sockets
