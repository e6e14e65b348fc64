// SoftStack: a host's TCP in software, portable and pure: our core (src/tcp) with listeners, ports, buffers and the
// socket calls of Linux. Bare IP packets in and out, time as an argument; no system call, no clock, no thread. The
// simulator's kernel, the packetdrill adapter, conformance scripts and the load generator stand on it.
//
// The caller owns the wire and the clock:
//
//   stack.on_ip_packet(packet, now);             // for each that arrives; answers go to the Outlet at once
//   stack.on_timer(now);                         // when next_deadline() has come
//   const int fd = stack.accept(listener, &peer, now);
//
// Program side: as non-blocking sockets of Linux. Results below 0 are negative errno values. A wake-up is an edge: it
// says that poll() may have changed, and comes at the end of the call that caused it.
//
// Threads: one at a time per stack. Callbacks: an Outlet must not call back into the stack; a Watcher may.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/clock.h"
#include "stack/config.h"
#include "stack/socket.h"
#include "stack/stats.h"
#include "tcp/initial_sequence.h"
#include "tcp/tcp_info.h"
#include "wire/icmp.h"
#include "wire/packet.h"

namespace twinstack::stack {

using tcp::TcpInfo;

class Outlet {
 public:
  // A whole IP packet, checksums filled, at most Config::mtu bytes. The view is valid during the call.
  virtual void transmit(ByteView ip_packet) = 0;

 protected:
  ~Outlet() = default;
};

class Watcher {
 public:
  // Something happened to the socket: `events` as poll() gives them, of what happened only (POLLIN for each arrival).
  virtual void wake(SocketId id, std::uint32_t events) = 0;

 protected:
  ~Watcher() = default;
};

// A packet that a late filter has caught.
struct LatePacket {
  std::uint64_t cookie = 0;  // of the socket
  std::vector<std::byte> bytes;
};

class SoftStack {
 public:
  // `config`, `outlet` and `watcher` outlive the stack; `watcher` may be nullptr.
  SoftStack(const Config& config, Outlet& outlet, Watcher* watcher = nullptr);
  ~SoftStack();
  SoftStack(const SoftStack&) = delete;
  SoftStack& operator=(const SoftStack&) = delete;

  // --- Network side ---

  void on_ip_packet(ByteView packet, Time now);
  void on_packet(const wire::TcpPacket& packet, Time now);
  void on_icmp_error(const wire::IcmpError& error, Time now);
  void on_timer(Time now);
  // kNever when nothing waits.
  [[nodiscard]] Time next_deadline() const noexcept;

  // --- Program side (calls.cc, transfer.cc, options.cc, poll.cc) ---

  SocketId socket(Family family);
  int bind(SocketId id, const Address& address);
  int listen(SocketId id, std::uint32_t backlog, Time now);
  // The new socket; -EAGAIN when none waits.
  SocketId accept(SocketId id, Address* peer, Time now);
  int connect(SocketId id, const Address& peer, Time now);
  // connect() to AF_UNSPEC.
  int disconnect(SocketId id, Time now);
  // Bytes taken. MSG_MORE; MSG_OOB is refused (-EOPNOTSUPP). After a connect() that waits for data
  // (TCP_FASTOPEN_CONNECT) as connect_with_data().
  std::int64_t send(SocketId id, ByteView bytes, int flags, Time now);
  // sendto() with MSG_FASTOPEN: connect(), the first bytes in the SYN where a cookie of the peer is known. Returns what
  // went, or -EINPROGRESS when nothing did; the rest is for send() once the connection is made, at once when the caller
  // waits (no MSG_DONTWAIT).
  std::int64_t connect_with_data(SocketId id, const Address& peer, ByteView bytes, int flags, Time now);
  // A connect() has left the SYN to the first send().
  [[nodiscard]] bool is_deferred(SocketId id) const;
  // Bytes copied into `room`, 0 at the end of the stream. MSG_PEEK, MSG_TRUNC (discards: `room` is not written).
  std::int64_t recv(SocketId id, std::span<std::byte> room, int flags, Time now);
  // `how`: SHUT_RD, SHUT_WR, SHUT_RDWR.
  int shutdown(SocketId id, int how, Time now);
  // The handle is gone; the connection ends by itself, or with a RST when bytes were unread (RFC 2525 2.17). With
  // SO_LINGER above 0 the caller waits, if it wants to: is_lingering().
  int close(SocketId id, Time now);
  // level, name, value and length as in Linux.
  int set_option(SocketId id, int level, int name, ByteView value, Time now);
  int set_option(SocketId id, int level, int name, int value, Time now);
  // Writes at most room.size() bytes; returns the length, or a negative errno.
  int get_option(SocketId id, int level, int name, std::span<std::byte> room, Time now);
  int get_option(SocketId id, int level, int name, int* value, Time now);

