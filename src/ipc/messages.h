// Messages between the socket layer and the driver: one SOCK_SEQPACKET unix socket per process, one struct per message,
// descriptors by SCM_RIGHTS. Everything that is not on the data path goes here. The service checks the size, the
// version and every field; a message that breaks the rules ends the session.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "ipc/layout.h"
#include "tcp/info_counters.h"
#include "tcp/min_tcp.h"
#include "tcp/tcp_info.h"

namespace twinstack::ipc {

inline constexpr char kDefaultSocketPath[] = "/run/twinstack/twinstack.sock";
inline constexpr char kSocketPathVariable[] = "TWINSTACK_SOCKET";  // environment: another path

enum class MessageType : std::uint32_t {
  // application -> driver
  kHello = 1,     // answered by kWelcome or kRefused
  kRegister = 2,  // with the socket's descriptor; no answer
  kClose = 3,     // the program closed its last descriptor of the connection; no answer; the slot is kFree when done
  kUpload = 4,    // bring it back to the kernel; no answer: wait on the slot's owner word
  kQuery = 5,     // answered by kQueryReply
  // driver -> application
  kWelcome = 64,
  kRefused = 65,
  kQueryReply = 66,
};

struct MessageHead {
  MessageType type;
  std::uint32_t size_bytes;  // of the whole message
};

struct Hello {
  MessageHead head;
  std::uint32_t version;  // kLayoutVersion
  std::uint32_t reserved;
  std::array<char, 32> program;  // for `twinstack ls`; NUL padded
};

// Descriptors that come with it, in order: the arena; a doorbell eventfd per lane (lane_count); per ring (ring_count)
// an epoll set of the service's eventfd (WakeEvent), which shows EPOLLIN when the ring signals and is cleared by
// epoll_wait(2).
struct Welcome {
  MessageHead head;
  std::uint64_t session_id;
  ArenaGeometry geometry;
};

struct Refused {
  MessageHead head;
  std::array<char, 248> reason;  // NUL terminated
};

// The application chose `slot` (its owner word was kFree), set ConnSlot::tag, put the owner word to kKernel and zeroed
// the counters before it sent this.
struct Register {
  MessageHead head;
  std::uint32_t slot;
  std::uint32_t tag;
  std::int32_t program_fd;  // the descriptor's number in the program, for `twinstack ls`
  std::uint32_t reserved;
};

struct Close {
  MessageHead head;
  std::uint32_t slot;
  std::uint32_t tag;
};

struct Upload {
  MessageHead head;
  std::uint32_t slot;
  std::uint32_t tag;
  std::uint32_t stay;  // nonzero: never offload this connection again
  std::uint32_t reserved;
  std::array<char, 32> reason;  // shown by `twinstack ls`: "shutdown", "setsockopt(..)", ...
};

struct Query {
  MessageHead head;
  std::uint32_t slot;
  std::uint32_t tag;
  std::uint32_t request;
  std::uint32_t reserved;
};

// The hardware state of an offloaded connection (behaviour B7).
struct HwConnState {
  std::uint64_t hw_conn_id;
  tcp::MinTcp min;
  std::uint32_t unread_bytes;
  std::uint32_t lane;
  tcp::TcpInfo info;  // as far as the core knows it (fill_tcp_info()); the counters are those of this stay
};

// TCP_INFO over moves: the kernel's counters begin anew when its socket is parked and when it comes back, the engine's
// with every stay. So the socket layer takes ConnSlot::base and adds what the owner of now has counted: the kernel's
// TCP_INFO, or this. The other fields are the kernel socket's, or the engine's where it knows them.
//
// What the engine has counted in this stay, as TCP_INFO counts.
[[nodiscard]] inline tcp::InfoCounters counters_of(const HwConnState& state) noexcept {
  tcp::InfoCounters counters{};
  tcp::for_each_counter(counters, state.info, [](auto& a, const auto& b) { a = b; });
  return counters;
}

struct QueryReply {
  MessageHead head;
  std::uint32_t request;
  std::uint32_t found;  // 0: the engine does not own it
  HwConnState state;
};

static_assert(std::is_trivially_copyable_v<QueryReply>);

}  // namespace twinstack::ipc
