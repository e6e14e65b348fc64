// What is seen on the moving host's wire, whoever sent it.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "sim/world.h"
#include "wire/packet.h"

namespace twinstack::sim {

void World::trace(const Frame& frame) {
  if (!pcap_) return;
  const ByteView whole(frame);
  pcap_->write(now_, {.parts = {&whole, 1}, .length_bytes = static_cast<std::uint32_t>(frame.size())});
}

namespace {

constexpr std::size_t kLargestFrame = 14 + 1500;

std::string text_of(const wire::Segment& segment) {
  return fmt::format("flags {:#x} seq {} ack {} window {}", segment.flags, segment.seq.raw(), segment.ack.raw(),
                     segment.window);
}

}  // namespace

// One owner: the other stack is silent. (A frozen socket of the kernel may still speak, R17; one whose move is under
// way is either's.)
void World::watch_sender(const SimConn& conn, const wire::Segment& segment, bool by_lane) {
  if (!conn.driver_knows || driver_->is_dead() || conn.talk->breaks_allowed()) return;
  const driver::ManagedConnection* managed = driver_->find(conn.app, conn.slot);
  if (managed == nullptr || managed->move.tag != conn.tag || !managed->move.kernel) return;
  if (by_lane && managed->move.gate().owner() == ipc::Owner::kKernel)
    fail(fmt::format("connection {}: the engine sends, and the kernel owns it ({})", conn.number, text_of(segment)));
  const kernel::Phase phase = managed->move.kernel->phase();
  if (!by_lane && (phase == kernel::Phase::kParked || phase == kernel::Phase::kGap))
    fail(fmt::format("connection {}: its parked socket sends ({})", conn.number, text_of(segment)));
}

// Both sides have said their last and know that the other has it.
bool World::have_ended(const SimConn& conn) {
  const auto is_acknowledged = [&conn](unsigned direction) {
    const SimConn::Direction& back = conn.wire[1 - direction];
    return conn.wire[direction].has_fin && back.has_ack && back.highest_ack > conn.wire[direction].fin;
  };
  return is_acknowledged(0) && is_acknowledged(1);
}

// `direction` 0: from the moving host.
void World::watch_wire(const Frame& frame, unsigned direction, bool by_lane) {
  if (direction == 0) trace(frame);
  wire::TcpPacket packet;
  const ByteView whole(frame);
  const auto verdict =
      wire::parse_frame({&whole, 1}, static_cast<std::uint32_t>(frame.size()),
                        direction == 0 ? wire::ChecksumMode::kVerify : wire::ChecksumMode::kAcceptPartial, packet);
  if (verdict != wire::ParseVerdict::kOk) {
    fail(fmt::format("a frame on the wire that is none: {}", wire::name(verdict)));
    return;
  }
  if (frame.size() > kLargestFrame) fail(fmt::format("a packet of {} bytes is sent", packet.payload.size()));
  // A frame is seen from its receiver.
  FlowKey flow = packet.flow;
  if (direction == 0) std::swap(flow.local, flow.remote), std::swap(flow.local_port, flow.remote_port);
  const auto found = std::ranges::find_if(conns_, [&flow](const auto& conn) { return conn->flow == flow; });
  if (found != conns_.end()) watch_packet(**found, packet, direction, by_lane);
}

// What it opens, ends and acknowledges.
void World::watch_packet(SimConn& conn, const wire::TcpPacket& packet, unsigned direction, bool by_lane) {
  SimConn::Direction& seen = conn.wire[direction];
  const wire::Segment& segment = packet.segment;
  if (direction == 0) watch_sender(conn, segment, by_lane);
  if (!packet.payload.empty()) ++seen.data_segments;
  const bool may_break = conn.talk->breaks_allowed();
  if (segment.has(wire::kRst)) {
    // A late duplicate of an ACK finds no connection any more where both ends have been acknowledged.
    if (!may_break && conn.talk->is_open(0) && conn.talk->is_open(1) && !have_ended(conn)) ++seen.resets;
    return;
  }
  if (segment.has(wire::kSyn)) {
    if (have_ended(conn)) return;  // a late duplicate, and what the listener makes of it
    seen.window_scale = segment.options.window_scale;
    seen.has_scale = segment.options.has_window_scale;
    seen.seen = seen.has_ack = seen.has_fin = false;
    seen.start = segment.seq + 1;
    seen.has_start = true;
    return;
  }
  // What a stack that is frozen says is of a time before the snapshot (R17): as an old segment under way, it harms
  // nobody.
  const bool is_stale = direction == 0 && !by_lane && conn.socket != SimConn::kNone &&
                        stack_->view(conn.socket).phase == kernel::Phase::kFrozen;
  if (segment.has(wire::kAck)) {
    seen.highest_ack = seen.has_ack ? max(seen.highest_ack, segment.ack) : segment.ack;
    seen.has_ack = true;
  }
  if (segment.has(wire::kFin)) {
    seen.fin = segment.seq + static_cast<std::uint32_t>(packet.payload.size());
    seen.has_fin = true;
  }
  if (!is_stale && !may_break) watch_promises(conn, segment, direction);
}

// What was said and may not be taken back: the window's right edge, the clock.
void World::watch_promises(SimConn& conn, const wire::Segment& segment, unsigned direction) {
  SimConn::Direction& seen = conn.wire[direction];
  const bool scaled = seen.has_scale && conn.wire[1 - direction].has_scale;
  const std::uint8_t shift = scaled ? seen.window_scale : 0;
  const Seq edge = segment.ack + (std::uint32_t{segment.window} << shift);
  // RFC 9293 3.8.6: the right edge never moves left, but for what the scale hides.
  const bool shrinks = seen.seen && edge < seen.right_edge - ((1U << shift) - 1);
  const bool may_shrink = direction == 1 && std::exchange(conn.peer_shrinks, conn.peer_shrinks && !shrinks);
  if (shrinks && !may_shrink)
    fail(fmt::format("connection {}: the window shrinks by {} bytes ({} the peer)", conn.number, seen.right_edge - edge,
                     direction == 0 ? "to" : "from"));
  seen.right_edge = seen.seen && !shrinks ? max(seen.right_edge, edge) : edge;
  if (segment.options.has_timestamps) {
    const auto ahead = static_cast<std::int32_t>(segment.options.ts_val - seen.ts_val);
    // S6: the peer's PAWS drops what is stamped older than what it has taken.
    if (seen.has_ts && ahead < 0)
      fail(fmt::format("connection {}: timestamps go back by {} ({} the peer)", conn.number, -ahead,
                       direction == 0 ? "to" : "from"));
    seen.ts_val = segment.options.ts_val;
    seen.has_ts = true;
  }
  seen.seen = true;
}

}  // namespace twinstack::sim
