// A TCP connection between the two sides of a NetnsPair: `peer` on side A is plain Linux, `served` on side B is the
// socket that the tests move. And a stream with a known content, to be checked at the other end.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "netns/netns_fixture.h"

namespace twinstack::testing {

struct SocketPair {
  UniqueFd peer;
  UniqueFd served;
};

enum class Opening { kPassive, kActive };  // who calls connect(): the peer, or the served side

// Both sockets are non-blocking.
[[nodiscard]] Result<SocketPair> connect_pair(const NetnsPair& pair, bool v6, Opening opening = Opening::kPassive);

// The bytes of the stream `seed` from `offset` on.
void fill_stream(std::uint64_t seed, std::uint64_t offset, std::span<std::byte> out);
// The first position at which `bytes` are not the stream's, or -1.
[[nodiscard]] std::int64_t check_stream(std::uint64_t seed, std::uint64_t offset, std::span<const std::byte> bytes);

// TcpExt / Tcp counters of a side's namespace (nstat), absolute.
[[nodiscard]] std::uint64_t net_counter(const NetnsPair& pair, Side side, const std::string& name);

}  // namespace twinstack::testing
