// What the stack keeps of each socket, half-open connection and TIME-WAIT: plain data. SoftStack alone changes it.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "stack/address.h"
#include "stack/chronograph.h"
#include "stack/receive_buffer.h"
#include "stack/send_buffer.h"
#include "stack/timer_heap.h"
#include "tcp/connection.h"
#include "tcp/handshake.h"

namespace twinstack::stack {

// A handle: what a descriptor is in a kernel. Not used again soon, so a stale one is found out (EBADF).
using SocketId = std::int32_t;
inline constexpr SocketId kNoSocket = -1;

// Linux's numbers, as tcpi_state.
enum class State : std::uint8_t {
  kEstablished = 1,
  kSynSent = 2,
  kSynReceived = 3,
  kFinWait1 = 4,
  kFinWait2 = 5,
  kTimeWait = 6,
  kClosed = 7,
  kCloseWait = 8,
  kLastAck = 9,
  kListen = 10,
  kClosing = 11,
};

struct Endpoint;

// Who has a local port. Endpoints are chained, so that one leaves in O(1).
struct PortBucket {
  Endpoint* bound = nullptr;   // by bind() or listen(): connect() does not choose such a port
  Endpoint* others = nullptr;  // connections, TIME-WAIT

  [[nodiscard]] bool empty() const noexcept { return bound == nullptr && others == nullptr; }
};

// What a segment can be for. In the table of flows when `flow` is complete.
struct Endpoint : Timer {
  enum class Kind : std::uint8_t { kSocket, kHalfOpen, kTimeWait };
  explicit Endpoint(Kind which) noexcept : kind(which) {}
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;

  FlowKey flow;  // local part: what it is bound to
  PortBucket* bucket = nullptr;
  Endpoint* bucket_before = nullptr;
  Endpoint* bucket_after = nullptr;
  Kind kind;
  bool in_table = false;
  bool reuse_address = false;  // SO_REUSEADDR
  bool bound_by_program = false;

 protected:
  ~Endpoint() = default;
};

struct Socket;

// The peer's SYN has come, the ACK of ours has not.
struct HalfOpen final : Endpoint {
  HalfOpen() noexcept : Endpoint(Kind::kHalfOpen) {}

  tcp::Handshake handshake;
  tcp::HandshakeConfig config;
  Socket* listener = nullptr;
  std::list<HalfOpen>::iterator self;
  std::uint8_t deferred = 0;  // SYN-ACKs that TCP_DEFER_ACCEPT has waited for data
  bool acknowledged = false;  // the ACK has come, but found the accept queue full or brought no data
};

// What is left of a connection for 2 MSL (RFC 9293 3.6.1), or an orphan in FIN-WAIT-2.
struct TimeWait final : Endpoint {
  TimeWait() noexcept : Endpoint(Kind::kTimeWait) {}

