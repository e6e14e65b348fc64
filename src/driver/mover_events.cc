// What reaches the mover between the steps of a move: packets at the wrong stack, events of the engine, changes of
// routes, deadlines.
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "driver/mover.h"
#include "handoff/inject.h"
#include "handoff/offload.h"
#include "wire/build.h"
#include "wire/packet.h"

namespace twinstack::driver {
namespace {

using Stack = ManagedConnection::Stack;

// The kernel begins anew with its timers: it needs some of them to find out what is wrong.
constexpr Duration kAfterTimeout = std::chrono::seconds(30);
constexpr Duration kBetweenLooks = std::chrono::milliseconds(100);  // of settle(), at most
constexpr Duration kBetweenLateLooks = std::chrono::seconds(1);     // ... where a program does not read for long

// The IP header without options or extension headers, which the engine does not read and TCP has no use for. (The
// filter hands over the packet's own: RFC 791 3.1, RFC 8200 3.)
void append_plain_ip_header(std::vector<std::byte>& frame, const kernel::LatePacket& packet, bool v4) {
  const std::size_t at = frame.size();
  const std::size_t bytes = v4 ? 20 : 40;
  if (packet.ip_header.size() < bytes) return;  // the engine will call it truncated
  frame.insert(frame.end(), packet.ip_header.begin(), packet.ip_header.begin() + static_cast<std::ptrdiff_t>(bytes));
  const auto put16 = [&](std::size_t offset, std::size_t value) {
    frame[at + offset] = static_cast<std::byte>(value >> 8 & 0xff);
    frame[at + offset + 1] = static_cast<std::byte>(value & 0xff);
  };
  if (!v4) {
    put16(4, packet.tcp.size());
    frame[at + 6] = std::byte{IPPROTO_TCP};
    return;
  }
  frame[at] = std::byte{0x45};
  put16(2, bytes + packet.tcp.size());
  put16(10, 0);
  wire::InternetSum sum;
  sum.add(ByteView(frame).subspan(at, bytes));
  const std::uint16_t checksum = sum.checksum();
  std::memcpy(frame.data() + at + 10, &checksum, sizeof checksum);
}

}  // namespace

void Mover::on_late_packets() {
  const auto taken = ground_.late_packets.poll([this](const kernel::LatePacket& packet) { deliver_late(packet); });
  if (!taken) spdlog::error("late packets: {}", taken.error().message());
}

void Mover::deliver_late(const kernel::LatePacket& packet) {
  ++counters_.late_packets;
  const auto found = by_cookie_.find(packet.cookie);
  if (found == by_cookie_.end() || found->second->move.path == nullptr) return;
  ManagedConnection& conn = *found->second;
  // As a frame of the interface; the engine looks at none of its MAC addresses, the injector puts in the right one.
  const bool v4 = conn.move.kernel->flow().is_v4();
  std::vector<std::byte> frame(wire::kEthernetBytes);
  frame[12] = std::byte{static_cast<unsigned char>(v4 ? 0x08 : 0x86)};
  frame[13] = std::byte{static_cast<unsigned char>(v4 ? 0x00 : 0xdd)};
  append_plain_ip_header(frame, packet, v4);
  frame.insert(frame.end(), packet.tcp.begin(), packet.tcp.end());
  const ipc::Owner owner = conn.move.gate().owner();
  if (conn.move.hw && (owner == ipc::Owner::kToEngine || owner == ipc::Owner::kEngine)) {
    if (!handoff::inject_frame(conn.move, frame)) ++counters_.packets_dropped;
    return;
  }
  const ByteView part(frame);
  const nic::RxFrame whole{.parts = {&part, 1}, .length_bytes = static_cast<std::uint32_t>(frame.size())};
  const auto injected = conn.move.path->inject({&whole, 1});
  if (injected) return;
  ++counters_.packets_dropped;
  spdlog::warn("a late packet was not injected: {}", injected.error().message());
}

void Mover::on_engine_events(const std::function<void(std::uint32_t, engine::Cause)>& bad_session) {
  for (Interface* interface : interfaces_) {
    for (std::size_t lane = 0; lane < interface->lane_count(); ++lane) {
      engine::Event event;
      while (interface->port(lane).take_event(event)) {
        if (event.type == engine::EventType::kBadSession)
          bad_session(event.session, event.cause);
        else
          take_event(event);
      }
      for (const auto& frame : interface->take_strays(lane)) forward_stray(*interface, frame);
    }
  }
}

ManagedConnection* Mover::find_hw(std::uint64_t hw_conn_id) {
  const auto found = by_hw_.find(hw_conn_id);
  return found == by_hw_.end() ? nullptr : found->second;
}

void Mover::take_event(const engine::Event& event) {
  ManagedConnection* conn = find_hw(event.id.raw());
  if (conn == nullptr) return;
  if (event.type == engine::EventType::kToSoftware) {
    // After a reset or a timeout nothing more will be acknowledged.
    const bool drain = event.cause == engine::Cause::kPeerFin || event.cause == engine::Cause::kUrgent;
    // After a timeout it may come back, once the kernel has repaired what was lost.
    const bool passes = event.cause == engine::Cause::kUrgent || event.cause == engine::Cause::kTimeout;
    conn->stays = conn->stays || !passes;
    if (event.cause == engine::Cause::kTimeout) conn->not_before = ground_.now() + kAfterTimeout;
    upload(*conn, engine::to_string(event.cause), drain);
  } else if (event.type == engine::EventType::kDrained && conn->stack == Stack::kDraining) {
    finish_upload(*conn);
  }
}

void Mover::forward_stray(Interface& interface, const std::vector<std::byte>& frame) {
  ++counters_.stray_frames;
  const ByteView part(frame);
  // By another queue than its lane's: to the lane at once. What has left the engine is the kernel's.
  wire::TcpPacket packet;
  const auto length = static_cast<std::uint32_t>(frame.size());
  if (wire::parse_frame({&part, 1}, length, wire::ChecksumMode::kAcceptPartial, packet) == wire::ParseVerdict::kOk) {
    if (ManagedConnection* conn = by_flow_.find(&interface, packet.flow); conn != nullptr) {
      if (!handoff::inject_frame(conn->move, frame)) ++counters_.packets_dropped;
      return;
    }
  }
  const nic::RxFrame whole{.parts = {&part, 1}, .length_bytes = static_cast<std::uint32_t>(frame.size())};
  const auto injected = interface.inject({&whole, 1});
  if (injected) return;
  ++counters_.packets_dropped;
  spdlog::warn("a stray packet was not injected: {}", injected.error().message());
}

void Mover::on_icmp_errors() {
  for (Interface* interface : interfaces_) {
    interface->process_icmp([&](const wire::IcmpError& error) {
      const ManagedConnection* conn = by_flow_.find(interface, error.flow);
      if (conn == nullptr) return;  // the kernel has it, which hears of it itself
      const auto reply = conn->move.port->call({.op = engine::CommandOp::kPacketTooBig,
                                                .id = conn->move.hw,
                                                .quoted_seq = error.seq.raw(),
                                                .path_mtu_bytes = error.mtu});
      if (reply.status == engine::Status::kOk) ++counters_.icmp_too_big;
    });
  }
}

void Mover::on_route_events() {
  for (Interface* interface : interfaces_) {
    interface->process_routes([&](std::uint32_t hop_index, const std::string& why) {
      std::vector<ManagedConnection*> gone;
      for (auto& [hw, conn] : by_hw_)
        if (conn->interface == interface && conn->move.hop_index == hop_index) gone.push_back(conn);
      for (ManagedConnection* conn : gone) upload(*conn, why, false);
    });
  }
}

void Mover::on_time(Time now) {
  if (now >= settle_at_) settle(now);
  if (!to_park_.empty()) {
    const std::uint64_t completed = ground_.grace_periods.completed();
    std::vector<std::uint64_t> ready;
    std::erase_if(to_park_, [&](std::uint64_t cookie) {
      const auto found = by_cookie_.find(cookie);
      if (found == by_cookie_.end()) return true;
      if (found->second->grace_ticket > completed) return false;
      ready.push_back(cookie);
      return true;
    });
    for (const std::uint64_t cookie : ready) {
      const auto found = by_cookie_.find(cookie);
      if (found != by_cookie_.end() && found->second->in_engine() && !found->second->parked) park(*found->second);
    }
  }
  std::vector<std::uint64_t> late;
  std::erase_if(draining_, [&](std::uint64_t cookie) {
    const auto found = by_cookie_.find(cookie);
    if (found == by_cookie_.end() || found->second->stack != Stack::kDraining) return true;
    if (found->second->drain_deadline > now) return false;
    late.push_back(cookie);
    return true;
  });
  for (const std::uint64_t cookie : late) {
    const auto found = by_cookie_.find(cookie);
    if (found == by_cookie_.end() || found->second->stack != Stack::kDraining) continue;
    if (found->second->failed_uploads == 0) ++counters_.drain_deadlines;
    finish_upload(*found->second);
  }
}

// What returns have put on sockets for a while.
void Mover::settle(Time now) {
  settle_at_ = kNever;
  std::vector<Settling> left;
  for (Settling& settling : settling_) {
    const auto found = by_cookie_.find(settling.cookie);
    if (found == by_cookie_.end() || found->second->in_engine()) continue;
    if (settling.look_at <= now) {
      if (found->second->move.kernel->settle(now >= settling.until)) continue;
      settling.look_at = now + settling.wait;
      settling.wait = std::min(settling.wait * 2, now < settling.until ? kBetweenLooks : kBetweenLateLooks);
    }
    settle_at_ = std::min(settle_at_, settling.look_at);
    left.push_back(settling);
  }
  settling_ = std::move(left);
}

Time Mover::next_deadline() const {
  Time next = settle_at_;
  for (const std::uint64_t cookie : draining_) {
    const auto found = by_cookie_.find(cookie);
    if (found != by_cookie_.end()) next = std::min(next, found->second->drain_deadline);
  }
  return next;
}

}  // namespace twinstack::driver