  // As poll(): POLLIN, POLLOUT, POLLERR, POLLHUP, POLLRDHUP ... Asking for room that is not there orders a wake-up.
  std::uint32_t poll(SocketId id);
  // There is no memory for what the peer of a connection sends: the window closes at once, whatever was offered, as
  // Linux's does (ICSK_ACK_NOMEM), and opens with the next ACK.
  void run_out_of_memory(SocketId id, Time now);
  // SIOCINQ, SIOCOUTQ, SIOCOUTQNSD: bytes, or a negative errno.
  std::int64_t unread_bytes(SocketId id) const;
  std::int64_t unacknowledged_bytes(SocketId id) const;
  std::int64_t unsent_bytes(SocketId id) const;
  std::int64_t inq_hint(SocketId id) const;  // TCP_INQ
  int info(SocketId id, TcpInfo& out, Time now) const;
  int local_address(SocketId id, Address& out) const;
  int peer_address(SocketId id, Address& out) const;

  // Another descriptor of the same socket (dup(), fork()): close() has to be called once more.
  int retain(SocketId id);
  // SO_COOKIE; 0 when there is no such socket.
  [[nodiscard]] std::uint64_t cookie(SocketId id) const;

  // --- What a mover may do (SoftKernelConn) ---

  // Packets of the connection are not processed from here, but wait for take_late_packets().
  void set_late_filter(SocketId id, bool on);
  [[nodiscard]] std::vector<LatePacket> take_late_packets();
  // A packet that was past the filter already when it was attached, in a backlog or on another CPU: kernel-facts.md,
  // F3.
  void on_packet_past_filter(ByteView packet, Time now);

  // --- For checkers and tables ---

  [[nodiscard]] const Stats& stats() const noexcept { return stats_; }
  [[nodiscard]] State state(SocketId id) const;
  // Of what is in the tables for this flow, orphans and TIME-WAIT included; kClosed when nothing is.
  [[nodiscard]] State state(const FlowKey& flow) const;
  // nullptr when it never was established.
  [[nodiscard]] const Connection* connection(SocketId id) const;
  [[nodiscard]] std::size_t socket_count() const noexcept { return live_sockets_; }  // orphans included
  [[nodiscard]] std::size_t time_wait_count() const noexcept { return time_waits_.size(); }
  [[nodiscard]] std::size_t half_open_count() const noexcept { return half_open_count_; }
  // Of one peer's address, all connections.
  [[nodiscard]] std::uint64_t out_of_order_bytes(const IpAddress& peer) const;
  // What is wrong with the tables or a connection (tcp::broken_invariant()); nullptr when nothing is.
  [[nodiscard]] const char* broken_invariant() const;

 private:
  friend class SoftKernelConn;
  class SocketHost;
  struct Slot {
    std::unique_ptr<Socket> socket;
    std::uint32_t generation = 0;
  };
  struct FlowHash {
    using is_transparent = void;
    std::uint64_t secret;
    std::size_t operator()(const FlowKey& flow) const noexcept { return flow.hash(secret); }
    std::size_t operator()(const Endpoint* endpoint) const noexcept { return endpoint->flow.hash(secret); }
  };
  struct FlowEqual {
    using is_transparent = void;
    bool operator()(const Endpoint* a, const Endpoint* b) const noexcept { return a->flow == b->flow; }
    bool operator()(const FlowKey& a, const Endpoint* b) const noexcept { return a == b->flow; }
    bool operator()(const Endpoint* a, const FlowKey& b) const noexcept { return a->flow == b; }
  };
  struct AddressHash {
    std::uint64_t secret;
    std::size_t operator()(const IpAddress& ip) const noexcept {
      FlowKey key;
      key.remote = ip;
      return key.hash(secret);
    }
  };
  struct PathMtu {
    std::uint32_t mtu = 0;
    Time expires{};
  };
  // What a server has told of itself (Linux's tcp_metrics).
  struct FastOpenMemory {
    wire::FastOpen cookie;
    std::uint16_t mss = 0;
    std::uint8_t trial = 0;  // 1: the experimental option is to be tried; 2: it was, in vain
  };
  struct Wake {
    SocketId id;
    std::uint32_t events;
  };