  std::list<TimeWait>::iterator self;
  Seq snd_nxt;
  Seq rcv_nxt;
  std::uint32_t rcv_wnd = 0;  // bytes
  std::uint32_t ts_offset = 0;
  std::uint32_t ts_recent = 0;
  Time ts_recent_stamp{};
  Time last_answer{};
  std::uint8_t rcv_wscale = 0;
  std::uint8_t options = 0;  // tcp::MinTcpOption
  bool has_ts_recent = false;
  bool fin_wait_2 = false;  // the peer's FIN is still to come
};

struct Listener {
  std::list<HalfOpen> half_open;
  std::deque<Socket*> accepted;  // established, waiting for accept()
  std::uint32_t backlog = 0;
};

struct Opening {
  tcp::Handshake handshake;
  tcp::HandshakeConfig config;
  std::vector<std::byte> syn_data;  // Fast Open: what the first SYN carries
  bool deferred = false;            // TCP_FASTOPEN_CONNECT: the SYN waits for the first write
  bool more_to_write = false;       // a call that waits has more than the SYN took
};

// A connection that Fast Open made of the SYN: its SYN-ACK is still to be acknowledged.
struct Unconfirmed {
  tcp::Handshake handshake;
  tcp::HandshakeConfig config;
  SocketId listener = kNoSocket;
};

// A connection that has come to ESTABLISHED.
struct Connection {
  tcp::ControlBlock cb;
  tcp::Counters counters;
  tcp::DeliveryRate delivery_rate;
  SendBuffer send;
  ReceiveBuffer receive;
  Chronograph chronograph;
  Time established{};
  Time fin_wait_2_deadline = kNever;  // of an orphan
  std::uint16_t advmss = 0;
  std::uint16_t mss_clamp = 0;
  std::uint32_t pmtu = 0;
  std::uint32_t out_of_order_bytes = 0;  // as counted for the peer
  bool syn_data = false;                 // Fast Open: data went with a SYN and was taken
};

// What the program has set.
struct Options {
  std::uint32_t send_buffer_bytes = 0;     // SO_SNDBUF, doubled; until set: tcp_wmem[1]
  std::uint32_t receive_buffer_bytes = 0;  // SO_RCVBUF, doubled
  bool send_buffer_locked = false;
  bool receive_buffer_locked = false;
  bool no_delay = false;
  bool cork = false;
  bool keepalive = false;
  bool v6_only = false;
  bool receive_inq = false;  // TCP_INQ
  bool linger = false;       // SO_LINGER on
  std::int32_t linger_s = 0;
  std::int32_t linger2_s = 0;          // TCP_LINGER2; 0 = tcp_fin_timeout, negative: no FIN-WAIT-2
  std::uint32_t keepalive_idle_s = 0;  // 0: the sysctl's
  std::uint32_t keepalive_interval_s = 0;
  std::uint8_t keepalive_probes = 0;
  std::uint8_t syn_retries = 0;
  std::uint8_t defer_accept = 0;  // SYN-ACK retransmissions
  std::uint8_t ttl = 0;
  std::uint8_t traffic_class = 0;
  std::uint16_t max_segment = 0;  // TCP_MAXSEG
  std::uint32_t user_timeout_ms = 0;
  std::uint32_t receive_low_water = 1;
  std::uint32_t not_sent_low_water = 0;  // 0: the sysctl's
  std::uint32_t window_clamp = 0;
  std::uint32_t fast_open_queue = 0;                // TCP_FASTOPEN of a listener
  std::vector<tcp::SequenceSecret> fast_open_keys;  // TCP_FASTOPEN_KEY; none: the sysctl's
  bool fast_open_connect = false;                   // TCP_FASTOPEN_CONNECT
  bool fast_open_no_cookie = false;                 // TCP_FASTOPEN_NO_COOKIE
  std::string congestion;                           // empty: the sysctl's
};

struct Socket final : Endpoint {
  explicit Socket(Family which) noexcept : Endpoint(Kind::kSocket), family(which) {}

  // What connect() remembers (Linux's socket state).
  enum class Attempt : std::uint8_t { kNone, kConnecting, kConnected };

  Options options;
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Opening> opening;
  std::unique_ptr<Unconfirmed> unconfirmed;
  std::unique_ptr<Connection> conn;  // stays after the end, for what is unread and for TCP_INFO
  Socket* parent = nullptr;          // the listener in whose queue it waits
  SocketId id = kNoSocket;
  std::uint64_t cookie = 0;  // SO_COOKIE
  int error = 0;             // sk_err: to be told once
  int soft_error = 0;        // what an ICMP error said; tells why, should the connection time out
  Family family;
  Attempt attempt = Attempt::kNone;
  bool over = false;             // conn has come to its end (TCP_CLOSE)
  bool orphan = false;           // no program has it any more (SOCK_DEAD)
  bool accepted = true;          // false: waits in the listener's queue
  bool receive_shut = false;     // RCV_SHUTDOWN
  bool send_shut = false;        // SEND_SHUTDOWN
  bool fin_received = false;     // SOCK_DONE
  bool no_space = false;         // somebody waits for room: SOCK_NOSPACE
  bool late_filter = false;      // what comes is not processed but kept for the mover
  bool repair = false;           // TCP_REPAIR: a mover works on it
  std::uint32_t references = 1;  // descriptors
  // Connections by Fast Open whose SYN-ACK is not yet acknowledged. They outlive the Listener that they came by: the
  // program may stop to listen, and begin again.
  std::uint32_t fast_opens = 0;
};

}  // namespace twinstack::stack
