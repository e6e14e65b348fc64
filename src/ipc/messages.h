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
  std::uint64_t bytes_acked;
  std::uint64_t bytes_received;
  std::uint64_t segments_out;
  std::uint64_t segments_in;
  std::uint64_t retransmitted_segments;
  std::uint64_t bytes_sent;
  std::uint64_t bytes_retransmitted;
  std::uint64_t data_segments_out;
  std::uint64_t data_segments_in;
  std::uint64_t out_of_order_segments;
  std::uint32_t unsent_bytes;
  std::uint32_t unread_bytes;
  std::uint32_t lane;
  std::uint32_t ca_state;  // TCP_CA_*: 0 open, 3 recovery, 4 loss
};

// TCP_INFO over moves: the kernel's counters begin anew when its socket is parked and when it comes back, the engine's
// with every stay. So the socket layer takes ConnSlot::base and adds what the owner of now has counted: the kernel's
// TCP_INFO, or this. The other fields are the kernel socket's, or the engine's where it knows them.
//
// What the engine has counted in this stay, as TCP_INFO counts; 0 where it does not.
[[nodiscard]] inline tcp::InfoCounters counters_of(const HwConnState& state) noexcept {
  const auto narrow = [](std::uint64_t count) { return static_cast<std::uint32_t>(count); };
  tcp::InfoCounters counters{};
  counters.bytes_acked = state.bytes_acked;
  counters.bytes_received = state.bytes_received;
  counters.bytes_sent = state.bytes_sent;
  counters.bytes_retrans = state.bytes_retransmitted;
  counters.segs_out = narrow(state.segments_out);
  counters.segs_in = narrow(state.segments_in);
  counters.data_segs_out = narrow(state.data_segments_out);
  counters.data_segs_in = narrow(state.data_segments_in);
  counters.total_retrans = narrow(state.retransmitted_segments);
  counters.rcv_ooopack = narrow(state.out_of_order_segments);
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
