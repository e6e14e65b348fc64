// EngineSide: the engine beside a kernel, for test hosts that move connections between the two by the product's own
// hand-off: a lane with its memory, a wire in memory that ends at the owner, the program's end of the rings, and the
// steering of packets by their flow. What the kernel is, and what is beyond the wire, are the owner's.
//
// Left out is the driver: when to move, draining before a return, grace periods. Virtual time; one thread.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "engine/test_support.h"
#include "handoff/connection.h"
#include "moving/ring_program.h"
#include "moving/send_room.h"
#include "stack/chronograph.h"
#include "tcp/tcp_info.h"

namespace twinstack::moving {

// What send() and recv() of the engine know; others are the kernel's.
inline constexpr int kEngineSendFlags = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE | MSG_EOR;
inline constexpr int kEngineReceiveFlags = MSG_DONTWAIT | MSG_PEEK | MSG_WAITALL | MSG_TRUNC | MSG_NOSIGNAL;

// A connection that may move.
struct EngineConn {
  handoff::Connection move;
  RingConn* ring = nullptr;
  SendRoom room;
  bool no_room = false;  // a write found none
  stack::Chronograph chronograph;

  [[nodiscard]] bool in_engine() const noexcept { return static_cast<bool>(move.hw); }
  [[nodiscard]] int fd() const noexcept { return ring->fd; }
};

class EngineSide final : private handoff::PacketPath {
 public:
  // Packets are bare IP packets.
  struct Hooks {
    std::function<void(ByteView packet)> to_kernel;
    std::function<void(ByteView packet)> to_wire;
    std::function<void(int fd, std::uint32_t events)> wake;  // poll() events
    std::function<SendLimits(const EngineConn&)> send_limits;
    // The engine wants the connection to go back. May call upload().
    std::function<void(EngineConn&, const std::string& cause)> to_software;
    std::function<void()> deliver_late;  // what the late filter has caught: give_late()
    std::function<bool()> takes_more;    // the engine's device does; empty: always
  };
  struct Options {
    std::uint32_t mtu = 1500;
    wire::ChecksumMode checksum = wire::ChecksumMode::kVerify;
    std::size_t room_bytes = 8U << 20;  // for each queue of a move
  };

  // `now` outlives it.
  static Result<std::unique_ptr<EngineSide>> make(const Options& options, const Time& now, Hooks hooks);
  ~EngineSide() override;

  void set_host_settings(const engine::HostSettings& settings) { box_->lane.set_host_settings(settings); }

  // A connection of the program's, which the kernel has yet; later its end.
  EngineConn& open(int fd, std::unique_ptr<kernel::KernelConn> kernel);
  void close(EngineConn& conn);

  // The hand-off. After offload() and a grace period: park().
  Result<> offload(EngineConn& conn);
  Result<> park(EngineConn& conn);
  Result<> upload(EngineConn& conn);

  // Whose is a packet of this flow?
  [[nodiscard]] bool steers(const FlowKey& flow) const;
  void packet_in(ByteView packet);
  // A packet that the late filter of the socket with this cookie has caught.
  void give_late(std::uint64_t cookie, ByteView packet);
  // A router says that a segment is too big (Mover::on_icmp_errors()).
  void packet_too_big(const FlowKey& flow, Seq quoted_seq, std::uint32_t mtu);

  [[nodiscard]] Time next_deadline() const { return box_->lane.next_deadline(); }
  // Everything that is to be done at this instant. `swallow_ack`: a bare ACK that comes first is left out.
  void work(bool swallow_ack = false);

  // The program's calls; the engine has the connection (send), or has had it (receive). Bytes that were taken.
  std::size_t send(EngineConn& conn, ByteView bytes, int flags);
  // `fields`: ipc::header_fields(); as the socket layer tells after IP_TOS, IP_TTL and their like.
  void set_header(const EngineConn& conn, std::uint32_t fields) { program_.set_header(*conn.ring, fields); }
  std::size_t receive(EngineConn& conn, std::span<std::byte> room, bool peek);
  [[nodiscard]] std::uint64_t unread_bytes(const EngineConn& conn) const noexcept { return conn.ring->unread_bytes; }
  [[nodiscard]] std::uint64_t unacknowledged(const EngineConn& conn) const {
    return program_.unacknowledged(*conn.ring);
  }
  // poll() of what the rings and the engine know; asking for room that is not there orders a wake-up.
  [[nodiscard]] std::uint32_t poll(EngineConn& conn);

  [[nodiscard]] const tcp::ControlBlock& tcb(const EngineConn& conn) const { return box_->conn(conn.move.hw).tcb; }
  [[nodiscard]] const tcp::Counters& counters(const EngineConn& conn) const {
    return box_->record(conn.move.hw).counters;
  }
  [[nodiscard]] ipc::HwConnState query(const EngineConn& conn) {
    return box_->call({.op = engine::CommandOp::kQuery, .id = conn.move.hw}).state;
  }
  // TCP_INFO as the socket layer shows it; `info` is the kernel socket's.
  void put_info(const EngineConn& conn, tcp::TcpInfo& info);

 private:
  EngineSide(const Options& options, const Time& now, Hooks hooks, ipc::Arena arena);

  Result<> steer(const FlowKey& flow, std::uint32_t generation) override;
  Result<> unsteer(const FlowKey& flow) override;
  Result<> inject(std::span<const nic::RxFrame> frames) override;
  void from_engine(bool swallow_ack);
  void take_events();
  void note_activity();

  const Time& now_;
  Hooks hooks_;
  ipc::Arena arena_;
  RingProgram program_;
  std::unique_ptr<nic::MemoryLink> wire_end_;
  std::unique_ptr<engine::test::LaneBox> box_;
  handoff::MoveTools tools_;
  std::unique_ptr<std::byte[]> receive_room_;  // not cleared: mostly never touched
  std::unique_ptr<std::byte[]> send_room_;
  std::list<EngineConn> conns_;
  std::vector<FlowKey> steered_;
};

}  // namespace twinstack::moving
