#include "moving_endpoint.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "socket_options.h"
#include "sockets/option_rules.h"
#include "stack/soft_kernel_conn.h"
#include "wire/icmp.h"
#include "wire/packet.h"

namespace twinstack::conformance {
namespace {

constexpr std::size_t kRoomBytes = 2U << 20;
constexpr std::uint32_t kPolled = POLLIN | POLLOUT | POLLPRI | POLLRDHUP | POLLERR | POLLHUP;

// As a device that steers reads it: what the checksum says is for the engine to see.
FlowKey flow_of(ByteView packet) {
  wire::TcpPacket parsed;
  const auto verdict = wire::parse_ip_packet({&packet, 1}, static_cast<std::uint32_t>(packet.size()),
                                             wire::ChecksumMode::kVerify, parsed);
  if (verdict != wire::ParseVerdict::kBadChecksum) return parsed.flow;
  const auto port_at = [&](std::size_t at) {
    return static_cast<std::uint16_t>(std::to_integer<unsigned>(packet[at]) << 8 |
                                      std::to_integer<unsigned>(packet[at + 1]));
  };
  parsed.flow.remote_port = port_at(parsed.tcp_offset);
  parsed.flow.local_port = port_at(parsed.tcp_offset + 2U);
  return parsed.flow;
}

}  // namespace

Result<> MovingEndpoint::start(std::span<const std::pair<std::string, std::string>> settings) {
  MovingEndpoint::finish();
  TRY(CoreEndpoint::start(settings));
  moving::EngineSide::Hooks hooks{
      .to_kernel = [this](ByteView packet) { to_kernel(packet); },
      .to_wire = [this](ByteView packet) { note_sent(packet); },
      .wake = [](int, std::uint32_t) {},
      .send_limits = [this](const moving::EngineConn& conn) { return send_limits(conn.fd()); },
      .to_software = [this](moving::EngineConn& conn,
                            const std::string& cause) { bring_back(conn.fd(), cause, /*stays=*/true); },
      .deliver_late = [this] { deliver_late(); },
      .takes_more = {}};
  ASSIGN_OR_RETURN(engine_,
                   moving::EngineSide::make({.mtu = config_.mtu, .room_bytes = kRoomBytes}, now_, std::move(hooks)));
  engine_->set_host_settings({.tcp_slow_start_after_idle = config_.tcp_slow_start_after_idle,
                              .tcp_moderate_rcvbuf = config_.tcp_moderate_rcvbuf,
                              .tcp_min_tso_segs = config_.tcp_min_tso_segs,
                              .tcp_mtu_probing = config_.tcp_mtu_probing,
                              .tcp_invalid_ratelimit_ms = config_.tcp_invalid_ratelimit_ms,
                              .tcp_rmem_max_bytes = config_.tcp_rmem.max_bytes,
                              .tcp_wmem_max_bytes = config_.tcp_wmem.max_bytes});
  return {};
}

void MovingEndpoint::finish() {
  engine_.reset();
  movers_.clear();
  moves_.clear();
  failure_.reset();
  CoreEndpoint::finish();
}

// ---- Time and the wire

void MovingEndpoint::advance(Time until) {
  while (sent_.empty() && now_ < until) {
    const Time next = std::max(std::min(stack_->next_deadline(), engine_->next_deadline()), now_);
    now_ = std::min(next, until);
    if (next > until) return;
    if (stack_->next_deadline() <= now_) stack_->on_timer(now_);
    work();
  }
}

void MovingEndpoint::inject(ByteView packet) {
  const auto icmp = wire::parse_icmp_error(packet);
  if (icmp.has_value() && icmp->kind == wire::IcmpKind::kTooBig) {
    engine_->packet_too_big(icmp->flow, icmp->seq, icmp->mtu);
  }
  if (engine_->steers(flow_of(packet))) {
    engine_->packet_in(packet);
  } else {
    to_kernel(packet);
  }
  work();
}

void MovingEndpoint::to_kernel(ByteView packet) {
  const SendCause cause = std::exchange(cause_, cause_ == SendCause::kUsual ? cause_ : SendCause::kRepeated);
  stack_->on_ip_packet(packet, now_);
  cause_ = cause;
}

void MovingEndpoint::work() {
  engine_->work();
  deliver_late();
}

void MovingEndpoint::deliver_late() {
  for (const stack::LatePacket& late : stack_->take_late_packets()) engine_->give_late(late.cookie, late.bytes);
}

// ---- Moves

bool MovingEndpoint::in_engine(SocketId socket) const {
  const auto found = movers_.find(socket);
  return found != movers_.end() && found->second.conn != nullptr && found->second.conn->in_engine();
}

Result<> MovingEndpoint::offload(SocketId socket) {
  Mover& mover = movers_[socket];
  if (mover.stays) return error(ErrorCode::kNotEligible, "it stays in the kernel");
  if (in_engine(socket)) return {};
  if (stack_->state(socket) != stack::State::kEstablished) return error(ErrorCode::kNotEligible, "not established");
  if (mover.conn == nullptr) {
    auto kernel = std::make_unique<stack::SoftKernelConn>(*stack_, socket, [this] { return now_; });
    kernel->quirks.forgets = memory_ == Memory::kAsLinux;
    mover.conn = &engine_->open(socket, std::move(kernel));
  }
  cause_ = SendCause::kMove;
  auto moved = engine_->offload(*mover.conn);
  if (moved.has_value()) moved = engine_->park(*mover.conn);
  work();
  cause_ = SendCause::kUsual;
  return moved;
}

Result<> MovingEndpoint::upload(SocketId socket) {
  if (!in_engine(socket)) return {};
  work();
  if (!in_engine(socket)) return {};  // that was reason enough
  cause_ = SendCause::kMove;
  const auto moved = engine_->upload(*movers_[socket].conn);
  cause_ = SendCause::kUsual;
  work();
  return moved;
}

Result<> MovingEndpoint::move(SocketId socket, Stack to) {
  movers_[socket].wanted = to == Stack::kEngine;
  if (to == Stack::kEngine) return offload(socket);
  if (!in_engine(socket)) return error(ErrorCode::kNotEligible, "the engine does not have it");
  return upload(socket);
}

void MovingEndpoint::bring_back(SocketId socket, const std::string& cause, bool stays) {
  Mover& mover = movers_[socket];
  mover.stays = mover.stays || stays;
  if (!in_engine(socket)) return;
  const auto done = upload(socket);
  moves_.push_back("back to the kernel: " + cause);
  if (!done.has_value()) failure_ = done.error();
}

void MovingEndpoint::move_again(SocketId socket) {
  if (!movers_[socket].wanted || movers_[socket].stays || in_engine(socket)) return;
  const auto done = offload(socket);
  moves_.push_back("to the engine again" + (done.has_value() ? "" : ": " + done.error().message()));
  if (!done.has_value() && done.error().code != ErrorCode::kNotEligible) failure_ = done.error();
}

Result<std::vector<std::string>> MovingEndpoint::take_moves() {
  if (failure_.has_value()) return std::unexpected(*failure_);
  return std::exchange(moves_, {});
}

// ---- Socket calls

// The kernel's socket knows both; without SO_SNDBUF its buffer grows with the window (Linux tcp_sndbuf_expand()).
moving::SendLimits MovingEndpoint::send_limits(SocketId socket) {
  int buffer = 0;
  int low_water = 0;
  (void)stack_->get_option(socket, SOL_SOCKET, SO_SNDBUF, &buffer, now_);
  (void)stack_->get_option(socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &low_water, now_);
  return {.buffer_bytes = static_cast<std::uint32_t>(buffer),
          .not_sent_low_water = low_water != 0 ? static_cast<std::uint32_t>(low_water) : config_.tcp_notsent_lowat};
}

CallResult MovingEndpoint::send(SocketId socket, ByteView bytes, int flags) {
  if (in_engine(socket) && (flags & ~moving::kEngineSendFlags) != 0) bring_back(socket, "send flags", true);
  if (!in_engine(socket)) {
    const CallResult result = CoreEndpoint::send(socket, bytes, flags);
    work();
    return result;
  }
  const std::size_t taken = engine_->send(*movers_[socket].conn, bytes, flags);
  deliver_late();
  return taken == 0 && !bytes.empty() ? -EAGAIN : static_cast<CallResult>(taken);
}

// What the engine has received is older than anything in the stack's queue.
CallResult MovingEndpoint::receive(SocketId socket, std::span<std::byte> room, int flags) {
  if (in_engine(socket) && (flags & ~moving::kEngineReceiveFlags) != 0) bring_back(socket, "recv flags", true);
  const auto found = movers_.find(socket);
  moving::EngineConn* const conn = found == movers_.end() ? nullptr : found->second.conn;
  if (conn != nullptr && engine_->unread_bytes(*conn) > 0) {
    const std::size_t got = engine_->receive(*conn, room, (flags & MSG_PEEK) != 0);
    work();
    return static_cast<CallResult>(got);
  }
  if (in_engine(socket)) return -EAGAIN;
  return CoreEndpoint::receive(socket, room, flags);
}

CallResult MovingEndpoint::shutdown(SocketId socket, int how) {
  bring_back(socket, "shutdown", true);
  return CoreEndpoint::shutdown(socket, how);
}

// As Mover::finish_close(): bytes that lie unread in the rings are for the kernel as if they lay in its queue.
CallResult MovingEndpoint::close(SocketId socket) {
  bring_back(socket, "close", true);
  moving::EngineConn* const conn = movers_[socket].conn;
  if (conn != nullptr && engine_->unread_bytes(*conn) > 0) {
    const linger reset{.l_onoff = 1, .l_linger = 0};
    (void)stack_->set_option(socket, SOL_SOCKET, SO_LINGER, std::as_bytes(std::span(&reset, 1)), now_);
  }
  const CallResult result = CoreEndpoint::close(socket);
  movers_.erase(socket);
  if (conn != nullptr) engine_->close(*conn);  // the hand-off's own descriptor with it
  work();
  return result;
}

CallResult MovingEndpoint::set_option(SocketId socket, std::string_view name, std::int64_t value,
                                      const std::string& text) {
  const SocketOption* const option = find_option(name);
  if (option == nullptr) return -ENOSYS;
  const auto how = sockets::treatment(option->level, option->number, true);
  if (how == sockets::Treatment::kTellEngine && in_engine(socket)) {
    const CallResult told = CoreEndpoint::set_option(socket, name, value, text);
    engine_->set_header(*movers_[socket].conn,
                        ipc::header_fields(static_cast<std::uint8_t>(CoreEndpoint::get_option(socket, "IP_TOS")),
                                           static_cast<std::uint8_t>(CoreEndpoint::get_option(socket, "IP_TTL"))));
    work();
    return told;
  }
  if (how != sockets::Treatment::kKernelSocket) {
    bring_back(socket, "setsockopt " + std::string(name), how == sockets::Treatment::kStay);
  }
  const CallResult result = CoreEndpoint::set_option(socket, name, value, text);
  if (movers_.contains(socket)) move_again(socket);
  return result;
}

CallResult MovingEndpoint::get_option(SocketId socket, std::string_view name) {
  const SocketOption* const option = find_option(name);
  if (option == nullptr) return -ENOSYS;
  if (!in_engine(socket)) return CoreEndpoint::get_option(socket, name);
  const moving::EngineConn& conn = *movers_[socket].conn;
  if (name == "SO_ERROR") return 0;
  if (name == "TCP_MAXSEG") return engine_->tcb(conn).mss;
  const auto how = sockets::treatment(option->level, option->number, false);
  if (how != sockets::Treatment::kKernelSocket) bring_back(socket, "getsockopt " + std::string(name), false);
  const CallResult result = CoreEndpoint::get_option(socket, name);
  move_again(socket);
  return result;
}

int MovingEndpoint::poll(SocketId socket) {
  const auto found = movers_.find(socket);
  moving::EngineConn* const conn = found == movers_.end() ? nullptr : found->second.conn;
  const auto bits = static_cast<int>((conn != nullptr ? engine_->poll(*conn) : 0) & kPolled);
  return in_engine(socket) ? bits : bits | CoreEndpoint::poll(socket);
}

int MovingEndpoint::read_info(SocketId socket, tcp::TcpInfo& out) {
  const int result = CoreEndpoint::read_info(socket, out);
  const auto found = movers_.find(socket);
  if (result >= 0 && found != movers_.end() && found->second.conn != nullptr) {
    engine_->put_info(*found->second.conn, out);
  }
  return result;
}

}  // namespace twinstack::conformance
