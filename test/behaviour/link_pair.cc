#include "behaviour/link_pair.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <fstream>
#include <sstream>

namespace twinstack::testing {
namespace {

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
  [[nodiscard]] sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

Address address_of(Side side, bool v6) {
  Address out;
  if (v6) {
    auto* in = reinterpret_cast<sockaddr_in6*>(&out.storage);
    in->sin6_family = AF_INET6;
    ::inet_pton(AF_INET6, NetnsPair::address_v6(side).c_str(), &in->sin6_addr);
    out.length = sizeof(*in);
  } else {
    auto* in = reinterpret_cast<sockaddr_in*>(&out.storage);
    in->sin_family = AF_INET;
    ::inet_pton(AF_INET, NetnsPair::address_v4(side).c_str(), &in->sin_addr);
    out.length = sizeof(*in);
  }
  return out;
}

std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

// Eight bytes of the stream, those around `offset`.
std::uint64_t stream_word(std::uint64_t seed, std::uint64_t offset) {
  return mix(seed * 0x9e3779b97f4a7c15U + offset / 8);
}

Result<> make_nonblocking(int fd) {
  if (::fcntl(fd, F_SETFL, O_NONBLOCK) != 0) return system_error("fcntl");
  return {};
}

}  // namespace

Result<SocketPair> connect_pair(const NetnsPair& pair, bool v6, Opening opening) {
  const Side listening = opening == Opening::kPassive ? Side::kB : Side::kA;
  const int family = v6 ? AF_INET6 : AF_INET;
  ASSIGN_OR_RETURN(const UniqueFd listener, pair.socket(listening, family, SOCK_STREAM));
  Address address = address_of(listening, v6);
  if (::bind(listener.get(), address.get(), address.length) != 0) return system_error("bind");
  if (::listen(listener.get(), 16) != 0) return system_error("listen");
  if (::getsockname(listener.get(), address.get(), &address.length) != 0) return system_error("getsockname");
  ASSIGN_OR_RETURN(UniqueFd connecting, pair.socket(other(listening), family, SOCK_STREAM));
  if (::connect(connecting.get(), address.get(), address.length) != 0) return system_error("connect");
  UniqueFd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!accepted) return system_error("accept");
  TRY(make_nonblocking(connecting.get()));
  TRY(make_nonblocking(accepted.get()));
  if (opening == Opening::kPassive) return SocketPair{.peer = std::move(connecting), .served = std::move(accepted)};
  return SocketPair{.peer = std::move(accepted), .served = std::move(connecting)};
}

void fill_stream(std::uint64_t seed, std::uint64_t offset, std::span<std::byte> out) {
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < out.size(); ++i, ++offset, word >>= 8) {
    if (i == 0 || offset % 8 == 0) word = stream_word(seed, offset) >> (offset % 8 * 8);
    out[i] = static_cast<std::byte>(word);
  }
}

std::int64_t check_stream(std::uint64_t seed, std::uint64_t offset, std::span<const std::byte> bytes) {
  std::uint64_t word = 0;
  for (const std::byte& byte : bytes) {
    if (&byte == bytes.data() || offset % 8 == 0) word = stream_word(seed, offset) >> (offset % 8 * 8);
    if (byte != static_cast<std::byte>(word)) return static_cast<std::int64_t>(offset);
    ++offset;
    word >>= 8;
  }
  return -1;
}

std::uint64_t net_counter(const NetnsPair& pair, Side side, const std::string& name) {
  std::uint64_t value = 0;
  // /proc/net is that of the reading task's namespace; thread-self, since setns() moves the thread.
  (void)pair.in(side, [&] {
    for (const char* path : {"/proc/thread-self/net/netstat", "/proc/thread-self/net/snmp"}) {
      std::ifstream file(path);
      std::string names;
      std::string values;
      while (std::getline(file, names) && std::getline(file, values)) {
        std::istringstream n(names);
        std::istringstream v(values);
        std::string prefix;
        std::string key;
        std::string number;
        n >> prefix;
        v >> number;
        prefix.pop_back();
        while (n >> key && v >> number)
          if (prefix + key == name) value = std::stoull(number);
      }
    }
  });
  return value;
}

}  // namespace twinstack::testing
