#include "handoff/held_packets.h"

#include <algorithm>
#include <vector>

#include "tcp/timestamps.h"
#include "wire/build.h"
#include "wire/packet.h"

namespace twinstack::handoff {
namespace {

using engine::Piece;

// Than an ACK, which nobody would miss.
bool carries_more(const wire::TcpPacket& packet) {
  return !packet.payload.empty() || (packet.segment.flags & (wire::kFin | wire::kUrg)) != 0;
}

bool is_overtaken(const wire::TcpPacket& packet, const OvertakenAcks& overtaken) {
  const wire::Segment& segment = packet.segment;
  return carries_more(packet) && (segment.flags & wire::kAck) != 0 && segment.ack >= overtaken.oldest &&
         segment.ack < overtaken.newest;
}

// Copies of the frames in a list. They lie in chunks that the program can write: what is injected must be what was
// looked at, and a packet of this connection.
class FrameList {
 public:
  explicit FrameList(const Connection& conn) : conn_(conn) {}

  // The lane may be appending to the list: no more than the `count` pieces that it has told of are looked at.
  void add(std::uint32_t head, std::uint32_t count) {
    const auto pieces = conn_.port->pieces();
    for (std::uint32_t at = head; count > 0; --count) {
      const Piece& piece = pieces[at];
      if (count > 1) at = piece.next;
      if ((piece.length & Piece::kFrameStart) != 0) frames_.emplace_back();
      const auto bytes = conn_.arena->chunk(piece.chunk).subspan(piece.offset, piece.bytes());
      frames_.back().insert(frames_.back().end(), bytes.begin(), bytes.end());
    }
  }

  [[nodiscard]] std::size_t size() const { return frames_.size(); }

  [[nodiscard]] bool has_older_than(std::uint32_t ts_recent) const {
    return std::ranges::any_of(frames_, [&](const std::vector<std::byte>& frame) {
      wire::TcpPacket packet;
      const wire::TcpOptions& options = packet.segment.options;
      return parse(frame, packet) && carries_more(packet) && options.has_timestamps &&
             tcp::is_older_stamp(options.ts_val, ts_recent);
    });
  }

  // Valid as long as the list.
  [[nodiscard]] std::vector<nic::RxFrame> frames(const std::optional<OvertakenAcks>& overtaken) {
    parts_.clear();
    for (auto& frame : frames_) {
      wire::TcpPacket packet;
      if (!parse(frame, packet)) continue;
      if (overtaken && is_overtaken(packet, *overtaken))
        wire::replace_ack(frame, packet, overtaken->newest, overtaken->window);
      parts_.emplace_back(frame);
    }
    std::vector<nic::RxFrame> out;
    out.reserve(parts_.size());
    for (const ByteView& part : parts_)
      out.push_back(nic::RxFrame{.parts = {&part, 1}, .length_bytes = static_cast<std::uint32_t>(part.size())});
    return out;
  }

 private:
  bool parse(ByteView frame, wire::TcpPacket& out) const {
    const auto length = static_cast<std::uint32_t>(frame.size());
    const auto verdict = wire::parse_frame({&frame, 1}, length, wire::ChecksumMode::kAcceptPartial, out);
    return verdict == wire::ParseVerdict::kOk && out.flow == conn_.kernel->flow();
  }

  const Connection& conn_;
  std::vector<std::vector<std::byte>> frames_;
  std::vector<ByteView> parts_;
};

FrameList held_by(const Connection& conn, const engine::Reply& reply) {
  FrameList list(conn);
  list.add(reply.late_head, reply.late_pieces);
  list.add(reply.held_head, reply.held_pieces);
  return list;
}

// What a super-packet is cut into counts by itself.
std::uint32_t packets_of(std::span<const nic::RxFrame> frames) {
  constexpr std::uint32_t kSmallestCut = 1024;  // bytes; of an MTU of 1280 and more
  std::uint32_t packets = 0;
  for (const nic::RxFrame& frame : frames) packets += frame.length_bytes / kSmallestCut + 1;
  return packets;
}

}  // namespace

bool holds_older_packets(const Connection& conn, const engine::Reply& extracted, std::uint32_t ts_recent) {
  return held_by(conn, extracted).has_older_than(ts_recent);
}

Result<std::uint32_t> inject_held(Connection& conn, int rounds, std::optional<OvertakenAcks> overtaken) {
  std::uint32_t injected = 0;
  for (int round = 0; round < rounds; ++round) {
    ASSIGN_OR_RETURN(const engine::Reply swept, conn.port->request({.op = engine::CommandOp::kSweep, .id = conn.hw}));
    FrameList list = held_by(conn, swept);
    if (list.size() == 0) break;
    const auto frames = list.frames(overtaken);
    if (!frames.empty()) {
      (void)conn.kernel->make_room(packets_of(frames));
      TRY(conn.path->inject(frames));
    }
    injected += static_cast<std::uint32_t>(frames.size());
    TRY(conn.port->request({.op = engine::CommandOp::kDropHeld,
                            .id = conn.hw,
                            .late_pieces = swept.late_pieces,
                            .held_pieces = swept.held_pieces}));
    conn.held_dropped += list.size() - frames.size();
  }
  return injected;
}

}  // namespace twinstack::handoff