  // stack.cc: what happens after every event.
  void settle(Socket& socket, Time now);
  void transmit(Socket& socket, Time now, bool one_burst = false);
  void note_room(Socket& socket);
  void note_activity(Socket& socket, Time now);
  void arm(Socket& socket, Time now);
  void wake(const Socket& socket, std::uint32_t events);
  void deliver_wakes();
  void send_segment(const FlowKey& flow, const Options* options, const wire::Segment& segment,
                    const Connection* payload_of, std::uint32_t payload_bytes, ByteView syn_data = {});
  void send_reset_for(const wire::TcpPacket& packet);
  void dispatch(const wire::TcpPacket& packet, Time now);
  bool catch_late(const wire::TcpPacket& packet);
  void fire(Endpoint& endpoint, Time now);
  void fire_socket(Socket& socket, Time now);
  [[nodiscard]] bool out_of_retries(const Socket& socket, Time now) const;

  // established.cc: a connection's life and end.
  void start_connection(Socket& socket, const tcp::Handshake& handshake, const tcp::HandshakeConfig& config, Time now);
  void arrive_at_connection(Socket& socket, const wire::TcpPacket& packet, Time now);
  [[nodiscard]] bool data_after_close(const Socket& socket, const wire::TcpPacket& packet, Time now) const;
  [[nodiscard]] bool holds_too_much(const Socket& socket, const wire::TcpPacket& packet);
  void count_out_of_order(Socket& socket);
  void take_fin(Socket& socket);
  void take_reset(Socket& socket);
  void give_up(Socket& socket, Time now);
  void leave_states(Socket& socket, Time now);
  [[nodiscard]] Duration fin_timeout(const Socket& socket) const;
  void orphan_in_fin_wait_2(Socket& socket, Time now);
  void send_active_reset(Socket& socket, Time now);
  void abort(Socket& socket, Time now);
  void finish(Socket& socket);

  // opening.cc: active opens.
  void fill_settings(const Socket& socket, tcp::MinTcp& out) const;
  void fill_windows(const Socket& socket, tcp::HandshakeConfig& out) const;
  [[nodiscard]] tcp::HandshakeConfig handshake_config(const Socket& socket, const FlowKey& flow, Time now) const;
  // The flow of a connection to be; 0 or a negative errno.
  int choose_flow(Socket& socket, const Address& peer, tcp::InitialNumbers& numbers, Time now);
  int start_connecting(Socket& socket, const Address& peer, const ByteView* data, Time now);
  void pump_opening(Socket& socket, Time now);
  void arrive_at_opening(Socket& socket, const wire::TcpPacket& packet, Time now);
  void fail_opening(Socket& socket, int error);

  // fast_open.cc: RFC 7413. Client:
  [[nodiscard]] bool may_send_data_early(const Socket& socket, const IpAddress& peer) const;
  void ask_for_fast_open(Socket& socket, ByteView data);
  std::int64_t begin_with_data(Socket& socket, ByteView data, int flags, Time now);
  void learn_from_syn_ack(const Socket& socket, const wire::TcpPacket& packet);
  static void settle_syn_data(Connection& conn, const Opening& opening, Time now);
  // Server:
  [[nodiscard]] wire::FastOpen cookie_for(const tcp::SequenceSecret& key, const FlowKey& flow) const;
  [[nodiscard]] std::span<const tcp::SequenceSecret> fast_open_keys(const Socket& socket) const;
  // Whether the SYN opens a connection by itself; `answer`: what the SYN-ACK shall carry.
  [[nodiscard]] bool accept_fast_open(const Socket& listener, const wire::TcpPacket& syn, wire::FastOpen& answer) const;
  bool open_early(Socket& listener, const wire::TcpPacket& syn, tcp::HandshakeConfig& config,
                  const tcp::InitialNumbers& numbers, Time now);
  void pump_unconfirmed(Socket& socket, Time now);
  void arrive_at_unconfirmed(Socket& socket, const wire::TcpPacket& packet, Time now);
  void confirm(Socket& socket);
  void forget_unconfirmed(Socket& socket);
  void tune_fast_open(Socket& listener) const;
  int set_fast_open_option(Socket& socket, int name, int value);
  int set_fast_open_keys(Socket& socket, ByteView value) const;

  // icmp.cc.
  void icmp_at_half_open(HalfOpen& half, const wire::IcmpError& error);
  void icmp_at_opening(Socket& socket, const wire::IcmpError& error, Time now);
  void narrow_opening(Socket& socket, const wire::IcmpError& error, Time now);
  void icmp_at_connection(Socket& socket, const wire::IcmpError& error, Time now);
  [[nodiscard]] static std::uint16_t mss_for(std::uint32_t mtu, bool v4) noexcept;
  [[nodiscard]] std::uint32_t believable(std::uint32_t mtu, bool v4) const noexcept;
  void lower_path_mtu(Socket& socket, std::uint32_t mtu, Time now);
  void remember_path_mtu(const IpAddress& peer, std::uint32_t mtu, Time now);
  [[nodiscard]] std::uint32_t path_mtu(const IpAddress& peer, Time now) const;
  [[nodiscard]] std::uint32_t path_mtu_of(const Connection& conn, const IpAddress& peer, Time now) const;
  // Of a connection that has just begun, or come back.
  void begin_path(Connection& conn, const FlowKey& flow, std::uint16_t mss_found, Time now);

  // listener.cc: passive opens.
  [[nodiscard]] static bool accept_queue_full(const Socket& listener) noexcept;
  [[nodiscard]] bool may_open(Socket& listener, const FlowKey& flow);
  // `numbers`: those to begin with; nullptr = fresh ones.
  void arrive_at_listener(Socket& listener, const wire::TcpPacket& packet, const tcp::InitialNumbers* numbers,
                          Time now);
  [[nodiscard]] static bool holds_syn_ack(const HalfOpen& half) noexcept;
  void pump_half_open(HalfOpen& half, Time now);
  void arrive_at_half_open(HalfOpen& half, const wire::TcpPacket& packet, Time now);
  void complete_half_open(HalfOpen& half, const tcp::Handshake& handshake, const wire::TcpPacket& packet, Time now);
  void adopt_child(Socket& listener, Socket& child, const FlowKey& flow);
  void drop_half_open(HalfOpen& half);
  void close_listener(Socket& listener, Time now);

  // time_wait.cc.
  void enter_time_wait(Socket& socket, bool fin_wait_2, Duration length, Time now);
  void arrive_at_time_wait(TimeWait& wait, const wire::TcpPacket& packet, Time now);
  void arrive_in_fin_wait_2(TimeWait& wait, const wire::TcpPacket& packet, Time now);
  void answer_time_wait(TimeWait& wait, const wire::TcpPacket& packet, Time now);
  void take_over(TimeWait& wait, tcp::InitialNumbers& numbers);
  void drop_time_wait(TimeWait& wait);

  // demux.cc: tables.
  [[nodiscard]] Endpoint* find(const FlowKey& flow) const;
  [[nodiscard]] Socket* find_listener(const FlowKey& flow) const;
  void enter(Endpoint& endpoint);
  void leave(Endpoint& endpoint);
  void join_port(Endpoint& endpoint, std::uint16_t port);
  void leave_port(Endpoint& endpoint);
  [[nodiscard]] Socket* socket_of(SocketId id) const;
  Socket* make_socket(Family family);
  void destroy(Socket& socket);
  [[nodiscard]] bool is_local(const IpAddress& ip) const;
  [[nodiscard]] bool source_for(const IpAddress& peer, IpAddress& out) const;

  // ports.cc: who may have which port.
  [[nodiscard]] bool conflicts(const Socket& socket, const IpAddress& ip, std::uint16_t port) const;
  [[nodiscard]] std::uint32_t ephemeral_count() const noexcept;
  [[nodiscard]] std::uint16_t ephemeral_port(std::uint32_t index) const noexcept;
  [[nodiscard]] std::uint16_t choose_port(const Socket& socket, const IpAddress& ip) const;
  [[nodiscard]] int choose_connect_port(FlowKey& flow, Time now);
  [[nodiscard]] bool port_free_for(const FlowKey& flow, Time now) const;
  [[nodiscard]] bool flow_free(const FlowKey& flow, Time now) const;
  [[nodiscard]] bool may_take_over(const Endpoint& endpoint, Time now) const;

  // calls.cc.
  [[nodiscard]] static int take_error(Socket& socket) noexcept;
  int take_port(Socket& socket, const IpAddress& ip, std::uint16_t port);
  int finish_connecting(Socket& socket);
  void reset_for_reuse(Socket& socket);
  void disconnect(Socket& socket, Time now);
  int shut(Socket& socket, bool receiving, bool sending, Time now);
  void end_program_side(Socket& socket, Time now);

  // options.cc.
  void apply_settings(Socket& socket, Time now);
  void set_receive_buffer(Socket& socket, int value, bool forced);
  void set_send_buffer(Socket& socket, int value, bool forced);
  void set_receive_low_water(Socket& socket, int value);
  int set_window_clamp(Socket& socket, int value);
  int set_congestion(Socket& socket, ByteView value, Time now);
  static int set_linger(Socket& socket, ByteView value);
  int set_socket_option(Socket& socket, int name, int value, Time now);
  int set_keepalive_option(Socket& socket, int name, int value, Time now);
  int set_sending_option(Socket& socket, int name, int value, Time now);
  int set_tcp_option(Socket& socket, int name, int value, Time now);
  static int set_ip_option(Socket& socket, int level, int name, int value);
  int get_socket_option(Socket& socket, int name, std::span<std::byte> room);
  int get_tcp_option(Socket& socket, int name, std::span<std::byte> room);
  int get_ip_option(Socket& socket, int level, int name, std::span<std::byte> room, Time now);
  [[nodiscard]] int max_segment(const Socket& socket) const;

  // transfer.cc.
  [[nodiscard]] std::uint32_t send_buffer(const Socket& socket) const;
  [[nodiscard]] std::uint32_t first_receive_buffer(const Socket& socket) const;
  [[nodiscard]] std::uint32_t current_receive_buffer(const Socket& socket) const;
  void expand_send_buffer(Socket& socket);
  [[nodiscard]] std::uint32_t not_sent_low_water(const Socket& socket) const noexcept;
  [[nodiscard]] bool takes_a_chunk(const Socket& socket) const;
  [[nodiscard]] static std::uint32_t chunk_bytes(const Connection& conn) noexcept;
  [[nodiscard]] static std::uint32_t unsent_of(const Connection& conn) noexcept;
  [[nodiscard]] bool is_readable(const Socket& socket) const;
  [[nodiscard]] bool is_writable(const Socket& socket) const;
  [[nodiscard]] std::uint32_t poll_bits(const Socket& socket) const;
  [[nodiscard]] int refuse_to_send(Socket& socket);
  void push_chunk(Socket& socket, Time now);
  std::int64_t queue_bytes(Socket& socket, ByteView bytes, int flags, Time now);
  std::int64_t take_bytes(Socket& socket, std::span<std::byte> room, int flags, Time now);
  [[nodiscard]] bool may_grow_receive_buffer(const Socket& socket) const noexcept;
  [[nodiscard]] static State state_of(const Socket& socket) noexcept;

  const Config& config_;
  Outlet& outlet_;
  Watcher* watcher_;
  tcp::SequenceSecret secret_;
  tcp::SequenceSecret port_secret_;
  std::vector<std::uint16_t> port_steps_;  // RFC 6056 3.3.4's table
  std::unordered_set<Endpoint*, FlowHash, FlowEqual> flows_;
  std::unordered_map<std::uint16_t, PortBucket> ports_;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_slots_;
  std::list<TimeWait> time_waits_;
  std::unordered_map<IpAddress, std::uint32_t, AddressHash> half_open_by_peer_;
  std::unordered_map<IpAddress, std::uint64_t, AddressHash> out_of_order_by_peer_;
  std::unordered_map<IpAddress, PathMtu, AddressHash> path_mtus_;
  std::unordered_map<IpAddress, FastOpenMemory, AddressHash> fast_open_memory_;
  tcp::SequenceSecret fast_open_key_;  // where the configuration has none
  TimerHeap timers_;
  Stats stats_;
  std::vector<Wake> wakes_;
  std::vector<LatePacket> late_packets_;
  std::vector<std::byte> packet_;  // under construction
  std::size_t live_sockets_ = 0;
  std::size_t orphans_ = 0;
  std::size_t half_open_count_ = 0;
  std::uint64_t next_cookie_ = 1;
  bool delivering_ = false;
};

}  // namespace twinstack::stack
